import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch_geometric.data import HeteroData

from motor_geo.nn import FeatureProjection, TokenCrossEncoder
from motor_geo.nn.loss import info_nce
from motor_geo.nn.models.slmrec import SLMRec
from motor_geo.typing import RATES
from tests.golden_case import GoldenCase


def build(case, data=None, **kwargs):
    h = case.hyper
    kwargs = {
        'channels': h['d'],
        'num_layers': h['L'],
        'temperature': h['tau'],
        'ssl_weight': h['ssl_alpha'],
        'ssl_temperature': h['tau_s'],
        **kwargs,
    }
    return SLMRec(case.data() if data is None else data, **kwargs).to(case.dtype)


def golden(dtype):
    case = GoldenCase('slmrec', dtype)
    model = build(case)
    linears = {
        'image_linear': model.features.lins['image'],
        'text_linear': model.features.lins['text'],
        'user_fusion': model.user_fusion,
        'item_fusion': model.item_fusion,
        'head_g_i': model.alignment.head_id,
        'head_g_v': model.alignment.heads['image'],
        'head_g_iv': model.alignment.stage['map'],
        'head_g_iv2': model.alignment.chain[0],
        'head_g_t': model.alignment.heads['text'],
        'head_unused': model.alignment.stage['head'],
    }
    parameters = {
        'user_embedding': model.user_embedding,
        'item_embedding': model.item_encoder.weight,
    }
    for name, lin in linears.items():
        parameters[f'{name}_weight'], parameters[f'{name}_bias'] = lin.weight, lin.bias
    return case, model, case.load(parameters)


def token_data(case):
    data = case.data()
    generator = torch.Generator().manual_seed(1)
    data['item'].token_id = torch.randint(7, (case.hyper['N'], 4), generator=generator)
    return data


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32])
def test_slmrec_golden(dtype):
    case, model, parameters = golden(dtype)
    data, h = case.data(), case.hyper

    views = model.views(data)
    for k, name in enumerate(['id', 'image', 'text']):
        case.assert_close(torch.cat([views.user[:, k], views.item[:, k]]), f'gcn_{name}')
    out = model(data)
    case.assert_close(out.user, 'user_repr')
    case.assert_close(out.item, 'item_repr')
    scores = out.user @ out.item.t()
    case.assert_close(scores, 'scores_raw')
    case.assert_close(scores.sigmoid(), 'scores')

    losses = model.loss(data, case.batch)
    terms = {
        'info_nce': ('loss_infonce', 1),
        'fac_image': ('loss_fac_id_image', h['ssl_alpha']),
        'fac_text': ('loss_fac_chain_text', h['ssl_alpha']),
    }
    case.assert_loss(losses, terms)
    assert set(map(id, parameters.values())) == set(map(id, model.parameters()))
    case.assert_gradients(losses, parameters)


def test_slmrec_ranks_like_the_sigmoid():
    case, model, _ = golden(torch.float64)
    out = model(case.data())
    assert torch.equal((out.user @ out.item.t()).argsort(), case['scores'].argsort())


def test_slmrec_number_of_parameters():
    # Sizes of the Music data: 5,639,168 in all, 4,157,256 without item
    # embedding and with four tokens per modality.
    data = HeteroData()
    data['user'].num_nodes, data['item'].num_nodes = 57202, 25717
    data['item'].x_image = torch.empty(1).expand(25717, 4096)
    data['item'].x_text = torch.empty(1).expand(25717, 384)
    data['item'].num_nodes = 25717

    def count(model):
        return sum(p.numel() for p in model.parameters())

    model = SLMRec(data)
    assert count(model) == 5_639_168
    assert model.item_parameters(25717) == ['item_encoder.weight']
    encoder = TokenCrossEncoder({'image': 4, 'text': 4})
    model = SLMRec(data, encoder)
    assert count(model) == 4_157_256
    assert model.item_parameters(25717) == []


def test_slmrec_three_modalities_against_dense_matrices():
    case = GoldenCase('slmrec')
    data = case.data()
    data['item'].x_audio = torch.randn(case.hyper['N'], 5, dtype=torch.float64)
    model = build(case, data, num_layers=2)
    assert model.modalities == ['image', 'audio', 'text'] and model.alignment.stage is None

    user, item = data[RATES].edge_index
    m, n = case.hyper['M'], case.hyper['N']
    a = torch.zeros(m + n, m + n, dtype=torch.float64)
    a[user, m + item] = 1
    a = a + a.t()
    degree = a.sum(dim=0).clamp(min=1)
    a = a / (degree.view(-1, 1) * degree).sqrt()
    xs = [model.item_encoder.weight]
    xs += [model.features.lins[k](F.normalize(data['item'][f'x_{k}'])) for k in model.modalities]
    xs = [torch.cat([model.user_embedding, x]) for x in xs]
    xs = [(x + a @ x + a @ a @ x) / 3 for x in xs]
    out = model(data)
    torch.testing.assert_close(out.user, model.user_fusion(torch.cat(xs, 1)[:m]))
    torch.testing.assert_close(out.item, model.item_fusion(torch.cat(xs, 1)[m:]))

    losses, batch = model.loss(data, case.batch), case.batch
    expected = info_nce(out.user[batch.user], out.item[batch.pos], case.hyper['tau'])
    torch.testing.assert_close(losses['info_nce'], expected)
    anchor = model.alignment.head_id(xs[0][m:][batch.pos])
    for k, modality in enumerate(model.modalities):
        if k > 0:
            anchor = model.alignment.chain[k - 1](anchor)
        key = model.alignment.heads[modality](xs[k + 1][m:][batch.pos])
        assert anchor.size(1) == key.size(1) == (8 if modality == 'text' else 16)
        p = (anchor @ key.t() / case.hyper['tau_s']).softmax(dim=1).diagonal()
        expected = -case.hyper['ssl_alpha'] * p.log().mean()
        torch.testing.assert_close(losses[f'fac_{modality}'], expected)


def test_slmrec_one_modality():
    case = GoldenCase('slmrec')
    data = case.data()
    del data['item'].x_text
    model = build(case, data)
    losses = model.loss(data, case.batch)
    assert set(losses) == {'info_nce', 'fac_image'}
    torch.stack(list(losses.values())).sum().backward()
    for p in [
        model.user_embedding,
        *(lin.weight for lin in [model.features.lins['image'], model.alignment.head_id]),
    ]:
        assert p.grad.norm() > 1e-6
    assert model.alignment.stage is None and len(model.alignment.chain) == 0


def test_slmrec_without_ssl():
    case = GoldenCase('slmrec')
    model = build(case, ssl_weight=0.0)
    assert set(model.loss(case.data(), case.batch)) == {'info_nce'}


@pytest.mark.parametrize('num_new', [0, 5])
def test_slmrec_is_id_free(num_new):
    case = GoldenCase('slmrec')
    data, n = token_data(case), case.hyper['N']
    model = build(case, data, item_encoder=TokenCrossEncoder({'image': 2, 'text': 2}, 7, 16))
    assert model.item_parameters(n) == []
    for _, value in [*model.named_parameters(), *model.named_buffers()]:
        assert n not in value.shape

    before = model(data)
    for key in ['x_image', 'x_text', 'token_id']:
        data['item'][key] = torch.cat([data['item'][key], data['item'][key][:num_new]])
    data['item'].num_nodes = n + num_new
    after = model(data)
    assert after.item.size(0) == n + num_new and after.item.isfinite().all()
    torch.testing.assert_close(after.user, before.user)
    torch.testing.assert_close(after.item[:n], before.item)


def test_slmrec_with_projected_features():
    case = GoldenCase('slmrec')
    data, h = case.data(), case.hyper
    encoder = FeatureProjection({'image': h['d_v'], 'text': h['d_t']}, h['d'])
    model = build(case, data, item_encoder=encoder)
    torch.stack(list(model.loss(data, case.batch).values())).sum().backward()
    assert encoder.bias.grad.any() and model.item_parameters(h['N']) == []


def test_slmrec_follows_changed_features():
    case = GoldenCase('slmrec')
    data = case.data()
    model = build(case, data)
    before = model(data).item
    data['item'].x_image.mul_(3)  # Rows have unit length in the model.
    torch.testing.assert_close(model(data).item, before)
    data['item'].x_image = data['item'].x_image + 1
    assert not torch.allclose(model(data).item, before)


def test_slmrec_copies():
    case = GoldenCase('slmrec')
    data = case.data()
    model = build(case, data)
    expected = model(data)
    for clone in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(clone(data).user, expected.user)


def test_slmrec_reset_parameters():
    case = GoldenCase('slmrec')
    torch.manual_seed(0)
    model = build(case)
    torch.manual_seed(0)
    other = build(case)
    for a, b in zip(model.parameters(), other.parameters()):
        assert torch.equal(a, b)
    model.reset_parameters()
    assert all(not torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters()))
    bound = (6 / (16 + 24)) ** 0.5  # Xavier, which the default of PyTorch stays far below.
    assert 0.9 * bound < float(model.features.lins['image'].weight.detach().abs().max()) <= bound


def test_slmrec_rejects_bad_arguments():
    data = GoldenCase('slmrec').data()
    with pytest.raises(ValueError, match=r"'channels' must be an even number \(got 15\)"):
        SLMRec(data, channels=15)
    with pytest.raises(ValueError, match=r"'num_layers' must be at least 1 \(got 0\)"):
        SLMRec(data, num_layers=0)
    with pytest.raises(ValueError, match="'ssl_temperature' must be positive and finite"):
        SLMRec(data, ssl_temperature=0.0)
    with pytest.raises(ValueError, match="'SLMRec' needs item features of at least 1 modality"):
        SLMRec(GoldenCase('bpr').data())
    assert SLMRec.weight_decay == 1e-4
