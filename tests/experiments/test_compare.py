import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from scipy.stats import false_discovery_control, ttest_1samp, wilcoxon

from motor_geo.experiments.compare import compare, main
from motor_geo.pipeline.train import run
from motor_geo.utils.errors import ConfigError

METRICS = ('recall@10', 'ndcg@10', 'recall@20', 'ndcg@20')
RNG = np.random.default_rng(0)


def make_run(folder, model='BPR', items='id', seed=0, data='aaaa', mask=False, **options):
    r"""A finished run with random metrics."""
    folder.mkdir()
    values = {metric: RNG.random(30) for metric in METRICS}
    test = {metric: float(value.mean()) for metric, value in values.items()}
    result = {
        **{'data': f'shop {data}', 'model': model, 'items': items, 'seed': seed, 'seconds': 1.5},
        **{'best_epoch': 2, 'val': test, 'test': {**test, 'coverage@10': 0.5}},
        **{'hashes': {'data': data}, 'versions': {'torch': '1'}},
    }
    (folder / 'result.json').write_text(json.dumps(result))
    config = {'model': {'name': model, **options}, 'items': {'name': items}, 'seed': seed}
    config |= {'out': str(folder), 'logger': [str(seed)], 'mask_validation': mask}
    (folder / 'config.yaml').write_text(yaml.safe_dump(config))
    held_out = {'user': np.arange(30), 'ptr': np.arange(31), 'item': np.zeros(30, int)}
    np.savez(folder / 'per_user.npz', **values, **held_out)
    return str(folder)


@pytest.fixture
def runs(tmp_path):
    out = {f'a{seed}': make_run(tmp_path / f'a{seed}', seed=seed) for seed in range(3)}
    out |= {f'b{seed}': make_run(tmp_path / f'b{seed}', 'my.GNN', seed=seed) for seed in range(2)}
    out['c'] = make_run(tmp_path / 'c', 'my.GNN', depth=3)
    return out


def values(folder, metric):
    with np.load(Path(folder) / 'per_user.npz') as file:
        return file[metric]


def test_seeds_are_averaged_and_users_tested(runs):
    found = compare(list(runs.values()), ['recall@20', 'coverage@10'])
    labels = [method.label for method in found.methods]
    assert labels[0] == 'BPR id' and labels[2] == 'GNN id, depth 3'
    assert [len(method.runs) for method in found.methods] == [3, 2, 1]
    mean = {
        name: np.mean([values(runs[key], 'recall@20') for key in runs if key[0] == name], axis=0)
        for name in 'abc'
    }
    differences = [mean['b'] - mean['a'], mean['c'] - mean['a']]
    p = false_discovery_control([wilcoxon(d).pvalue for d in differences])
    t = false_discovery_control([ttest_1samp(d, 0).pvalue for d in differences])
    assert list(found.tests) == [(label, 'recall@20') for label in labels[1:]]
    for test, d, first, second in zip(found.tests.values(), differences, p, t):
        assert test.difference == pytest.approx(d.mean())
        assert test.corrected_wilcoxon == pytest.approx(first, rel=1e-4)
        assert test.corrected_t == pytest.approx(second, rel=1e-4) and test.n == 30


def test_files(runs, tmp_path, capsys):
    pytest.importorskip('matplotlib')
    files = {kind: str(tmp_path / f'out.{kind}') for kind in ('md', 'html', 'json', 'svg')}
    folders = [runs[key] for key in ('a0', 'a1', 'b0')]
    for kind in ('md', 'html', 'json'):
        assert main([*folders, '--out', files[kind], '--plot', files['svg']]) == 0
    text = capsys.readouterr().out
    both = [np.mean(values(folder, 'recall@10')) for folder in folders[:2]]
    cell = f'{np.mean(both):.4f} ± {np.std(both, ddof=1):.4f}'
    assert cell in text and cell in Path(files['md']).read_text()
    assert '<svg' in Path(files['html']).read_text() and '<svg' in Path(files['svg']).read_text()
    content = json.loads(Path(files['json']).read_text())
    first, second = content['methods']
    assert first['seeds'] == [0, 1] and first['runs'] == folders[:2] and first['tests'] == {}
    assert first['test']['recall@10']['mean'] == pytest.approx(np.mean(both))
    assert set(second['tests']) == set(METRICS)


def test_the_same_run_twice_is_two_methods(runs, tmp_path):
    other = make_run(tmp_path / 'again')
    found = compare([runs['a0'], other, runs['a1']])
    assert [method.label for method in found.methods] == [
        f'BPR id ({runs["a0"]})',
        f'BPR id ({other})',
    ]
    assert [len(method.runs) for method in found.methods] == [2, 1]


@pytest.mark.parametrize(
    'change, message',
    [
        (
            {'data': 'bbbb'},
            "other' was trained on other data than '.*a0' .shop bbbb and shop aaaa.;",
        ),
        (
            {'mask': True},
            "other' and '.*a0' were evaluated differently .mask_validation.; expected",
        ),
    ],
)
def test_other_data(runs, tmp_path, change, message):
    with pytest.raises(ConfigError, match=message):
        compare([runs['a0'], make_run(tmp_path / 'other', **change)])


def test_mistakes(runs, tmp_path, capsys):
    (tmp_path / 'empty').mkdir()
    for arguments, message in [
        ([str(tmp_path / 'empty')], "empty' does not hold a finished run: it has no result"),
        ([runs['a0'], runs['a0']], "a0' occurs twice"),
        ([runs['a0'], '--metric', 'recal@10'], "not all runs have 'recal@10'; did you mean"),
        ([runs['a0'], '--out', 'x.txt'], '--out: expected a file .md or .html or .json, got'),
        ([runs['a0'], '--plot', 'x.png'], '--plot: expected a file .svg'),
    ]:
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert message in error and error.count('\n') == 1
    (tmp_path / 'c' / 'per_user.npz').write_bytes(b'x')
    with pytest.raises(ConfigError, match="c' is damaged"):
        compare([runs['a0'], runs['c']])


def test_runs_of_the_package(tmp_path):
    data = {'num_users': 60, 'num_items': 40, 'num_interactions': 400}
    small = {'data': data, 'items': {'name': 'id'}, 'trainer': {'epochs': 1, 'progress': False}}
    for name in ('BPR', 'LightGCN'):
        config = {**small, 'model': {'name': name, 'channels': 8}, 'out': str(tmp_path / name)}
        run(config, progress=False)
    found = compare([str(tmp_path / 'BPR'), str(tmp_path / 'LightGCN')])
    assert [method.label for method in found.methods] == ['BPR id', 'LightGCN id']
    assert found.metrics == list(METRICS) and len(found.tests) == 4
