import pytest

from motor_geo.experiments.queue import Job, Journal

pytest.importorskip('optuna')


@pytest.fixture
def jobs(tmp_path):
    return [Job(name, str(tmp_path / 'runs' / name), {}, {}) for name in 'ab']


def test_commands_of_jobs():
    options = {'data': 'my shop', 'seed': 3, 'tokenizer.modalities': ['text'], 'behavior': True}
    command = Job('a', 'out/a', options, {}).command
    assert command == (
        "python -m motor_geo.run --data 'my shop' --seed 3 --tokenizer.modalities '[\"text\"]' "
        '--behavior true --out out/a'
    )


def test_no_job_is_taken_twice(tmp_path, jobs):
    first, second = Journal(str(tmp_path)), Journal(str(tmp_path))
    job, number, lock = first.claim(jobs)
    other, another, _lock = second.claim(jobs)
    assert (job.name, other.name) == ('a', 'b') and number != another
    assert first.claim(jobs) is None and second.claim(jobs) is None

    lock.close()  # As at the end of a process that was killed.
    again, same, lock = second.claim(jobs)
    assert (again.name, same) == ('a', number)
    second.tell(same, 0.5)
    (tmp_path / 'runs' / 'a' / 'result.json').write_text('{}')
    lock.close()
    assert first.claim(jobs) is None
    assert len(first.study.trials) == 2

    (tmp_path / 'runs' / 'a' / 'result.json').unlink()  # Deleted to be done anew.
    again, new, _lock2 = first.claim(jobs)
    assert again.name == 'a' and new == 2


def test_failures_are_kept(tmp_path, jobs):
    journal = Journal(str(tmp_path))
    assert journal.failed() == {}
    _, number, _lock = journal.claim(jobs)
    journal.tell(number, None, 'The loss is NaN')
    assert Journal(str(tmp_path)).failed() == {'a': 'The loss is NaN'}
