import json
import math
import os.path as osp

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.metrics import (
    LinkPredAveragePopularity,
    LinkPredCoverage,
    LinkPredHitRatio,
    LinkPredMAP,
    LinkPredMetricCollection,
    LinkPredMRR,
    LinkPredNDCG,
    LinkPredPrecision,
    LinkPredRecall,
)

from motor_geo.engine.metrics import METRICS, find_metrics, list_metrics, ranking_metrics

GOLDEN = osp.join(osp.dirname(__file__), '..', 'golden', 'metrics')


def naive(hits, count, k):
    hits = [int(h) for h in hits[:k]]
    ideal = sum(1 / math.log2(r + 1) for r in range(1, min(k, count) + 1))
    precision = [sum(hits[: r + 1]) / (r + 1) for r in range(len(hits))]
    return {
        'recall': sum(hits) / count,
        'ndcg': sum(h / math.log2(r + 2) for r, h in enumerate(hits)) / ideal,
        'precision': sum(hits) / k,
        'map': sum(p * h for p, h in zip(precision, hits)) / min(k, count),
        'mrr': max([h / (r + 1) for r, h in enumerate(hits)], default=0.0),
        'hit': float(any(hits)),
    }


def test_ranking_metrics_by_hand():
    # Held-out sets of 1, 3 and 60 items.
    hits = torch.zeros(3, 50, dtype=torch.bool)
    hits[0, 1] = True
    hits[1, [0, 29]] = True
    hits[2, :50] = True
    out = ranking_metrics(hits, torch.tensor([1, 3, 60]), [20, 50])
    assert list(out) == [f'{name}@{k}' for name in METRICS for k in (20, 50)]
    assert all(value.dtype == torch.float64 for value in out.values())
    # The denominator of recall is not truncated, that of NDCG is.
    assert out['recall@20'].tolist() == pytest.approx([1, 1 / 3, 20 / 60])
    assert out['recall@50'].tolist() == pytest.approx([1, 2 / 3, 50 / 60])
    ideal = 1 + 1 / math.log2(3) + 1 / 2
    assert out['ndcg@20'].tolist() == pytest.approx([1 / math.log2(3), 1 / ideal, 1])
    dcg = 1 + 1 / math.log2(31)
    assert out['ndcg@50'].tolist() == pytest.approx([1 / math.log2(3), dcg / ideal, 1])
    assert out['precision@20'].tolist() == pytest.approx([1 / 20, 1 / 20, 1])
    assert out['map@50'].tolist() == pytest.approx([1 / 2, (1 + 2 / 30) / 3, 1])
    assert out['mrr@20'].tolist() == pytest.approx([1 / 2, 1, 1])
    assert out['hit@20'].tolist() == [1, 1, 1]


def test_ranking_metrics_golden():
    with open(f'{GOLDEN}.json') as file:
        values = json.load(file)['values']
    golden = np.load(f'{GOLDEN}.npz')
    ptr, items = golden['heldout_indptr'], golden['heldout_items']
    hits = np.stack(
        [np.isin(row, items[ptr[u] : ptr[u + 1]]) for u, row in enumerate(golden['top50'])]
    )
    ks = golden['cutoffs'].tolist()
    count = torch.from_numpy(np.diff(ptr))
    out = ranking_metrics(torch.from_numpy(hits), count, ks)
    for name in ('recall', 'ndcg', 'precision', 'map'):
        for i, k in enumerate(ks):
            value = out[f'{name}@{k}']
            np.testing.assert_allclose(value, golden[f'{name}_per_user'][:, i], atol=1e-12)
            assert float(value.mean()) == pytest.approx(values[name][str(k)], abs=1e-12)


def test_ranking_metrics_equal_pyg():
    generator = torch.Generator().manual_seed(0)
    pred = torch.rand(40, 100, generator=generator).argsort(1)[:, :20]
    label = (torch.rand(40, 100, generator=generator) < 0.1).nonzero().t()
    count = label[0].bincount(minlength=40)
    keep = count[label[0]] > 0
    assert keep.all() and (count > 0).all() and int(count.max()) > 10

    kinds = {
        'recall': LinkPredRecall,
        'ndcg': LinkPredNDCG,
        'precision': LinkPredPrecision,
        'map': LinkPredMAP,
        'mrr': LinkPredMRR,
        'hit': LinkPredHitRatio,
    }
    ks = (1, 5, 20)
    collection = LinkPredMetricCollection(
        {f'{name}@{k}': kinds[name](k) for name in METRICS for k in ks}
    )
    collection.update(pred, label)
    relevant = torch.zeros(40, 100, dtype=torch.bool)
    relevant[label[0], label[1]] = True
    out = ranking_metrics(relevant.gather(1, pred), count, ks)
    for name, value in collection.compute().items():
        assert float(out[name].mean()) == pytest.approx(float(value), abs=1e-6), name

    popularity = torch.randint(0, 50, (100,), generator=generator)
    out = list_metrics(pred, popularity, ks)
    for k in ks:
        coverage = LinkPredCoverage(k, 100)
        coverage.update(pred, label)
        assert float(out[f'coverage@{k}']) == pytest.approx(float(coverage.compute()))
        average = LinkPredAveragePopularity(k, popularity)
        average.update(pred, label)
        assert float(out[f'popularity@{k}']) == pytest.approx(float(average.compute()))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(0, 12))
def test_ranking_metrics_equal_loops(seed, num_users, width):
    rng = np.random.default_rng(seed)
    hits = rng.random((num_users, width)) < 0.4
    count = hits.sum(1) + rng.integers(0, 4, num_users)
    count = np.maximum(count, 1)
    ks = (1, 3, 7, 20)  # Beyond the width: what is not there is a miss.
    out = ranking_metrics(torch.from_numpy(hits), torch.from_numpy(count), ks)
    for k in ks:
        for user in range(num_users):
            for name, value in naive(hits[user], int(count[user]), k).items():
                result = float(out[f'{name}@{k}'][user])
                assert result == pytest.approx(value, abs=1e-12)
                assert 0.0 <= result <= 1.0 + 1e-12


def test_list_metrics_ignores_padding():
    pred = torch.tensor([[0, 1, -1], [2, -1, -1], [-1, -1, -1]])
    out = list_metrics(pred, torch.tensor([1, 3, 5, 7]), [1, 3], num_items=5)
    assert float(out['coverage@1']) == pytest.approx(2 / 5)
    assert float(out['coverage@3']) == pytest.approx(3 / 5)
    assert float(out['popularity@1']) == pytest.approx((1 + 5) / 2)
    assert float(out['popularity@3']) == pytest.approx((2 + 5) / 2)
    assert float(list_metrics(pred, torch.ones(4), [1])['coverage@1']) == 2 / 4


def test_ranking_metrics_selection_and_errors():
    hits, count = torch.ones(2, 3, dtype=torch.bool), torch.tensor([3, 3])
    assert list(ranking_metrics(hits, count, [2], ['ndcg'])) == ['ndcg@2']
    assert float(ranking_metrics(hits, torch.tensor([0, 3]), [3])['recall@3'][1]) == 1.0
    with pytest.raises(ValueError, match="Unknown metric 'auc'; expected one of recall, ndcg"):
        ranking_metrics(hits, count, [2], ['auc'])
    with pytest.raises(ValueError, match='positive integers'):
        ranking_metrics(hits, count, [0])
    with pytest.raises(ValueError, match='positive integers'):
        list_metrics(hits.long(), count, [])


def first_rank(hits, count, k):
    r"""One over the rank of the first hit, or zero."""
    rank = torch.arange(1, hits.size(1) + 1)
    return torch.where(hits.any(1), 1.0 / (hits.argmax(1) + 1), 0.0) * (rank[-1] <= k)


def found(hits, count, k):
    assert hits.size(1) <= k
    return hits.sum(1) / count


def too_many(hits, count, k):
    return hits


def broken(hits, count, k):
    return hits.no_such_thing


def recall(hits, count, k):
    return found(hits, count, k)


def test_functions_are_metrics():
    generator = torch.Generator().manual_seed(0)
    hits = torch.rand(40, 10, generator=generator) < 0.2
    count = hits.sum(1) + 1
    out = ranking_metrics(hits, count, (3, 10, 20), ['ndcg', first_rank, 'mrr', 'recall', found])
    assert list(out)[3:6] == ['first_rank@3', 'first_rank@10', 'first_rank@20']
    for k in (3, 10, 20):
        assert torch.equal(out[f'found@{k}'], out[f'recall@{k}'])
        assert out[f'found@{k}'].dtype == torch.float64
    for k in (3, 10):
        torch.testing.assert_close(out[f'first_rank@{k}'], out[f'mrr@{k}'], atol=1e-6, rtol=1e-6)


def test_import_paths_are_metrics():
    assert find_metrics(['recall', f'{__name__}.found']) == ('recall', found)
    assert find_metrics('recall') == ('recall',) and find_metrics(found) == (found,)


@pytest.mark.parametrize(
    'metrics, message',
    [
        ([f'{__name__}.fuond'], "no 'fuond'; did you mean 'found'"),
        (['no_such.metric'], "The metric 'no_such.metric' cannot be imported: there is no module"),
        ([f'{__name__}.torch'], 'is a module; expected a function'),
        (['json.JSONDecoder'], 'is a class; expected a function'),
        ([recall], "There are two metrics with the name 'recall'"),
        ([found, found], "There are two metrics with the name 'found'"),
        (
            [too_many],
            r"The metric 'too_many' must return a value for every user, \[1\], got \[1, 2",
        ),
        ([broken], "The metric 'broken' cannot be computed: AttributeError"),
        (['auc'], "Unknown metric 'auc'"),
    ],
)
def test_errors_of_functions(metrics, message):
    with pytest.raises(ValueError, match=message):
        ranking_metrics(torch.zeros(1, 2), torch.ones(1).long(), [2], find_metrics(metrics))
