import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from motor_geo import reproduce as module
from motor_geo import run as run_module
from motor_geo.build import build_dataset
from motor_geo.reproduce import main, prepare

pytest.importorskip('optuna')
pytest.importorskip('matplotlib')
pytest.importorskip('scipy')

ROOT = Path(__file__).parents[1]
NUM_USERS, NUM_ITEMS = 80, 60
SMALL = [
    *('--trainer.epochs', '2', '--model.channels', '8', '--tokenizer.codebook_size', '8'),
    *('--svd.channels', '8', '--graph.k', '4', '--threads', '1'),
    *('--tokenizer.cache', 'false', '--graph.cache', 'false'),
]


@pytest.fixture(scope='module')
def shop(tmp_path_factory):
    r"""A folder of kinds of items and of users who like one of them."""
    path = tmp_path_factory.mktemp('data') / 'shop'
    path.mkdir()
    rng = np.random.default_rng(0)
    kind = rng.integers(0, 4, NUM_ITEMS)
    for name, width in (('text', 8), ('image', 10)):
        x = rng.standard_normal((4, width))[kind] + rng.standard_normal((NUM_ITEMS, width)) / 4
        np.save(path / f'{name}_feat.npy', x.astype(np.float32))
    lines = []
    for user in range(NUM_USERS):
        weight = np.where(kind == rng.integers(4), 8.0, 1.0)
        items = rng.choice(NUM_ITEMS, 10, False, weight / weight.sum())
        lines += [f'{user}\t{item}\t{max(0, j - 7)}' for j, item in enumerate(items)]
    (path / 'shop.inter').write_text('\n'.join(['userID\titemID\tx_label', *lines]) + '\n')
    titles = [f'{i}\t<b>Thing</b> {i} of kind {k}' if i else '0\t' for i, k in enumerate(kind)]
    (path / 'items.tsv').write_text('\n'.join(['itemID\ttitle', *titles]) + '\n')
    return str(path)


def start(shop, out, name, *flags):
    return main([name, '--data', shop, '--out', str(out), *SMALL, *flags])


def results(out):
    paths = sorted((out / 'runs').glob('*/result.json'))
    return {path.parent.name: json.loads(path.read_text()) for path in paths}


def table(path, title):
    r"""Cells of the first table below a heading of the Markdown report."""
    text = path.read_text().split(f'## {title}')[1]
    lines = [line for line in text.split('\n') if line.startswith('|')]
    rows = [[cell.strip() for cell in line.strip('|').split(' | ')] for line in lines]
    stop = next((i for i, row in enumerate(rows) if i > 2 and len(row) != len(rows[0])), None)
    return rows[0], rows[2:stop]


def test_settings_are_chosen_on_validation_and_trained_with_all_seeds(shop, tmp_path, capsys):
    flags = ('--models', 'LightGCN', '--seeds', '0', '1', '2', '--effort', '2')
    assert start(shop, tmp_path, 'table2', *flags) == 0
    found = results(tmp_path)
    assert len(found) == 3 * (2 + 2)  # Two settings with a seed, one of them with two more.
    configs = {
        name: yaml.safe_load((tmp_path / 'runs' / name / 'config.yaml').read_text())
        for name in found
    }
    rows = [json.loads(line) for line in (tmp_path / 'table2.jsonl').open()]
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
        rows = [json.loads(line) for line in (tmp_path / 'table2.jsonl').open()]
        assert [row['epochs'] for row in rows] == [epochs] * 3
    assert len(results(tmp_path)) == 6


def test_commands_repeat_their_runs(shop, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert start(shop, 'out', 'controls', '--seeds', '0', '--effort', '1') == 0
    rows = [json.loads(line) for line in open('out/controls.jsonl')]
    row = next(row for row in rows if row['label'][2].startswith('full + behavior, mlp_gain'))
    words = shlex.split(row['command'])
    assert words[:3] == ['python', '-m', 'motor_geo.run']
    words[words.index('--out') + 1] = 'again'
    assert run_module.main([*words[3:], '--trainer.progress', 'false']) == 0
    again = json.loads(Path('again/result.json').read_text())
    assert again['test'] == row['test'] and again['seed'] == row['seed']


@pytest.mark.parametrize(
    'name', ['table1', 'table3', 'table4', 'figure4', 'figure5', 'figure6', 'lirdrec-figure4']
)
def test_reports(shop, tmp_path, name):
    flags = ('--seeds', '0', '--effort', '1', '--models', 'LightGCN', 'FREEDOM')
    assert start(shop, tmp_path, name, *flags) == 0
    text = (tmp_path / f'{name}.html').read_text()
    assert '<b>Thing' not in text and ('&lt;b&gt;Thing' in text) == (name == 'figure5')
    assert ('<svg' in text) == (name not in ('table1', 'table4', 'figure5'))


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


def test_reports_side_by_side(shop, tmp_path):
    flags = ['--models', 'LightGCN', '--seeds', '0', '--effort', '1']
    assert start(shop, tmp_path, 'table3', *flags) == 0
    first = {path.name: path.read_bytes() for path in tmp_path.glob('*.*')}
    figures = {name for name in first if name.endswith('.svg')}
    flags = [*flags, '--trainer.epochs', '1', '--report', 'short']
    assert start(shop, tmp_path, 'table3', *flags) == 0
    second = {path.name for path in tmp_path.glob('*.*')} - set(first)
    assert {name for name in second if 'log' not in name} == {
        *(f'short.{kind}' for kind in ('md', 'tex', 'html', 'jsonl')),
        *(f'short-{name}' for name in figures),
    }
    text = (tmp_path / 'short.md').read_text()
    assert text.startswith('# short: Items by') and all(
        f'(short-{name})' in text for name in figures
    )
    for name, content in first.items():
        assert 'log' in name or (tmp_path / name).read_bytes() == content


def test_thinner_data_has_fewer_interactions(shop, tmp_path):
    flags = ('--seeds', '0', '--effort', '1', '--budget', '0')
    assert start(shop, tmp_path, 'sparsity', *flags) == 0
    rest = ['--effort', '1', '--out', str(tmp_path), *SMALL]
    _, reproduction = prepare(['sparsity', '--data', shop, *rest])
    jobs, left, total = reproduction.open()
    assert (len(jobs), left, total) == (28, 28 + 56, 28 + 56)  # Nothing ran in no time.
    assert 'Of 28 runs, 28 are not finished' in (tmp_path / 'sparsity.md').read_text()
    sizes = {
        job.options['data.train_share']: build_dataset(job.config).summary()['train']
        for job in jobs
    }
    assert sizes == {1.0: 640, 0.5: 320, 0.25: 160, 0.1: 64}


def test_two_processes_share_a_list(shop, tmp_path):
    flags = ('--models', 'LightGCN', 'BPR', '--seeds', '0', '1', '--effort', '1', '--jobs', '2')
    assert start(shop, tmp_path, 'table2', *flags) == 0
    assert len(results(tmp_path)) == 12
    for path in (tmp_path / 'runs').glob('*/metrics.jsonl'):
        assert [json.loads(line)['epoch'] for line in path.open()] == [1, 2]


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


@pytest.mark.skipif(sys.platform == 'win32', reason='POSIX signals')
def test_workers_end_with_the_process_that_started_them(shop, tmp_path):
    psutil = pytest.importorskip('psutil')
    flags = ['--out', str(tmp_path), '--jobs', '2', '--effort', '1', *SMALL]
    command = [sys.executable, '-m', 'motor_geo.reproduce', 'sparsity', '--data', shop, *flags]
    process = subprocess.Popen(command, cwd=ROOT, stdout=-1, stderr=-1)
    children, end = [], time.monotonic() + 60
    while not (results(tmp_path) and len(children) >= 2) and time.monotonic() < end:
        time.sleep(0.05)
        children = psutil.Process(process.pid).children()  # A worker, and a tracker of it.
    process.kill()
    process.communicate()
    assert not psutil.wait_procs(children, timeout=30)[1]
    assert 0 < len(results(tmp_path)) < 28  # Of 28 runs with the first seed.


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


def test_a_grid_of_ones_own(shop, tmp_path):
    flags = ['--grid', 'model.reg_weight=1e-3,0.2', '--seeds', '0', '--out', str(tmp_path)]
    _, out = prepare(['table2', '--data', shop, '--models', 'LightGCN', *flags])
    for contender in out.contenders:
        configs = [out.job(contender, setting, 0).config for setting in contender.settings]
        assert [config['model']['reg_weight'] for config in configs] == [0.001, 0.2]


@pytest.mark.parametrize(
    'flags, message',
    [
        (['tabel2'], "Unknown experiment 'tabel2'; did you mean 'table2'?"),
        (
            ['table2', '--report', 'a/b'],
            "--report: expected letters, digits, '_' and '-', got 'a/b'",
        ),
        (['table2', '--models', 'LightGNC'], "unknown model 'LightGNC'; did you mean 'LightGCN'"),
        (['table2', '--seeds', '0', '0'], '--seeds: expected different numbers'),
        (['table2', '--effort', '0'], '--effort: expected at least 1'),
        (['table2', '--grid', 'model.reg_weight'], '--grid: expected OPTION=VALUE,VALUE'),
        (['table2', '--grid', 'model.reg_weight=0.1,'], '--grid: expected OPTION=VALUE,VALUE'),
        (['table2', '--grid', 'model.reg_wait=0.1'], "did you mean 'reg_weight'"),
        (
            ['table2', '--grid', 'model.reg_weight=1', '--model.reg_weight', '1'],
            '--grid: --model.reg_weight is set for all runs',
        ),
        (['table2', '--seed', '1'], '--seed is no option of all runs'),
        (['table2', '--data', '/nowhere/at/all'], 'does not exist'),
        (['table2', '--trainer.epohcs', '3'], "did you mean 'epochs'"),
    ],
)
def test_mistakes_are_found_first(tmp_path, capsys, flags, message):
    assert main([*flags, '--out', str(tmp_path / 'out')]) == 2
    error = capsys.readouterr().err
    assert error.startswith('error: ') and message in error and error.count('\n') == 1
    assert not os.path.exists(tmp_path / 'out')
