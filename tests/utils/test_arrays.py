import io
import os
import zipfile

import numpy as np
import pytest

from motor_geo.utils.arrays import check_single, load_npy, load_npz


def header(text):
    raw = text.encode() + b'\n'
    return b'\x93NUMPY\x01\x00' + len(raw).to_bytes(2, 'little') + raw


def fields(shape, descr="'<f4'"):
    return header(f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}")


@pytest.mark.parametrize('mmap', [False, True])
@pytest.mark.parametrize(
    'content',
    [
        b'',
        b'PK\x03\x04xxxx',
        b'\x93NUMPY\x09\x00',
        header("{'descr': '<f4', 'fortran_order': False, 'shape': (10, 8), "),
        header('(' * 2000),
        header('[]'),
        fields('(1000000000000, 8)'),
        fields(f'({10**20}, 8)'),
        fields('(10.0, 8)') + bytes(320),
        fields('(-1, 8)'),
        fields('(True, 8)') + bytes(32),
        fields('"x"'),
        fields('(2, 2)', "'|O'") + bytes(64),
        fields('(2, 2)', "'no type'"),
        fields('(2, 2)', '10 ** 9'),
        fields('(4, 2)') + bytes(31),
        b'\x93NUMPY\x02\x00\xff\xff\xff\xff' + b'x' * 100,
    ],
    ids=range(17),
)
def test_files_that_say_what_they_are_not(tmp_path, content, mmap):
    path = tmp_path / 'x.npy'
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"x.npy' cannot be read as a thing: "):
        load_npy(str(path), 'a thing', mmap)


def test_special_files(tmp_path):
    for name, make, message in [
        ('fifo', os.mkfifo, 'is a pipe or a device; expected a .npy file'),
        (
            'link',
            lambda p: os.symlink('nowhere', p),
            "is a link to 'nowhere', which does not exist",
        ),
        ('folder', os.mkdir, 'is a folder; expected a .npy file'),
        ('nothing', str, 'does not exist'),
        ('loop', lambda p: os.symlink('loop', p), 'Too many levels of symbolic links'),
    ]:
        path = str(tmp_path / name)
        make(path)
        with pytest.raises(OSError, match=message) as error:
            load_npy(path)
        assert path in str(error.value)


def test_archives(tmp_path):
    path = tmp_path / 'x.npz'
    arrays = {'a': np.arange(2000.0), 'b': np.zeros((2, 3), np.int8)}
    for write in (np.savez, np.savez_compressed):
        write(path, **arrays)
        out = load_npz(str(path))
        assert list(out) == ['a', 'b']
        np.testing.assert_array_equal(out['a'], arrays['a'])
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 4
        path.write_bytes(bytes(content))
        with pytest.raises(ValueError, match=r"x.npz' cannot be read as a .npz archive"):
            load_npz(str(path))
    for content in (b'', b'PK', b'text'):
        path.write_bytes(content)
        with pytest.raises(ValueError, match='cannot be read'):
            load_npz(str(path))
    np.savez(path, **arrays)
    content = path.read_bytes()
    end = content.index(b'PK\5\6')
    for lost in (12, 8):  # The list of what is in it has no bytes, as if there were nothing.
        path.write_bytes(content[: end + lost] + bytes(20 - lost) + content[end + 20 :])
        with pytest.raises(ValueError, match='it lists no array'):
            load_npz(str(path))
    size = int.from_bytes(content[end + 12 : end + 16], 'little')
    start = content.index(b'PK\1\2', content.index(b'PK\1\2') + 4)
    short = (start - end + size).to_bytes(4, 'little')  # As if the first were all.
    path.write_bytes(content[:start] + content[end : end + 12] + short + content[end + 16 :])
    with pytest.raises(ValueError, match='says that it holds 2 arrays, and lists 1'):
        load_npz(str(path))


def test_archives_that_claim_too_much(tmp_path):
    path = tmp_path / 'x.npz'
    for shape in ('(1000000000000,)', f'({10**20},)'):
        with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
            archive.writestr('a.npy', fields(shape) + bytes(1000))
        with pytest.raises(ValueError, match='it is truncated'):
            load_npz(str(path))
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('a.txt', b'hello')
    with pytest.raises(ValueError, match='cannot be read'):
        load_npz(str(path))
    buffer = io.BytesIO()
    np.save(buffer, np.array([{}]), allow_pickle=True)
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('a.npy', buffer.getvalue())
    with pytest.raises(ValueError, match='pickled objects'):
        load_npz(str(path))


def test_values_beyond_single_precision():
    x = np.zeros((10, 2))
    x[7, 1] = -1e39
    check_single(x.astype(np.int64) * 0, 'x')
    for block in (1, 3, 100):
        with pytest.raises(ValueError, match=r'x: row 7 holds values beyond 3.4e\+38'):
            check_single(x, 'x', block)
    x[7, 1] = 3e38
    check_single(x, 'x')
