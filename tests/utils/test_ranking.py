import math

import pytest
import torch

from motor_geo.typing import Embeddings
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
    with pytest.raises(ValueError, match="'users' holds the negative index -1"):
        top_k(emb, torch.tensor([-1]), 1)
    with pytest.raises(ValueError, match='expected at least 6 users'):
        top_k(emb, torch.tensor([5]), 1)
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
