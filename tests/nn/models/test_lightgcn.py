import gc
from contextlib import suppress

import pytest
import torch
from torch_geometric.data import HeteroData

from motor_geo.data import BPRSampler
from motor_geo.nn import TokenCrossEncoder
from motor_geo.nn.graph import NormalizedGraph
from motor_geo.nn.models import BPR, LightGCN
from motor_geo.typing import set_edges
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


def storages():
    r"""Sizes of the storages of all tensors, by address."""
    gc.collect()
    found = {}
    for x in gc.get_objects():
        if issubclass(type(x), torch.Tensor):
            with suppress(RuntimeError, NotImplementedError):  # Wrappers have no storage.
                found[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
    return found


def test_lightgcn_memory_per_interaction():
    r"""Counts all tensors that a step leaves, except parameters, their gradients and
    moments, and tokens.
    """
    num_users, num_items, num_edges = 100_000, 10_000, 1_000_000
    before = storages()
    data, generator = HeteroData(), torch.Generator().manual_seed(0)
    data['user'].num_nodes, data['item'].num_nodes = num_users, num_items
    data['item'].token_id = torch.randint(256, (num_items, 4), generator=generator).byte()
    key = torch.randint(num_users * num_items, (num_edges + 2000,), generator=generator)
    key = key.unique()[:num_edges]
    assert key.numel() == num_edges
    set_edges(data, torch.stack([key // num_items, key % num_items]))
    del key
    model = LightGCN(data, TokenCrossEncoder({'text': 4}, 256, 64, mode='specific'))
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    sampler = BPRSampler(data['user', 'rates', 'item'].edge_index, num_users, num_items)

    def held():
        moments = [value for state in optimizer.state.values() for value in state.values()]
        tables = [*model.parameters(), *(x.grad for x in model.parameters()), *moments]
        free = {x.untyped_storage().data_ptr() for x in [*tables, data['item'].token_id]}
        new = {part: size for part, size in storages().items() if part not in before}
        return sum(size for part, size in new.items() if part not in free) / num_edges

    epoch = sampler.epoch(0)
    sum(model.loss(data, next(epoch)).values()).backward()
    optimizer.step()
    assert isinstance(model.graph(data), NormalizedGraph)
    assert held() < 24 + 8  # A permutation and a negative until the end of the epoch.
    epoch.close()
    assert 20 < held() < 24


def test_lightgcn_on_many_edges(monkeypatch):
    case = GoldenCase('lightgcn')
    losses = []
    for many in (10**6, 1):
        monkeypatch.setattr('motor_geo.nn.models.lightgcn.MANY_INTERACTIONS', many)
        data, h = case.data(), case.hyper
        model = LightGCN(data, channels=h['d'], num_layers=h['L'], reg_weight=h['reg']).double()
        parameters = case.load(
            {'user_embedding': model.user_embedding, 'item_embedding': model.item_encoder.weight}
        )
        assert isinstance(model.graph(data), NormalizedGraph) == (many == 1)
        case.assert_close(model(data).user, 'user_repr')
        losses.append(model.loss(data, case.batch))
        case.assert_gradients(losses[-1], parameters)
    torch.testing.assert_close(*losses)
