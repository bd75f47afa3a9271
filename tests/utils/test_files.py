import os
import re
import stat
import subprocess
import sys

import numpy as np
import pytest

from motor_geo.utils.arrays import check_finite, load_array
from motor_geo.utils.errors import ConfigError
from motor_geo.utils.files import (
    HOST,
    atomic_write,
    check_new,
    move_folder,
    read_json,
    remove_temporary,
    temporary_folder,
)


def test_atomic_write(tmp_path):
    path = tmp_path / 'new' / 'result.json'
    with atomic_write(str(path)) as temporary:
        assert os.path.dirname(temporary) == str(path.parent)
        assert temporary.endswith('.json')
        with open(temporary, 'w') as file:
            file.write('1')
        assert not path.exists()
    assert path.read_text() == '1'
    assert os.listdir(path.parent) == ['result.json']
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask


@pytest.mark.parametrize('error', [RuntimeError, KeyboardInterrupt])
def test_atomic_write_failure_keeps_the_old_file(tmp_path, error):
    path = tmp_path / 'result.json'
    path.write_text('old')
    with pytest.raises(error):
        with atomic_write(str(path)) as temporary:
            with open(temporary, 'w') as file:
                file.write('half')
            raise error
    assert path.read_text() == 'old'
    assert os.listdir(tmp_path) == ['result.json']


def test_atomic_write_relative_path_and_npy(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with atomic_write('x.npy') as temporary:
        np.save(temporary, np.arange(3))
    assert np.load('x.npy').tolist() == [0, 1, 2]
    assert os.listdir(tmp_path) == ['x.npy']


def test_atomic_write_into_a_file(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(OSError):
        with atomic_write(str(tmp_path / 'file' / 'x')):
            pass


@pytest.mark.skipif(os.name != 'posix', reason='processes of POSIX')
def test_errors_name_the_target(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(13, 'Permission denied', '.tmp-1')

    monkeypatch.setattr('tempfile.mkstemp', refuse)
    monkeypatch.setattr('tempfile.mkdtemp', refuse)
    for function, path in ((atomic_write, tmp_path / 'a.json'), (temporary_folder, tmp_path)):
        with pytest.raises(PermissionError) as error, function(str(path)):
            pass
        assert error.value.filename == str(path) and '.tmp-' not in str(error.value)


def test_a_folder_is_not_replaced(tmp_path):
    (tmp_path / 'a').mkdir()
    with pytest.raises(IsADirectoryError) as error, atomic_write(str(tmp_path / 'a')):
        pass
    assert error.value.filename == str(tmp_path / 'a') and not os.listdir(tmp_path / 'a')


def test_temporary_files_of_a_live_process_stay(tmp_path):
    command = [sys.executable, '-c', 'input()']
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        names = [f'.tmp-{pid}-{HOST}-a.pt' for pid in (process.pid, os.getpid(), 2**40, 0)]
        for name in (*names, 'best.pt'):
            (tmp_path / name).write_text('')
        remove_temporary(str(tmp_path))
        assert sorted(os.listdir(tmp_path)) == [names[0], 'best.pt']
        process.communicate(b'\n')
    remove_temporary(str(tmp_path))
    assert os.listdir(tmp_path) == ['best.pt']


def test_temporary_files_of_other_programs_stay(tmp_path):
    names = ['.tmp-2024-backup', '.tmp-photos', '.tmp', f'.tmp-x-{HOST}-a', '.tmp-1-abcdefgh-a']
    for name in names:
        (tmp_path / name).mkdir()
    remove_temporary(str(tmp_path))
    with temporary_folder(str(tmp_path)):
        pass
    assert sorted(os.listdir(tmp_path)) == sorted(names)


@pytest.mark.parametrize('mmap', [False, True])
def test_load_array(tmp_path, mmap):
    path = str(tmp_path / 'text_feat.npy')
    x = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float16)
    np.save(path, x)
    out = load_array(path, num_rows=5, mmap=mmap)
    np.testing.assert_array_equal(out, x)
    assert out.dtype == np.float16
    assert isinstance(out, np.memmap) == mmap


def test_load_array_errors(tmp_path):
    path = tmp_path / 'image_feat.npy'
    name = re.escape(f"'{path}'")
    with pytest.raises(FileNotFoundError, match=f'{name} does not exist'):
        load_array(str(path))
    for array, message in [
        (np.ones(3), 'expected a numeric matrix .items, width., got 1 dimensions of float64'),
        (np.array([['a']]), 'expected a numeric matrix'),
        (np.ones((2, 2), dtype=complex), 'expected a numeric matrix'),
        (np.ones((2, 2), dtype=bool), 'expected a numeric matrix'),
        (np.ones((2, 0)), 'expected at least one column'),
        (np.ones((3, 2)), r'expected 2 rows \(one per item\), got 3'),
        (np.array([[1.0], [np.nan]]), 'row 1 holds NaN or infinite values'),
        (np.array([[-np.inf], [0.0]]), 'row 0 holds NaN or infinite values'),
    ]:
        np.save(path, array)
        with pytest.raises(ValueError, match=f'{name}: {message}'):
            load_array(str(path), num_rows=2)
    np.save(path, np.array([[{}]], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=f'{name} cannot be read'):
        load_array(str(path))
    for content in (b'', b'not an array', b'\x93NUMPY\x01\x00'):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f'{name} cannot be read'):
            load_array(str(path))
    with open(path, 'wb') as file:
        np.savez(file, x=np.ones((2, 2)))
    with pytest.raises(ValueError, match='it is an archive'):
        load_array(str(path))


def test_load_array_truncated(tmp_path):
    path = tmp_path / 'x.npy'
    np.save(path, np.ones((100, 10)))
    path.write_bytes(path.read_bytes()[:-8])
    for mmap in (False, True):
        with pytest.raises(ValueError, match='cannot be read'):
            load_array(str(path), mmap=mmap)


def test_check_finite_names_the_first_row():
    x = np.zeros((10, 2))
    check_finite(x, 'x')
    check_finite(x.astype(np.int64), 'x')
    x[[7, 9], 1] = np.inf
    for block in (1, 3, 7, 100):
        with pytest.raises(ValueError, match='x: row 7 holds NaN'):
            check_finite(x, 'x', block=block)


@pytest.mark.skipif(os.name != 'posix', reason='processes of POSIX')
def test_what_killed_processes_left_is_removed_by_the_next_writing(tmp_path):
    other = f'{(int(HOST, 16) + 1) % 2**32:08x}'
    with subprocess.Popen([sys.executable, '-c', 'input()'], stdin=subprocess.PIPE) as process:
        live = f'.tmp-{process.pid}-{HOST}-a.pt'
        left = [f'.tmp-{pid}-{HOST}-a.pt' for pid in (os.getpid(), 2**40)]
        # A process of another machine may live, unless it has been silent for long.
        far, old = f'.tmp-7-{other}-a.pt', f'.tmp-7-{other}-b.pt'
        for name in (live, *left, far, old):
            (tmp_path / name).write_text('')
        (tmp_path / f'.tmp-{2**40}-{HOST}-folder').mkdir()
        (tmp_path / f'.tmp-{2**40}-{HOST}-folder' / 'x').write_text('')
        os.utime(tmp_path / old, (0, 0))
        with atomic_write(str(tmp_path / 'a')) as first, atomic_write(str(tmp_path / 'b')) as own:
            assert sorted(os.listdir(tmp_path)) == sorted(
                [live, far, os.path.basename(first), os.path.basename(own)]
            )
            remove_temporary(str(tmp_path))  # Of this process, too.
            assert os.path.exists(first) and os.path.exists(own)
        process.communicate(b'\n')
    remove_temporary(str(tmp_path))
    assert sorted(os.listdir(tmp_path)) == sorted(['a', 'b', far])


def test_a_temporary_folder(tmp_path):
    with temporary_folder(str(tmp_path / 'new')) as path:
        (tmp_path / 'new' / os.path.basename(path) / 'x').write_text('')
        remove_temporary(str(tmp_path / 'new'))
        assert os.listdir(path) == ['x']
    assert os.listdir(tmp_path / 'new') == []
    with temporary_folder(str(tmp_path / 'new')) as path:
        os.rename(path, tmp_path / 'new' / 'kept')
    assert os.listdir(tmp_path / 'new') == ['kept']


def test_a_finished_folder_is_moved(tmp_path, monkeypatch):
    out = tmp_path / 'out'
    (tmp_path / 'link').symlink_to('out')
    for place in (out, tmp_path / 'link'):  # Also into an empty folder.
        check_new(str(place))
        with temporary_folder(str(tmp_path)) as path:
            (tmp_path / os.path.basename(path) / 'x').write_text('')
            move_folder(path, str(place))
        assert os.listdir(out) == ['x'] and sorted(os.listdir(tmp_path)) == ['link', 'out']
        with pytest.raises(ConfigError, match='already exists; choose another folder or delete it'):
            check_new(str(place))
        with temporary_folder(str(tmp_path)) as path:
            with pytest.raises(ConfigError, match="out' already exists: another process created"):
                move_folder(path, str(place))
        os.remove(out / 'x')
    with pytest.raises(ConfigError, match='cannot be created: File name too long'):
        check_new(str(tmp_path / ('x' * 300)))
    with temporary_folder(str(tmp_path)) as path:
        with pytest.raises(OSError, match='xx. cannot be written: File name too long'):
            move_folder(path, str(tmp_path / ('x' * 300)))
    monkeypatch.setattr(os.path, 'ismount', lambda path: True)
    with pytest.raises(ConfigError, match='is a mount point; expected a folder inside it'):
        check_new(str(out))


def test_content_is_on_the_disk_before_its_name(tmp_path, monkeypatch):
    events = []
    fsync, replace = os.fsync, os.replace

    def flushed(handle):
        events.append('folder' if stat.S_ISDIR(os.fstat(handle).st_mode) else 'file')
        fsync(handle)

    def named(*args):
        events.append('name')
        replace(*args)

    monkeypatch.setattr(os, 'fsync', flushed)
    monkeypatch.setattr(os, 'replace', named)
    with atomic_write(str(tmp_path / 'a')) as path, open(path, 'w') as file:
        file.write('x')
    assert events == ['file', 'name', 'folder']


def test_read_json(tmp_path):
    path = tmp_path / 'a.json'
    path.write_text('{"a": [1]}')
    assert read_json(str(path)) == {'a': [1]}
    for content in (b'', b'{', b'\xff', b'[' * 100_000, b'9' * 5000):
        path.write_bytes(content)
        with pytest.raises(ValueError):
            read_json(str(path))
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(OSError, match='is a pipe'):
        read_json(str(path))
