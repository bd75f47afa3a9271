import pytest
import torch
import torch.nn.functional as F

from motor_geo.nn import TokenCrossEncoder
from motor_geo.nn.models.bm3 import BM3
from tests.golden_case import GoldenCase


class MaskedBM3(BM3):
    masks = None

    def drop(self, x, kind, index):
        return x * self.masks[kind][index] / (1 - self.dropout)


def build(case, cls=BM3, **kwargs):
    data, h = case.data(), case.hyper
    kwargs = {'dropout': 0.0, 'train_features': True, **kwargs}
    model = cls(
        data,
        channels=h['d'],
        num_layers=h['L'],
        cl_weight=h['cl_weight'],
        reg_weight=h['reg'],
        **kwargs,
    ).to(case.dtype)
    parameters = {
        'user_embedding': model.user_embedding,
        'item_embedding': model.item_encoder.weight,
        'predictor_weight': model.predictor.weight,
        'predictor_bias': model.predictor.bias,
    }
    for modality in case.modalities:
        if model.features.tables is not None:
            parameters[f'{modality}_table'] = model.features.tables[modality]
        parameters[f'{modality}_linear_weight'] = model.features.lins[modality].weight
        parameters[f'{modality}_linear_bias'] = model.features.lins[modality].bias
    return model, data, case.load(parameters)


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32])
@pytest.mark.parametrize('prefix', ['', 'masked_'])
def test_bm3_golden(prefix, dtype):
    case = GoldenCase('bm3', dtype)
    if prefix == '':
        model, data, parameters = build(case)
    else:
        model, data, parameters = build(case, MaskedBM3, dropout=case.hyper['rho'])
        model.masks = {kind: case[f'mask_{kind}'] for kind in ['user', 'item', *case.modalities]}

    losses = model.loss(data, case.batch)
    terms = {
        'rec_user': ('loss_rec_user', 1),
        'rec_item': ('loss_rec_item', 1),
        'reg': ('loss_reg', case.hyper['reg']),
    }
    for m in case.modalities:
        terms[f'inter_{m}'] = (f'loss_{m}_item', case.hyper['cl_weight'])
        terms[f'intra_{m}'] = (f'loss_{m}_{m}', case.hyper['cl_weight'])
    case.assert_loss(losses, terms, prefix)
    case.assert_gradients(losses, parameters, prefix)

    out = model.propagate(data)
    case.assert_close(out.user, 'gcn_user')
    case.assert_close(out.item, 'gcn_item_plus_residual')
    out = model(data)
    case.assert_close(out.user, 'user_repr')
    case.assert_close(out.item, 'item_repr')
    case.assert_close(out.user @ out.item.t(), 'scores')


def test_bm3_has_no_gradient_through_targets():
    case = GoldenCase('bm3')
    model, data, _ = build(case)
    out = model.propagate(data)
    user, item = out.user[case.batch.user], out.item[case.batch.pos]
    expected = 1 - F.cosine_similarity(model.predictor(user), item.detach()).mean()
    losses = model.loss(data, case.batch)
    parameters = [model.user_embedding, model.item_encoder.weight]
    for a, b in zip(
        torch.autograd.grad(losses['rec_user'], parameters, retain_graph=True),
        torch.autograd.grad(expected, parameters),
    ):
        torch.testing.assert_close(a, b)
    # Features only meet constants: nothing reaches items or users.
    feature_terms = sum(v for k, v in losses.items() if k[:5] in ('inter', 'intra'))
    gradients = torch.autograd.grad(feature_terms, parameters)
    assert not any(gradient.any() for gradient in gradients)


def test_bm3_drops_targets_only():
    case = GoldenCase('bm3')
    model, data, _ = build(case, dropout=0.5)
    expected, again = model(data), model(data)  # In training mode, too.
    assert all(torch.equal(a, b) for a, b in zip(expected, again))

    torch.manual_seed(0)
    first = model.loss(data, case.batch)
    other = model.loss(data, case.batch)
    torch.manual_seed(0)
    again = model.loss(data, case.batch)
    assert all(torch.equal(first[term], again[term]) for term in first)
    changed = {term for term in first if not torch.equal(first[term], other[term])}
    assert changed == set(first) - {'reg'}

    x = torch.ones(400, 50)
    x = model.drop(x, 'user', torch.arange(400))
    assert set(x.unique().tolist()) == {0.0, 2.0}
    assert float(x.mean()) == pytest.approx(1, abs=0.05)


def test_bm3_frozen_features_give_the_same_losses():
    case = GoldenCase('bm3')
    trained, data, _ = build(case)
    frozen, _, _ = build(case, train_features=False)
    for modality in case.modalities:
        data['item'][f'x_{modality}'] = case[f'{modality}_table']
    expected = trained.loss(data, case.batch)
    for term, value in frozen.loss(data, case.batch).items():
        torch.testing.assert_close(value, expected[term])
    assert all('tables' not in name for name, _ in frozen.named_parameters())
    # Negatives are not used.
    batch = case.batch._replace(neg=torch.full_like(case.batch.neg, -1))
    assert torch.equal(trained.loss(data, batch)['rec_user'], expected['rec_user'])


def test_bm3_any_modalities():
    case = GoldenCase('bm3')
    data = case.data()
    del data['item'].x_image
    losses = BM3(data, channels=8).double().loss(data, case.batch)
    assert set(losses) == {'rec_user', 'rec_item', 'inter_text', 'intra_text', 'reg'}
    data['item'].x_audio = data['item'].x_smell = torch.rand(case.hyper['N'], 3)
    losses = BM3(data, channels=8).double().loss(data, case.batch)
    assert len(losses) == 3 + 2 * 3
    for modality in ('text', 'audio', 'smell'):
        del data['item'][f'x_{modality}']
    with pytest.raises(ValueError, match="'BM3' needs item features of at least 1 modality"):
        BM3(data)


def test_bm3_with_tokens():
    case = GoldenCase('bm3')
    data = case.data()
    data['item'].token_id = torch.randint(0, 8, (case.hyper['N'], 4))
    encoder = TokenCrossEncoder({'image': 2, 'text': 2}, codebook_size=8, out_channels=6)
    model = BM3(data, encoder, channels=6)
    assert model.item_parameters(case.hyper['N']) == []
    sum(model.loss(data, case.batch).values()).backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())

    model = model.double()
    data['item'].num_nodes += 1  # An unseen item has its residual and layer 0.
    data['item'].token_id = torch.cat([data['item'].token_id, torch.ones(1, 4).long()])
    item = encoder(torch.ones(1, 4).long())
    torch.testing.assert_close(model(data).item[-1:], model.predictor(1.5 * item))


def test_bm3_reset_and_bad_arguments():
    data = GoldenCase('bm3').data()
    model = BM3(data, channels=8)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    model.reset_parameters()
    assert all(not torch.equal(p, before[name]) for name, p in model.named_parameters())
    with pytest.raises(ValueError, match=r"'dropout' must lie in \[0, 1\) \(got 1.0\)"):
        BM3(data, dropout=1.0)


def test_bm3_order_of_terms():
    case = GoldenCase('bm3')
    model, data, _ = build(case)
    expected = ['rec_user', 'rec_item']
    for m in case.modalities:
        expected += [f'inter_{m}', f'intra_{m}']
    assert list(model.loss(data, case.batch)) == [*expected, 'reg']
    model.cl_weight = 0.0
    assert list(model.loss(data, case.batch)) == ['rec_user', 'rec_item', 'reg']
