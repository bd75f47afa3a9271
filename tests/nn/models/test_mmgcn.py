import copy
import math

import pytest
import torch
import torch.nn.functional as F

from motor_geo.nn import TokenCrossEncoder
from motor_geo.nn.functional import rows
from motor_geo.nn.functional.rows import inverse_norm
from motor_geo.nn.item_encoder import FeatureProjection, IDEmbedding
from motor_geo.nn.models.mmgcn import MMGCN
from motor_geo.typing import ITEM, RATED_BY, RATES, Batch
from tests.golden_case import GoldenCase


def build(case, **kwargs):
    data, h = case.data(), case.hyper
    model = MMGCN(data, channels=h['d'], **{'reg_weight': h['reg'], **kwargs}).to(case.dtype)
    trained = {}
    for modality, branch in zip(case.modalities, model.branches):
        if branch.lin is not None:
            trained[f'{modality}_reduction_weight'] = branch.lin.weight
            trained[f'{modality}_reduction_bias'] = branch.lin.bias
        for layer, conv in enumerate(branch.convs, start=1):
            trained[f'{modality}_linear{layer}_weight'] = conv.lin_self.weight
            trained[f'{modality}_linear{layer}_bias'] = conv.lin_self.bias
            trained[f'{modality}_gate{layer}_weight'] = conv.gate.weight
            trained[f'{modality}_gate{layer}_bias'] = conv.gate.bias
    neighbor = {
        f'{modality}_conv{layer}_weight': conv.lin_neighbor.weight
        for modality, branch in zip(case.modalities, model.branches)
        for layer, conv in enumerate(branch.convs, start=1)
    }
    preferences = {
        f'{modality}_preference': branch.preference
        for modality, branch in zip(case.modalities, model.branches)
    }
    tables = {
        'user_embedding': model.user_embedding,
        'item_embedding': model.item_encoder.weight,
    }
    case.load({**trained, **preferences, **tables})
    with torch.no_grad():
        for name, weight in neighbor.items():  # Stored as [in, out].
            weight.copy_(case[name].t())
    return model, data, {**trained, **neighbor}, preferences, tables


def with_tokens(data):
    generator = torch.Generator().manual_seed(0)
    data[ITEM].token_id = torch.randint(7, (data[ITEM].num_nodes, 4), generator=generator)
    return data


def check_golden(case, model, data):
    losses = model.loss(data, case.batch)
    terms = {
        'bpr': ('loss_bpr', 1),
        'reg_id': ('loss_reg_id', case.hyper['reg']),
        'reg_image': ('loss_reg_image_preference', case.hyper['reg']),
    }
    case.assert_loss(losses, terms)
    out = model(data)
    case.assert_close(out.user, 'user_repr')
    case.assert_close(out.item, 'item_repr')
    case.assert_close(out.user @ out.item.t(), 'scores')
    return losses


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32])
def test_mmgcn_golden(dtype):
    case = GoldenCase('mmgcn', dtype)
    model, data, trained, preferences, tables = build(case)
    losses = check_golden(case, model, data)
    case.assert_gradients(losses, trained)
    names = {name for name, p in model.named_parameters() if p.requires_grad}
    assert len(names) == len(trained)  # Constants: the ID vectors and preferences.
    assert all(not p.requires_grad for p in [*preferences.values(), *tables.values()])


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32])
def test_mmgcn_golden_with_trained_embeddings(dtype):
    case = GoldenCase('mmgcn', dtype)
    model, data, trained, preferences, tables = build(case, train_embeddings=True)
    losses = check_golden(case, model, data)
    total = torch.stack(list(losses.values())).sum()
    gradients = torch.autograd.grad(total, list(tables.values()), retain_graph=True)
    case.assert_gradients(losses, {**trained, **preferences})
    for name, gradient in zip(tables, gradients):
        case.assert_gradient(gradient, name)
    case.assert_gradient(torch.cat(gradients), 'id_embedding')


def test_mmgcn_constants_stay_constant():
    case = GoldenCase('mmgcn')
    model, data, _, preferences, tables = build(case)
    before = {name: value.clone() for name, value in {**preferences, **tables}.items()}
    moving = model.branches[0].convs[2].gate.weight.detach().clone()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        sum(model.loss(data, case.batch).values()).backward()
        optimizer.step()
    for name, value in {**preferences, **tables}.items():
        assert torch.equal(value, before[name]), name
    assert not torch.equal(model.branches[0].convs[2].gate.weight, moving)


def test_mmgcn_mean_over_neighbors():
    case = GoldenCase('mmgcn')
    model, data, *_ = build(case)
    edge_index = torch.tensor([[0, 0, 2, 3], [1, 4, 4, 1]])
    data[RATES].edge_index, data[RATED_BY].edge_index = edge_index, edge_index.flip(0)
    graph = model.mean_graph(data)
    x = torch.randn(case.hyper['N'], 3, dtype=torch.float64)
    conv = model.branches[0].convs[0].conv
    out = conv(x, graph.to_user, graph.to_user_weight)
    expected = torch.zeros(case.hyper['M'], 3, dtype=torch.float64)
    expected[0], expected[2], expected[3] = (x[1] + x[4]) / 2, x[4], x[1]
    torch.testing.assert_close(out, expected)
    assert model.mean_graph(data) is graph
    clone = copy.deepcopy(model)
    assert clone.mean_graph(data) is not graph
    data[RATES].edge_index = edge_index[:, 1:]
    assert model.mean_graph(data) is not graph
    torch.testing.assert_close(clone(data), model(data))


def test_mmgcn_one_layer_by_hand():
    case = GoldenCase('mmgcn')
    data, d = case.data(), case.hyper['d']
    del data[ITEM].x_image
    model = MMGCN(data, channels=d, num_layers=1).double()
    assert set(model.loss(data, case.batch)) == {'bpr'}
    branch = model.branches[0]
    assert branch.lin is None and len(branch.convs) == 1
    conv = branch.convs[0]
    adj = torch.zeros(case.hyper['M'], case.hyper['N'], dtype=torch.float64)
    adj[tuple(data[RATES].edge_index)] = 1
    x = torch.cat([F.normalize(branch.preference), F.normalize(data[ITEM].x_text)])
    adj = torch.cat(
        [torch.cat([adj @ adj.t() * 0, adj], 1), torch.cat([adj.t(), adj.t() @ adj * 0], 1)]
    )
    mean = adj / adj.sum(dim=1, keepdim=True).clamp(min=1) @ x
    ids = torch.cat([model.user_embedding, model.item_encoder.weight])
    h = F.leaky_relu(mean @ conv.lin_neighbor.weight.t(), 0.01)
    x = F.leaky_relu(conv.lin_self(x), 0.01) + ids
    expected = F.leaky_relu(conv.gate(torch.cat([h, x], dim=1)), 0.01)
    torch.testing.assert_close(torch.cat(model(data)), expected)


def test_mmgcn_regularization_counts_both_items():
    case = GoldenCase('mmgcn')
    model, data, _, _, tables = build(case, reg_weight=0.5)
    batch = Batch(torch.tensor([3, 3]), torch.tensor([1, 2]), torch.tensor([4, 5]))
    user, item = tables['user_embedding'][3], tables['item_embedding'][[1, 2, 4, 5]]
    expected = 0.5 * (user.square().mean() + item.square().mean())
    torch.testing.assert_close(model.loss(data, batch)['reg_id'], expected)


@pytest.mark.parametrize('name', ['tokens', 'features', 'id'])
def test_mmgcn_item_encoders(name):
    case = GoldenCase('mmgcn', torch.float32)
    data, d, num_items = with_tokens(case.data()), case.hyper['d'], case.hyper['N']
    encoder = {
        'tokens': lambda: TokenCrossEncoder({'image': 2, 'text': 2}, 7, d),
        'features': lambda: FeatureProjection({'text': case['text_feat'].size(1)}, d),
        'id': lambda: IDEmbedding(num_items, d),
    }[name]()
    model = MMGCN(data, encoder, channels=d)
    sum(model.loss(data, case.batch).values()).backward()
    assert all(p.grad is not None and p.grad.any() for p in encoder.parameters())
    assert model.user_embedding.grad is None
    if name == 'id':
        assert model.item_parameters(num_items) == ['item_encoder.weight']
        return
    assert all(num_items not in p.shape for p in model.parameters())
    larger = case.data()
    for m in case.modalities:
        x = larger[ITEM][f'x_{m}']
        larger[ITEM][f'x_{m}'] = torch.cat([x, torch.randn(3, x.size(1))])
    larger[ITEM].num_nodes += 3
    larger[ITEM].token_id = torch.cat([data[ITEM].token_id, torch.zeros(3, 4, dtype=torch.long)])
    expected, actual = model(data), model(larger)
    assert actual.item.shape == (num_items + 3, d)
    torch.testing.assert_close(actual.item[:num_items], expected.item)
    assert not torch.equal(actual.item[-1], actual.item[-2])


def test_mmgcn_trains_users_beside_tokens():
    case = GoldenCase('mmgcn', torch.float32)
    data, d = with_tokens(case.data()), case.hyper['d']
    encoder = TokenCrossEncoder({'image': 2, 'text': 2}, 7, d)
    model = MMGCN(data, encoder, channels=d, train_embeddings=True)
    sum(model.loss(data, case.batch).values()).backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())
    assert model.item_parameters(case.hyper['N']) == []


def test_mmgcn_latent_channels_of_any_modality():
    case = GoldenCase('mmgcn')
    data = case.data()
    data[ITEM].x_smell = torch.randn(case.hyper['N'], 5).double()
    model = MMGCN(data, channels=8, latent_channels={'smell': 6}, reg_weight=0.1).double()
    assert [branch.preference.size(1) for branch in model.branches] == [24, 6, 16]
    assert set(model.loss(data, case.batch)) == {'bpr', 'reg_id', 'reg_smell'}
    assert model(data).item.shape == (case.hyper['N'], 8)


def test_mmgcn_initialization():
    case = GoldenCase('mmgcn')
    model, data, *_ = build(case)
    before = {name: value.clone() for name, value in model.named_parameters()}
    model.reset_parameters()
    for name, value in model.named_parameters():
        assert not torch.equal(value, before[name]), name
    M, N, d = (case.hyper[key] for key in 'MNd')
    ids = torch.cat([model.user_embedding, model.item_encoder.weight]).detach()
    assert float(ids.std()) == pytest.approx(math.sqrt(2 / (M + N + d)), rel=0.1)
    weight = model.branches[0].convs[0].lin_neighbor.weight.detach()
    assert float(weight.std()) == pytest.approx(math.sqrt(2 / sum(weight.shape)), rel=0.1)


def test_mmgcn_conv_repr():
    model = build(GoldenCase('mmgcn'))[0]
    assert str(model.branches[0].convs[0]) == 'MMGCNConv(256, 16)'


def test_mmgcn_rejects_bad_arguments():
    data = GoldenCase('mmgcn').data()
    with pytest.raises(ValueError, match=r"'num_layers' must be positive \(got 0\)"):
        MMGCN(data, num_layers=0)
    with pytest.raises(ValueError, match=r"'latent_channels' names \['smell'\], expected"):
        MMGCN(data, latent_channels={'smell': 4})
    with pytest.raises(ValueError, match="'MMGCN' needs item features of at least 1 modality"):
        MMGCN(GoldenCase('bpr').data())


@pytest.mark.parametrize('train_embeddings', [False, True])
@pytest.mark.parametrize('num_layers', [1, 3])
@pytest.mark.parametrize('size', [5, 100])  # Less, and more than there are nodes.
def test_mmgcn_loss_takes_rows_of_the_whole(train_embeddings, num_layers, size):
    case = GoldenCase('mmgcn')
    data = case.data()
    batch = Batch(*(nodes.repeat(100)[:size] for nodes in case.batch))
    model = MMGCN(
        data, channels=8, num_layers=num_layers, train_embeddings=train_embeddings
    ).double()
    user, pos, neg = batch.rows(model(data))
    expected = -torch.log(torch.sigmoid((user * pos - user * neg).sum(dim=1))).mean()
    actual = model.loss(data, batch)['bpr']
    torch.testing.assert_close(actual, expected)
    trained = [p for p in model.parameters() if p.requires_grad]
    for a, b in zip(
        torch.autograd.grad(actual, trained, allow_unused=True),
        torch.autograd.grad(expected, trained, allow_unused=True),
    ):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b)


def test_mmgcn_keeps_what_is_constant(monkeypatch):
    case = GoldenCase('mmgcn')
    model, data, *_ = build(case)
    _, text = model.branches
    norms = []
    monkeypatch.setattr(
        'motor_geo.nn.conv.mmgcn_conv.inverse_norm', lambda x: norms.append(1) or inverse_norm(x)
    )

    def check():
        # A copy has computed nothing yet.
        torch.testing.assert_close(model(data), copy.deepcopy(model)(data), atol=0, rtol=0)

    model(data)
    assert len(norms) == 3  # Preferences of both, and features that are not projected.
    model.loss(data, case.batch)
    assert len(norms) == 3
    check()
    assert len(norms) == 6

    data[ITEM].x_text.mul_(2).add_(1)  # In place.
    check()
    data[ITEM].x_text = data[ITEM].x_text + torch.randn_like(data[ITEM].x_text)
    check()
    data[RATES].edge_index = data[RATES].edge_index[:, 5:]
    check()
    model.reset_parameters()
    check()
    state = {name: torch.randn_like(value) for name, value in model.state_dict().items()}
    model.load_state_dict(state)
    check()
    model.load_state_dict({name: value + 1 for name, value in state.items()}, assign=True)
    check()
    for branch in model.branches:
        branch.preference.requires_grad_()  # Trained from here on.
    model(data)
    with torch.no_grad():
        text.preference.data.mul_(-1)  # Behind the back of autograd.
    check()
    model.float()
    for m in case.modalities:
        data[ITEM][f'x_{m}'] = data[ITEM][f'x_{m}'].float()
    check()


@pytest.mark.parametrize('train_embeddings', [False, True])
def test_mmgcn_long_tables(monkeypatch, train_embeddings):
    case = GoldenCase('mmgcn')
    model, data, *_ = build(case)
    model.requires_grad_(train_embeddings)
    model.branches.requires_grad_()
    if not train_embeddings:
        for branch in model.branches:
            branch.preference.requires_grad_(False)

    def run():
        loss = model.loss(data, case.batch)['bpr']
        trained = [p for p in model.parameters() if p.requires_grad]
        return loss.detach(), *torch.autograd.grad(loss, trained, allow_unused=True)

    expected = run()
    monkeypatch.setattr(rows, 'LONG', 7)
    torch.testing.assert_close(run(), expected)


def test_mmgcn_features_of_half_precision():
    case = GoldenCase('mmgcn', torch.float32)
    model, data, *_ = build(case)
    for m in case.modalities:
        data[ITEM][f'x_{m}'] = data[ITEM][f'x_{m}'].half()
    actual = model(data)
    for m in case.modalities:
        data[ITEM][f'x_{m}'] = data[ITEM][f'x_{m}'].float()
    torch.testing.assert_close(actual, model(data))


def test_mmgcn_features_with_gradient():
    case = GoldenCase('mmgcn')
    model, data, *_ = build(case)
    expected = model(data)
    data[ITEM].x_text.requires_grad_()
    out = model(data)
    torch.testing.assert_close(out, expected)
    (gradient,) = torch.autograd.grad(out.item.sum(), data[ITEM].x_text)
    assert gradient.any()
