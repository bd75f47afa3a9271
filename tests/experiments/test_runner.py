import json
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from motor_geo.experiments import queue as module
from motor_geo.experiments.command import prepare
from motor_geo.pipeline import train as run_module
from motor_geo.pipeline.assemble import build_dataset
from motor_geo.report.write import read_runs
from motor_geo.reproduce import main
from tests import forks
from tests.shop import NUM_ITEMS, SMALL, make_shop, results, start, table

pytest.importorskip('matplotlib')
pytest.importorskip('scipy')


@pytest.fixture(scope='module')
def shop(tmp_path_factory):
    return make_shop(tmp_path_factory.mktemp('data'))


def test_settings_are_chosen_on_validation_and_trained_with_all_seeds(shop, tmp_path, capsys):
    flags = ('--models', 'LightGCN', '--seeds', '0', '1', '2', '--effort', '2')
    assert start(shop, tmp_path, 'table2', *flags) == 0
    found = results(tmp_path)
    assert len(found) == 4 * (2 + 2)  # Two settings with a seed, one of them with two more.
    configs = {
        name: yaml.safe_load((tmp_path / 'runs' / name / 'config.yaml').read_text())
        for name in found
    }
    rows = read_runs(str(tmp_path / 'table2.jsonl'))
    by_label = {}
    for row in rows:
        by_label.setdefault(tuple(row['label']), []).append(row)
    forms = ('id', 'specific', 'agnostic', 'recommended')
    assert list(by_label) == [('shop', 'LightGCN', form) for form in forms]
    for (_, _, items), own in by_label.items():
        assert [row['seed'] for row in own] == [0, 1, 2]
        first = {
            name: result
            for name, result in found.items()
            if result['items'] == items and result['seed'] == 0
        }
        assert len(first) == 2
        best = max(value for _, value in own[0]['tried'])
        assert best == max(result['val']['recall@20'] for result in first.values())
        assert own[0]['val'] == best
        for row in own[1:]:
            name = row['command'].rsplit('/', 1)[1]
            assert configs[name]['tokenizer']['seed'] == (0 if items == 'id' else row['seed'])

    head, cells = table(tmp_path / 'table2.md', 'Backbones with IDs and with tokens: shop')
    means = [np.mean([row['test']['recall@20'] for row in own]) for own in by_label.values()]
    spread = [
        np.std([row['test']['recall@20'] for row in own], ddof=1) for own in by_label.values()
    ]
    for row, mean, std in zip(cells, means, spread):
        text = row[head.index('Recall@20')].replace('*', '').replace('\\', '')
        assert text == f'{mean:.4f} ± {std:.4f}'
    column = head.index('gain in Recall@20 over id')
    assert [row[column] for row in cells] == [
        '',
        *(f'{100 * (mean / means[0] - 1):+.1f} %' for mean in means[1:]),
    ]
    head, cells = table(tmp_path / 'table2.md', 'Gain in Recall@20 over IDs, measured and')
    assert dict(zip(head, cells[0]))['Music, published'] == '+52.6 %'
    for ending in ('tex', 'html'):
        assert (tmp_path / f'table2.{ending}').stat().st_size > 1000

    times = {path: path.stat().st_mtime_ns for path in (tmp_path / 'runs').glob('*/result.json')}
    assert start(shop, tmp_path, 'table2', *flags) == 0  # Nothing is repeated.
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())
    assert start(shop, tmp_path, 'table2', *flags, '--models', 'LightGCN', 'BPR') == 0
    assert len(results(tmp_path)) == 32
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())


def test_shorter_runs_do_not_stand_for_longer_ones(shop, tmp_path):
    flags = ('--models', 'LightGCN', '--seeds', '0', '--effort', '1')
    for epochs in (2, 1):
        assert start(shop, tmp_path, 'table2', *flags, '--trainer.epochs', str(epochs)) == 0
        rows = read_runs(str(tmp_path / 'table2.jsonl'))
        assert [row['epochs'] for row in rows] == [epochs] * 4
    assert len(results(tmp_path)) == 8


def test_what_a_killed_process_left_of_a_finished_run_goes(shop, tmp_path):
    flags = ('table3', '--models', 'LightGCN', '--seeds', '0', '--effort', '1')
    assert start(shop, tmp_path, *flags) == 0
    before = sorted(path for path in tmp_path.rglob('*') if path.is_file())
    folder = next((tmp_path / 'runs').iterdir())
    for name in ('last.pt', 'tokenizer.pt'):
        (folder / name).write_bytes(b'killed before this was removed')
    assert start(shop, tmp_path, *flags) == 0
    assert sorted(path for path in tmp_path.rglob('*') if path.is_file()) == before


def test_groups_of_items(shop, tmp_path):
    r"""Groups add up to what is measured over all items."""
    flags = ('--seeds', '0', '--effort', '1', '--models', 'LightGCN')
    assert start(shop, tmp_path, 'table3', *flags) == 0
    head, cells = table(tmp_path / 'table3.md', 'Items by training interactions: shop')
    count = np.zeros(NUM_ITEMS, int)
    held_out = []
    for line in (Path(shop) / 'shop.inter').read_text().split('\n')[1:-1]:
        _, item, label = map(int, line.split('\t'))
        count[item] += label == 0
        held_out += [item] * (label == 2)
    bounds = [0, 6, 11, 21, 51, 1000]
    names = [row[0].replace('\\', '') for row in cells]
    assert names == ['0-5', '6-10', '11-20', '21-50', '>50']
    expected = np.histogram(count, bounds)[0]
    assert [int(row[head.index('items')]) for row in cells] == expected.tolist()
    expected = np.histogram(count[held_out], bounds)[0]
    assert [int(row[head.index('held-out interactions')]) for row in cells] == expected.tolist()


@pytest.mark.filterwarnings('ignore:.*dropped .* held-out interactions')
def test_thinner_data_has_fewer_interactions(shop, tmp_path):
    flags = ('--seeds', '0', '--effort', '1', '--budget', '0')
    assert start(shop, tmp_path, 'sparsity', *flags) == 0
    rest = ['--effort', '1', '--out', str(tmp_path), *SMALL]
    _, reproduction = prepare(['sparsity', '--data', shop, *rest])
    jobs, left, total = reproduction.open()
    assert (len(jobs), left, total) == (44, 44 + 88, 44 + 88)  # Nothing ran in no time.
    assert 'Of 44 runs, 44 are not finished' in (tmp_path / 'sparsity.md').read_text()
    sizes = {
        job.options['data.train_share']: build_dataset(job.config).summary()['train']
        for job in jobs
    }
    assert sizes == {1.0: 640, 0.5: 320, 0.25: 160, 0.1: 64}


WORKER = """
import os, signal, sys
from pathlib import Path

from motor_geo.engine.trainer import Trainer
from motor_geo.reproduce import main

folder, me, die = Path(sys.argv[1]), sys.argv[2], sys.argv[3]

def show(self, bar, entry):
    if me == '0' and entry['epoch'] == 2:
        (folder / 'training').touch()
        if die == 'True':
            os.kill(os.getpid(), signal.SIGKILL)

Trainer._show = show
sys.exit(main(sys.argv[4:]))
"""


@pytest.mark.skipif(sys.platform == 'win32', reason='POSIX signals')
def test_one_of_two_processes_is_killed(shop, tmp_path):
    r"""What it leaves behind, the other one and the same command finish, to the same bits."""
    flags = ['--models', 'LightGCN', 'BPR', '--seeds', '0', '1', '--effort', '1', *SMALL]
    flags += ['--trainer.epochs', '4']
    out, whole = tmp_path / 'out', tmp_path / 'whole'
    assert main(['table2', '--data', shop, '--out', str(whole), *flags]) == 0
    command = ['table2', '--data', shop, '--out', str(out), *flags]
    workers = [forks.Fork('-c', WORKER, tmp_path, i, True, *command) for i in range(2)]
    assert [worker.wait() for worker in workers] == [-signal.SIGKILL, 0]
    assert (tmp_path / 'training').exists()
    expected = results(whole)
    assert len(expected) == 16 and results(out).keys() == expected.keys()
    for name, result in results(out).items():
        for key in ('val', 'test', 'best_epoch', 'hashes', 'slices'):
            assert result[key] == expected[name][key], (name, key)
        own, other = (
            [
                {k: v for k, v in json.loads(line).items() if 'seconds' not in k}
                for line in (folder / 'runs' / name / 'metrics.jsonl').open()
            ]
            for folder in (out, whole)
        )
        assert own == other and [entry['epoch'] for entry in own] == [1, 2, 3, 4]
    rows = [
        [
            {k: v for k, v in row.items() if k not in ('seconds', 'command', 'run')}
            for row in read_runs(str(folder / 'table2.jsonl'))
        ]
        for folder in (out, whole)
    ]
    assert rows[0] == rows[1]


@pytest.mark.parametrize('share', [0.0, 1.0])
def test_progress_knows_what_is_left(shop, tmp_path, share):
    flags = ['--models', 'LightGCN', '--seeds', '0', '1', '--effort', '1', *SMALL]
    _, reproduction = prepare(['table2', '--data', shop, '--out', str(tmp_path), *flags])
    if share:
        assert reproduction.work(progress=False)
    ready, left, total = reproduction.open()
    assert (left, total) == (8 * (1 - share), 8)
    assert (reproduction.remaining(ready, left, 1) == '') and bool(ready) != bool(share)


def test_what_a_variant_cannot_do_does_not_end_the_others(shop, tmp_path, monkeypatch):
    def fail(config, progress):
        if config['items']['name'] == 'id':
            raise FloatingPointError('The loss is NaN')
        return run_module.run(config, progress)

    monkeypatch.setattr(module, 'run', fail)
    flags = ('--models', 'LightGCN', '--seeds', '0', '1', '--effort', '1')
    assert start(shop, tmp_path, 'table2', *flags) == 0
    assert len(results(tmp_path)) == 6
    text = (tmp_path / 'table2.md').read_text()
    assert 'failed: The loss is NaN' in text and '| LightGCN | id | – |' in text

    reasons = [path.read_text() for path in (tmp_path / 'runs').glob('*/error.txt')]
    assert reasons == ['The loss is NaN\n']
    monkeypatch.setattr(module, 'run', run_module.run)
    assert start(shop, tmp_path, 'table2', *flags) == 0
    assert len(results(tmp_path)) == 6  # Failed runs stay so, unless one asks for them.
    assert start(shop, tmp_path, 'table2', *flags, '--retry') == 0
    assert len(results(tmp_path)) == 8
    assert 'failed' not in (tmp_path / 'table2.md').read_text()


@pytest.mark.parametrize(
    'metric, flags',
    [
        ('ndcg@10', ['--evaluator.ks', '[10]', '--trainer.metric', 'ndcg@10']),
        ('recall@20', ['--evaluator.metrics', '[recall]']),
        ('coverage@5', ['--trainer.metric', 'coverage@5']),
    ],
)
def test_metrics_follow_the_options(shop, tmp_path, metric, flags):
    more = ['--models', 'LightGCN', '--seeds', '0', '--effort', '2', *flags]
    assert start(shop, tmp_path, 'table2', *more) == 0
    rows = read_runs(str(tmp_path / 'table2.jsonl'))
    found = results(tmp_path)
    assert len(rows) == 4 and len(found) == 8
    for row in rows:
        tried = [r['val'][metric] for r in found.values() if r['items'] == row['label'][2]]
        assert row['val'] == pytest.approx(max(tried), rel=1e-5)
        assert row['val'] == max(value for _, value in row['tried'])
    head, cells = table(tmp_path / 'table2.md', 'Backbones with IDs and with tokens: shop')
    columns = [column.lower() for column in head]
    assert f'gain in {metric} over id' in columns
    for row, own in zip(cells, rows):
        value = row[columns.index(metric)].replace('*', '').replace('\\', '')
        assert value == f'{own["test"][metric]:.4f}'


@pytest.mark.parametrize('name', ['table3', 'figure4', 'sparsity', 'lirdrec-figure6'])
def test_views_of_another_metric(shop, tmp_path, name):
    flags = ['--evaluator.ks', '[10]', '--trainer.metric', 'ndcg@10', '--trainer.epochs', '1']
    flags += ['--seeds', '0', '--effort', '1', '--models', 'LightGCN']
    assert start(shop, tmp_path, name, *flags) == 0
    text = (tmp_path / f'{name}.md').read_text()
    assert 'NDCG@10' in text and 'Recall@20' not in text


def test_metrics_that_are_not_evaluated_are_refused(shop, tmp_path, capsys):
    assert start(shop, tmp_path / 'out', 'table2', '--evaluator.ks', '[10]') == 2
    error = capsys.readouterr().err
    assert 'trainer.metric: expected one of recall@10, ndcg@10' in error and '@20' in error
    assert not (tmp_path / 'out').exists()


def test_baselines_stand_beside_backbones(shop, tmp_path):
    flags = ['--seeds', '0', '1', '--effort', '2', '--models', 'Popularity', 'ItemKNN', 'LightGCN']
    assert start(shop, tmp_path, 'backbones', *flags) == 0
    rows = {}
    for row in read_runs(str(tmp_path / 'backbones.jsonl')):
        rows.setdefault(tuple(row['label'][1:]), []).append(row)
    assert list(rows) == [
        ('Popularity', 'none'),
        ('ItemKNN', 'none'),
        ('LightGCN', 'id'),
        ('LightGCN', 'specific'),
        ('LightGCN', 'recommended'),
    ]
    assert [len(own[0]['tried']) for own in rows.values()] == [1, 2, 2, 2, 2]
    assert [row['num_parameters'] for row in rows['ItemKNN', 'none']] == [0, 0]
    for result in results(tmp_path).values():
        if result['model'] == 'Popularity':
            assert result['test'].keys() == result['popularity'].keys()
            assert result['test'] == result['popularity']
        if result['items'] == 'none':
            assert result['epochs'] == 1
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / 'runs').glob('*/result.json')}
    assert start(shop, tmp_path, 'backbones', *flags) == 0  # Nothing is repeated.
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())


def test_a_backbone_of_another_package(shop, tmp_path, monkeypatch):
    (tmp_path / 'elsewhere.py').write_text(
        'from motor_geo.nn.models import LightGCN\n\n\nclass Mine(LightGCN):\n    pass\n'
    )
    monkeypatch.syspath_prepend(tmp_path)
    flags = ('--models', 'elsewhere.Mine', 'LightGCN', '--seeds', '0')
    assert start(shop, tmp_path / 'out', 'table3', *flags) == 0
    rows = read_runs(str(tmp_path / 'out' / 'table3.jsonl'))
    found = {tuple(row['label'][1:]): row for row in rows}
    assert list(found) == [(m, i) for m in ('Mine', 'LightGCN') for i in ('id', 'specific')]
    assert [len(row['tried']) for row in found.values()] == [1, 1, 3, 3]


def test_names_of_data_sets_may_hold_anything(shop, tmp_path):
    folder = tmp_path / 'my.shop (2)'
    folder.mkdir()
    for path in Path(shop).iterdir():
        name = f'{folder.name}.inter' if path.suffix == '.inter' else path.name
        (folder / name).write_bytes(path.read_bytes())
    flags = ('--models', 'LightGCN', '--seeds', '0', '--effort', '1')
    assert start(str(folder), tmp_path / 'out', 'table3', *flags) == 0
    names = {path.name for path in (tmp_path / 'out').glob('*.svg')}
    assert 'figure3-my-shop-2--LightGCN-recall.svg' in names


def test_a_log_of_before_is_not_read(shop, tmp_path, capsys):
    (tmp_path / 'runs.log').write_text('{"op_code": 0')
    flags = ('--models', 'LightGCN', '--seeds', '0', '--effort', '1')
    assert start(shop, tmp_path, 'table2', *flags) == 0
    assert "runs.log' is from an earlier version and is ignored" in capsys.readouterr().err


def test_no_optuna_is_needed(shop, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, 'optuna', None)
    flags = ('--models', 'LightGCN', '--seeds', '0', '--effort', '1')
    assert start(shop, tmp_path, 'table2', *flags) == 0
    monkeypatch.setitem(sys.modules, 'matplotlib', None)
    assert start(shop, tmp_path / 'out', 'table2', *flags) == 2
    assert "matplotlib (extra 'reproduce'): pip install " in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()
