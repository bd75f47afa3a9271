import json

import numpy as np
import pytest

from motor_geo.experiments.significance import paired_tests
from motor_geo.experiments.user_values import (
    compare,
    load_user_values,
    recompute,
    reference_of,
    save_user_values,
    user_means,
)

pytest.importorskip('scipy')
METRICS = ('recall@20', 'ndcg@20')


def seeds(shift=0.0, users=300, start=0):
    rng = np.random.default_rng(int(100 * shift) + start)
    values = [{m: rng.random(users, dtype=np.float32) + shift for m in METRICS} for _ in range(3)]
    return [{'user': np.arange(start, start + users), 'rank': np.zeros(5), **v} for v in values]


@pytest.fixture
def values():
    runs = {
        ('a', 'BPR', 'id'): seeds(),
        ('a', 'BPR', 'mean'): seeds(0.02),
        ('a', 'VBPR', 'id'): seeds(0.04),
        ('a', 'VBPR', 'mean'): seeds(0.06),
        ('b', 'BPR', 'id'): seeds(start=7),
        ('b', 'BPR', 'mean'): [],
        ('b', 'VBPR', 'mean'): seeds(0.08),
    }
    return {label: user_means(own, METRICS) for label, own in runs.items()}


def test_means_over_seeds_are_in_half_precision():
    runs = [
        {'user': np.array([3, 5]), 'recall@20': np.array(v, np.float32)}
        for v in ([0, 0.5], [1, 0.25])
    ]
    found = user_means(runs, ['recall@20'])
    assert found['user'].tolist() == [3, 5] and found['recall@20'].tolist() == [0.5, 0.375]
    assert found['recall@20'].dtype == np.float16
    assert user_means([], METRICS) == {}


def test_compare_is_a_test_of_all_pairs_at_once(values):
    pairs = {
        (label, metric): (values[label][metric], values[(*label[:2], 'id')][metric])
        for label in [('a', 'BPR', 'mean'), ('a', 'VBPR', 'mean')]
        for metric in METRICS
    }
    assert compare(values, (2, 'id')) == paired_tests(pairs)
    assert compare(values, None) == {}


def test_other_users_are_not_compared(values):
    values['a', 'BPR', 'mean'] = user_means(seeds(0.02, start=1), METRICS)
    assert {label for label, _ in compare(values, (2, 'id'))} == {('a', 'VBPR', 'mean')}


def test_half_precision_changes_little():
    runs = {'id': seeds(users=2000), 'mean': seeds(0.02, users=2000)}
    exact = {
        name: np.mean([run['recall@20'] for run in own], axis=0, dtype=np.float64)
        for name, own in runs.items()
    }
    half = {name: user_means(own, METRICS)['recall@20'] for name, own in runs.items()}
    tests = paired_tests({0: (exact['mean'], exact['id'])})[0]
    again = paired_tests({0: (half['mean'], half['id'])})[0]
    assert tests.p_wilcoxon < 0.05
    assert again.p_wilcoxon == pytest.approx(tests.p_wilcoxon, rel=0.02)
    assert again.difference == pytest.approx(tests.difference, rel=1e-3)


def test_p_values_are_recomputed_to_the_digit(values, tmp_path):
    path = str(tmp_path / 'a.npz')
    assert save_user_values(path, values, (2, 'id'))
    assert recompute(path) == compare(values, (2, 'id')) != {}
    kept, reference = load_user_values(path)
    assert reference == (2, 'id')
    assert list(kept) == [(data, model, items) for data, model, items in values if data == 'a']
    for label, own in kept.items():
        for key, array in own.items():
            np.testing.assert_array_equal(array, values[label][key])
    with np.load(path, allow_pickle=False) as file:
        assert sum(name.startswith('user') for name in file) == 1  # Equal ones are kept once.


def test_nothing_is_kept_where_nothing_is_compared(values, tmp_path):
    assert not save_user_values(str(tmp_path / 'a.npz'), values, None)
    assert not save_user_values(str(tmp_path / 'a.npz'), values, (2, 'none'))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('head', [None, '{', '[]', json.dumps({'reference': None, 'methods': []})])
def test_other_files_are_named(tmp_path, head):
    path = str(tmp_path / 'a.npz')
    np.savez(path, **({} if head is None else {'head': np.array(head)}), x=np.zeros(2))
    with pytest.raises(ValueError, match="a.npz': expected the user values"):
        recompute(path)


def test_reference_of():
    labels = [('a', 'id'), ('a', 'mean'), ('b', 'mean')]
    assert [reference_of(x, (1, 'id'), labels) for x in labels] == [None, ('a', 'id'), None]
