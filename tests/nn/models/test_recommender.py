import copy

import pytest
import torch

from motor_geo.data import SyntheticClusters
from motor_geo.nn import TokenCrossEncoder
from motor_geo.nn.models import GRCN, MMGCN, LayerGCN, LightGCN, SLMRec
from motor_geo.nn.models.recommender import check_choice
from motor_geo.testing.graphs import NUM_ITEMS, item_encoder, small_graph, with_edges
from motor_geo.typing import RATES
from tests.golden_case import GoldenCase


def build(cls, data):
    torch.manual_seed(0)
    data['item'].token_id = torch.randint(4, (data['item'].num_nodes, 4))
    return cls(data, TokenCrossEncoder({'image': 2, 'text': 2}, 4, 8), channels=8).double()


def step(model, data, batch):
    model.begin_epoch(data, 0, torch.Generator().manual_seed(0))
    loss = torch.stack(list(model.loss(data, batch).values()))
    parameters = [p for p in model.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(loss.sum(), parameters, allow_unused=True)
    return loss.detach(), [g for g in gradients if g is not None]


@pytest.mark.parametrize('cls', [GRCN, LayerGCN, LightGCN, MMGCN, SLMRec])
def test_training_after_inference_mode(cls):
    case = GoldenCase('grcn')
    data = case.data()
    expected = step(build(cls, data), data, case.batch)
    model = build(cls, data)
    with torch.inference_mode():
        first = model(data)
        model.recommend(data, k=2)
    out = step(model, data, case.batch)
    assert torch.equal(out[0], expected[0])
    assert all(map(torch.equal, out[1], expected[1]))
    assert all(torch.equal(a, b.clone()) for a, b in zip(model(data), first))


def test_graph_is_kept_while_its_edges_are():
    data = GoldenCase('grcn').data()
    model = build(LightGCN, data)
    graph = model.graph(data)
    assert model.graph(data) is graph and copy.deepcopy(model).graph(data) is not graph
    other = copy.copy(data)
    other[RATES].edge_index = data[RATES].edge_index.clone()
    assert model.graph(other) is not graph
    graph = model.graph(data)
    data[RATES].edge_index[0, 0] = 1 - data[RATES].edge_index[0, 0]
    assert model.graph(data) is not graph
    assert model.float().graph(data).to_user_weight.dtype == torch.float32


def test_channels_are_positive():
    for channels in (0, -3):
        with pytest.raises(ValueError, match=rf"'channels' must be positive \(got {channels}\)"):
            LightGCN(small_graph(), channels=channels)


def test_check_choice():
    check_choice('form', 'b', 'a', 'b')
    with pytest.raises(ValueError, match=r"'form' must be 'a' or 'b' \(got 'c'\)"):
        check_choice('form', 'c', 'a', 'b')
    with pytest.raises(ValueError, match="must be 'a', 'b' or 'c'"):
        check_choice('form', 'd', 'a', 'b', 'c')


@pytest.mark.parametrize('wrong', ['None', 'a Tensor', 'a SyntheticClusters'])
def test_another_thing_than_a_graph(wrong):
    dataset = SyntheticClusters(num_users=20, num_items=10, num_interactions=60)
    value = {'None': None, 'a Tensor': torch.tensor([0]), 'a SyntheticClusters': dataset}[wrong]
    model = LightGCN(dataset[0], channels=4)
    message = (
        f"^Expected a HeteroData with nodes '.*', got {wrong}; for a data set, pass dataset.0.."
    )
    for call in (LightGCN, model, model.recommend):
        with pytest.raises(ValueError, match=message):
            call(value)


def test_lists_leave_out_training_items_of_the_graph_that_is_passed():
    data = small_graph()
    torch.manual_seed(0)
    model = LightGCN(data, item_encoder('specific', data, 8), 8)
    few = with_edges(data, data[RATES].edge_index[:, ::3].contiguous())
    for graph in (data, few, data):  # What is kept of one graph is not used for another.
        seen = set(zip(*graph[RATES].edge_index.tolist()))
        user = torch.tensor([4, 0, 4])
        score, item = model.recommend(graph, user, k=NUM_ITEMS)
        for u, row, values in zip(user.tolist(), item.tolist(), score.tolist()):
            own = {i for a, i in seen if a == u}
            assert set(row) - {-1} == set(range(NUM_ITEMS)) - own and own
            assert row.count(-1) == values.count(float('-inf')) == len(own)
