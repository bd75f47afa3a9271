import pytest
import torch

from motor_geo.nn import TokenCrossEncoder
from motor_geo.nn.models import DRAGON
from tests.golden_case import GoldenCase
from tests.nn.models.test_dualgnn import encoder_parameters, load_weights


def golden(dtype=torch.float64):
    case = GoldenCase('dragon', dtype)
    h, data = case.hyper, case.data('binary', users=True)
    names = case.modalities
    others = [m for m in names if m != 'image']
    model = DRAGON(
        data,
        channels=h['d'],
        num_item_layers=h['L_ii'],
        modality_weight={'image': h['w'], **{m: (1 - h['w']) / len(others) for m in others}},
        reg_weight=h['reg'],
    ).to(case.dtype)
    parameters = {
        tuple(f'{m}_preference' for m in names): model.user_embedding,
        **encoder_parameters(model, names),
    }
    load_weights(case, model)
    return case, model, data, case.load(parameters)


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32])
def test_dragon_golden(dtype):
    case, model, data, parameters = golden(dtype)
    reg = case.hyper['reg']
    losses = model.loss(data, case.batch)
    terms = {
        'bpr': ('loss_bpr', 1),
        'reg': ([f'loss_reg_{m}_preference' for m in case.modalities], reg),
        'reg_weight': ('loss_reg_user_weight', reg),
    }
    case.assert_loss(losses, terms)
    (gradient,) = torch.autograd.grad(sum(losses.values()), [model.user_weight], retain_graph=True)
    case.assert_gradient(gradient.unsqueeze(-1), 'user_modality_weight')
    case.assert_gradients(losses, parameters)
    known = {id(model.user_weight), *map(id, parameters.values())}
    assert known == set(map(id, model.parameters()))

    out = model(data)
    case.assert_close(out.user, 'user_repr')
    case.assert_close(out.item, 'item_repr')
    case.assert_close(out.user @ out.item.t(), 'scores')


def test_dragon_tokens_are_one_more_block():
    case, _, data, _ = golden()
    data['item'].token_id = torch.randint(7, (case.hyper['N'], 4))
    encoder = TokenCrossEncoder({'image': 2, 'text': 2}, 7, 8)
    model = DRAGON(data, encoder, channels=8)
    out = model(data)
    assert out.user.size(1) == out.item.size(1) == 24
    assert model.item_parameters(case.hyper['N']) == []
    sum(model.loss(data, case.batch).values()).backward()
    assert encoder.table.grad.any()


def test_dragon_without_regularizer():
    case, _, data, _ = golden()
    assert set(DRAGON(data, reg_weight=0.0).loss(data, case.batch)) == {'bpr'}


def test_dragon_rejects_bad_arguments():
    case, _, _, _ = golden()
    with pytest.raises(ValueError, match="'DRAGON' needs the user graph .*apply 'UserKNN'"):
        DRAGON(case.data('binary'))
    with pytest.raises(ValueError, match="'DRAGON' needs the item graph .*apply 'ItemKNN'"):
        DRAGON(case.data(users=True))
