import json
import os
import sys

import pytest
import yaml

from motor_geo import run as run_module
from motor_geo.engine.trainer import Trainer
from motor_geo.experiments import queue
from motor_geo.sweep import main, table
from tests import forks

BASE = {
    'data': {'num_users': 60, 'num_items': 40, 'num_interactions': 400},
    'model': {'name': 'BPR', 'channels': 8},
    'items': 'id',
    'trainer': {'epochs': 3, 'batch_size': 128},
    'threads': 1,
}
GRID = {'lr': [0.001, 0.01], 'model.reg_weight': ['1e-1', 0.01]}
RANGES = {'lr': {'low': '1e-4', 'high': 0.1, 'log': True}, 'model.channels': {'low': 4, 'high': 8}}


def write(folder, search, **more):
    path = folder / 'sweep.yaml'
    path.write_text(yaml.safe_dump({**BASE, **more, 'search': search}))
    return str(path)


def start(folder, search, *flags, out='out', **more):
    return main(['--config', write(folder, search, **more), '--out', str(folder / out), *flags])


def read(out):
    return json.loads((out / 'sweep.json').read_text())


def values(out):
    return [(row['options'], row['recall@20'], row['best_epoch']) for row in read(out)['trials']]


def epochs(out):
    paths = (out / 'trials').glob('*/metrics.jsonl')
    return [[json.loads(line)['epoch'] for line in path.open()] for path in paths]


def test_a_grid_has_every_combination_once(tmp_path, capsys):
    assert start(tmp_path, GRID) == 0
    out, text = tmp_path / 'out', capsys.readouterr().out
    rows = read(out)['trials']
    found = [(row['options']['trainer.lr'], row['options']['model.reg_weight']) for row in rows]
    assert sorted(found) == [(0.001, 0.01), (0.001, 0.1), (0.01, 0.01), (0.01, 0.1)]
    values = [row['recall@20'] for row in rows]
    assert values == sorted(values, reverse=True) and epochs(out) == [[1, 2, 3]] * 4
    for row in rows:
        result = json.loads((out / row['folder'] / 'result.json').read_text())
        assert row['recall@20'] == result['val']['recall@20']
        assert row['best_epoch'] == result['best_epoch'] and row['state'] == 'finished'
        config = yaml.safe_load((out / row['folder'] / 'config.yaml').read_text())
        assert config['trainer']['lr'] == row['options']['trainer.lr']
        assert config['model']['reg_weight'] == row['options']['model.reg_weight']

    header = ['trainer.lr', 'model.reg_weight', 'val', 'recall@20', 'best', 'epoch', 'seconds']
    lines = text.splitlines()
    position = [line.split() for line in lines].index(header)
    assert lines[position + 1].split()[2] == f'{values[0]:.4f}'
    assert 'test' not in '\n'.join(lines[position:]).replace(str(tmp_path), '')

    assert start(tmp_path, GRID) == 0  # Nothing is left.
    assert read(out)['trials'] == rows


def test_part_of_a_grid_and_then_all(tmp_path):
    assert start(tmp_path, GRID, '--trials', '2') == 0
    first = {row['folder'] for row in read(tmp_path / 'out')['trials']}
    assert len(first) == 2
    assert start(tmp_path, GRID, '--trials', '9') == 0
    assert first < {row['folder'] for row in read(tmp_path / 'out')['trials']}
    assert epochs(tmp_path / 'out') == [[1, 2, 3]] * 4


def test_the_best_options_run(tmp_path):
    assert start(tmp_path, GRID) == 0
    best = read(tmp_path / 'out')['trials'][0]
    config = yaml.safe_load((tmp_path / 'out' / 'best.yaml').read_text())
    assert config['out'] is None and config['trainer']['lr'] == best['options']['trainer.lr']
    arguments = ['--config', str(tmp_path / 'out' / 'best.yaml'), '--out', str(tmp_path / 'run')]
    assert run_module.main(arguments) == 0
    result = json.loads((tmp_path / 'run' / 'result.json').read_text())
    assert result['val']['recall@20'] == best['recall@20']


@pytest.mark.parametrize('search', [GRID, RANGES])
def test_going_on_after_an_interruption(tmp_path, monkeypatch, search):
    pytest.importorskip('optuna')
    assert start(tmp_path, search, '--trials', '4', out='whole') == 0
    show, trained = Trainer._show, []

    def interrupt(self, bar, entry):
        trained.append(entry['epoch'])
        if len(trained) == 5:  # The second epoch of the second trial.
            raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, '_show', interrupt)
    assert start(tmp_path, search, '--trials', '4') == 130
    assert sorted(map(len, epochs(tmp_path / 'out'))) == [2, 3]
    assert start(tmp_path, search, '--trials', '4') == 0
    assert len(trained) == 12
    monkeypatch.setattr(Trainer, '_show', show)
    assert values(tmp_path / 'out') == values(tmp_path / 'whole')


def test_ranges(tmp_path, capsys):
    pytest.importorskip('optuna')
    assert start(tmp_path, RANGES, '--trials', '3') == 0
    assert start(tmp_path, RANGES, '--trials', '6') == 0
    rows = read(tmp_path / 'out')['trials']
    assert len(rows) == len({json.dumps(row['options']) for row in rows}) == 6
    for row in rows:
        assert 1e-4 <= row['options']['trainer.lr'] <= 0.1
        assert row['options']['model.channels'] in range(4, 9)
    assert len({row['options']['trainer.lr'] for row in rows}) == 6

    small = {'model.channels': {'low': 4, 'high': 5}}  # It ends when all were tried.
    assert start(tmp_path, small, '--trials', '6', out='small') == 0
    assert len(read(tmp_path / 'small')['trials']) == 2


WORKER = """
import os, signal, sys, time
from pathlib import Path

from motor_geo.sweep import main
from motor_geo.engine.trainer import Trainer

folder, me, die = Path(sys.argv[1]), sys.argv[2], sys.argv[3] == 'True'

def show(self, bar, entry):
    if me == '0' and die and entry['epoch'] == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.1)

Trainer._show = show
(folder / f'ready-{me}').touch()
while not all((folder / f'ready-{i}').exists() for i in '01'):
    time.sleep(0.01)
sys.exit(main(['--config', str(folder / 'sweep.yaml'), '--out', str(folder / 'out')]))
"""


@pytest.mark.skipif(os.name != 'posix', reason='POSIX signals')
@pytest.mark.parametrize('die', [False, True])
def test_two_processes_share_a_sweep(tmp_path, die):
    assert start(tmp_path, GRID, out='whole') == 0
    workers = [forks.Fork('-c', WORKER, tmp_path, i, die) for i in range(2)]
    ends = [worker.end() for worker in workers]
    texts = [end.stdout for end in ends]
    assert [end.returncode for end in ends] == [-9 if die else 0, 0]
    done = [[line for line in text.splitlines() if ': recall@20' in line] for text in texts]
    assert len(done[0] + done[1]) == len(set(done[0] + done[1])) == 4
    assert (not done[0]) == die and done[1]
    assert epochs(tmp_path / 'out') == [[1, 2, 3]] * 4
    rows = read(tmp_path / 'out')['trials']
    assert [row['state'] for row in rows] == ['finished'] * 4
    assert values(tmp_path / 'out') == values(tmp_path / 'whole')  # To the same bits.
    best = [(tmp_path / name / 'best.yaml').read_text() for name in ('out', 'whole')]
    assert best[0] == best[1]


CRASH = """
import os, signal, sys
import motor_geo.experiments.sweep as module
from motor_geo.sweep import main

config, out, point = sys.argv[1:]
write, count = module.atomic_write, 0

def crash(path):
    global count
    count += 1
    if count == int(point):
        os.kill(os.getpid(), signal.SIGKILL)
    return write(path)

module.atomic_write = crash
sys.exit(main(['--config', config, '--out', out]))
"""


@pytest.mark.skipif(os.name != 'posix', reason='POSIX signals')
@pytest.mark.parametrize('point', [1, 2, 3, 5, 6])
def test_killed_before_a_file_of_the_sweep_is_written(tmp_path, point):
    r"""Among these: after the last trial, when `best.yaml` is still that of before."""
    search = {'lr': [0.001, 0.01]}
    assert start(tmp_path, search, out='whole', trainer={'epochs': 1, 'batch_size': 128}) == 0
    path = str(tmp_path / 'sweep.yaml')
    assert forks.run('-c', CRASH, path, tmp_path / 'out', point).returncode == -9
    assert main(['--config', path, '--out', str(tmp_path / 'out')]) == 0
    assert values(tmp_path / 'out') == values(tmp_path / 'whole')
    best = [(tmp_path / name / 'best.yaml').read_text() for name in ('out', 'whole')]
    assert best[0] == best[1]


def test_a_trial_that_diverges_is_left_behind(tmp_path, capsys):
    assert start(tmp_path, {'lr': [1e38, 0.01]}) == 0
    rows = read(tmp_path / 'out')['trials']
    assert [row['state'] for row in rows] == ['finished', 'failed']
    assert rows[1]['options'] == {'trainer.lr': 1e38} and rows[1]['recall@20'] is None
    assert 'not finite' in capsys.readouterr().out and 'failed' in table(read(tmp_path / 'out'))

    (folder,) = (tmp_path / 'out' / 'trials').glob('*/error.txt')
    assert 'not finite' in folder.read_text()

    assert start(tmp_path, {'lr': [1e38]}, out='none') == 2
    assert 'no trial has finished' in capsys.readouterr().err
    assert not (tmp_path / 'none' / 'best.yaml').exists()


def test_failed_trials_are_tried_again_when_asked_for(tmp_path, monkeypatch, capsys):
    run = queue.run

    def fail(config, progress):
        if config['trainer']['lr'] == 0.01:
            raise FloatingPointError('not finite')
        return run(config, progress)

    monkeypatch.setattr(queue, 'run', fail)
    search = {'lr': [0.001, 0.01]}
    assert start(tmp_path, search) == 0
    monkeypatch.setattr(queue, 'run', run)
    assert start(tmp_path, search) == 0
    assert [row['state'] for row in read(tmp_path / 'out')['trials']] == ['finished', 'failed']
    assert start(tmp_path, search, '--retry', 'maybe') == 2
    assert start(tmp_path, search, '--retry') == 0
    assert [row['state'] for row in read(tmp_path / 'out')['trials']] == ['finished'] * 2
    assert start(tmp_path, search, out='whole') == 0
    assert values(tmp_path / 'out') == values(tmp_path / 'whole')


def test_summaries_follow_the_folders(tmp_path):
    r"""A file that was lost or changed is written anew."""
    assert start(tmp_path, GRID) == 0
    out = tmp_path / 'out'
    rows, best = read(out)['trials'], (out / 'best.yaml').read_text()
    (out / 'best.yaml').write_text('model: BPR')
    assert start(tmp_path, GRID) == 0
    assert (out / 'best.yaml').read_text() == best
    (out / 'sweep.json').unlink()
    assert start(tmp_path, GRID) == 0
    assert read(out)['trials'] == rows


def test_folders_of_before_and_damaged_ones_are_refused(tmp_path, capsys):
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out' / 'study.log').write_text('{"op_code": 0')
    assert start(tmp_path, GRID) == 2
    error = capsys.readouterr().err
    assert 'holds a sweep of an earlier version' in error and error.count('\n') == 1
    assert [path.name for path in (tmp_path / 'out').iterdir()] == ['study.log']

    search = {'lr': [0.01]}
    (tmp_path / 'new').mkdir()
    (tmp_path / 'new' / 'study.log').write_text('')  # Killed before anything was written.
    assert start(tmp_path, search, out='new') == 0
    for name in ('sweep.json', 'trials/*/trial.json', 'trials/*/result.json'):
        (path,) = (tmp_path / 'new').glob(name)
        whole = path.read_text()
        path.write_text(whole[: len(whole) // 2])
        assert start(tmp_path, search, out='new') == 2
        error = capsys.readouterr().err
        assert f"'{path}' is damaged" in error and error.count('\n') == 1
        path.write_text(whole)


def test_a_value_out_of_range_ends_the_sweep(tmp_path, capsys):
    search = {'model.num_layers': [1, -1]}
    assert start(tmp_path, search, model='LightGCN') == 2
    assert 'In the trial with model.num_layers -1' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('search', 'message'),
    [
        ({'model.reg_wieght': [1]}, "did you mean 'reg_weight'"),
        ({'modle.reg_weight': [1]}, "did you mean 'model'"),
        ({'trainer': [1]}, "'trainer' is a section"),
        ({'lr': [0.1, 'high']}, "got 'high'"),
        ({'lr': [0.1, '1e-1']}, "two choices of 'trainer.lr' are the same"),
        ({'lr': [0.1], 'trainer.lr': [0.2]}, 'occurs twice'),
        ({'lr': []}, 'expected a list of choices or'),
        ({'lr': {'low': 1}}, 'expected a list of choices or'),
        ({'lr': {'low': 1, 'high': 0.1}}, 'expected low below high'),
        ({'lr': {'low': 0, 'high': 0.1, 'log': True}}, 'above 0 if log'),
        ({'tokenizer.method': {'low': 'a', 'high': 'b'}}, 'does not take a range'),
        ({'model': ['BPR', 'BRP']}, "did you mean 'BPR'"),
        ({'data.seed': [0, 1]}, 'must be the same in all trials'),
        ({'evaluator.batch_size': [1]}, 'must be the same in all trials'),
        ({'trainer.metric': ['ndcg@20']}, 'must be the same in all trials'),
        ({'device': ['cpu']}, 'must be the same in all trials'),
        ({}, "'search' must be a mapping"),
        ([1], "'search' must be a mapping"),
    ],
)
def test_errors_come_before_any_training(tmp_path, capsys, monkeypatch, search, message):
    monkeypatch.setattr(queue, 'run', None)
    assert start(tmp_path, search) == 2
    error = capsys.readouterr().err
    assert message in error and error.count('\n') == 1
    assert not (tmp_path / 'out').exists()


def test_errors_of_the_command(tmp_path, capsys, monkeypatch):
    for flags in (['--trials', '0'], ['--trials', 'many'], ['--data', 'nothing'], ['--lr', 'x']):
        assert start(tmp_path, GRID, *flags) == 2
    assert not (tmp_path / 'out').exists()
    path = tmp_path / 'plain.yaml'
    path.write_text('model: BPR')
    assert main(['--config', str(path)]) == 2
    assert "a file that has 'search'" in capsys.readouterr().err
    assert main(['--space', str(tmp_path / 'none.yaml')]) == 2
    assert 'cannot be read' in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, 'optuna', None)
    assert start(tmp_path, RANGES) == 2
    assert "optuna (extra 'sweep'): pip install " in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()
    assert start(tmp_path, {'lr': [0.01]}) == 0  # Lists alone need none.
    assert main(['--help']) == 0 and '--trials N' in capsys.readouterr().out


def test_a_folder_holds_one_sweep(tmp_path, capsys):
    search = {'lr': [0.01]}
    assert start(tmp_path, search) == 0
    before = read(tmp_path / 'out')
    assert start(tmp_path, {'lr': [0.01, 0.1]}) == 2
    assert 'holds another search (search.trainer.lr is [0.01] there' in capsys.readouterr().err
    assert start(tmp_path, search, '--data.seed', '1') == 2
    assert 'holds another search (data.seed is 0 there, 1 here)' in capsys.readouterr().err
    assert start(tmp_path, search, '--threads', '2') == 0
    assert read(tmp_path / 'out') == before


def test_a_space_for_options_of_another_file(tmp_path):
    base, space = tmp_path / 'base.yaml', tmp_path / 'space.yaml'
    base.write_text(yaml.safe_dump({**BASE, 'model': {'channels': 8}}))
    space.write_text('search: {model: [BPR, LightGCN], items: [id, features], seed: [3]}')
    arguments = ['--config', str(base), '--space', str(space), '--epochs', '1', '--trials', '3']
    assert main([*arguments, '--out', str(tmp_path / 'out')]) == 0
    rows = read(tmp_path / 'out')['trials']
    for row in rows:
        config = yaml.safe_load((tmp_path / 'out' / row['folder'] / 'config.yaml').read_text())
        assert config['model']['name'] == row['options']['model'] and config['seed'] == 3
        assert config['items']['name'] == row['options']['items']
        assert config['model']['channels'] == 8
    assert len(rows) == 3 and {row['options']['items'] for row in rows} == {'id', 'features'}
