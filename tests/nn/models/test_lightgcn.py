import pytest
import torch

from motor_geo.nn.models import BPR, LightGCN
from tests.golden_case import GoldenCase


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32])
def test_lightgcn_golden(dtype):
    case = GoldenCase('lightgcn', dtype)
    data, h = case.data(), case.hyper
    model = LightGCN(data, channels=h['d'], num_layers=h['L'], reg_weight=h['reg']).to(dtype)
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


def test_lightgcn_without_layers_is_bpr():
    case = GoldenCase('bpr')
    data, h = case.data(), case.hyper
    model = LightGCN(data, channels=h['d'], num_layers=0, reg_weight=h['reg']).double()
    bpr = BPR(data, channels=h['d'], reg_weight=h['reg']).double()
    bpr.load_state_dict(model.state_dict())

    for out, expected in zip(model(data), bpr(data)):
        assert torch.equal(out, expected)
    losses, expected = model.loss(data, case.batch), bpr.loss(data, case.batch)
    for term in expected:
        torch.testing.assert_close(losses[term], expected[term])


def test_lightgcn_compiles_before_its_graph_is_built():
    case = GoldenCase('lightgcn', torch.float32)
    data, h = case.data(), case.hyper
    losses = []
    for compiled in (False, True):
        torch.manual_seed(0)
        model = LightGCN(data, channels=h['d'], num_layers=h['L'], reg_weight=h['reg'])
        loss = torch.compile(model.loss, backend='aot_eager') if compiled else model.loss
        losses.append(loss(data, case.batch))
        sum(losses[-1].values()).backward()
    torch.testing.assert_close(*losses)
