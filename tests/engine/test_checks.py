import inspect
import re

import pytest
import torch

from motor_geo.engine import Evaluator, Trainer
from motor_geo.engine.checks import check_columns, check_weights
from motor_geo.nn.loss import bpr_loss
from motor_geo.nn.models import BPR, MODELS, VBPR, Recommender, SimGCL
from motor_geo.nn.objective import SoftmaxLoss, WholeDataLoss
from motor_geo.parallel import UserShard, World
from motor_geo.testing.graphs import NUM_ITEMS, NUM_USERS, prepare, small_graph
from motor_geo.typing import RATES, Embeddings, EvalTargets

SCALARS = 'expected a dictionary of scalar tensors'


def trainer(model):
    data = small_graph()
    edge_index = data[RATES].edge_index
    none = torch.empty(2, 0, dtype=torch.long)
    targets = EvalTargets.from_pairs(*edge_index.numpy())
    evaluator = Evaluator(targets, none, NUM_ITEMS, ks=(20,))
    return Trainer(model(data, channels=4), data, evaluator, epochs=1, progress=False)


@pytest.mark.parametrize(
    ('loss', 'message'),
    [
        (lambda bpr: bpr, r'returned a tensor of shape \[\]'),
        (lambda bpr: None, 'returned None'),
        (lambda bpr: {}, 'returned an empty dictionary'),
        (lambda bpr: {'bpr': bpr, 'l2': 0.0}, ": 'l2' is a float"),
        (lambda bpr: {'bpr': bpr.expand(3)}, r": 'bpr' is a tensor of shape \[3\]"),
        (lambda bpr: {'bpr': bpr.view(1)}, r": 'bpr' is a tensor of shape \[1\]"),
        (lambda bpr: {'bpr': bpr, 'l2': 1}, ": 'l2' is an int"),
    ],
)
def test_losses(loss, message):
    class Mine(BPR):
        def loss(self, data, batch):
            return loss(super().loss(data, batch)['bpr'])

    with pytest.raises(ValueError, match=f'^Mine.loss ?{message}; {SCALARS}$'):
        trainer(Mine).fit()


@pytest.mark.parametrize(
    ('forward', 'message'),
    [
        (tuple, r' returned a tuple; expected Embeddings\(user, item\)'),
        (lambda out: out.user, r' returned a tensor of shape .*; expected Embeddings'),
        (lambda out: Embeddings(out.user, None), ": 'item' is None; expected one row per item"),
        (
            lambda out: Embeddings(out.user, out.item[:-1]),
            rf' returned user vectors \[{NUM_USERS}, 4\] and item vectors \[{NUM_ITEMS - 1}, 4\]; '
            f'expected {NUM_USERS} users and {NUM_ITEMS} items with vectors of the same size',
        ),
        (lambda out: Embeddings(out.user, out.item.repeat(1, 2)), rf' .*\[{NUM_ITEMS}, 8\]; .*'),
        (lambda out: Embeddings(out.item, out.user), f' .*expected {NUM_USERS} users .*'),
    ],
)
def test_embeddings(forward, message):
    class Mine(BPR):
        def forward(self, data):
            return Mine.change(super().forward(data))

        def loss(self, data, batch):
            return {'bpr': self.user_embedding.sum()}

    class Calls(Mine):
        def loss(self, data, batch):
            return {'bpr': (self(data).item[39:] @ self(data).user.t()).mean()}

    Mine.change = staticmethod(forward)
    with pytest.raises(ValueError, match=f'^Mine.forward{message}'):
        trainer(Mine).fit()
    # Of a model that calls itself, before the loss fails or does not.
    with pytest.raises(ValueError, match=f'^Calls.forward{message}'):
        trainer(Calls).fit()


def test_methods():
    class NoLoss(Recommender):
        def forward(self, data):
            return Embeddings(self.user_embedding, self.encode_items(data))

    class NoForward(Recommender):
        def loss(self, data, batch):
            return {'bpr': self.user_embedding.sum()}

    with pytest.raises(ValueError, match=r"^NoLoss has no method 'loss'; expected loss\(data, b"):
        trainer(NoLoss)
    with pytest.raises(ValueError, match=r"^NoForward has no method 'forward'; expected forward\("):
        trainer(NoForward)


def test_a_loss_that_does_not_ask_for_another_one():
    class Mine(BPR):
        def loss(self, data, batch):
            return {'bpr': bpr_loss(*batch.scores(self(data)))}

    mine = trainer(Mine)
    mine.model.set_objective(SoftmaxLoss())
    with pytest.raises(ValueError, match="^Mine.loss does not call 'ranking', so 'Softm"):
        mine.fit()
    assert not mine.model.objective._forward_hooks
    asking = trainer(BPR)
    asking.model.set_objective(SoftmaxLoss())
    assert list(asking.fit().history[0]['losses'])[0] == 'softmax'
    assert not asking.model.objective._forward_hooks


def test_columns_are_shared_only_if_declared():
    data = small_graph()
    model = BPR(data, channels=4)
    check_columns(model)
    model.set_objective(WholeDataLoss())
    with pytest.raises(ValueError, match="'WholeDataLoss' needs all columns on one process"):
        check_columns(model)
    with pytest.raises(ValueError, match="'VBPR' needs all columns on one process; expected"):
        check_columns(VBPR(data, channels=4))
    shard = UserShard(World(0, 2, None, World(0, 2), World()), data)
    with pytest.raises(ValueError, match="'WholeDataLoss' needs all columns"):
        Trainer(model, shard.cut(data))


@pytest.mark.parametrize('value', [-0.1, float('nan'), float('inf')])
def test_weights(value):
    r"""A term with such a weight would be left out, or spoil the loss."""
    message = "'cl_weight' of 'SimGCL' must be at least 0 and finite"
    with pytest.raises(ValueError, match=message):
        trainer(lambda data, channels: SimGCL(data, cl_weight=value))

    class Mine(SimGCL):  # Its weights may mean anything.
        pass

    trainer(lambda data, channels: Mine(data, cl_weight=value))


@pytest.mark.parametrize('name', MODELS)
def test_every_number_of_a_backbone_is_checked(name):
    backbone = MODELS[name]
    data = prepare(backbone, small_graph())
    for key, parameter in inspect.signature(backbone).parameters.items():
        if not isinstance(parameter.default, float) and not key.endswith('batch_size'):
            continue
        for bad in (float('nan'), -1.0):
            with pytest.raises(ValueError, match=re.escape(key)):
                check_weights(backbone(data, **{key: bad}))
