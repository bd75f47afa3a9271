import json
import math
import os.path as osp

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from motor_geo.engine.evaluator import (
    Evaluator,
    age_groups,
    item_groups,
    popularity_embeddings,
    slice_metrics,
    warm_and_unseen,
)
from motor_geo.typing import Embeddings, EvalTargets

GOLDEN = osp.join(osp.dirname(__file__), '..', 'golden', 'metrics')
DATA = osp.join(osp.dirname(__file__), '..', '..', '..', 'shared', 'data')


def from_scores(scores):
    r"""Embeddings whose inner products are :obj:`scores`."""
    scores = torch.as_tensor(scores, dtype=torch.float32)
    return Embeddings(scores, torch.eye(scores.size(1)))


def make_targets(user, item, candidates=None):
    candidates = None if candidates is None else np.array(candidates)
    return EvalTargets.from_pairs(np.array(user), np.array(item), candidates)


def edges(*pairs):
    return torch.tensor(pairs, dtype=torch.long).reshape(-1, 2).t()


def naive_metrics(scores, train, targets, k):
    r"""Python loops over users, as the definitions read."""
    recall, ndcg = [], []
    for user, held_out in targets.items():
        order = sorted(range(len(scores[user])), key=lambda i: -scores[user][i])
        order = [i for i in order if (user, i) not in train][:k]
        hits = [int(i in held_out) for i in order]
        ideal = sum(1 / math.log2(r + 2) for r in range(min(k, len(held_out))))
        recall.append(sum(hits) / len(held_out))
        ndcg.append(sum(h / math.log2(r + 2) for r, h in enumerate(hits)) / ideal)
    return np.mean(recall), np.mean(ndcg)


@pytest.mark.parametrize('batch_size', [None, 1, 7, 64])
def test_evaluator_golden(batch_size):
    with open(f'{GOLDEN}.json') as file:
        values = json.load(file)['values']
    golden = np.load(f'{GOLDEN}.npz')
    ptr, item = golden['heldout_indptr'], golden['heldout_items']
    targets = EvalTargets.from_pairs(np.arange(200).repeat(np.diff(ptr)), item)
    train = torch.from_numpy(np.stack(golden['train_mask'].nonzero()))
    evaluator = Evaluator(targets, train, num_items=300, batch_size=batch_size)
    assert str(evaluator) == 'Evaluator(200 users, 300 items, ks=[5, 10, 20, 50])'

    emb = from_scores(golden['scores'])
    for _ in range(2):  # What is kept between evaluations stays intact.
        result = evaluator.evaluate(emb, return_pred=True)
        np.testing.assert_array_equal(result.pred, golden['top50'])
        for name in ('recall', 'ndcg', 'precision', 'map'):
            for i, k in enumerate(golden['cutoffs'].tolist()):
                assert result.metrics[f'{name}@{k}'] == pytest.approx(values[name][str(k)])
                value = result.per_user[f'{name}@{k}']
                np.testing.assert_allclose(value, golden[f'{name}_per_user'][:, i], atol=1e-12)
    assert evaluator.evaluate(emb).pred is None


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 9), st.integers(1, 12), st.integers(1, 4))
def test_evaluator_equals_loops(seed, num_users, num_items, batch_size):
    rng = np.random.default_rng(seed)
    scores = rng.permutation(num_users * num_items).reshape(num_users, num_items)
    label = rng.integers(0, 3, scores.shape)  # 0: train, 1: held out, 2: nothing.
    train = set(zip(*(index.tolist() for index in (label == 0).nonzero())))
    user, item = (label == 1).nonzero()
    if len(user) == 0:
        return
    held_out = {u: set(item[user == u].tolist()) for u in np.unique(user).tolist()}
    evaluator = Evaluator(
        EvalTargets.from_pairs(user, item),
        edges(*train),
        num_items,
        ks=(1, 3, 50),
        batch_size=batch_size,
    )
    result = evaluator.evaluate(from_scores(scores), return_pred=True)
    assert result.user.tolist() == list(held_out)
    for k in (1, 3, 50):
        recall, ndcg = naive_metrics(scores, train, held_out, k)
        assert result.metrics[f'recall@{k}'] == pytest.approx(recall, abs=1e-9)
        assert result.metrics[f'ndcg@{k}'] == pytest.approx(ndcg, abs=1e-9)
    for position, row in enumerate(result.pred.tolist()):
        allowed = (label[list(held_out)[position]] != 0).sum()
        assert sum(entry >= 0 for entry in row) == allowed
    assert result.metrics['recall@50'] == 1.0  # Everything allowed is in the list.


def test_evaluator_masked_items_are_no_hits():
    # Items 0 and 2 of user 0 are training items; 2 is held out as well.
    targets = make_targets([0, 0, 1], [1, 2, 2])
    evaluator = Evaluator(targets, edges((0, 0), (0, 2)), num_items=3, ks=(1, 3))
    emb = from_scores([[3.0, 1.0, 2.0], [1.0, 2.0, 3.0]])
    result = evaluator.evaluate(emb, return_pred=True)
    assert result.pred.tolist() == [[1, -1, -1], [2, 1, 0]]
    assert result.per_user['recall@3'].tolist() == [0.5, 1.0]
    assert result.rank.tolist() == [0, 3, 0]
    assert result.metrics['coverage@1'] == pytest.approx(2 / 3)
    # Item counts 1, 0, 1: user 0 sees item 1, user 1 all of them.
    assert result.metrics['popularity@3'] == pytest.approx((0 + 2 / 3) / 2)


def test_evaluator_padding_is_no_hit():
    # An empty entry of row 1 next to the last item of row 0 (both keys would be 2).
    targets = make_targets([0, 1], [2, 0])
    evaluator = Evaluator(targets, edges((1, 1), (1, 2), (0, 2)), num_items=3, ks=(3,))
    result = evaluator.evaluate(from_scores(torch.zeros(2, 3)))
    assert result.per_user['recall@3'].tolist() == [0.0, 1.0]


def test_evaluator_exclude():
    targets, val = make_targets([1], [2]), make_targets([0, 1, 1], [2, 0, 1])
    emb = from_scores([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]])
    train = edges((0, 0))
    result = Evaluator(targets, train, 3, ks=(1,)).evaluate(emb)
    assert result.metrics['recall@1'] == 0.0  # Validation items are ranked by default.
    result = Evaluator(targets, train, 3, ks=(1,), exclude=val).evaluate(emb)
    assert result.metrics['recall@1'] == 1.0
    assert result.metrics['popularity@1'] == 0.0  # Not a training interaction.


def test_evaluator_candidates():
    # Cold items 4 and 2 only, in this order; the best warm item is not ranked.
    targets = make_targets([0, 1], [2, 4], candidates=[4, 2])
    train = edges((0, 0), (1, 1), (1, 2))
    evaluator = Evaluator(targets, train, 5, ks=(1, 10), batch_size=1)
    emb = from_scores([[9.0, 9.0, 1.0, 9.0, 2.0], [9.0, 9.0, 9.0, 9.0, 1.0]])
    result = evaluator.evaluate(emb, return_pred=True)
    assert result.pred.tolist() == [[4, 2], [4, -1]]
    assert result.per_user['recall@1'].tolist() == [0.0, 1.0]
    assert result.per_user['recall@10'].tolist() == [1.0, 1.0]
    assert result.per_user['precision@10'].tolist() == [0.1, 0.1]
    assert result.per_user['ndcg@10'].tolist() == pytest.approx([1 / math.log2(3), 1.0])
    assert result.metrics['coverage@1'] == 0.5  # Of the candidates.


def test_evaluator_few_items_miss_is_no_hit():
    # The lists are shorter than the cut-off; a miss must stay a miss in slices.
    targets = make_targets([0, 0], [0, 1])
    result = Evaluator(targets, edges((0, 0)), num_items=2, ks=(5,)).evaluate(
        from_scores([[2.0, 1.0]])
    )
    assert result.rank.tolist() == [5, 0]
    assert result.metrics['recall@5'] == 0.5
    slices = result.slices()
    assert slices['tail']['recall@5'] == 0.0
    assert slices['cold']['recall@5'] == 1.0


def test_evaluator_metrics_selection():
    targets = make_targets([0], [1])
    result = Evaluator(targets, edges((0, 0)), 3, ks=[2], metrics=['ndcg']).evaluate(
        from_scores([[0.0, 1.0, 2.0]])
    )
    assert list(result.per_user) == ['ndcg@2']
    assert list(result.metrics) == ['ndcg@2', 'coverage@2', 'popularity@2']
    assert all(type(value) is float for value in result.metrics.values())


def test_evaluator_does_not_track_gradients():
    emb = from_scores([[0.0, 1.0, 2.0]])
    emb.user.requires_grad_()
    result = Evaluator(make_targets([0], [1]), edges((0, 0)), 3, ks=[2]).evaluate(emb)
    assert not result.per_user['recall@2'].requires_grad


def test_evaluator_errors():
    targets, train = make_targets([0, 2], [1, 2]), edges((0, 0))
    evaluator = Evaluator(targets, train, 3, ks=(2,), batch_size=1)
    scores = torch.ones(3, 3)
    scores[2, 1] = float('nan')
    with pytest.raises(ValueError, match='scores of user 2 hold NaN'):
        evaluator.evaluate(from_scores(scores))
    with pytest.raises(ValueError, match='2 users and 3 items, expected at least 3 users'):
        evaluator.evaluate(from_scores(torch.ones(2, 3)))
    with pytest.raises(ValueError, match='exactly 3 items'):
        evaluator.evaluate(from_scores(torch.ones(3, 4)))
    with pytest.raises(ValueError, match='no held-out interaction'):
        Evaluator(make_targets([], []), train, 3)
    empty = EvalTargets(torch.tensor([4]), torch.tensor([0, 0]), torch.tensor([]).long())
    with pytest.raises(ValueError, match="User 4 of 'targets' has no held-out item"):
        Evaluator(empty, train, 3)
    with pytest.raises(ValueError, match="'targets' holds item 2, expected indices from 0 to 1"):
        Evaluator(targets, train, 2)
    with pytest.raises(ValueError, match="'train_edge_index' holds item 5"):
        Evaluator(targets, edges((0, 5)), 3)
    with pytest.raises(ValueError, match='item 1 is not among the candidates'):
        Evaluator(make_targets([0, 2], [1, 2], candidates=[2]), train, 3)
    with pytest.raises(ValueError, match="'candidates' holds an item twice"):
        Evaluator(make_targets([0], [2], candidates=[2, 2]), train, 3)
    with pytest.raises(ValueError, match="Unknown metric 'auc'"):
        Evaluator(targets, train, 3, metrics=['auc'])
    with pytest.raises(ValueError, match='Cut-offs must be positive'):
        Evaluator(targets, train, 3, ks=())
    with pytest.raises(ValueError, match="'batch_size' must be at least 1, got 0"):
        Evaluator(targets, train, 3, batch_size=0)


def test_item_groups():
    # Ten warm items: the median (lower) is 5, the 80th percentile 8.
    count = torch.tensor([0, 10, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0])
    names, group = item_groups(count)
    assert names == ['cold', 'tail', 'middle', 'head']
    assert group.tolist() == [0, 3, 1, 1, 1, 1, 1, 2, 2, 2, 3, 0]
    # Equal counts stay together.
    assert item_groups(torch.tensor([4, 4, 4]))[1].tolist() == [1, 1, 1]
    assert item_groups(torch.tensor([0, 0]))[1].tolist() == [0, 0]

    count = torch.tensor([0, 1, 5, 6, 10, 11, 50, 51])
    names, group = item_groups(count, bounds=(0, 5, 10, 20, 50))
    assert names == ['0', '1-5', '6-10', '11-20', '21-50', '>50']
    assert group.tolist() == [0, 1, 1, 2, 2, 3, 4, 5]
    assert item_groups(count, bounds=(5, 10))[0] == ['0-5', '6-10', '>10']
    for bounds in ((), (5, 5), (-1, 3)):
        with pytest.raises(ValueError, match="'bounds' must be increasing"):
            item_groups(count, bounds)


def test_slices():
    # Item 0 has 3 training interactions, item 1 one, items 2 and 3 none.
    train = edges((2, 0), (3, 0), (4, 0), (2, 1))
    targets = make_targets([0, 0, 1], [0, 2, 1])
    emb = from_scores([[2.0, 1.0, 4.0, 3.0], [4.0, 3.0, 2.0, 1.0]])
    result = Evaluator(targets, train, 4, ks=(1, 3)).evaluate(emb)
    out = result.slices(bounds=(0, 1))
    assert list(out) == ['0', '1', '>1']
    # Ranks are positions among all items: item 2 first, item 0 third, item 1 second.
    assert result.rank.tolist() == [2, 0, 1]
    assert out['0'] == {
        'items': 2,
        'interactions': 1,
        'users': 1,
        'recall@1': 1.0,
        'recall@3': 1.0,
        'ndcg@1': 1.0,
        'ndcg@3': 1.0,
    }
    assert out['1']['recall@1'] == 0.0
    assert out['1']['ndcg@3'] == pytest.approx(1 / math.log2(3))
    assert out['>1']['ndcg@3'] == pytest.approx(1 / math.log2(4))
    # A group nobody holds out has no metrics.
    assert result.slices(bounds=(3,))['>3'] == {'items': 0, 'interactions': 0, 'users': 0}


def test_a_sample_of_users():
    rng = np.random.default_rng(0)
    pairs = np.unique(rng.integers(0, 30, (200, 2)), axis=0)
    targets = EvalTargets.from_pairs(*pairs.T)
    train = torch.empty(2, 0, dtype=torch.long)
    emb = Embeddings(torch.randn(30, 4), torch.randn(30, 4))
    whole = Evaluator(targets, train, 30, ks=5).evaluate(emb)
    part = Evaluator(targets, train, 30, ks=5, max_users=7).evaluate(emb)
    again = Evaluator(targets, train, 30, ks=5, max_users=7).evaluate(emb)
    assert part.user.numel() == 7 and part.metrics == again.metrics
    rows = torch.searchsorted(whole.user, part.user)
    for key, value in part.per_user.items():
        assert torch.equal(value, whole.per_user[key][rows])
    assert part.metrics['recall@5'] == pytest.approx(float(part.per_user['recall@5'].mean()))
    other = Evaluator(targets, train, 30, ks=5, max_users=7, seed=1)
    assert not torch.equal(other.targets.user, part.user)
    assert len(Evaluator(targets, train, 30, max_users=1000).targets) == len(targets)
    with pytest.raises(ValueError, match="'max_users' must be at least 1, got 0"):
        Evaluator(targets, train, 30, max_users=0)


def test_metrics_in_chunks_of_users(monkeypatch):
    rng = np.random.default_rng(0)
    train = torch.from_numpy(np.unique(rng.integers(0, 60, (2, 300)), axis=1))
    pairs = np.unique(rng.integers(0, 60, (200, 2)), axis=0)
    targets = EvalTargets.from_pairs(*pairs.T)
    emb = Embeddings(torch.randn(60, 4), torch.randn(60, 4))
    for ks in ((3, 10), (100,)):  # The last lists have fewer entries than the cut-off.
        evaluator = Evaluator(targets, train, 60, ks=ks, batch_size=4)
        whole = evaluator.evaluate(emb, return_pred=True)
        assert evaluator.evaluate(emb).metrics == whole.metrics
        with monkeypatch.context() as patch:
            patch.setattr('motor_geo.engine.evaluator.CHUNK', 7)
            part = evaluator.evaluate(emb, return_pred=True)
            assert torch.equal(part.pred, whole.pred) and torch.equal(part.rank, whole.rank)
            assert part.metrics == pytest.approx(whole.metrics, rel=1e-14)
            assert list(part.metrics) == list(whole.metrics)
            slices = part.slices()
            assert list(part.per_user) == list(whole.per_user)
            for key, value in part.per_user.items():
                assert torch.allclose(value, whole.per_user[key], rtol=1e-14, atol=0)
        for name, group in whole.slices().items():
            assert slices[name] == pytest.approx(group, rel=1e-14)


def test_groups_by_age():
    nan = float('nan')
    first = torch.tensor([5.0, nan, 1.0, 2.0, 9.0, 9.0, 7.0, 8.0, 3.0, 10.0, 4.0]).double()
    names, group = age_groups(first)
    assert names == ['unseen', 'newest', 'recent', 'oldest']
    # Sorted: 1 2 3 4 5 | 7 8 9 | 9 10, where the second 9 is as old as the first.
    assert group.tolist() == [3, 0, 3, 3, 2, 2, 2, 2, 3, 1, 3]
    assert age_groups(torch.full((3,), nan))[1].tolist() == [0, 0, 0]


def test_slices_by_age():
    train = edges((2, 0), (3, 0), (4, 0), (2, 1))
    targets = make_targets([0, 0, 1], [0, 2, 1])
    emb = from_scores([[2.0, 1.0, 4.0, 3.0], [4.0, 3.0, 2.0, 1.0]])
    result = Evaluator(targets, train, 4, ks=(1, 3)).evaluate(emb)
    nan = float('nan')
    out = result.ages(torch.tensor([1.0, 2.0, nan, nan]))
    assert {name: entry['items'] for name, entry in out.items()} == {
        'unseen': 2,
        'newest': 0,
        'recent': 1,
        'oldest': 1,
    }
    assert out['unseen']['recall@1'] == 1.0 and out['recent']['recall@1'] == 0.0
    assert out['oldest']['ndcg@3'] == pytest.approx(1 / math.log2(4))
    assert out['newest'] == {'items': 0, 'interactions': 0, 'users': 0}


def test_slices_of_one_group_are_the_metrics():
    generator = torch.Generator().manual_seed(0)
    emb = Embeddings(
        torch.randn(30, 4, generator=generator), torch.randn(40, 4, generator=generator)
    )
    pairs = (torch.rand(30, 40, generator=generator) < 0.2).nonzero().numpy()
    result = Evaluator(EvalTargets.from_pairs(*pairs.T), edges(), 40).evaluate(emb)
    out = result.slices(bounds=(10,))
    assert out['0-10']['users'] == len(result.user)
    for key in ('recall@5', 'recall@20', 'ndcg@10', 'ndcg@50'):
        assert out['0-10'][key] == pytest.approx(result.metrics[key], abs=1e-12)


def test_popularity_embeddings():
    emb = popularity_embeddings(edges((0, 2), (1, 2), (1, 0)), num_users=3, num_items=4)
    assert emb.user.size() == (3, 1)
    scores = (emb.user @ emb.item.t())[2]
    assert scores.floor().tolist() == [1.0, 0.0, 2.0, 0.0]
    assert scores.unique().numel() == 4  # No ties are left to the order of items.


@pytest.mark.skipif(not osp.isdir(osp.join(DATA, 'lastfm')), reason='needs shared/data')
def test_evaluator_popularity_on_real_data():
    path = osp.join(DATA, 'lastfm', 'lastfm.inter')
    with open(path) as file:
        header = file.readline().split()
    columns = [header.index(name) for name in ('userID', 'itemID', 'x_label')]
    user, item, label = np.loadtxt(path, skiprows=1, usecols=columns, dtype=np.int64).T
    train = torch.from_numpy(np.stack([user, item])[:, label == 0])
    num_items = int(item.max()) + 1
    targets = EvalTargets.from_pairs(user[label == 2], item[label == 2])
    emb = popularity_embeddings(train, int(user.max()) + 1, num_items)
    # Break ties by index, on both sides.
    emb = Embeddings(emb.user, emb.item - torch.arange(num_items).view(-1, 1) / (2 * num_items))
    metrics = Evaluator(targets, train, num_items, ks=(20,)).evaluate(emb).metrics
    pairs = set(map(tuple, train.t().tolist()))
    held_out = {}
    for u, i in zip(user[label == 2].tolist(), item[label == 2].tolist()):
        held_out.setdefault(u, set()).add(i)
    order = emb.item.flatten().argsort(descending=True).tolist()
    recall = []
    for u, items in held_out.items():
        best = [i for i in order[:1000] if (u, i) not in pairs][:20]
        recall.append(len(items & set(best)) / len(items))
    assert metrics['recall@20'] == pytest.approx(np.mean(recall), abs=1e-9)
    assert 0.02 < metrics['recall@20'] < 0.5


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_evaluator_cuda():
    generator = torch.Generator().manual_seed(0)
    emb = from_scores(torch.rand(30, 70, generator=generator))
    pairs = (torch.rand(30, 70, generator=generator) < 0.1).nonzero()
    train = (torch.rand(30, 70, generator=generator) < 0.3).nonzero().t()
    evaluator = Evaluator(EvalTargets.from_pairs(*pairs.numpy().T), train, 70, batch_size=8)
    cpu = evaluator.evaluate(emb, return_pred=True)
    gpu = evaluator.evaluate(Embeddings(emb.user.cuda(), emb.item.cuda()), return_pred=True)
    assert torch.equal(cpu.pred, gpu.pred.cpu())
    assert cpu.metrics == pytest.approx(gpu.metrics)
    assert cpu.slices() == {key: pytest.approx(value) for key, value in gpu.slices().items()}
    assert evaluator.evaluate(emb).metrics == cpu.metrics  # And back.


def test_slices_from_stored_ranks():
    r"""As a function: ranks beyond the cut-off are misses."""
    targets = make_targets([0, 0, 1], [0, 2, 1])
    out = slice_metrics(
        torch.tensor([2, 0, 50], dtype=torch.int16), targets, torch.tensor([3, 1, 0, 0]), (3,), (0,)
    )
    assert out['0']['recall@3'] == 1.0 and out['>0']['recall@3'] == 0.5
    assert out['>0']['ndcg@3'] == pytest.approx(1 / math.log2(4) / 2)


def test_equal_scores_have_the_metrics_of_chance():
    r"""Whatever the numbers of the held-out items are: 20 of 100 items are
    drawn, five of which are held out.
    """
    num_users, train = 3000, edges()
    emb = Embeddings(torch.zeros(num_users, 2), torch.zeros(100, 2))
    user = np.arange(num_users).repeat(5)
    for first in (0, 40, 95):
        targets = EvalTargets.from_pairs(user, np.tile(np.arange(first, first + 5), num_users))
        result = Evaluator(targets, train, 100, ks=20).evaluate(emb)
        deviation = (0.2 * 0.8 / 5 * 95 / 99 / num_users) ** 0.5
        assert result.metrics['recall@20'] == pytest.approx(0.2, abs=5 * deviation)
        # Within the list, too, all places are as likely.
        ndcg = sum(1 / math.log2(r + 2) for r in range(20)) * 0.05
        ndcg /= sum(1 / math.log2(r + 2) for r in range(5))
        assert result.metrics['ndcg@20'] == pytest.approx(ndcg, rel=0.05)
        again = Evaluator(targets, train, 100, ks=20, batch_size=17).evaluate(emb)
        assert again.metrics == result.metrics


def test_pairs_that_occur_twice_count_once():
    emb = Embeddings(torch.ones(2, 1), torch.tensor([[0.0], [0.0], [9.0], [1.0], [8.0]]))
    targets = make_targets([1, 0, 0, 0, 1, 0], [3, 4, 2, 2, 3, 4])
    evaluator = Evaluator(targets, edges(), 5, ks=(2, 3))
    result = evaluator.evaluate(emb)
    assert result.metrics['recall@2'] == 0.5 and result.metrics['recall@3'] == 1.0
    assert result.per_user['ndcg@2'].tolist() == [1.0, 0.0]
    assert result.rank.tolist() == [1, 0, 2]  # Of items 4 and 2, and of item 3.
    assert evaluator.targets.item.tolist() == [4, 2, 3] and result.targets is evaluator.targets
    once = make_targets([0, 1], [4, 3])
    assert once.distinct() is once


def test_cutoffs_of_any_kind():
    targets, train = make_targets([0], [1]), edges()
    for ks in (2, [2], np.int64(2), np.array([2])):
        evaluator = Evaluator(targets, train, 3, ks=ks, metrics='recall')
        assert evaluator.ks == (2,)
        assert list(evaluator.evaluate(from_scores([[1.0, 2.0, 3.0]])).per_user) == ['recall@2']
    for ks in (0, [], [5, -1], 2.5, 'many'):
        with pytest.raises(ValueError, match='Cut-offs must be positive integers'):
            Evaluator(targets, train, 3, ks=ks)


def test_inference_mode():
    r"""What was made under it can be used outside of it, and the other way
    round.
    """
    targets, train = make_targets([0, 1], [1, 2]), edges((0, 0))
    scores = torch.tensor([[1.0, 2.0, 2.0], [0.0, 0.0, 0.0]])
    expected = Evaluator(targets, train, 3, ks=2).evaluate(from_scores(scores)).metrics
    with torch.inference_mode():
        inside = Evaluator(targets, train.clone(), 3, ks=2)
        emb = from_scores(scores.clone())
        assert inside.evaluate(emb).metrics == expected
    assert inside.evaluate(emb).metrics == expected


def test_warm_and_unseen_items_in_the_same_lists():
    r"""Items 0 and 1 are known, 2 and 3 are not."""
    train = edges((0, 0), (1, 0), (1, 1))
    targets = make_targets([0, 0, 0, 1, 2], [1, 2, 3, 2, 0])
    scores = [[9.0, 3.0, 1.0, 2.0], [9.0, 8.0, 1.0, 2.0], [1.0, 4.0, 3.0, 2.0]]
    evaluator = Evaluator(targets, train, 4, ks=(1, 2), metrics=('recall',))
    found = evaluator.evaluate(from_scores(scores)).metrics
    # User 0 gets 1, 3, 2; user 1 gets 3, 2; user 2 gets 1, 2, 3, 0.
    assert found['warm_recall@1'] == found['warm_recall@2'] == 1 / 2
    assert found['unseen_recall@1'] == 0 and found['harmonic@1'] == 0
    assert found['unseen_recall@2'] == (1 / 2 + 1) / 2
    assert found['harmonic@2'] == pytest.approx(2 * 0.5 * 0.75 / 1.25)
    assert {'warm_recall', 'unseen_recall', 'harmonic'} <= set(evaluator.mean_metrics)

    rest = Evaluator(make_targets([0, 2], [1, 0]), train, 4, ks=1, metrics=('recall',))
    assert rest.mean_metrics == ('recall', 'coverage', 'popularity')
    result = rest.evaluate(from_scores(scores))
    assert not warm_and_unseen(result.rank, result.targets, result.count, (1,))
