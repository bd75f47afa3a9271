import hashlib
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import torch

from motor_geo.utils import cache
from motor_geo.utils.cache import Single, cache_dir, cache_entries, cache_limit, cached, fingerprint
from motor_geo.utils.errors import ConfigError


def test_fingerprint_is_of_contents():
    x = np.arange(6.0).reshape(2, 3)
    base = fingerprint(x)
    assert re.fullmatch('[0-9a-f]{16}', base)
    assert fingerprint(x.copy()) == base
    assert fingerprint(np.asfortranarray(x)) == base
    assert fingerprint(x[:, ::-1][:, ::-1]) == base  # Not contiguous.
    assert fingerprint(torch.from_numpy(x).requires_grad_()) == base

    others = [
        (x + 1,),
        (x.astype(np.float32),),
        (x.reshape(3, 2),),
        (x, x),
        ([x],),
        ((x[0], x[1]),),
        (x.tolist(),),
        (None,),
        ('',),
    ]
    hashes = [base] + [fingerprint(*other) for other in others]
    assert len(set(hashes)) == len(hashes)


def test_fingerprint_in_single_precision():
    for shape in ((3000, 400), (2, 3), (0, 4)):  # Also of several blocks.
        x = torch.randn(shape).half()
        assert fingerprint(Single(x)) == fingerprint(x.float()) != fingerprint(x)
        assert fingerprint(Single(x.float())) == fingerprint(x.float())


def test_fingerprint_of_values():
    assert fingerprint({'a': 1, 'b': [2, None]}) == fingerprint({'b': [2, None], 'a': 1})
    values = [1, 1.0, True, '1', None, [1], [[1]], {'1': 1}, {'1': '1'}, [1, 2], [12], ['1', '2']]
    assert len({fingerprint(value) for value in values}) == len(values)
    assert fingerprint('a', 'b') != fingerprint('ab')
    # Two levels: where a list ends matters.
    assert fingerprint([1], 2) != fingerprint([1, 2])
    assert fingerprint([[1], 2]) != fingerprint([[1, 2]])
    names = np.array(['a', 'bc'], dtype=object)
    assert fingerprint(names) == fingerprint(np.array(['a', 'bc'], dtype=object))
    assert fingerprint(names) != fingerprint(np.array(['ab', 'c'], dtype=object))


def test_fingerprint_is_equal_across_processes():
    code = (
        'import numpy as np; from motor_geo.utils.cache import fingerprint;'
        "print(fingerprint({'x': np.arange(5), 'y': 'text', 'z': [0.5, None]}))"
    )
    output = subprocess.run(
        [sys.executable, '-c', code],
        env={**os.environ, 'PYTHONHASHSEED': '1'},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    assert output == fingerprint({'x': np.arange(5), 'y': 'text', 'z': [0.5, None]})


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setattr(cache.torch_geometric, 'get_home_dir', lambda: str(tmp_path))
    return tmp_path


def test_cached(home):
    calls = []

    def compute():
        calls.append(1)
        return {'x': torch.arange(3)}

    assert cache_dir() == str(home / 'motor_geo')
    for _ in range(2):
        assert cached('token', 'abc', compute)['x'].tolist() == [0, 1, 2]
    assert len(calls) == 1
    assert os.listdir(cache_dir()) == ['token-abc.pt']
    assert cache_entries() == [os.path.join(cache_dir(), 'token-abc.pt')]
    cached('token', 'def', compute)
    cached('graph', 'abc', compute)
    assert len(calls) == 3

    path = os.path.join(cache_dir(), 'token-abc.pt')
    for content in (b'', b'text', open(path, 'rb').read()[:-100]):
        with open(path, 'wb') as file:
            file.write(content)
        calls.clear()
        assert cached('token', 'abc', compute)['x'].tolist() == [0, 1, 2]
        assert cached('token', 'abc', compute)['x'].tolist() == [0, 1, 2]
        assert len(calls) == 1  # Replaced, then read.


def test_cached_without_a_writable_folder(home):
    (home / 'motor_geo').write_text('a file where the folder should be')
    for _ in range(2):
        assert cached('token', 'abc', lambda: {'x': torch.ones(1)})['x'].tolist() == [1]


def test_cached_failure_is_not_stored(home):
    def fail():
        raise RuntimeError('no')

    with pytest.raises(RuntimeError, match='no'):
        cached('token', 'abc', fail)
    assert not os.path.exists(os.path.join(cache_dir(), 'token-abc.pt'))


def test_hash_is_sha256():
    digest = hashlib.sha256(b'list1int:1;').hexdigest()[:16]
    assert fingerprint(1) == digest  # Caches survive an upgrade.


def test_rotten_and_foreign_entries_are_computed_anew(home):
    def entry(name):
        return os.path.join(cache_dir(), f'token-{name}.pt')

    for name, value in (('abc', 1.0), ('def', 2.0)):
        cached('token', name, lambda value=value: {'x': torch.full((1000,), value)})
    with open(entry('abc'), 'rb') as file:
        whole = file.read()
    at = whole.index(torch.full((1000,), 1.0).numpy().tobytes()) + 1000
    rotten = whole[:at] + bytes([whole[at] ^ 64]) + whole[at + 1 :]
    with open(entry('def'), 'rb') as file:
        other = file.read()
    for content in (rotten, other):  # A bit has flipped, files have changed names.
        with open(entry('abc'), 'wb') as file:
            file.write(content)
        assert cached('token', 'abc', lambda: {'x': torch.zeros(1)})['x'].tolist() == [0]
        os.remove(entry('abc'))
    torch.save({'x': torch.ones(3)}, entry('abc'))  # As versions of before left it.
    assert cached('token', 'abc', lambda: {'x': torch.zeros(1)})['x'].tolist() == [0]


@pytest.mark.parametrize('answer', [False, KeyError('x')])
def test_entries_that_do_not_fit_are_computed_anew(home, answer):
    def fits(state):
        if isinstance(answer, Exception):
            raise answer
        return answer

    cached('token', 'abc', lambda: {'x': torch.ones(1)})
    assert cached('token', 'abc', lambda: {'x': torch.zeros(1)}, fits)['x'].tolist() == [0]
    assert cached('token', 'abc', dict, lambda state: len(state['x']) == 1)['x'].tolist() == [0]


USES = (
    'import os, sys, torch, torch_geometric; torch_geometric.set_home_dir(sys.argv[1]);'
    'from motor_geo.utils.cache import cached;'
    "[cached('token', name, lambda: {'x': torch.zeros(1000)}) for name in sys.argv[2:]];"
    "print('used', flush=True); sys.stdin.read()"
)


def filled(*names):
    r"""Entries as a process that has ended left them, used one after the other."""
    for k, name in enumerate(names):
        path = os.path.join(cache_dir(), f'token-{name}.pt')
        cached('token', name, lambda: {'x': torch.zeros(1000)})
        os.utime(path, (0, 10**9 + k))
    cache.release()


def names_of_entries():
    return [os.path.basename(path)[len('token-') : -len('.pt')] for path in cache_entries()]


@pytest.fixture
def limited(home, monkeypatch):
    r"""A cache of four entries."""
    filled('size')
    size = os.path.getsize(cache_entries()[0])
    os.remove(cache_entries()[0])
    monkeypatch.setenv('MOTOR_GEO_CACHE_GB', str(4.5 * size / 1e9))
    yield home
    cache.release()


def test_what_was_not_used_for_longest_goes_first(limited):
    filled('c', 'a', 'd', 'b')
    cached('token', 'c', dict)  # Used again.
    cached('token', 'e', lambda: {'x': torch.zeros(1000)})
    assert names_of_entries() == ['b', 'c', 'd', 'e']
    cached('token', 'f', lambda: {'x': torch.zeros(1000)})
    assert names_of_entries() == ['b', 'c', 'e', 'f']
    temporary = os.path.join(cache_dir(), '.tmp-1-x.pt')  # Another one is writing it.
    with open(temporary, 'wb') as file:
        file.write(bytes(10**6))
    cached('token', 'g', lambda: {'x': torch.zeros(1000)})
    assert os.path.exists(temporary) and names_of_entries() == ['c', 'e', 'f', 'g']


def test_what_a_process_uses_stays_until_it_ends(limited):
    pytest.importorskip('fcntl')
    filled('a', 'b', 'c')
    process = subprocess.Popen(
        [sys.executable, '-c', USES, str(limited), 'a', 'x'],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout.readline() == b'used\n'
        for k, name in enumerate(('a', 'x', 'b', 'c')):
            os.utime(os.path.join(cache_dir(), f'token-{name}.pt'), (0, 10**9 + k))
        cached('token', 'd', lambda: {'x': torch.zeros(1000)})
        assert names_of_entries() == ['a', 'c', 'd', 'x']
        cached('token', 'e', lambda: {'x': torch.zeros(1000)})
        cached('token', 'f', lambda: {'x': torch.zeros(1000)})  # This process uses three.
        assert names_of_entries() == ['a', 'd', 'e', 'f', 'x']
        assert cached('token', 'a', dict)['x'].tolist() == [0] * 1000
    finally:
        process.kill()
        process.communicate()
    cache.release()
    cached('token', 'g', lambda: {'x': torch.zeros(1000)})
    assert 'x' not in names_of_entries() and len(names_of_entries()) == 4


def test_few_entries_are_held_open(limited, monkeypatch):
    monkeypatch.setattr(cache, 'MOST', 2)
    monkeypatch.setenv('MOTOR_GEO_CACHE_GB', 'inf')
    for name in 'abcab':
        cached('token', name, lambda: {'x': torch.zeros(1000)})
    monkeypatch.setenv('MOTOR_GEO_CACHE_GB', '0')
    cached('token', 'd', lambda: {'x': torch.zeros(1000)})
    assert names_of_entries() == ['b', 'd']


def test_limit(monkeypatch):
    monkeypatch.delenv('MOTOR_GEO_CACHE_GB', raising=False)
    assert cache_limit() == 10e9
    monkeypatch.setenv('MOTOR_GEO_CACHE_GB', '0.5')
    assert cache_limit() == 5e8
    for text in ('-1', 'much', 'nan'):
        monkeypatch.setenv('MOTOR_GEO_CACHE_GB', text)
        with pytest.raises(ConfigError, match=f"MOTOR_GEO_CACHE_GB.*got '{text}'"):
            cached('token', 'abc', lambda: pytest.fail('computed before'))
