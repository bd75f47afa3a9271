r"""The contract finds what it is there to find."""

import pytest
import torch

from motor_geo.nn.models import BPR, LightGCN
from motor_geo.testing import BackboneContract
from motor_geo.testing.backbone import NoWait, prepared
from motor_geo.testing.graphs import NUM_ITEMS


class FirstGraph(LightGCN):
    r"""Keeps the graph that it saw first."""

    def graph(self, data):
        if not hasattr(self, 'first'):
            self.first = super().graph(data)
        return self.first


class Halves(BPR):
    r"""Keeps a schedule in a plain attribute."""

    weight = 1.0

    def begin_epoch(self, data, epoch, generator):
        self.weight = self.weight / 2

    def loss(self, data, batch):
        return {key: self.weight * value for key, value in super().loss(data, batch).items()}


class Sums(BPR):
    def loss(self, data, batch):
        return {**super().loss(data, batch), 'l2': 0.0}


class Pair(BPR):
    def forward(self, data):
        return tuple(super().forward(data))


class Bias(BPR):
    r"""A number for every item."""

    def __init__(self, data, **kwargs):
        super().__init__(data, **kwargs)
        self.bias = torch.nn.Parameter(torch.zeros(NUM_ITEMS))


class Waits(BPR):
    def loss(self, data, batch):
        losses = super().loss(data, batch)
        return losses if losses['bpr'].item() > 0 else {}


class ReadsItems(BPR):
    r"""Knows one name of items only."""

    def forward(self, data):
        user, item = super().forward(data)
        return type(super().forward(data))(user, item * data['item'].x_text.mean())


class Plain(BPR):
    r"""Asks for no training edges."""

    def recommend(self, data, user=None, k=20):
        data['user', 'rates', 'item'].edge_index = torch.zeros(2, 0, dtype=torch.long)
        return super().recommend(data, user, k)


class Draws(BPR):
    def forward(self, data):
        user, item = super().forward(data)
        return type(super().forward(data))(user, item + torch.rand_like(item))


class Shares(BPR):
    r"""Its copy is itself."""

    def __deepcopy__(self, memo):
        return self


def contract(model):
    return type('Contract', (BackboneContract,), {'backbone': model})()


def test_another_graph():
    message = '^two models with the same state_dict give a different {}: does a plain'
    with pytest.raises(AssertionError, match=message.format('loss')):
        contract(FirstGraph).test_another_graph_after_training(prepared(FirstGraph))
    with pytest.raises(AssertionError, match=message.format('loss')):
        contract(Halves).test_another_graph_after_training(prepared(Halves))
    contract(LightGCN).test_another_graph_after_training(prepared(LightGCN))


@pytest.mark.parametrize(('wrong', 'name'), [(torch.nn.Linear, 'Linear'), (3, '3')])
def test_another_class(wrong, name):
    message = f'^Contract.backbone is {name}; expected a subclass of Recommender$'
    with pytest.raises(TypeError, match=message):
        contract(wrong)


def test_what_is_returned():
    with pytest.raises(ValueError, match="^Sums.loss: 'l2' is a float; expected a dictionary of"):
        contract(Sums).test_batch_of_one(prepared(Sums))
    with pytest.raises(ValueError, match='^Pair.forward returned a tuple; expected Embeddings'):
        contract(Pair).test_ranking_is_deterministic(prepared(Pair))


def test_parameter_per_item():
    with pytest.raises(AssertionError):
        contract(Bias).test_no_parameter_per_item(prepared(Bias), 'specific')


def test_waiting(monkeypatch):
    with pytest.raises(AssertionError, match='synchronizes with the GPU'):
        contract(Waits).test_nothing_waits_inside_a_step(prepared(Waits), 'id', monkeypatch)
    with NoWait(), pytest.raises(AssertionError, match='synchronizes with the GPU'):
        bool(torch.ones(2).sum() > 0)
    with NoWait(), pytest.raises(AssertionError, match='indexing with a mask'):
        torch.ones(2)[torch.tensor([True, False])]


def test_random_ranking():
    with pytest.raises(AssertionError):
        contract(Draws).test_ranking_is_deterministic(prepared(Draws))


def test_copies():
    with pytest.raises(AssertionError):
        contract(Shares).test_copies(prepared(Shares), 'deepcopy')


def test_names():
    with pytest.raises(AttributeError):
        contract(ReadsItems).test_names_of_nodes_and_edges(prepared(ReadsItems), 'id')
    with pytest.raises(pytest.fail.Exception):
        contract(Plain).test_missing_edges(prepared(Plain))


def test_documentation():
    with pytest.raises(AssertionError):
        contract(Bias).test_documented()
