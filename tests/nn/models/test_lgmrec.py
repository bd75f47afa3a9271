import copy
import pickle

import pytest
import torch
import torch.nn.functional as F

from motor_geo.nn import FeatureProjection, TokenCrossEncoder
from motor_geo.nn.models.lgmrec import LGMRec
from motor_geo.typing import RATES
from tests.golden_case import GoldenCase


def build(case, data=None, **kwargs):
    h = case.hyper
    kwargs = {
        'channels': h['d'],
        'num_layers': h['L_ui'],
        'num_modal_layers': h['n_mm'],
        'num_hyper_layers': h['n_h'],
        'num_hyperedges': h['K_h'],
        'keep_rate': h['keep'],
        'alpha': h['alpha'],
        'cl_weight': h['cl_weight'],
        'reg_weight': h['reg'],
        'temperature': h['tau'],
        **kwargs,
    }
    return LGMRec(case.data() if data is None else data, **kwargs).to(case.dtype)


def golden(dtype=torch.float64):
    case = GoldenCase('lgmrec', dtype)
    model = build(case)
    parameters = {
        'user_embedding': model.user_embedding,
        'item_embedding': model.item_encoder.weight,
    }
    for m in case.modalities:
        parameters[f'{m}_projection'] = model.projections[m]
        parameters[f'{m}_hyperedge'] = model.hyperedges[m]
    return case, model, case.load(parameters)


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32])
@pytest.mark.parametrize('prefix', ['', 'noisy_'])
def test_lgmrec_golden(prefix, dtype):
    case, model, parameters = golden(dtype)
    data, h = case.data(), case.hyper

    def draw(logits, modality, node_type, training):
        assert training
        if prefix == '':
            return None, None
        key = f'{node_type}_{modality}'
        return case[f'gumbel_{key}'], case[f'keepmask_{key}'].to(dtype) / h['keep']

    generic, model.hypergraph.draw = model.hypergraph.draw, draw
    losses = model.loss(data, case.batch)
    terms = {
        'bpr': ('loss_bpr', 1),
        'hcl_user': ('loss_hcl_users', h['cl_weight']),
        'hcl_item': ('loss_hcl_items', h['cl_weight']),
        'reg': ('loss_reg', h['reg']),
    }
    case.assert_loss(losses, terms, prefix)
    case.assert_gradients(losses, parameters, prefix)
    assert set(map(id, parameters.values())) == set(map(id, model.parameters()))

    if prefix == '':
        model.hypergraph.draw = generic
        for m, hyper in zip(model.features.names, model.parts(data).hyper):
            case.assert_close(hyper.share.user @ hyper.lat, f'hyper_user_{m}')
            case.assert_close(hyper.share.item @ hyper.lat, f'hyper_item_{m}')
        out = model(data)
        case.assert_close(out.user, 'user_repr')
        case.assert_close(out.item, 'item_repr')
        case.assert_close(out.user @ out.item.t(), 'scores')


def test_lgmrec_noise_belongs_to_training():
    case, model, _ = golden()
    data = case.data()

    def losses(training):
        model.train(training)
        return torch.stack(list(model.loss(data, case.batch).values()))

    assert torch.equal(model(data).user, model(data).user)
    torch.testing.assert_close(losses(False)[0], case['loss_bpr'], atol=1e-7, rtol=1e-6)
    torch.manual_seed(0)
    first, other = losses(True), losses(True)
    torch.manual_seed(0)
    assert torch.equal(losses(True), first) and not torch.equal(first, other)

    model.hypergraph.deterministic = False
    model.eval()
    torch.manual_seed(0)
    first, other = model(data), model(data)
    torch.manual_seed(0)
    assert torch.equal(model(data).item, first.item) and not torch.equal(first.item, other.item)


def plain_contrast(a, p, index, temperature):
    logits = F.normalize(a) @ F.normalize(p).t() / temperature
    return -(logits.softmax(dim=1)[index, index].log()).sum()


def test_lgmrec_against_dense_matrices():
    case = GoldenCase('lgmrec')
    data, h = case.data(), case.hyper
    data['item'].x_audio = torch.randn(h['N'], 5, dtype=torch.float64)
    edge_index = data[RATES].edge_index
    # A user and an item without edges.
    data[RATES].edge_index = edge_index = edge_index[:, (edge_index[0] != 2) & (edge_index[1] != 5)]
    model = build(case, data, num_hyper_layers=3, num_modal_layers=3)
    assert model.features.names == ['audio', 'image', 'text']

    r = torch.zeros(h['M'], h['N'], dtype=torch.float64)
    r[edge_index[0], edge_index[1]] = 1
    d_u, d_i = r.sum(1).clamp(min=1), r.sum(0).clamp(min=1)
    s = r / (d_u.view(-1, 1) * d_i).sqrt()

    def hop(user, item):
        return s @ item, s.t() @ user

    one = hop(model.user_embedding, model.item_encoder.weight)
    two = hop(*one)
    user = (model.user_embedding + one[0] + two[0]) / 3
    item = item_content = (model.item_encoder.weight + one[1] + two[1]) / 3
    hyper_user = hyper_item = 0.0
    hypers = []
    for m in model.features.names:
        x = data['item'][f'x_{m}']
        y_item = x @ model.projections[m]
        y_user = (r @ y_item) / d_u.view(-1, 1)
        for _ in range(3):
            y_user, y_item = hop(y_user, y_item)
        user, item = user + F.normalize(y_user), item + F.normalize(y_item)
        g_item = (x @ model.hyperedges[m] / h['tau']).softmax(dim=1)
        g_user = (r @ x @ model.hyperedges[m] / h['tau']).softmax(dim=1)
        y = item_content
        for _ in range(3):
            u, y = g_user @ g_item.t() @ y, g_item @ g_item.t() @ y
        hyper_user, hyper_item = hyper_user + u, hyper_item + y
        hypers.append((u, y))
    out = model(data)
    torch.testing.assert_close(out.user, user + h['alpha'] * F.normalize(hyper_user))
    torch.testing.assert_close(out.item, item + h['alpha'] * F.normalize(hyper_item))

    losses = model.eval().loss(data, case.batch)
    for side, name, index in ((0, 'user', case.batch.user), (1, 'item', case.batch.pos)):
        expected = 0.0  # The mean over the three pairs.
        for a, b in ((0, 1), (0, 2), (1, 2)):
            expected += plain_contrast(hypers[a][side], hypers[b][side], index, h['tau']) / 3
        torch.testing.assert_close(losses[f'hcl_{name}'], h['cl_weight'] * expected)


def test_lgmrec_one_modality():
    case = GoldenCase('lgmrec')
    data = case.data()
    del data['item'].x_image
    model = build(case, data)
    losses = model.loss(data, case.batch)
    assert set(losses) == {'bpr', 'reg'}
    torch.stack(list(losses.values())).sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())


def test_lgmrec_weights_of_zero_drop_terms():
    case = GoldenCase('lgmrec')
    model = build(case, cl_weight=0.0, reg_weight=0.0)
    assert set(model.loss(case.data(), case.batch)) == {'bpr'}


def test_lgmrec_is_id_free():
    case = GoldenCase('lgmrec')
    data, n = case.data(), case.hyper['N']
    data['item'].token_id = torch.randint(7, (n, 4))
    model = build(case, data, item_encoder=TokenCrossEncoder({'image': 2, 'text': 2}, 7, 16))
    assert model.item_parameters(n) == []
    for _, value in [*model.named_parameters(), *model.named_buffers()]:
        assert n not in value.shape

    before = model.parts(data)
    for key in ['x_image', 'x_text', 'token_id']:
        data['item'][key] = torch.cat([data['item'][key], data['item'][key][[4, 4]]])
    data['item'].num_nodes = n + 2
    after, out = model.parts(data), model(data)
    assert out.item.size(0) == n + 2 and out.item.isfinite().all()
    # New items take part in hyperedges, but in nothing else.
    torch.testing.assert_close(after.content.user, before.content.user)
    torch.testing.assert_close(after.modal.item[:n], before.modal.item)
    torch.testing.assert_close(after.content.item[n], model.encode_items(data)[4] / 3)
    share = after.hyper[0].share.item
    torch.testing.assert_close(share[n], share[4])
    assert not after.modal.item[n].any()


def test_lgmrec_with_projected_features():
    case = GoldenCase('lgmrec')
    data, h = case.data(), case.hyper
    encoder = FeatureProjection({'image': h['d_v'], 'text': h['d_t']}, h['d'])
    model = build(case, data, item_encoder=encoder)
    torch.stack(list(model.loss(data, case.batch).values())).sum().backward()
    assert encoder.bias.grad.any() and model.item_parameters(h['N']) == []


def test_lgmrec_copies_and_resets():
    case = GoldenCase('lgmrec')
    data = case.data()
    model = build(case, data)
    expected = model(data)
    for clone in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(clone(data).user, expected.user)
    clone.reset_parameters()
    assert all(not torch.equal(a, b) for a, b in zip(model.parameters(), clone.parameters()))


def test_lgmrec_rejects_bad_arguments():
    data = GoldenCase('lgmrec').data()
    with pytest.raises(ValueError, match=r"'keep_rate' must lie in \(0, 1\] \(got 0.0\)"):
        LGMRec(data, keep_rate=0.0)
    with pytest.raises(ValueError, match="'num_hyper_layers' and 'num_hyperedges' must be at le"):
        LGMRec(data, num_hyperedges=0)
    with pytest.raises(ValueError, match=r"'num_modal_layers' must not be negative \(got -1\)"):
        LGMRec(data, num_modal_layers=-1)
    with pytest.raises(ValueError, match=r"'temperature' must be positive and finite \(got 0\)"):
        LGMRec(data, temperature=0)
    with pytest.raises(ValueError, match="'LGMRec' needs item features of at least 1 modality"):
        LGMRec(GoldenCase('bpr').data())
