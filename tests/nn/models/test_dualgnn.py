import pytest
import torch

from motor_geo.nn import TokenCrossEncoder
from motor_geo.nn.models import DualGNN
from tests.golden_case import GoldenCase


def encoder_parameters(model, names):
    r"""Networks over features, named as in the cases."""
    out = {}
    for m in names:
        for part, lin in (('hidden', model.features.lins[m]), ('output', model.outs[m])):
            out[f'{m}_{part}_weight'], out[f'{m}_{part}_bias'] = lin.weight, lin.bias
    return out


def load_weights(case, model):
    with torch.no_grad():
        model.user_weight.copy_(case['user_modality_weight'].squeeze(-1))


def golden(dtype=torch.float64, **kwargs):
    case = GoldenCase('dualgnn', dtype)
    h, data = case.hyper, case.data(users=True)
    model = DualGNN(data, channels=h['d'], reg_weight=h['reg'], **kwargs).to(case.dtype)
    names = case.modalities
    parameters = {
        tuple(f'{m}_preference' for m in names): model.user_embedding,
        **encoder_parameters(model, names),
    }
    load_weights(case, model)
    return case, model, data, case.load(parameters)


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32])
def test_dualgnn_golden(dtype):
    case, model, data, parameters = golden(dtype)
    reg = case.hyper['reg']
    losses = model.loss(data, case.batch)
    terms = {
        'bpr': ('loss_bpr', 1),
        'reg': ([f'loss_reg_{m}_preference' for m in case.modalities], reg),
        'reg_weight': ('loss_reg_user_weight', reg),
    }
    case.assert_loss(losses, terms, idle=[('loss_reg_item_weight', reg)])
    (gradient,) = torch.autograd.grad(sum(losses.values()), [model.user_weight], retain_graph=True)
    case.assert_gradient(gradient.unsqueeze(-1), 'user_modality_weight')
    case.assert_gradients(losses, parameters)
    known = {id(model.user_weight), *map(id, parameters.values())}
    assert known == set(map(id, model.parameters()))

    out = model(data)
    case.assert_close(out.user, 'user_repr')
    case.assert_close(out.item, 'item_repr')
    case.assert_close(out.user @ out.item.t(), 'scores')


def test_user_knn_golden():
    case = GoldenCase('dualgnn')
    graph = case.data(users=True)['user', 'similar', 'user']
    k = case.hyper['k_user']
    assert torch.equal(graph.edge_index[0].view(-1, k), case['user_neighbors'])
    expected = torch.arange(case.hyper['M']).repeat_interleave(k)
    assert torch.equal(graph.edge_index[1], expected)
    torch.testing.assert_close(graph.edge_weight.view(-1, k), case['user_neighbor_weight'])


def test_dualgnn_fusion_of_the_paper():
    case, model, data, _ = golden(fusion='paper')
    user, item = model.modal_vectors(data)
    expected = torch.zeros_like(user[:, 0])
    for u in range(len(user)):
        for m in range(model.num_blocks):
            expected[u] += model.user_weight[u, m] * user[u, m]
    out = model.propagate(data, training=False)
    torch.testing.assert_close(out.user, expected)
    torch.testing.assert_close(out.item, item[:, 0] + item[:, 1])


def test_dualgnn_tokens_are_one_more_modality():
    case, _, data, _ = golden()
    data['item'].token_id = torch.randint(7, (case.hyper['N'], 4))
    encoder = TokenCrossEncoder({'image': 2, 'text': 2}, 7, 8)
    model = DualGNN(data, encoder, channels=8)
    assert model.user_embedding.size(1) == 24 and model.user_weight.size(1) == 3
    assert model.item_parameters(case.hyper['N']) == []
    sum(model.loss(data, case.batch).values()).backward()
    assert encoder.table.grad.any()


def test_dualgnn_weights_start_as_shares():
    _, model, _, _ = golden()
    torch.manual_seed(0)
    model.reset_parameters()
    total = model.user_weight.sum(dim=1)
    torch.testing.assert_close(total, torch.ones_like(total))
    assert model.user_weight.std() > 0


def test_dualgnn_rejects_bad_arguments():
    case, _, data, _ = golden()
    with pytest.raises(ValueError, match="'fusion' must be 'reference' or 'paper' .got 'sum'."):
        DualGNN(data, fusion='sum')
    with pytest.raises(ValueError, match="'DualGNN' needs the user graph .*apply 'UserKNN'"):
        DualGNN(case.data())
    with pytest.raises(ValueError, match="'DualGNN' needs item features of at least 1 modality"):
        DualGNN(GoldenCase('bpr').data())
    model = DualGNN(data)
    with pytest.raises(ValueError, match="The graph has no .*apply the 'transforms'"):
        model(GoldenCase('dualgnn', torch.float32).data())
