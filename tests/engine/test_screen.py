import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from motor_geo.engine.evaluator import Evaluator
from motor_geo.engine.screen import Screen
from motor_geo.typing import Embeddings, EvalTargets
from motor_geo.utils.seen import SeenItems


def random_case(seed, num_users=40, num_items=60, d=4, unique=True):
    r"""Vectors, held-out items and training edges of users who like popular items."""
    rng = np.random.default_rng(seed)
    label = rng.random((num_users, num_items))
    label[:, :15] *= 0.5  # The first items are popular.
    user, item = ((label > 0.1) & (label < 0.13)).nonzero()
    train = torch.from_numpy(np.stack((label < 0.1).nonzero()))
    count = train[1].bincount(minlength=num_items)
    vectors = torch.from_numpy(rng.normal(size=(num_users + num_items, d))).float()
    if not unique:
        vectors = vectors.round()
    emb = Embeddings(vectors[:num_users].abs(), vectors[num_users:])
    emb.item[:15] += 1.0
    return emb, EvalTargets.from_pairs(user, item), train, count


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 3), st.booleans())
def test_screen_equals_loops(seed, k, unique):
    emb, targets, train, count = random_case(seed, unique=unique)
    screen = Screen(targets, count, k, SeenItems(train))
    probes = count.argsort(descending=True, stable=True)[: max(60 // 8, 4 * k)].tolist()
    assert screen.probes.tolist() == probes
    assert screen.pays

    scores = (emb.user.double() @ emb.item.double().t()).tolist()
    seen = set(zip(*train.tolist()))
    expected = []
    for i, user in enumerate(targets.user.tolist()):
        held_out = targets.item[targets.ptr[i] : targets.ptr[i + 1]].tolist()
        best = max(scores[user][item] for item in held_out) + 1e-5
        above = sum(scores[user][j] > best for j in probes)
        needed = k + sum((user, j) in seen for j in probes)
        if above < needed:
            expected.append(i)
    assert screen(emb).tolist() == expected


def test_screen_leaves_out_most_users():
    emb, targets, train, count = random_case(0, num_users=200)
    listed = Screen(targets, count, 1, SeenItems(train))(emb).numel()
    assert 0 < listed < 0.8 * len(targets)


def test_screen_does_not_pay_for_few_candidates():
    emb, targets, train, count = random_case(0)
    assert not Screen(targets, count, 8, SeenItems(train)).pays  # 32 of 60 items.


@pytest.mark.parametrize('candidates', [False, True])
@pytest.mark.parametrize('unique', [False, True])
@pytest.mark.parametrize('seed', range(4))
def test_validate_equals_evaluate(seed, unique, candidates):
    emb, targets, train, count = random_case(seed, unique=unique)
    if candidates:
        keep = torch.cat([targets.item, torch.arange(40, 60)]).unique()
        targets = EvalTargets(targets.user, targets.ptr, targets.item, keep)
    evaluator = Evaluator(targets, train, 60, ks=(1, 3), batch_size=7)
    expected = evaluator.evaluate(emb).metrics
    for _ in range(2):
        found = evaluator.validate(emb)
        assert found == {
            key: value
            for key, value in expected.items()
            if not key.startswith(('coverage', 'popularity'))
        }
    scores = (emb.user @ emb.item.t()).__getitem__
    assert evaluator.validate(scores) == pytest.approx(found)


def test_validate_ranks_few_users(monkeypatch):
    emb, targets, train, count = random_case(0, num_users=200)
    evaluator = Evaluator(targets, train, 60, ks=(1,))
    evaluator.validate(emb)
    ranked = []
    rank = evaluator._rank
    monkeypatch.setattr(
        evaluator, '_rank', lambda emb, *args: ranked.append(len(args[1])) or rank(emb, *args)
    )
    evaluator.validate(emb)
    assert 0 < ranked[0] < 0.8 * len(targets)


def test_validate_without_a_hit():
    # Six popular items score higher than the held-out one, so nobody is ranked.
    item = torch.arange(60.0).flip(0).view(-1, 1)
    train = torch.tensor([[1] * 6, list(range(6))])
    targets = EvalTargets.from_pairs(np.array([0]), np.array([59]))
    evaluator = Evaluator(targets, train, 60, ks=(1,))
    assert evaluator.validate(Embeddings(torch.ones(2, 1), item))['recall@1'] == 0.0


def test_validate_errors():
    emb, targets, train, count = random_case(0)
    evaluator = Evaluator(targets, train, 60, ks=(1,))
    with pytest.raises(ValueError, match='hold 40 users and 59 items'):
        evaluator.validate(Embeddings(emb.user, emb.item[:59]))
    with pytest.raises(ValueError, match='NaN'):
        evaluator.validate(Embeddings(emb.user * torch.nan, emb.item))


def test_validate_uses_the_metrics_of_a_subclass():
    class Mine(Evaluator):
        def evaluate(self, emb, return_pred=False):
            result = super().evaluate(emb, return_pred)
            result.metrics['mine'] = 1.0
            return result

    emb, targets, train, count = random_case(0)
    assert Mine(targets, train, 60, ks=(1,)).validate(emb)['mine'] == 1.0
