import copy

import pytest
import torch
import torch.nn.functional as F

from motor_geo.nn import TokenCrossEncoder
from motor_geo.nn.conv import Propagate
from motor_geo.nn.functional.layers import refined_sum
from motor_geo.nn.models.layergcn import LayerGCN
from motor_geo.typing import RATES
from tests.golden_case import GoldenCase


def build(case, **kwargs):
    data, h = case.data(), case.hyper
    kwargs = {'num_layers': h['L'], 'rho': h['rho'], 'reg_weight': h['reg'], **kwargs}
    model = LayerGCN(data, channels=h['d'], **kwargs).to(case.dtype)
    parameters = case.load(
        {'user_embedding': model.user_embedding, 'item_embedding': model.item_encoder.weight}
    )
    return model, data, parameters


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32])
@pytest.mark.parametrize('prefix', ['', 'full_'])
def test_layergcn_golden(prefix, dtype):
    case = GoldenCase('layergcn', dtype)
    model, data, parameters = build(case)
    if prefix == '':
        model.prune(data, case['kept_edge_index'])

    losses = model.loss(data, case.batch)
    weights = {'bpr': ('loss_bpr', 1), 'reg': ('loss_reg', case.hyper['reg'])}
    case.assert_loss(losses, weights, prefix)
    case.assert_gradients(losses, parameters, prefix)

    out = model(data)  # Ranking uses the full graph, pruned or not.
    case.assert_close(out.user, 'user_repr')
    case.assert_close(out.item, 'item_repr')
    case.assert_close(out.user @ out.item.t(), 'scores')
    if prefix == '':
        out = model.propagate(model.encode(data), model.training_graph(data))
        case.assert_close(out.user, 'train_user_repr')
        case.assert_close(out.item, 'train_item_repr')


def test_layergcn_graph_golden():
    case = GoldenCase('layergcn')
    model, data, _ = build(case)
    case.assert_close(model.graph(data).to_user_weight, 'ui_norm_values')
    model.prune(data, case['kept_edge_index'])
    order = case['kept_edges'][0].argsort(stable=True)  # `to_user` is sorted by user.
    expected = case['kept_norm_values'][order]
    torch.testing.assert_close(
        model.training_graph(data).to_user_weight, expected, atol=1e-6, rtol=1e-6
    )


def test_layergcn_equals_dense_formula():
    case = GoldenCase('layergcn')
    model, data, _ = build(case, num_layers=2)
    num_users, num_items = case.hyper['M'], case.hyper['N']
    adj = torch.zeros(num_users + num_items, num_users + num_items, dtype=torch.float64)
    user, item = data[RATES].edge_index
    adj[user, num_users + item] = adj[num_users + item, user] = 1.0
    deg = adj.sum(dim=1).clamp(min=1).rsqrt()
    adj = deg[:, None] * adj * deg
    ego = torch.cat([model.user_embedding, model.encode_items(data)])
    first = adj @ ego
    first = F.cosine_similarity(first, ego, eps=1e-8)[:, None] * first
    second = adj @ first
    second = F.cosine_similarity(second, ego, eps=1e-8)[:, None] * second
    torch.testing.assert_close(torch.cat(model(data)), first + second)


def test_layergcn_item_without_edges_scores_zero():
    case = GoldenCase('layergcn')
    model, data, _ = build(case)
    edge_index = data[RATES].edge_index
    data[RATES].edge_index = edge_index[:, edge_index[1] != 3]
    out = model(data)
    assert not out.item[3].any() and out.item[4].any()
    loss = sum(model.loss(data, case.batch).values())
    loss.backward()  # Rows of zeros have no direction, and must not give NaN.
    assert model.item_encoder.weight.grad.isfinite().all()


def test_layergcn_is_homogeneous():
    case = GoldenCase('layergcn')
    model, data, parameters = build(case)
    expected = model(data)
    with torch.no_grad():
        for parameter in parameters.values():
            parameter.mul_(4)  # A power of two: exact.
    for out, value in zip(model(data), expected):
        assert torch.equal(out, 4 * value)


def test_layergcn_prunes_in_turns():
    case = GoldenCase('layergcn')
    user = torch.arange(100).repeat_interleave(2)
    item = torch.stack([torch.zeros(100), torch.arange(1, 101)], dim=1).flatten().long()
    data = case.data()  # One item of degree 100, 100 items of degree 1.
    data['user'].num_nodes, data['item'].num_nodes = 100, 101
    data[RATES].edge_index = torch.stack([user, item])

    def popular(model, epoch):
        total = 0
        for seed in range(20):
            model.begin_epoch(data, epoch, torch.Generator().manual_seed(seed))
            target = model.training_graph(data).to_item.as_tensor()[1]
            assert target.numel() == 100
            total += int((target == 0).sum())
        return total / 20

    model = LayerGCN(data, channels=4, rho=0.5)
    assert popular(model, 0) < 25 and popular(model, 2) < 25
    assert 45 < popular(model, 1) < 55 and 45 < popular(model, 3) < 55
    model = LayerGCN(data, channels=4, rho=0.5, pruning='degree')
    assert popular(model, 1) < 25


@pytest.mark.parametrize('epoch', [0, 1])
def test_layergcn_pruning_belongs_to_the_epoch(epoch):
    case = GoldenCase('layergcn')
    model, data, _ = build(case)

    def edges(model, seed):
        model.begin_epoch(data, epoch, torch.Generator().manual_seed(seed))
        return model.training_graph(data).to_item.as_tensor()

    first, again, other = edges(model, 0), edges(model, 0), edges(model, 1)
    assert first.size(1) == case.hyper['n_keep']
    assert torch.equal(first, again) and not torch.equal(first, other)
    kept = set(map(tuple, first.t().tolist()))
    assert len(kept) == first.size(1) and kept <= set(map(tuple, case['train_edges'].t().tolist()))
    clone = copy.deepcopy(model)
    assert clone.training_graph(data) is clone.graph(data)  # It has pruned nothing yet.
    assert torch.equal(edges(clone, 0), first)

    model = LayerGCN(data, channels=4, rho=0.0)
    model.begin_epoch(data, epoch, torch.Generator())
    assert model.training_graph(data) is model.graph(data)


def test_layergcn_prunes_the_graph_that_it_was_shown():
    case = GoldenCase('layergcn')
    model, data, _ = build(case, rho=0.5)
    other = case.data()
    other[RATES].edge_index = other[RATES].edge_index[:, 5:]

    def loss(model, data):
        return torch.stack(list(model.loss(data, case.batch).values()))

    whole, pruned = {}, {}
    whole['data'], whole['other'] = loss(model, data), loss(model, other)
    model.begin_epoch(data, 0, torch.Generator().manual_seed(0))
    pruned['data'] = loss(model, data)
    assert not torch.allclose(pruned['data'], whole['data'])
    assert torch.equal(loss(model, other), whole['other'])
    model.begin_epoch(other, 0, torch.Generator().manual_seed(0))
    assert not torch.allclose(loss(model, other), whole['other'])
    assert torch.equal(loss(model, data), whole['data'])
    model.begin_epoch(data, 0, torch.Generator().manual_seed(0))
    assert torch.equal(loss(model, data), pruned['data'])
    data[RATES].edge_index[0, 0] = 1 - data[RATES].edge_index[0, 0]  # In place: another graph.
    assert model.training_graph(data) is model.graph(data)


def test_layergcn_with_tokens():
    case = GoldenCase('layergcn')
    data = case.data()
    data['item'].token_id = torch.randint(0, 8, (case.hyper['N'], 4))
    encoder = TokenCrossEncoder({'image': 2, 'text': 2}, codebook_size=8, out_channels=6)
    model = LayerGCN(data, encoder, channels=6)
    assert model.item_parameters(case.hyper['N']) == []
    sum(model.loss(data, case.batch).values()).backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())

    seen = model(data).item
    data['item'].num_nodes += 1
    data['item'].token_id = torch.cat([data['item'].token_id, data['item'].token_id[:1]])
    out = model(data).item
    torch.testing.assert_close(out[:-1], seen)
    assert not out[-1].any()


def test_layergcn_rejects_bad_arguments():
    data = GoldenCase('layergcn').data()
    with pytest.raises(ValueError, match=r"'rho' must lie in \[0, 1\) \(got 1.0\)"):
        LayerGCN(data, rho=1.0)
    with pytest.raises(ValueError, match="'num_layers' must be positive"):
        LayerGCN(data, num_layers=0)
    with pytest.raises(ValueError, match="'pruning' must be 'alternating' or 'degree'"):
        LayerGCN(data, pruning='random')


def test_layergcn_gradcheck():
    case = GoldenCase('layergcn')
    model, data, _ = build(case, num_layers=3)
    # An item without edges, and a user of no direction.
    edge_index = data[RATES].edge_index
    data[RATES].edge_index = edge_index[:, edge_index[1] != 3]
    graph = model.graph(data)
    generator = torch.Generator().manual_seed(0)
    sizes = case.hyper['M'], case.hyper['N']
    leaves = [torch.randn(n, 2, generator=generator).double().requires_grad_() for n in sizes]
    assert torch.autograd.gradcheck(lambda u, i: refined_sum(u, i, graph, 3), leaves)


def test_layergcn_short_vectors_are_not_blown_up():
    case = GoldenCase('layergcn')
    model, data, parameters = build(case, num_layers=2)
    with torch.no_grad():
        for parameter in parameters.values():
            parameter.mul_(1e-9)  # Shorter than what has a direction.
    graph = model.graph(data)
    x = [model.user_embedding, model.encode_items(data)]
    ego, out = [F.normalize(value, eps=1e-8) for value in x], 0
    for _ in range(2):
        x = [
            Propagate()(x[1], graph.to_user, graph.to_user_weight),
            Propagate()(x[0], graph.to_item, graph.to_item_weight),
        ]
        x = [(F.normalize(y, eps=1e-8) * e).sum(-1, keepdim=True) * y for y, e in zip(x, ego)]
        out = out + torch.cat(x)
    weight = torch.randn_like(out)
    actual = torch.cat(model(data))
    torch.testing.assert_close(actual * 1e9, out * 1e9)
    leaves = list(parameters.values())
    for a, b in zip(
        torch.autograd.grad((actual * weight).sum(), leaves),
        torch.autograd.grad((out * weight).sum(), leaves),
    ):
        torch.testing.assert_close(a, b)
