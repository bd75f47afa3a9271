import pytest
import torch

from motor_geo.nn.models import BPR
from tests.golden_case import GoldenCase


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32])
def test_bpr_golden(dtype):
    case = GoldenCase('bpr', dtype)
    data, h = case.data(), case.hyper
    model = BPR(data, channels=h['d'], reg_weight=h['reg']).to(dtype)
    parameters = case.load(
        {'user_embedding': model.user_embedding, 'item_embedding': model.item_encoder.weight}
    )

    out = model(data)
    case.assert_close(out.user, 'user_repr')
    case.assert_close(out.item, 'item_repr')
    case.assert_close(out.user @ out.item.t(), 'scores')
    losses = model.loss(data, case.batch)
    case.assert_loss(losses, {'bpr': ('loss_bpr', 1), 'reg': ('loss_reg', h['reg'])})
    case.assert_gradients(losses, parameters)
    assert str(model) == f'BPR({h["M"]}, {h["d"]}, item_encoder=IDEmbedding({h["N"]}, {h["d"]}))'
