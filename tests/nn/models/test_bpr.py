import pytest
import torch

from motor_geo.nn.models import BPR
from motor_geo.testing.graphs import random_batch, small_graph
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


def test_a_subclass_may_replace_the_ranking_terms():
    class Mine(BPR):
        def ranking(self, data, batch, rows, tables=None, form='log'):
            return {'mine': (rows.user * (rows.neg - rows.pos)).mean()}

    data = small_graph()
    batch = random_batch(data)
    losses = Mine(data).loss(data, batch)
    assert list(losses) == ['mine', 'reg']
    torch.manual_seed(0)
    model = BPR(data)
    torch.manual_seed(0)
    torch.testing.assert_close(Mine(data).loss(data, batch)['reg'], model.loss(data, batch)['reg'])
