import pytest

from tests.test_sweep import GRID, RANGES, read, start

optuna = pytest.importorskip('optuna')


def trials(url, name='out'):
    return optuna.load_study(study_name=name, storage=url).trials


@pytest.mark.parametrize('search', [GRID, RANGES])
def test_a_storage_gets_a_copy_of_all_trials(tmp_path, search):
    url = f'sqlite:///{tmp_path}/trials.db'
    assert start(tmp_path, search, '--trials', '2', '--storage', url) == 0
    assert start(tmp_path, search, '--trials', '3') == 0  # Without it.
    assert start(tmp_path, search, '--trials', '3', '--storage', url) == 0
    rows = {row['folder']: row for row in read(tmp_path / 'out')['trials']}
    found = {trial.user_attrs['folder']: trial for trial in trials(url)}
    assert len(trials(url)) == len(rows) == 3 and found.keys() == rows.keys()
    for folder, trial in found.items():
        assert trial.value == rows[folder]['recall@20']
        assert trial.params['trainer.lr'] in (
            rows[folder]['options']['trainer.lr'],
            str(rows[folder]['options']['trainer.lr']),  # A choice.
        )


def test_a_study_that_was_deleted_is_filled_again(tmp_path):
    url = f'sqlite:///{tmp_path}/trials.db'
    assert start(tmp_path, GRID, '--storage', url) == 0
    optuna.delete_study(study_name='out', storage=url)
    assert start(tmp_path, GRID, '--storage', url) == 0
    assert len(trials(url)) == 4


def test_failed_trials_and_those_that_are_tried_again(tmp_path, monkeypatch):
    from motor_geo.experiments import queue

    url, run = f'sqlite:///{tmp_path}/trials.db', queue.run

    def fail(config, progress):
        raise FloatingPointError('not finite')

    monkeypatch.setattr(queue, 'run', fail)
    search = {'lr': [0.01]}
    assert start(tmp_path, search, '--storage', url) == 2
    assert [trial.state.name for trial in trials(url)] == ['FAIL']
    monkeypatch.setattr(queue, 'run', run)
    assert start(tmp_path, search, '--storage', url, '--retry') == 0
    assert start(tmp_path, search, '--storage', url) == 0
    assert [trial.state.name for trial in trials(url)] == ['FAIL', 'COMPLETE']


def test_errors_come_before_any_trial(tmp_path, capsys):
    url = f'sqlite:///{tmp_path}/trials.db'
    assert start(tmp_path, GRID, '--storage', f'sqlite:///{tmp_path}/no/folder.db') == 2
    assert 'cannot be opened' in capsys.readouterr().err
    assert start(tmp_path, GRID, '--storage', 'trials.db') == 2
    assert "--storage: 'trials.db' cannot be opened" in capsys.readouterr().err
    assert start(tmp_path, {'lr': [0.01]}, '--storage', url, out='a/x') == 0
    assert start(tmp_path, GRID, '--storage', url, out='b/x') == 2
    assert "holds another study 'x'" in capsys.readouterr().err
    assert not (tmp_path / 'b' / 'x' / 'trials').exists()
