import pytest
import torch

from motor_geo.nn.conv.self_loop import SelfLoopPropagation
from motor_geo.nn.graph import BipartiteGraph


def build(edge_index, num_users, num_items):
    weight = torch.ones(edge_index.size(1), dtype=torch.float64)
    graph = BipartiteGraph.from_edges(edge_index, num_users, num_items, weight)
    return SelfLoopPropagation.normalize(graph)


@pytest.mark.parametrize('num_layers', [0, 1, 3])
def test_self_loop_propagation_equals_the_dense_form(num_layers):
    torch.manual_seed(0)
    num_users, num_items = 6, 5
    dense = torch.rand(num_users, num_items) < 0.5
    dense[2], dense[:, 3] = False, False  # A user and an item without edges.
    user = torch.randn(num_users, 4, dtype=torch.float64, requires_grad=True)
    item = torch.randn(num_items, 4, dtype=torch.float64, requires_grad=True)

    x = torch.cat([user, item])
    A = torch.eye(num_users + num_items, dtype=torch.float64)
    A[:num_users, num_users:] = dense.double()
    A[num_users:, :num_users] = dense.double().t()
    A = A / A.sum(dim=1, keepdim=True)
    layers = [x]
    for _ in range(num_layers):
        layers.append(A @ layers[-1])
    expected = torch.stack(layers).mean(dim=0)

    conv = SelfLoopPropagation(num_layers)
    out = conv(user, item, build(dense.nonzero().t(), num_users, num_items))
    torch.testing.assert_close(torch.cat(out), expected)
    torch.testing.assert_close(out.user[2], user[2])
    torch.testing.assert_close(out.item[3], item[3])
    weight = torch.randn_like(expected)
    torch.testing.assert_close(
        torch.autograd.grad((torch.cat(out) * weight).sum(), (user, item)),
        torch.autograd.grad((expected * weight).sum(), (user, item)),
    )


def test_self_loop_weights_by_hand():
    edge_index = torch.tensor([[0, 0, 1], [0, 1, 1]])
    graph = build(edge_index, 2, 3)
    assert graph.to_user.as_tensor().tolist() == [[0, 1, 1], [0, 0, 1]]
    torch.testing.assert_close(graph.to_user_weight, torch.tensor([1 / 3, 1 / 3, 1 / 2]).double())
    torch.testing.assert_close(graph.to_item_weight, torch.tensor([1 / 2, 1 / 3, 1 / 3]).double())


def test_self_loop_propagation_arguments():
    assert str(SelfLoopPropagation(2)) == 'SelfLoopPropagation(2)'
    with pytest.raises(ValueError, match="'num_layers' must not be negative"):
        SelfLoopPropagation(-1)
