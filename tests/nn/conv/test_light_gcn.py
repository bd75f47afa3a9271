import pytest
import torch

from motor_geo.nn.conv import LightPropagation
from motor_geo.nn.graph import BipartiteGraph, sym_norm


@pytest.mark.parametrize('readout', ['mean', 'sum'])
@pytest.mark.parametrize('num_layers', [0, 1, 3])
def test_light_propagation(num_layers, readout):
    torch.manual_seed(0)
    edge_index = torch.tensor([[0, 0, 1, 2, 2], [1, 0, 2, 1, 2]])  # User 3, item 3 isolated.
    weight = sym_norm(edge_index, 4, 4, torch.float64)
    graph = BipartiteGraph.from_edges(edge_index, 4, 4, weight)
    user, item = torch.randn(2, 4, 3, dtype=torch.float64)

    adj = torch.zeros(8, 8, dtype=torch.float64)
    adj[edge_index[0], edge_index[1] + 4] = 1.0
    adj = adj + adj.t()
    scale = adj.sum(dim=0).clamp(min=1).rsqrt()
    adj = scale[:, None] * adj * scale
    layers = [torch.cat([user, item])]
    for _ in range(num_layers):
        layers.append(adj @ layers[-1])
    expected = torch.stack(layers).sum(dim=0)
    if readout == 'mean':
        expected = expected / (num_layers + 1)

    conv = LightPropagation(num_layers, readout)
    torch.testing.assert_close(torch.cat(conv(user, item, graph)), expected)

    # Layer by layer, as for weights that are learned: the same gradient.
    x, upstream = torch.cat([user, item]).requires_grad_(), torch.randn_like(expected)
    total = (torch.cat(conv(x[:4], x[4:], graph)) * upstream).sum()
    assert total.requires_grad
    learned = graph._replace(to_user_weight=graph.to_user_weight.clone().requires_grad_())
    other = (torch.cat(conv(x[:4], x[4:], learned)) * upstream).sum()
    (grad,), (other,) = torch.autograd.grad(total, x), torch.autograd.grad(other, x)
    torch.testing.assert_close(grad, other)
    slope = sum(torch.linalg.matrix_power(adj, n) @ upstream for n in range(num_layers + 1))
    torch.testing.assert_close(grad, slope / (num_layers + 1 if readout == 'mean' else 1))
    assert str(conv) == f'LightPropagation({num_layers}, readout={readout})'


@pytest.mark.parametrize('readout', ['mean', 'sum'])
@pytest.mark.parametrize('num_layers', [0, 1, 2, 3])
@pytest.mark.parametrize('batch', [([0], [1]), ([5, 0, 5, 3], [6, 6, 0, 2, 6]), ([], [])])
def test_light_propagation_rows(num_layers, readout, batch):
    generator = torch.Generator().manual_seed(0)
    edge_index = (torch.rand(6, 7, generator=generator) < 0.4).nonzero().t()
    weight = sym_norm(edge_index, 6, 7, torch.float64)
    graph = BipartiteGraph.from_edges(edge_index, 6, 7, weight)
    user = torch.randn(6, 3, dtype=torch.float64, generator=generator).requires_grad_()
    item = torch.randn(7, 3, dtype=torch.float64, generator=generator).requires_grad_()
    index = [torch.tensor(nodes, dtype=torch.long) for nodes in batch]
    conv = LightPropagation(num_layers, readout)

    tables = (*conv(user, item, graph), user, item)
    expected = [x.index_select(0, i) for x, i in zip(tables, index * 2)]
    upstream = [torch.randn(x.size(), dtype=x.dtype, generator=generator) for x in expected]
    gradients = torch.autograd.grad(expected, (user, item), upstream)

    learned = graph._replace(to_user_weight=graph.to_user_weight.clone().requires_grad_())
    for form in (graph, learned):
        out, x = conv.rows(user, item, form, *index)
        torch.testing.assert_close([*out, *x], expected)
        actual = torch.autograd.grad([*out, *x], (user, item), upstream)
        torch.testing.assert_close(actual, gradients)

    # What a loss leaves out has no gradient.
    out, _ = conv.rows(user, item, graph, *index)
    expected = torch.autograd.grad(tables[0].index_select(0, index[0]).sum(), item)
    torch.testing.assert_close(torch.autograd.grad(out.user.sum(), item), expected)


def test_light_propagation_rejects_bad_arguments():
    with pytest.raises(ValueError, match="'num_layers' must not be negative"):
        LightPropagation(-1)
    with pytest.raises(ValueError, match="'readout' must be 'mean' or 'sum'"):
        LightPropagation(1, 'max')


def test_mean_over_the_layers_that_exist():
    edge_index = torch.tensor([[0, 0, 1, 2, 2], [1, 0, 2, 1, 2]])  # User 3, item 3 isolated.
    weight = sym_norm(edge_index, 4, 4, torch.float64)
    graph = BipartiteGraph.from_edges(edge_index, 4, 4, weight)
    torch.manual_seed(0)
    user, item = torch.randn(2, 4, 3, dtype=torch.float64)
    conv = LightPropagation(2)
    before = conv(user, item, graph)
    conv.existing = True
    after = conv(user, item, graph)
    for x, old, new in zip((user, item), before, after):
        torch.testing.assert_close(new[:3], old[:3])
        torch.testing.assert_close(new[3], x[3])
    users, items = torch.tensor([3, 0]), torch.tensor([2, 3, 3])
    rows = conv.rows(user, item, graph, users, items).out
    torch.testing.assert_close(rows.user, after.user[users])
    torch.testing.assert_close(rows.item, after.item[items])
