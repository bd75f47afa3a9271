import pytest
import torch

from motor_geo.nn.models import SelfCF
from motor_geo.typing import RATES
from tests.golden_case import GoldenCase


class MaskedSelfCF(SelfCF):
    case = None

    def drop(self, x, kind):
        return x * self.case[f'dropout_mask_{kind}s'] / (1 - self.dropout)

    def drop_edges(self, graph):
        if self.edge_dropout == 0:
            return graph
        weights = []
        for name, edges, weight, flip in (
            ('kept_user_from_item', graph.to_user, graph.to_user_weight, True),
            ('kept_item_from_user', graph.to_item, graph.to_item_weight, False),
        ):
            size = self.case.hyper['M'], self.case.hyper['N']
            kept = torch.zeros(size, dtype=torch.bool)
            kept[tuple(self.case['train_edges'])] = self.case[name]
            user, item = edges.as_tensor().flip(0) if flip else edges.as_tensor()
            weights.append(weight * kept[user, item] / (1 - self.edge_dropout))
        return graph._replace(to_user_weight=weights[0], to_item_weight=weights[1])


def golden(prefix='', dtype=torch.float64, cls=MaskedSelfCF):
    case = GoldenCase('selfcf', dtype)
    h, data = case.hyper, case.data()
    model = cls(
        data,
        channels=h['d'],
        num_layers=h['L'],
        dropout=h['dropout'],
        edge_dropout=h['edge_rate'] if prefix else 0.0,
        reg_weight=h['reg'],
    ).to(case.dtype)
    model.case = case
    parameters = {
        'user_embedding': model.user_embedding,
        'item_embedding': model.item_encoder.weight,
        'predictor_weight': model.predictor.weight,
        'predictor_bias': model.predictor.bias,
    }
    return case, model, data, case.load(parameters)


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32])
@pytest.mark.parametrize('prefix', ['', 'masked_'])
def test_selfcf_golden(prefix, dtype):
    case, model, data, parameters = golden(prefix, dtype)
    losses = model.loss(data, case.batch)
    terms = {
        'user_to_item': ('loss_user_to_item', 0.5),
        'item_to_user': ('loss_item_to_user', 0.5),
        'reg': ('loss_reg', case.hyper['reg']),
    }
    case.assert_loss(losses, terms, prefix)
    case.assert_gradients(losses, parameters, prefix)
    assert set(map(id, parameters.values())) == set(map(id, model.parameters()))
    out = model(data)
    case.assert_close(out.user, 'user_repr')
    case.assert_close(out.item, 'item_repr')
    case.assert_close(out.user @ out.item.t(), 'scores')


def test_selfcf_drops_a_share_of_edges():
    torch.manual_seed(0)
    case, model, data, _ = golden(cls=SelfCF)
    graph = model.graph(data)
    assert model.drop_edges(graph) is graph
    model.edge_dropout = 0.3
    user, item = torch.zeros(2, data[RATES].num_edges)
    for _ in range(200):
        out = model.drop_edges(graph)
        user += (out.to_user_weight > 0) / 200
        item += (out.to_item_weight > 0) / 200
        kept = out.to_user_weight > 0
        expected = graph.to_user_weight[kept] / 0.7
        torch.testing.assert_close(out.to_user_weight[kept], expected)
    assert abs(user.mean() - 0.7) < 0.02 and abs(item.mean() - 0.7) < 0.02
    model.edge_dropout = None  # A rate for every batch.
    shares = torch.tensor(
        [(model.drop_edges(graph).to_item_weight > 0).float().mean() for _ in range(300)]
    )
    assert abs(shares.mean() - 0.5) < 0.06 and shares.min() < 0.1 and shares.max() > 0.9


def test_selfcf_rejects_bad_arguments():
    data = GoldenCase('selfcf').data()
    with pytest.raises(ValueError, match=r"'dropout' must lie in \[0, 1\) \(got 1.0\)"):
        SelfCF(data, dropout=1.0)
    with pytest.raises(ValueError, match=r"'edge_dropout' must lie in \[0, 1\) \(got 1.0\)"):
        SelfCF(data, edge_dropout=1.0)
