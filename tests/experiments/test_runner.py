import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from motor_geo.experiments import runner as module
from motor_geo.pipeline import train as run_module
from motor_geo.pipeline.assemble import build_dataset
from motor_geo.report.write import read_runs
from motor_geo.reproduce import main, prepare
from tests.shop import NUM_ITEMS, SMALL, make_shop, results, start, table

pytest.importorskip('optuna')
pytest.importorskip('matplotlib')
pytest.importorskip('scipy')

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope='module')
def shop(tmp_path_factory):
    return make_shop(tmp_path_factory.mktemp('data'))


def test_settings_are_chosen_on_validation_and_trained_with_all_seeds(shop, tmp_path, capsys):
    flags = ('--models', 'LightGCN', '--seeds', '0', '1', '2', '--effort', '2')
    assert start(shop, tmp_path, 'table2', *flags) == 0
    found = results(tmp_path)
    assert len(found) == 3 * (2 + 2)  # Two settings with a seed, one of them with two more.
    configs = {
        name: yaml.safe_load((tmp_path / 'runs' / name / 'config.yaml').read_text())
        for name in found
    }
    rows = read_runs(str(tmp_path / 'table2.jsonl'))
    by_label = {}
    for row in rows:
        by_label.setdefault(tuple(row['label']), []).append(row)
    assert list(by_label) == [('shop', 'LightGCN', i) for i in ('id', 'specific', 'agnostic')]
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
    assert len(results(tmp_path)) == 24
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())


def test_shorter_runs_do_not_stand_for_longer_ones(shop, tmp_path):
    flags = ('--models', 'LightGCN', '--seeds', '0', '--effort', '1')
    for epochs in (2, 1):
        assert start(shop, tmp_path, 'table2', *flags, '--trainer.epochs', str(epochs)) == 0
        rows = read_runs(str(tmp_path / 'table2.jsonl'))
        assert [row['epochs'] for row in rows] == [epochs] * 3
    assert len(results(tmp_path)) == 6


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


@pytest.mark.skipif(sys.platform == 'win32', reason='POSIX signals')
def test_a_killed_process_leaves_nothing_to_repeat(shop, tmp_path):
    flags = ['--models', 'LightGCN', '--seeds', '0', '--effort', '1']
    flags += ['--out', str(tmp_path / 'out'), *SMALL, '--trainer.epochs', '150']
    flags += ['--trainer.patience', '150']
    command = [sys.executable, '-m', 'motor_geo.reproduce', 'table2', '--data', shop, *flags]
    process = subprocess.Popen(command, cwd=ROOT, stdout=-1, stderr=-1)
    runs, end = tmp_path / 'out' / 'runs', time.monotonic() + 60
    while not list(runs.glob('*/metrics.jsonl')) and time.monotonic() < end:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert len(results(tmp_path / 'out')) < 3
    assert main(['table2', '--data', shop, *flags]) == 0
    assert len(results(tmp_path / 'out')) == 3
    for path in runs.glob('*/metrics.jsonl'):
        assert [json.loads(line)['epoch'] for line in path.open()] == list(range(1, 151))


@pytest.mark.parametrize('share', [0.0, 1.0])
def test_progress_knows_what_is_left(shop, tmp_path, share):
    flags = ['--models', 'LightGCN', '--seeds', '0', '1', '--effort', '1', *SMALL]
    _, reproduction = prepare(['table2', '--data', shop, '--out', str(tmp_path), *flags])
    if share:
        assert reproduction.work(progress=False)
    ready, left, total = reproduction.open()
    assert (left, total) == (6 * (1 - share), 6)
    assert (reproduction.remaining(ready, left, 1) == '') and bool(ready) != bool(share)


def test_what_a_contender_cannot_do_does_not_end_the_others(shop, tmp_path, monkeypatch):
    def fail(config, progress):
        if config['items']['name'] == 'id':
            raise FloatingPointError('The loss is NaN')
        return run_module.run(config, progress)

    monkeypatch.setattr(module, 'run', fail)
    flags = ('--models', 'LightGCN', '--seeds', '0', '1', '--effort', '1')
    assert start(shop, tmp_path, 'table2', *flags) == 0
    assert len(results(tmp_path)) == 4
    text = (tmp_path / 'table2.md').read_text()
    assert 'failed: The loss is NaN' in text and '| LightGCN | id | – |' in text

    monkeypatch.setattr(module, 'run', run_module.run)
    assert start(shop, tmp_path, 'table2', *flags) == 0
    assert len(results(tmp_path)) == 4  # Failed runs stay so, unless one asks for them.
    assert start(shop, tmp_path, 'table2', *flags, '--retry') == 0
    assert len(results(tmp_path)) == 6
    assert 'failed' not in (tmp_path / 'table2.md').read_text()
