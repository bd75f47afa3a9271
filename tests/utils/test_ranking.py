import math

import numpy as np
import pytest
import torch

from motor_geo.typing import Embeddings, Scores
from motor_geo.utils.ranking import Ranker, top_k


def edges(*pairs):
    return torch.tensor(pairs).t()


def from_scores(scores):
    scores = torch.as_tensor(scores)
    return Embeddings(scores, torch.eye(scores.size(1)))


def test_top_k():
    emb = from_scores([[1.0, 2.0, 3.0, 4.0], [4.0, 3.0, 2.0, 1.0]])
    users = torch.tensor([1, 0, 1])  # In any order, with repetitions.
    for batch_size in (None, 1, 2):
        score, item = top_k(emb, users, 2, edges((0, 3), (1, 1), (5, 0)), batch_size=batch_size)
        assert item.tolist() == [[0, 2], [2, 1], [0, 2]]
        assert score.tolist() == [[4.0, 2.0], [3.0, 2.0], [4.0, 2.0]]
    score, item = top_k(emb, users[:2], 9, edges((0, 3)), candidates=torch.tensor([3, 1]))
    assert item.tolist() == [[1, 3], [1, -1]]
    assert score.tolist() == [[3.0, 1.0], [2.0, -math.inf]]
    score, item = top_k(emb, users[:0], 2)
    assert score.size() == item.size() == (0, 2)


def test_top_k_errors():
    emb = from_scores(torch.ones(2, 3))
    with pytest.raises(ValueError, match="'k' must be at least 1"):
        top_k(emb, torch.tensor([0]), 0)
    with pytest.raises(ValueError, match="'users' holds -1, expected indices from 0 to 1"):
        top_k(emb, torch.tensor([-1]), 1)
    with pytest.raises(ValueError, match='expected at least 6 users'):
        list(Ranker(torch.tensor([5]), 3, 1)(emb))
    with pytest.raises(ValueError, match="'exclude' holds item 3"):
        top_k(emb, torch.tensor([0]), 1, edges((0, 3)))
    with pytest.raises(ValueError, match="'candidates' holds item 3"):
        top_k(emb, torch.tensor([0]), 1, candidates=torch.tensor([3]))
    with pytest.raises(ValueError, match="'candidates' is empty"):
        top_k(emb, torch.tensor([0]), 1, candidates=torch.tensor([]).long())


@pytest.mark.parametrize(
    'num_items, num_users, expected',
    [
        (4096, 5000, 1024),  # 16 MB of scores.
        (2**18, 5000, 64),  # 16 users would fit into 16 MB.
        (2**16, 40, 40),
        (2**21, 5000, 32),  # 256 MB.
        (2**27, 5000, 1),
    ],
)
def test_ranker_users_per_block(num_items, num_users, expected):
    ranker = Ranker(torch.arange(num_users), num_items, 20)
    assert ranker.batch_size == expected
    assert len(ranker) == -(-num_users // expected)


@pytest.mark.parametrize('candidates', [None, torch.randperm(40)[:25]])
def test_a_draw_decides_between_equal_scores(candidates):
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(0, 6, (200, 40), generator=generator).float()
    emb, users = from_scores(scores.clone()), torch.randperm(200, generator=generator)
    exclude = (torch.rand(200, 40, generator=generator) < 0.3).nonzero().t()
    scores[exclude[0], exclude[1]] = -math.inf
    if candidates is not None:
        rest = torch.ones(40, dtype=torch.bool)
        rest[candidates] = False
        scores[:, rest] = -math.inf
    lists = {}
    for batch_size in (None, 1, 7):
        ranker = Ranker(users, 40, 8, exclude, candidates, batch_size, seed=3)
        blocks = list(ranker(emb))
        value, item = (torch.cat(parts) for parts in list(zip(*blocks))[1:])
        assert torch.equal(value, scores[users].topk(8).values)
        assert torch.equal(item < 0, value == -math.inf)
        assert torch.equal(scores[users].gather(1, item.clamp(min=0))[item >= 0], value[item >= 0])
        assert all(
            len(set(row)) == len(row) for row in ([i for i in r if i >= 0] for r in item.tolist())
        )
        lists[batch_size] = item
    assert torch.equal(lists[None], lists[1]) and torch.equal(lists[None], lists[7])
    other = torch.cat([item for *_, item in Ranker(users, 40, 8, exclude, candidates, seed=4)(emb)])
    assert not torch.equal(other, lists[None])


def test_the_draw_is_uniform():
    r"""Every item is as likely at every rank, for neighboring users too."""
    num_users, num_items, k = 5000, 50, 10
    emb = Embeddings(torch.zeros(num_users, 1), torch.zeros(num_items, 1))
    ranker = Ranker(torch.arange(num_users), num_items, k, seed=0)
    item = torch.cat([item for *_, item in ranker(emb)])
    for column in item.t():
        expected = num_users / num_items
        square = (column.bincount(minlength=num_items) - expected).square().sum() / expected
        assert float(square) < 49 + 6 * 98**0.5
    listed = torch.zeros(num_users, num_items).scatter_(1, item, 1)
    shared = (listed[1:] * listed[:-1]).sum(dim=1)
    mean, variance = k * k / 50, k * k / 50 * (40 / 50) * (40 / 49)
    assert float(shared.mean()) == pytest.approx(mean, abs=6 * (variance / num_users) ** 0.5)
    assert float(shared.var()) == pytest.approx(variance, rel=0.15)


def test_the_draw_changes_nothing_else():
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(100, 3000, generator=generator, dtype=torch.double).argsort().float()
    blocks = [
        list(Ranker(torch.arange(100), 3000, 20, seed=seed)(from_scores(scores)))
        for seed in (None, 0)
    ]
    for plain, drawn in zip(*blocks):
        assert torch.equal(plain[1], drawn[1]) and torch.equal(plain[2], drawn[2])


def test_scores_of_what_has_no_vectors():
    table = torch.rand(5, 8, generator=torch.Generator().manual_seed(0))
    scores, emb = Scores(table.__getitem__, 5, 8), from_scores(table)
    options = {'exclude': edges((0, 1), (3, 7)), 'candidates': torch.tensor([7, 1, 2, 5])}
    for users in ([3, 0], torch.tensor([3, 0]), [], torch.ones(5, dtype=torch.bool)):
        for found, expected in zip(
            top_k(scores, users, 3, **options), top_k(emb, users, 3, **options)
        ):
            assert found.equal(expected)
    with pytest.raises(ValueError, match="'users' holds 5, expected indices from 0 to 4"):
        top_k(scores, 5, 3)


def test_users_of_any_kind():
    emb = from_scores([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]])
    expected = [[2, 1], [0, 1]]
    for users in ([0, 1], (0, 1), np.array([0, 1], np.int32), torch.tensor([True, True])):
        assert top_k(emb, users, 2)[1].tolist() == expected
    for users in (1, np.int64(1), [1], [False, True], torch.tensor(1)):
        assert top_k(emb, users, 2)[1].tolist() == expected[1:]
    assert top_k(emb, [], 2)[1].shape == (0, 2)
    for users in ('ann', [0.5], [True], [[0], [1, 2]], None):
        with pytest.raises(ValueError, match="'users' must be integers or a mask of 2 booleans"):
            top_k(emb, users, 2)
    for users in (2, [0, 2], torch.tensor([2])):
        with pytest.raises(ValueError, match="'users' holds 2, expected indices from 0 to 1"):
            top_k(emb, users, 2)
