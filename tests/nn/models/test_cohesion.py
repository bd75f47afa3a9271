import pytest
import torch

from motor_geo.nn import TokenCrossEncoder
from motor_geo.nn.models import COHESION
from motor_geo.typing import RATES
from tests.golden_case import GoldenCase
from tests.nn.models.test_dualgnn import encoder_parameters


def golden(dtype=torch.float64, **kwargs):
    case = GoldenCase('cohesion', dtype)
    h, data = case.hyper, case.data('binary', users=True)
    names = case.modalities
    others = [m for m in names if m != 'image']
    model = COHESION(
        data,
        channels=h['d'],
        num_layers=h['L'],
        num_item_layers=h['L_ii'],
        modality_weight={'image': h['w'], **{m: (1 - h['w']) / len(others) for m in others}},
        **{'rho': h['dropout'], 'reg_weight': h['reg'], **kwargs},
    ).to(case.dtype)
    parameters = {
        tuple(f'{m}_preference' for m in ['id', *names]): model.user_embedding,
        'item_embedding': model.item_encoder.weight,
        **encoder_parameters(model, names),
    }
    case.load(
        {
            'id_hidden_weight': model.id_hidden.weight,
            'id_hidden_bias': model.id_hidden.bias,
            'id_output_weight': model.id_out.weight,
            'id_output_bias': model.id_out.bias,
        }
    )
    return case, model, data, case.load(parameters)


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32])
def test_cohesion_golden(dtype):
    case, model, data, parameters = golden(dtype)
    reg = case.hyper['reg']
    losses = model.loss(data, case.batch)
    terms = {
        'bpr': ('loss_bpr', 1),
        'reg': ([f'loss_reg_{m}_preference' for m in case.modalities], reg),
    }
    case.assert_loss(losses, terms, idle=[('loss_reg_user_weight', reg)])
    case.assert_gradients(losses, parameters)
    trained = {id(p) for p in model.parameters() if p.requires_grad}
    assert trained == set(map(id, parameters.values()))
    case.assert_close(model.balance(model.rows(data, case.batch)), 'modality_weight')

    out = model(data)
    case.assert_close(out.user, 'user_repr')
    case.assert_close(out.item, 'item_repr')
    case.assert_close(out.user @ out.item.t(), 'scores')


def test_cohesion_id_block_is_not_trained():
    case, model, data, _ = golden()
    out = model.propagate(data, training=True)
    d = case.hyper['d']
    for x in out:
        (gradient,) = torch.autograd.grad(
            x[:, :d].sum() + 0 * x.sum(), model.item_encoder.weight, retain_graph=True
        )
        assert not gradient.any()
        (gradient,) = torch.autograd.grad(x.sum(), model.item_encoder.weight, retain_graph=True)
        assert gradient.any()


def test_cohesion_prunes_in_training():
    case, model, data, _ = golden(rho=0.5)
    whole = model.propagate(data, training=True).user
    model.begin_epoch(data, 0, torch.Generator().manual_seed(0))
    assert model.training_graph(data).to_item.size(1) == data[RATES].num_edges // 2
    assert not torch.equal(model.propagate(data, training=True).user, whole)
    assert torch.equal(model.propagate(data, training=False).user, whole)


def test_cohesion_with_tokens():
    case, _, data, _ = golden()
    data['item'].token_id = torch.randint(7, (case.hyper['N'], 4))
    encoder = TokenCrossEncoder({'image': 2, 'text': 2}, 7, 8)
    model = COHESION(data, encoder, channels=8)
    assert model.item_parameters(case.hyper['N']) == []
    sum(model.loss(data, case.batch).values()).backward()
    assert encoder.table.grad.any()
    assert not model.user_embedding.grad[:, :8].any()


def test_cohesion_rejects_bad_arguments():
    case, _, data, _ = golden()
    with pytest.raises(ValueError, match=r"'num_layers' must be positive \(got 0\)"):
        COHESION(data, num_layers=0)
    with pytest.raises(ValueError, match=r"'rho' must lie in \[0, 1\) \(got 1.0\)"):
        COHESION(data, rho=1.0)
    with pytest.raises(ValueError, match="'COHESION' needs the user graph .*apply 'UserKNN'"):
        COHESION(case.data('binary'))
