import logging
import os
import subprocess
import sys
import threading
import time

import pytest

from motor_geo.utils import lock
from motor_geo.utils.lock import BREAK, LOCK, MACHINE, locked

HOLD = """
import os, signal, sys
from motor_geo.utils.lock import locked

with locked(sys.argv[1]) as held:
    print(held, flush=True)
    if sys.argv[2] == 'die':
        os.kill(os.getpid(), signal.SIGKILL)
"""
#: Processes of two machines: what is local to one, such as `flock` and process numbers, is of no
#: use to the other.
WORK = """
import fcntl, os, sys, time
from motor_geo.utils import lock

fcntl.flock = fcntl.lockf = lambda *args: None
lock.MACHINE = f'machine {sys.argv[2]}'.replace(' ', '-')
for trial in range(20):
    folder = os.path.join(sys.argv[1], str(trial))
    with lock.locked(folder) as held:
        if held and not os.path.exists(f'{folder}/done'):
            os.close(os.open(f'{folder}/begun', os.O_CREAT | os.O_EXCL))  # Fails the second time.
            time.sleep(0.01)
            open(f'{folder}/done', 'w').close()
            print(trial, flush=True)
"""
posix = pytest.mark.skipif(os.name != 'posix', reason='POSIX signals')


def other(folder, how=''):
    command = [sys.executable, '-c', HOLD, str(folder), how]
    out = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=60)
    return out.stdout.strip(), out.returncode


@posix
def test_a_lock_has_one_holder_and_ends_with_it(tmp_path):
    folder = str(tmp_path / 'new')
    with locked(folder) as held, locked(folder) as again:  # Its holder may take it again.
        assert held and again and other(folder) == ('False', 0)
        assert os.listdir(folder) == [LOCK]
    assert os.listdir(folder) == []
    assert other(folder, 'die') == ('True', -9)
    with locked(folder, wait=True) as held:  # What it leaves behind locks nothing.
        assert held and other(folder) == ('False', 0)
    assert other(folder) == ('True', 0)


def test_another_thread_is_another_holder(tmp_path):
    found = []

    def ask():
        with locked(str(tmp_path)) as held:
            found.append(held)

    for _ in range(2):
        with locked(str(tmp_path)):
            thread = threading.Thread(target=ask)
            thread.start()
            thread.join()
        ask()
    assert found == [False, True, False, True]


HOLDERS = {
    'another machine': 'machine-b 1 a',
    'this process': f'{MACHINE} {os.getpid()} a',
    'nobody': '',
    'no text': 'é',
}


@pytest.mark.parametrize('holder', HOLDERS.values(), ids=HOLDERS)
def test_a_silent_lock_is_taken_over(tmp_path, holder):
    path = tmp_path / LOCK
    path.write_bytes(holder.encode())
    ended = holder.startswith(MACHINE) and os.name == 'posix'  # An earlier process of our number.
    with locked(str(tmp_path)) as held:
        assert held == ended
    path.write_bytes(holder.encode())
    os.utime(path, (time.time() - lock.SILENT - 10,) * 2)
    with locked(str(tmp_path)) as held:
        assert held and path.read_text().startswith(MACHINE)
    assert os.listdir(tmp_path) == []


def test_one_process_at_a_time_takes_over(tmp_path):
    (tmp_path / LOCK).write_text('machine-b 1 a')
    os.utime(tmp_path / LOCK, (0, 0))
    (tmp_path / BREAK).write_text('machine-c 1 b')
    with locked(str(tmp_path)) as held:
        assert not held and (tmp_path / BREAK).exists()
    os.utime(tmp_path / BREAK, (time.time() - lock.ABANDONED - 10,) * 2)
    with locked(str(tmp_path)) as held:
        assert not held
    with locked(str(tmp_path), wait=True) as held:  # The attempt was given up.
        assert held


def test_a_holder_is_heard_and_notices_a_loss(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(lock, 'BEAT', 0.01)
    path = tmp_path / LOCK
    with locked(str(tmp_path)):
        os.utime(path, (0, 0))
        end = time.monotonic() + 30
        while path.stat().st_mtime < 1 and time.monotonic() < end:
            time.sleep(0.01)
        assert path.stat().st_mtime > 1
        with caplog.at_level(logging.WARNING):
            path.write_text('machine-b 1 a')
            while not caplog.records and time.monotonic() < end:
                time.sleep(0.01)
        assert 'was taken over by another process' in caplog.text
    assert path.read_text() == 'machine-b 1 a'  # It belongs to another process now.


@posix
def test_two_machines_never_do_the_same(tmp_path):
    command = [sys.executable, '-c', WORK, str(tmp_path)]
    workers = [
        subprocess.Popen([*command, name], stdout=subprocess.PIPE, text=True) for name in 'ab'
    ]
    outs = [worker.communicate(timeout=120)[0].split() for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0]
    assert len(outs[0]) + len(outs[1]) == len({*outs[0], *outs[1]})
