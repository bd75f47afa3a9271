import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from motor_geo import run as run_module
from motor_geo.experiments.command import prepare
from motor_geo.experiments.user_values import recompute
from motor_geo.report.document import Value
from motor_geo.report.write import read, read_runs
from motor_geo.reproduce import main
from tests.shop import SMALL, make_shop, results, start

pytest.importorskip('matplotlib')
pytest.importorskip('scipy')

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope='module')
def shop(tmp_path_factory):
    return make_shop(tmp_path_factory.mktemp('data'))


def test_commands_repeat_their_runs(shop, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert start(shop, 'out', 'controls', '--seeds', '0', '--effort', '1') == 0
    rows = read_runs('out/controls.jsonl')
    row = next(row for row in rows if row['label'][2].startswith('full + behavior, mlp_gain'))
    words = shlex.split(row['command'])
    assert words[:3] == ['python', '-m', 'motor_geo.run']
    words[words.index('--out') + 1] = 'again'
    assert run_module.main([*words[3:], '--trainer.progress', 'false']) == 0
    again = json.loads(Path('again/result.json').read_text())
    first = json.loads(Path('out', 'runs', row['run'], 'result.json').read_text())
    assert again['test'] == first['test'] and again['seed'] == row['seed']
    assert row['test'] == pytest.approx(first['test'], rel=1e-5)


def test_p_values_are_those_of_the_values_beside_the_report(shop, tmp_path):
    flags = ('--seeds', '0', '1', '--effort', '1', '--models', 'BPR', 'VBPR')
    assert start(shop, tmp_path, 'table2', *flags) == 0
    tests = recompute(str(tmp_path / 'table2.npz'))
    table = read(str(tmp_path / 'table2.jsonl')).blocks[0]
    found = {
        (('shop', *row.label), column.name.lower()): cell.p
        for row in table.rows
        for column, cell in zip(table.columns, row.cells)
        if isinstance(cell, Value) and cell.p is not None
    }
    assert len(found) == 12
    assert found == {
        key: pytest.approx(test.corrected_wilcoxon, rel=1e-5) for key, test in tests.items()
    }


def test_render(shop, tmp_path, capsys):
    assert start(shop, tmp_path, 'table1') == 0
    assert main(['--render', str(tmp_path), '--out', str(tmp_path / 'pages')]) == 0
    pages = {path.name: path.read_bytes() for path in (tmp_path / 'pages').iterdir()}
    assert set(pages) == {'table1.md', 'table1.tex', 'table1.html'}
    assert all((tmp_path / name).read_bytes() == text for name, text in pages.items())
    for arguments, message in [
        (['--render', str(tmp_path / 'pages')], 'expected a stored report (NAME.jsonl)'),
        (
            ['--render', str(tmp_path), 'table2'],
            "expected no option other than --out, got 'table2'",
        ),
        (['--render', str(tmp_path / 'none')], 'none'),
        ([], 'Expected the NAME of an experiment, or --render FOLDER'),
    ]:
        capsys.readouterr()
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert message in error and error.count('\n') == 1


@pytest.mark.parametrize(
    'name', ['table1', 'table3', 'table4', 'figure4', 'figure5', 'figure6', 'lirdrec-figure4']
)
def test_reports(shop, tmp_path, name):
    flags = ('--seeds', '0', '--effort', '1', '--models', 'LightGCN', 'FREEDOM')
    assert start(shop, tmp_path, name, *flags) == 0
    text = (tmp_path / f'{name}.html').read_text()
    assert '<b>Thing' not in text and ('&lt;b&gt;Thing' in text) == (name == 'figure5')
    assert ('<svg' in text) == (name not in ('table1', 'table4', 'figure5'))


def test_reports_side_by_side(shop, tmp_path):
    flags = ['--models', 'LightGCN', '--seeds', '0', '--effort', '1']
    assert start(shop, tmp_path, 'table3', *flags) == 0
    first = {path.name: path.read_bytes() for path in tmp_path.glob('*.*')}
    figures = {name for name in first if name.endswith('.svg')}
    flags = [*flags, '--trainer.epochs', '1', '--report', 'short']
    assert start(shop, tmp_path, 'table3', *flags) == 0
    second = {path.name for path in tmp_path.glob('*.*')} - set(first)
    assert second == {
        *(f'short.{kind}' for kind in ('md', 'tex', 'html', 'jsonl', 'npz')),
        *(f'short-{name}' for name in figures),
    }
    text = (tmp_path / 'short.md').read_text()
    assert text.startswith('# short: Items by') and all(
        f'(short-{name})' in text for name in figures
    )
    for name, content in first.items():
        assert (tmp_path / name).read_bytes() == content


def test_two_processes_share_a_list(shop, tmp_path):
    flags = ('--models', 'LightGCN', 'BPR', '--seeds', '0', '1', '--effort', '1', '--jobs', '2')
    assert start(shop, tmp_path, 'table2', *flags) == 0
    assert len(results(tmp_path)) == 16
    for path in (tmp_path / 'runs').glob('*/metrics.jsonl'):
        assert [json.loads(line)['epoch'] for line in path.open()] == [1, 2]


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


def test_a_grid_of_ones_own(shop, tmp_path):
    flags = ['--grid', 'model.reg_weight=1e-3,0.2', '--seeds', '0', '--out', str(tmp_path)]
    _, out = prepare(['table2', '--data', shop, '--models', 'LightGCN', *flags])
    for variant in out.variants:
        configs = [out.job(variant, setting, 0).config for setting in variant.settings]
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
        (['table2', '--models', 'BPR', 'BPR'], "--models: 'BPR' occurs twice"),
        (['table2', '--seeds', '0', '0'], '--seeds: expected distinct non-negative integers'),
        (['table2', '--effort', '0'], '--effort: expected at least 1'),
        (['table2', '--grid', 'model.reg_weight'], '--grid: expected OPTION=VALUE,VALUE'),
        (['table2', '--grid', 'model.reg_weight=0.1,'], '--grid: expected OPTION=VALUE,VALUE'),
        (
            ['table2', '--grid', 'model.reg_weight=1,2,3,4'],
            '--grid: 4 values, but --effort tries only 3',
        ),
        (['table2', '--grid', 'model.reg_wait=0.1'], "did you mean 'reg_weight'"),
        (
            ['table2', '--grid', 'model.reg_weight=1', '--model.reg_weight', '1'],
            '--grid: --model.reg_weight is already set for all runs',
        ),
        (['table2', '--seed', '1'], '--seed cannot be set for all runs'),
        (['table2', '--data', '/nowhere/at/all'], 'does not exist'),
        (['table2', '--trainer.epohcs', '3'], "did you mean 'epochs'"),
    ],
)
def test_mistakes_are_found_first(tmp_path, capsys, flags, message):
    assert main([*flags, '--out', str(tmp_path / 'out')]) == 2
    error = capsys.readouterr().err
    assert error.startswith('error: ') and message in error and error.count('\n') == 1
    assert not os.path.exists(tmp_path / 'out')
