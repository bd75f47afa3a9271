import pytest
import torch
import torch.nn.functional as F
from torch_geometric.data import HeteroData

from motor_geo.nn.models import SimGCL, XSimGCL
from motor_geo.typing import RATES, Batch

M, N, D = 5, 4, 3


def graph():
    data = HeteroData()
    data['user'].num_nodes, data['item'].num_nodes = M, N  # User 4, item 3 isolated.
    data[RATES].edge_index = torch.tensor([[0, 0, 1, 2, 2, 3], [0, 1, 1, 0, 2, 2]])
    return data


BATCH = Batch(torch.tensor([0, 2, 0, 3]), torch.tensor([1, 0, 1, 2]), torch.tensor([2, 1, 3, 3]))


def adjacency():
    adj = torch.zeros(M + N, M + N, dtype=torch.float64)
    user, item = graph()[RATES].edge_index
    adj[user, item + M] = 1.0
    adj = adj + adj.t()
    scale = adj.sum(dim=0).clamp(min=1).rsqrt()
    return scale[:, None] * adj * scale


def layers(model, noise):
    r"""All layers of the formula; random numbers are drawn for users, then for
    items.
    """
    x, out = torch.cat([model.user_embedding, model.item_encoder.weight]), []
    for _ in range(model.propagation.num_layers):
        x = adjacency() @ x
        if noise > 0:
            omega = torch.cat(NOISE.pop(0))
            x = x + noise * x.sign() * omega / omega.norm(dim=1, keepdim=True)
        out.append(x)
    return out


NOISE = []


def draw(seed, num):
    r"""What `torch.rand_like` draws after the seed."""
    torch.manual_seed(seed)
    NOISE[:] = [
        (torch.rand(M, D, dtype=torch.float64), torch.rand(N, D, dtype=torch.float64))
        for _ in range(num)
    ]
    torch.manual_seed(seed)


def contrast(a, b, temperature):
    a, b = F.normalize(a), F.normalize(b)
    return F.cross_entropy(a @ b.t() / temperature, torch.arange(len(a)))


def ranking(model, x):
    user, pos, neg = BATCH
    p, q = model.user_embedding, model.item_encoder.weight
    difference = (x[user] * (x[pos + M] - x[neg + M])).sum(dim=1)
    reg = sum(rows.square().sum() for rows in (p[user], q[pos], q[neg]))
    return {'bpr': -F.logsigmoid(difference).mean(), 'reg': model.reg_weight * reg / 2 / len(user)}


def check(model, losses, expected):
    torch.testing.assert_close(losses, expected)
    parameters = list(model.parameters())
    gradients = torch.autograd.grad(sum(losses.values()), parameters)
    others = torch.autograd.grad(sum(expected.values()), parameters)
    torch.testing.assert_close(gradients, others)


@pytest.mark.parametrize('num_layers', [1, 3])
def test_simgcl_equals_the_formula(num_layers):
    torch.manual_seed(0)
    model = SimGCL(graph(), channels=D, num_layers=num_layers, reg_weight=0.3).double()
    x = torch.stack(layers(model, 0.0)).mean(dim=0)
    torch.testing.assert_close(torch.cat(model(graph())), x)
    assert not model(graph()).item[3].any()  # Nobody knows it.

    draw(1, 2 * num_layers)
    losses = model.loss(graph(), BATCH)
    expected = ranking(model, x)
    a, b = (torch.stack(layers(model, 0.1)).mean(dim=0) for _ in range(2))
    for name, nodes in (('user', BATCH.user), ('item', BATCH.pos + M)):
        expected[f'cl_{name}'] = 0.5 * contrast(a[nodes], b[nodes], 0.2)
    check(model, losses, expected)


@pytest.mark.parametrize('cl_layer', [1, 2])
def test_xsimgcl_equals_the_formula(cl_layer):
    torch.manual_seed(0)
    model = XSimGCL(graph(), channels=D, num_layers=2, cl_layer=cl_layer, reg_weight=0.3).double()
    plain = torch.stack(layers(model, 0.0)).mean(dim=0)
    torch.testing.assert_close(torch.cat(model(graph())), plain)

    draw(1, 2)
    losses = model.loss(graph(), BATCH)
    noisy = layers(model, 0.2)
    x = torch.stack(noisy).mean(dim=0)
    expected = ranking(model, x)
    for name, nodes in (('user', BATCH.user), ('item', BATCH.pos + M)):
        expected[f'cl_{name}'] = 0.2 * contrast(x[nodes], noisy[cl_layer - 1][nodes], 0.15)
    check(model, losses, expected)


@pytest.mark.parametrize('cls', [SimGCL, XSimGCL])
def test_weights_of_zero_drop_terms(cls):
    model = cls(graph(), channels=D, cl_weight=0.0, reg_weight=0.0)
    assert set(model.loss(graph(), BATCH)) == {'bpr'}


def test_bad_arguments_are_rejected():
    with pytest.raises(ValueError, match=r"'num_layers' must be positive \(got 0\)"):
        SimGCL(graph(), num_layers=0)
    with pytest.raises(ValueError, match=r"'noise' must be at least 0 and finite \(got -1\)"):
        SimGCL(graph(), noise=-1)
    with pytest.raises(ValueError, match=r"'temperature' must be positive and finite \(got 0\)"):
        SimGCL(graph(), temperature=0)
    with pytest.raises(ValueError, match=r"'cl_layer' must lie between 1 and .*, 2 \(got 3\)"):
        XSimGCL(graph(), num_layers=2, cl_layer=3)
