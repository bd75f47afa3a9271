import json
import os
import signal
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from motor_geo.experiments.queue import Job, RunQueue
from motor_geo.pipeline.finished import read_result
from motor_geo.utils.errors import ConfigError
from motor_geo.utils.lock import locked
from tests import forks

RESULT = {'val': {'recall@20': 0.5}, 'test': {}, 'seconds': 1.0}


@pytest.fixture
def folders(tmp_path):
    return [str(tmp_path / 'runs' / name) for name in 'ab']


def finish(folder, result=RESULT):
    with open(os.path.join(folder, 'result.json'), 'w') as file:
        json.dump(result, file)
    return result


def fail(config):
    raise FloatingPointError('The loss\nis NaN')


def test_commands_of_jobs():
    options = {'data': 'my shop', 'seed': 3, 'tokenizer.modalities': ['text'], 'behavior': True}
    command = Job('a', 'out/a', {'model': 'BPR', **options}, {}).command
    assert command == (
        "python -m motor_geo.run --model BPR --data 'my shop' --seed 3 --tokenizer.modalities "
        '\'["text"]\' --behavior true --out out/a'
    )
    options = {'model': 'ItemKNN', 'model.k': 50, 'data': 'shop', 'seed': 3}
    assert Job('a', 'out/a', options, {}).command == (
        'python -m motor_geo.run --model ItemKNN --model.k 50 --data shop --seed 3 --out out/a'
    )


def test_no_run_is_taken_twice(tmp_path, folders):
    first, second = RunQueue(str(tmp_path)), RunQueue(str(tmp_path))
    with first.claim(folders) as one:
        code = (
            'import sys; from motor_geo.experiments.queue import RunQueue\n'
            'with RunQueue(sys.argv[1]).claim(sys.argv[2:]) as folder: print(folder)'
        )
        found = forks.run('-c', code, tmp_path, *folders)
        assert (one, found.stdout.strip()) == tuple(folders)
        finish(one)
    with second.claim(folders) as other:
        assert other == folders[1]
        second.run_job({'out': other}, lambda config: finish(config['out']))
    with first.claim(folders) as none:
        assert none is None
    assert first.result(folders[1]) == RESULT

    os.remove(os.path.join(folders[0], 'result.json'))  # Deleted to be done anew.
    with first.claim(folders) as again:
        assert again == folders[0]


@pytest.mark.skipif(sys.platform == 'win32', reason='POSIX signals')
def test_a_run_that_ends_before_its_lock_is_had_is_not_taken(tmp_path, folders, monkeypatch):
    @contextmanager
    def slow(folder):
        with locked(folder) as held:
            if folder == folders[0]:  # Another process was faster, and holds it no more.
                finish(folder)
            yield held

    monkeypatch.setattr('motor_geo.experiments.queue.locked', slow)
    with RunQueue(str(tmp_path)).claim(folders) as folder:
        assert folder == folders[1]


def test_what_a_killed_process_held_is_open(tmp_path, folders):
    code = (
        'import os, signal, sys; from motor_geo.experiments.queue import RunQueue\n'
        'with RunQueue(sys.argv[1]).claim(sys.argv[2:]): os.kill(os.getpid(), signal.SIGKILL)'
    )
    assert forks.run('-c', code, tmp_path, *folders).returncode == -signal.SIGKILL
    assert os.listdir(folders[0]) == ['.lock']
    with RunQueue(str(tmp_path)).claim(folders) as folder:
        assert folder == folders[0]


def test_failures_are_kept_until_retried(tmp_path, folders):
    queue = RunQueue(str(tmp_path))
    with queue.claim(folders) as folder:
        assert queue.run_job({'out': folder}, fail) == 'The loss is NaN'
    other = RunQueue(str(tmp_path))
    assert [other.error(folder) for folder in folders] == ['The loss is NaN', None]
    with other.claim(folders) as folder:
        assert folder == folders[1]

    with locked(folders[0]):
        other.retry(folders)
    assert other.is_open(folders[0]) and not os.path.exists(folders[1] + '/error.txt')
    with other.claim(folders) as folder:
        assert folder == folders[0]
        finish(folder)
        (Path(folder) / 'error.txt').write_text('of before')
    assert other.error(folders[0]) is None  # It has finished after all.


def test_other_errors_end_the_process(tmp_path, folders):
    queue = RunQueue(str(tmp_path), (ValueError,))
    with pytest.raises(FloatingPointError), queue.claim(folders) as folder:
        queue.run_job({'out': folder}, fail)
    assert queue.is_open(folders[0])


@pytest.mark.parametrize('content', ['', '{}', '[]', '{"val": {}', 'null'])
def test_damaged_results_are_named(tmp_path, folders, content):
    os.makedirs(folders[0])
    path = Path(folders[0]) / 'result.json'
    path.write_text(content)
    with pytest.raises(ConfigError, match=f"'{path}' is damaged: expected the result of a run"):
        RunQueue(str(tmp_path)).result(folders[0])
    assert read_result(folders[1]) is None
