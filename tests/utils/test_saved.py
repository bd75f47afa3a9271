import os
import resource
import zipfile

import numpy as np
import pytest
import torch

from motor_geo.utils.saved import check_sums, load, save

CONTENT = {'x': torch.arange(1000), 'name': 'a', 'list': [1, 2.5, None]}


def flip(path, bit=1):
    r"""Flips a bit in the middle of the longest entry."""
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        entry = max(archive.infolist(), key=lambda entry: entry.file_size)
    lengths = data[entry.header_offset + 26 : entry.header_offset + 30]
    start = entry.header_offset + 30 + int.from_bytes(lengths[:2], 'little')
    start += int.from_bytes(lengths[2:], 'little')
    data[start + entry.file_size // 2] ^= bit
    path.write_bytes(bytes(data))


def test_round_trip(tmp_path):
    path = tmp_path / 'a.pt'
    save(CONTENT, str(path))
    out = load(str(path), 'numbers')
    assert torch.equal(out['x'], CONTENT['x']) and out['list'] == CONTENT['list']
    check_sums(str(path))
    assert os.listdir(tmp_path) == ['a.pt']


def test_rot_is_noticed(tmp_path):
    path = tmp_path / 'a.pt'
    save(CONTENT, str(path))
    flip(path)
    assert not torch.equal(torch.load(path)['x'], CONTENT['x'])  # PyTorch does not look.
    with pytest.raises(ValueError, match=r"a.pt' cannot be read as numbers: .* damaged"):
        load(str(path), 'numbers')


@pytest.mark.parametrize('old', [False, True])
def test_the_format_of_before_has_no_checksums(tmp_path, old):
    path = tmp_path / 'a.pt'
    torch.save(CONTENT, path, _use_new_zipfile_serialization=False)
    if old:
        assert load(str(path), 'numbers', old=True)['name'] == 'a'
    else:
        with pytest.raises(ValueError, match='cannot be read as numbers'):
            load(str(path), 'numbers')


def test_packed_files_are_refused(tmp_path):
    r"""A packed entry may be far larger than the file."""
    path, packed = tmp_path / 'a.pt', tmp_path / 'b.pt'
    save(CONTENT, str(path))
    with (
        zipfile.ZipFile(path) as archive,
        zipfile.ZipFile(packed, 'w', zipfile.ZIP_DEFLATED) as out,
    ):
        for name in archive.namelist():
            out.writestr(name, archive.read(name))
    with pytest.raises(ValueError, match='cannot be read as numbers'):
        load(str(packed), 'numbers')


def test_the_true_reason_is_told(tmp_path):
    path = tmp_path / 'a.pt'
    save({'x': 1}, str(path))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, hard))
    try:
        with pytest.raises(OSError) as error:
            save({'x': torch.zeros(10_000)}, str(path))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert error.value.strerror == 'File too large'
    assert load(str(path), 'numbers') == {'x': 1} and os.listdir(tmp_path) == ['a.pt']


def test_a_file_that_does_not_fit_into_memory(tmp_path, monkeypatch):
    path = tmp_path / 'a.pt'
    save({'x': 1}, str(path))

    def fail(*args, **kwargs):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8")

    monkeypatch.setattr(torch, 'load', fail)
    with pytest.raises(MemoryError, match=r"a.pt' does not fit into memory"):
        load(str(path), 'numbers')


def test_nothing_is_executed(tmp_path):
    path = tmp_path / 'a.pt'
    torch.save(np.float64, path)
    with pytest.raises(ValueError, match='cannot be read as numbers'):
        load(str(path), 'numbers')
