r"""Damages the content of files at random."""

TOKENS = [
    *(b'0', b'-1', b'255', b'65536', b'2147483648', b'9223372036854775807', b'1' + b'0' * 30),
    *(
        b'1e308',
        b'1e999',
        b'nan',
        b'-inf',
        b'0x10',
        b'1_000',
        b'007',
        b'\xd9\xa1',
        b'None',
        b'null',
    ),
    *(b'\xff\xfe', b'\x00', b'"', b"'", b'\\', b'\xe2\x80\x8b', b'../..', b'a' * 300, b'[' * 2000),
    *(
        b'!!int',
        b'!!python/name:os.system',
        b'&a',
        b'*a',
        b'<<: ',
        b': ',
        b'- ',
        b'\t',
        b'\r',
        b'\n',
    ),
]


def mutated(content, rng):
    r"""A copy with one to four damages."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        size = len(data)
        if size == 0:
            break
        at = rng.randrange(size)
        end = min(size, at + rng.choice((1, 2, 8, 60, 500)))
        kind = rng.randrange(10)
        if kind == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[at] = rng.randrange(256)
        elif kind == 2:
            del data[at:end]
        elif kind == 3:
            data[at:at] = data[at:end]
        elif kind == 4:
            data[at:at] = rng.randbytes(rng.choice((1, 4, 64)))
        elif kind == 5:
            del data[at:]
        elif kind == 6:
            data[at:at] = rng.choice(TOKENS)
        elif kind == 7:
            data[at:end] = bytes(end - at)
        elif kind == 8:
            data[at:end] = rng.choice(TOKENS)
        else:
            data += data[at:]
    return bytes(data)
