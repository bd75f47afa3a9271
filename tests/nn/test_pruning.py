import copy

import pytest
import torch

from motor_geo.nn.pruning import (
    PrunedGraph,
    degree_sensitive_pruning,
    num_kept_edges,
    uniform_pruning,
)


def test_num_kept_edges_is_floored_in_double_precision():
    assert num_kept_edges(450, 0.8) == 89
    assert num_kept_edges(331, 0.8) == 66
    assert num_kept_edges(10, 0.0) == 10


def test_degree_sensitive_pruning():
    # A star of 20 users around item 0, and 20 pairs: weights 1/sqrt(20) and 1.
    user = torch.arange(40)
    item = torch.cat([torch.zeros(20, dtype=torch.long), torch.arange(1, 21)])
    edge_index = torch.stack([user, item])
    generator = torch.Generator().manual_seed(0)
    counts = torch.zeros(40)
    rounds = 400
    for _ in range(rounds):
        keep = degree_sensitive_pruning(edge_index, 40, 21, 0.75, generator)
        assert keep.numel() == 10 and keep.unique().numel() == 10
        counts[keep] += 1
    star, pairs = counts[:20].sum() / rounds, counts[20:].sum() / rounds
    # A sequential weighted draw, simulated edge by edge.
    weight = torch.cat([torch.full((20,), 20**-0.5), torch.ones(20)])
    expected = 0.0
    for _ in range(rounds):
        expected += float((torch.multinomial(weight, 10, generator=generator) < 20).sum()) / rounds
    assert star + pairs == pytest.approx(10.0)
    assert float(star) == pytest.approx(expected, abs=0.35)  # About four standard errors.


def test_uniform_pruning():
    edge_index, generator = torch.zeros(2, 10, dtype=torch.long), torch.Generator()
    kept = torch.stack([uniform_pruning(edge_index, 0.45, generator) for _ in range(2000)])
    assert kept.size(1) == 5 and (kept.diff(dim=1) > 0).all()
    torch.testing.assert_close(
        kept.flatten().bincount() / 2000, torch.full((10,), 0.5), atol=0.05, rtol=0
    )


def test_pruned_graph():
    edge_index = torch.tensor([[0, 1, 2, 2], [1, 0, 0, 1]])
    pruned, args = PrunedGraph(), (edge_index, 3, 2, torch.float64)
    assert pruned.get(*args) is None
    pruned.set(torch.tensor([0, 3]), *args)
    graph = pruned.get(*args)
    assert graph.to_user.as_tensor().tolist() == [[1, 1], [0, 2]]
    torch.testing.assert_close(graph.to_user_weight, torch.tensor([0.5**0.5] * 2).double())
    assert pruned.get(edge_index.clone(), *args[1:]) is None  # Another graph,
    assert pruned.get(edge_index, 3, 3, torch.float64) is None  # or another form of it.
    assert pruned.get(*args) is graph and copy.deepcopy(pruned).get(*args) is None
    pruned.set(torch.tensor([0]), *args)
    assert pruned.get(*args).to_user.as_tensor().tolist() == [[1], [0]]
    edge_index[1, 0] = 0
    assert pruned.get(*args) is None
    with torch.inference_mode():
        pruned.set(torch.tensor([1]), *args)
        edges = edge_index.clone()
    assert not pruned.get(*args).to_user_weight.is_inference()
    with pytest.raises(ValueError, match="under 'torch.inference_mode' cannot be pruned"):
        pruned.set(torch.tensor([0]), edges, 3, 2, torch.float64)
