import pytest
import torch

from motor_geo.nn.models import VBPR
from tests.golden_case import GoldenCase


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32])
def test_vbpr_golden(dtype):
    case = GoldenCase('vbpr', dtype)
    data, h = case.data(), case.hyper
    model = VBPR(data, channels=h['d'], reg_weight=h['reg']).to(dtype)
    parameters = case.load(
        {
            'user_embedding': model.user_embedding,
            'item_embedding': model.item_encoder.weight,
            'feature_linear_weight': model.lin.weight,
            'feature_linear_bias': model.lin.bias,
        }
    )

    out = model(data)
    case.assert_close(out.user, 'user_repr')
    case.assert_close(out.item, 'item_repr')
    case.assert_close(out.user @ out.item.t(), 'scores')
    losses = model.loss(data, case.batch)
    case.assert_loss(losses, {'bpr': ('loss_bpr', 1), 'reg': ('loss_reg', h['reg'])})
    case.assert_gradients(losses, parameters)


def test_vbpr_needs_features():
    data = GoldenCase('bpr').data()
    with pytest.raises(ValueError, match="'VBPR' needs item features of at least 1 modality"):
        VBPR(data)


def test_vbpr_one_modality():
    case = GoldenCase('vbpr')
    data = case.data()
    kept, dropped = case.modalities[0], case.modalities[1:]
    for modality in dropped:
        del data['item'][f'x_{modality}']
    model = VBPR(data, channels=8).double()
    expected = model.lin(data['item'][f'x_{kept}'])
    torch.testing.assert_close(model(data).item[:, 8:], expected)
