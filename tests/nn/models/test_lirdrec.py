import math

import pytest
import torch
import torch.nn.functional as F

from motor_geo.nn import TokenCrossEncoder
from motor_geo.nn.functional.dct import cosine_transform
from motor_geo.nn.item_encoder import FeatureProjection, IDEmbedding
from motor_geo.nn.models.lirdrec import LIRDRec
from motor_geo.typing import ITEM, similar
from tests.golden_case import GoldenCase

BLOCKS = ('image', 'text', 'shared')


def build(case, **kwargs):
    data, h = case.data(weighting='binary'), case.hyper
    assert h['rho'] == 0  # Nothing is pruned.
    model = LIRDRec(
        data,
        channels=h['d'],
        num_layers=h['L_ui'],
        num_item_layers=h['L_ii'],
        modality_weight={'image': h['w'], 'text': 1 - h['w']},
        decay_weight=h['decay_weight'],
        decay_base=h['decay_base'],
        reg_weight=h['reg'],
        **kwargs,
    ).to(case.dtype)
    parameters = {'theta': model.theta}
    for block, encoder, gate in zip(BLOCKS, model.blocks.encoders, model.gates.nets):
        parameters[f'{block}_encoder1_weight'] = encoder[0].weight
        parameters[f'{block}_encoder1_bias'] = encoder[0].bias
        parameters[f'{block}_encoder2_weight'] = encoder[2].weight
        parameters[f'pwc_{block}_hidden_weight'] = gate[0].weight
        parameters[f'pwc_{block}_hidden_bias'] = gate[0].bias
        parameters[f'pwc_{block}_output_weight'] = gate[2].weight
        parameters[f'pwc_{block}_output_bias'] = gate[2].bias
    case.load(parameters)
    with torch.no_grad():
        table = torch.cat([case[f'{block}_user_embedding'] for block in BLOCKS], dim=1)
        model.user_embedding.copy_(table)
    return model, data, parameters


def begin(model, data, epoch, seed=0):
    model.begin_epoch(data, epoch, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32])
@pytest.mark.parametrize('prefix', ['', 'epoch2_'])
def test_lirdrec_golden(prefix, dtype):
    case = GoldenCase('lirdrec', dtype)
    model, data, parameters = build(case)
    begin(model, data, 0)
    if prefix == 'epoch2_':  # Without an update of parameters in between.
        model.loss(data, case.batch)
        begin(model, data, 1)

    rtol = 1e-6 if dtype == torch.float64 else 1e-5
    case.assert_close(model.theta, f'{prefix}theta_used')
    torch.testing.assert_close(model.net_weight, case[f'{prefix}w1'], atol=0, rtol=rtol)
    torch.testing.assert_close(1 - model.net_weight, case[f'{prefix}w2'], atol=0, rtol=10 * rtol)
    losses = model.loss(data, case.batch)
    reg = case.hyper['reg']
    terms = {
        'bpr': ('loss_bpr', 1),
        'reg_user': ('loss_reg_users', reg),
        'reg_item': ('loss_reg_items', reg),
    }
    case.assert_loss(losses, terms, prefix)
    case.assert_close(model.fusion, f'{prefix}fusion_weights')

    total = torch.stack(list(losses.values())).sum()
    (actual,) = torch.autograd.grad(total, [model.user_embedding], retain_graph=True)
    for block, gradient in zip(BLOCKS, actual.chunk(3, dim=1)):
        case.assert_gradient(gradient, f'{block}_user_embedding', prefix)
    case.assert_gradients(losses, parameters, prefix)

    out = model(data)
    case.assert_close(out.user, f'{prefix}user_repr')
    case.assert_close(out.item, f'{prefix}item_repr')
    case.assert_close(out.user @ out.item.t(), f'{prefix}scores')


def test_lirdrec_graphs_and_transform_golden():
    case = GoldenCase('lirdrec')
    model, data, _ = build(case)
    features = [cosine_transform(data[ITEM][f'x_{m}']) for m in case.modalities]
    case.assert_close(torch.cat(features, dim=1), 'dct_feat')
    case.assert_close(model.graph(data).to_user_weight, 'ui_norm_values')
    edge_index, weight = model.item_graphs(data, case.dtype)
    actual = torch.zeros(case.hyper['N'], case.hyper['N'], dtype=case.dtype)
    actual[edge_index[1], edge_index[0]] = weight
    expected = torch.zeros_like(actual)
    expected[case['item_adj_row'], case['item_adj_col']] = case['item_adj_value']
    assert torch.equal(actual != 0, expected != 0)
    torch.testing.assert_close(actual, expected, atol=1e-7, rtol=1e-6)


def test_lirdrec_two_dimensional_transform():
    case = GoldenCase('lirdrec')
    model, data, _ = build(case, dct='2d')
    features = case['dct_feat']
    n = features.size(0)
    k = torch.arange(n, dtype=torch.float64)
    basis = (math.pi * (2 * k + 1) * k.view(-1, 1) / (2 * n)).cos() * math.sqrt(2 / n)
    basis[0] /= math.sqrt(2)
    expected = model.blocks.encoders[-1](basis @ features)
    torch.testing.assert_close(model.blocks(data)[-1], expected)


def test_lirdrec_decay_of_net_weight():
    case = GoldenCase('lirdrec')
    model, data, _ = build(case)
    assert float(model.net_weight) == pytest.approx(0.9)
    w1, w2 = 0.9, 0.1
    for epoch in range(10):
        begin(model, data, epoch)
        eta = 0.9 ** (epoch + 1)
        w1, w2 = w1 * eta / (w1 * eta + w2), w2 / (w1 * eta + w2)
        assert float(model.net_weight) == pytest.approx(w1)
        if epoch + 1 in (1, 5, 10):
            rounded = {1: 0.8901, 5: 0.6495, 10: 0.02666}[epoch + 1]
            assert float(model.net_weight) == pytest.approx(rounded, abs=5e-5)
    begin(model.float(), data, 1000)
    assert float(model.net_weight) == 0.0


def test_lirdrec_copies_weights_once_per_epoch():
    case = GoldenCase('lirdrec')
    model, data, _ = build(case)
    theta = model.theta.detach().clone()
    begin(model, data, 0)
    for _ in range(2):
        model.loss(data, case.batch)
    assert torch.equal(model.theta, theta)
    expected = model.fusion.clone()
    model.eval()
    with torch.no_grad():
        model.user_embedding.neg_()
    model.loss(data, case.batch)  # Evaluation leaves the state alone.
    model(data)
    assert torch.equal(model.fusion, expected)
    begin(model, data, 1)
    assert torch.equal(model.theta, expected)
    torch.testing.assert_close(expected.sum(dim=1), torch.ones(len(expected)).double())


def test_lirdrec_step_schedule():
    case = GoldenCase('lirdrec')
    epochs, data, _ = build(case)
    steps, _, _ = build(case, schedule='step')
    begin(steps, data, 0)
    for epoch in range(3):
        begin(epochs, data, epoch)
        expected, actual = epochs.loss(data, case.batch), steps.loss(data, case.batch)
        torch.testing.assert_close(actual, expected)
        assert torch.equal(steps.theta, epochs.theta)
    assert int(steps.num_copies) == 3


def test_lirdrec_initial_residual():
    case = GoldenCase('lirdrec')
    propagated, data, _ = build(case)
    initial, _, _ = build(case, residual='initial')
    blocks = [F.normalize(block) for block in initial.blocks(data)]
    first = torch.cat(blocks, dim=1)
    user = initial.user_embedding.view(len(initial.user_embedding), 3, -1)
    user = F.normalize(user, dim=-1).flatten(1)
    last = initial.propagation(user, first, initial.graph(data)).item
    difference = propagated(data).item - initial(data).item
    torch.testing.assert_close(difference, last - first)
    torch.testing.assert_close(propagated(data).user, initial(data).user)


def test_lirdrec_resumes_from_its_state():
    case = GoldenCase('lirdrec')
    model, data, _ = build(case)
    begin(model, data, 0)
    model.loss(data, case.batch)
    other = LIRDRec(data, channels=case.hyper['d'], reg_weight=case.hyper['reg']).double()
    other.load_state_dict(model.state_dict())
    torch.testing.assert_close(other(data), model(data), atol=0, rtol=0)
    begin(model, data, 1)
    begin(other, data, 1)
    expected = model.loss(data, case.batch)
    torch.testing.assert_close(other.loss(data, case.batch), expected, atol=0, rtol=0)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16])
def test_lirdrec_encodes_features_as_its_encoders_do(dtype):
    case = GoldenCase('lirdrec', torch.float32)
    model, data, _ = build(case)
    for m in case.modalities:
        data[ITEM][f'x_{m}'] = data[ITEM][f'x_{m}'].to(dtype)
    features = [data[ITEM][f'x_{m}'].float() for m in case.modalities]
    inputs = [*features, torch.cat([cosine_transform(x) for x in features], dim=1)]
    expected = [encoder(x) for encoder, x in zip(model.blocks.encoders, inputs)]
    actual = model.blocks(data)
    torch.testing.assert_close(actual, expected)
    parameters = list(model.blocks.encoders.parameters())
    weights = [torch.randn_like(block) for block in expected]
    gradients = [torch.autograd.grad(blocks, parameters, weights) for blocks in (actual, expected)]
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-4)


def with_tokens(data, num_items=None):
    generator = torch.Generator().manual_seed(0)
    num_items = data[ITEM].num_nodes if num_items is None else num_items
    data[ITEM].token_id = torch.randint(7, (num_items, 4), generator=generator)
    return data


def more_items(case, extra):
    from motor_geo.data import ItemKNN

    data = case.data()
    for m in case.modalities:
        x = data[ITEM][f'x_{m}']
        data[ITEM][f'x_{m}'] = torch.cat([x, torch.randn(extra, x.size(1)).to(x.dtype)])
    data[ITEM].num_nodes += extra
    data = ItemKNN(k=case.hyper['k'], cache=False)(data)
    return with_tokens(data)


@pytest.mark.parametrize('item_block', ['extra', 'shared'])
@pytest.mark.parametrize('name', ['tokens', 'features', 'id'])
def test_lirdrec_item_encoders(name, item_block):
    case = GoldenCase('lirdrec', torch.float32)
    data, d = with_tokens(case.data(weighting='binary')), case.hyper['d']
    num_items = case.hyper['N']
    encoder = {
        'tokens': lambda: TokenCrossEncoder({'image': 2, 'text': 2}, 7, d),
        'features': lambda: FeatureProjection({'text': case['text_feat'].size(1)}, d),
        'id': lambda: IDEmbedding(num_items, d),
    }[name]()
    model = LIRDRec(data, encoder, channels=d, item_block=item_block)
    num_blocks = 4 if item_block == 'extra' else 3
    out = model(data)
    assert out.item.shape == (num_items, num_blocks * d) and out.user.size(1) == num_blocks * d
    sum(model.loss(data, case.batch).values()).backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())
    assert model.item_parameters(num_items) == (['item_encoder.weight'] if name == 'id' else [])
    if name != 'id':
        assert model(more_items(case, 3)).item.size(0) == num_items + 3


def test_lirdrec_is_id_free_as_published():
    case = GoldenCase('lirdrec')
    model, data, _ = build(case)
    assert model.item_encoder is None
    assert model.item_parameters(case.hyper['N']) == []
    larger = more_items(case, 2)
    expected, actual = model(data), model(larger)
    assert actual.item.size(0) == case.hyper['N'] + 2
    torch.testing.assert_close(actual.user, expected.user)  # New items have no edges to users.
    assert str(model) == 'LIRDRec(40, 16, item_encoder=None)'


def test_lirdrec_one_modality():
    case = GoldenCase('lirdrec')
    data = case.data(weighting='binary')
    del data[ITEM].x_image, data[similar('image')]
    model = LIRDRec(data, channels=8).double()
    assert model.blocks.features.names == ['text'] and model.num_blocks == 2
    text, shared = model.blocks(data)
    torch.testing.assert_close(text, model.blocks.encoders[0](data[ITEM].x_text))
    expected = model.blocks.encoders[1](cosine_transform(data[ITEM].x_text))
    torch.testing.assert_close(shared, expected)
    assert model(data).item.shape == (case.hyper['N'], 16)


def test_lirdrec_reset_parameters():
    case = GoldenCase('lirdrec')
    model, data, _ = build(case)
    begin(model, data, 4)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.reset_parameters()
    for name, value in model.named_parameters():
        assert not torch.equal(value, before[name]), name
    assert int(model.num_copies) == 0
    bound = math.sqrt(2 / (case.hyper['M'] + case.hyper['d']))
    assert float(model.user_embedding.detach().std()) == pytest.approx(bound, rel=0.1)


def test_lirdrec_rejects_bad_arguments():
    case = GoldenCase('lirdrec')
    data = case.data(weighting='binary')
    for name in ['dct', 'residual', 'schedule', 'item_block']:
        with pytest.raises(ValueError, match=f"'{name}' must be '.*' or '.*' \\(got 'no'\\)"):
            LIRDRec(data, **{name: 'no'})
    with pytest.raises(ValueError, match=r"'decay_weight' must lie in \(0, 1\) \(got 1.0\)"):
        LIRDRec(data, decay_weight=1.0)
    with pytest.raises(ValueError, match=r"'decay_base' must lie in \(0, 1\] \(got 0.0\)"):
        LIRDRec(data, decay_base=0.0)
    with pytest.raises(ValueError, match="needs the item graph .*apply 'ItemKNN'"):
        LIRDRec(case.data())
    del data[ITEM].x_image, data[ITEM].x_text
    with pytest.raises(ValueError, match="'LIRDRec' needs item features of at least 1 modality"):
        LIRDRec(data)


def test_lirdrec_without_its_parts():
    case = GoldenCase('lirdrec')
    full, data, _ = build(case)
    plain, _, _ = build(case, pwc=False)
    blocks, _, item = full.propagate(data)
    emb = plain(data)
    torch.testing.assert_close(emb.user, blocks.flatten(1))
    torch.testing.assert_close(emb.item, item)
    begin(plain, data, 0)
    torch.stack(list(plain.loss(data, case.batch).values())).sum().backward()
    assert plain.user_embedding.grad.abs().sum() > 0 and plain.theta.grad is None

    short = LIRDRec(data, channels=case.hyper['d'], dct='none')
    assert [encoder[0].in_features for encoder in short.blocks.encoders] == [
        data[ITEM][f'x_{m}'].size(1) for m in ('image', 'text')
    ]
    short = short.to(case.dtype)
    assert short(data).item.size(1) == 2 * case.hyper['d']
    assert len(short.blocks(data)) == 2
