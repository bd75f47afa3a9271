from __future__ import annotations

import copy
import importlib
import inspect
import io
import pickle
from collections.abc import Mapping
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch_geometric.data import HeteroData

from motor_geo.engine.checks import check_embeddings, check_losses
from motor_geo.engine.evaluator import Evaluator, popularity_embeddings
from motor_geo.engine.trainer import Trainer
from motor_geo.nn.models import Recommender
from motor_geo.nn.user_encoder import UsedItems
from motor_geo.testing.graphs import (
    ITEMS,
    NUM_ITEMS,
    NUM_USERS,
    item_encoder,
    new_items,
    prepare,
    random_batch,
    small_graph,
    with_edges,
    with_names,
    with_types,
)
from motor_geo.typing import ITEM, RATES, USER, Batch, Embeddings, EvalTargets, modalities

CHANNELS = 24


_GRAPHS: dict[Any, HeteroData] = {}


def prepared(backbone: type[Recommender], seed: int = 0) -> HeteroData:
    r"""The small graph with all :obj:`transforms` of a backbone applied. Graphs are
    cached.
    """
    if (backbone, seed) not in _GRAPHS:
        _GRAPHS[backbone, seed] = prepare(backbone, small_graph(seed))
    return copy.copy(_GRAPHS[backbone, seed])


def training_step(
    model: Recommender, data: HeteroData, batch: Batch, epoch: int | None = 0
) -> dict[str, Tensor]:
    r"""Runs :obj:`loss` and its backward pass on a batch and returns the loss
    terms. Every call uses the same random numbers; :obj:`epoch=None` skips
    :obj:`begin_epoch`.
    """
    model.train()
    if epoch is not None:
        generator = torch.Generator(batch.user.device).manual_seed(3)
        model.begin_epoch(data, epoch, generator)
    torch.manual_seed(4)
    losses = model.loss(data, batch)
    check_losses(model, losses)
    torch.stack(list(losses.values())).sum().backward()
    return losses


def rank(model: Recommender, data: HeteroData) -> Embeddings:
    r"""Final vectors in evaluation mode, without gradients."""
    model.eval()
    with torch.no_grad():
        out = model(data)
    check_embeddings(model, out, data, model.edge_type)
    return Embeddings(*(value.clone() for value in out))


def gradients(model: Recommender) -> dict[str, Tensor]:
    r"""Gradients by parameter name, for the parameters that have one."""
    named = model.named_parameters()
    return {name: p.grad for name, p in named if p.grad is not None}


def assert_finite(losses: Mapping[str, Tensor], model: Recommender) -> None:
    for key, value in losses.items():
        assert value.dim() == 0 and value.isfinite(), f'{key} is {value}'
    for key, grad in gradients(model).items():
        assert grad.isfinite().all(), f'the gradient of {key} is not finite'


def assert_same_state(what: str, actual: Any, expected: Any) -> None:
    r"""Fails if two models with the same :obj:`state_dict` give different results."""

    def message(text: str) -> str:
        return (
            f'two models with the same state_dict give a different {what}: does a plain '
            f'attribute hold state?\n{text}'
        )

    torch.testing.assert_close(actual, expected, msg=message)


def assert_same(a: Embeddings, b: Embeddings) -> None:
    assert torch.equal(a.user, b.user) and torch.equal(a.item, b.item)


class NoWait(TorchDispatchMode):
    r"""Fails on operations that synchronize a GPU with the CPU."""

    waits = {
        '_local_scalar_dense',
        'equal',
        'is_nonzero',
        'nonzero',
        'masked_select',
        'unique_dim',
        '_unique2',
        'unique_consecutive',
        'bincount',
    }

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        name = function.overloadpacket.__name__
        assert name not in self.waits, f'{name} synchronizes with the GPU'
        if name == 'index' or name == 'index_put_':
            for index in args[1]:
                assert index is None or index.dtype != torch.bool, 'indexing with a mask'
        if name == 'repeat_interleave':
            assert kwargs and kwargs.get('output_size') is not None, 'no output_size'
        return function(*args, **(kwargs or {}))


class BackboneContract:
    r"""Tests that every backbone must pass, for :obj:`pytest`:

    .. code-block:: python

        class TestMyGNN(BackboneContract):
            backbone = MyGNN

    The tests train the backbone briefly with every item encoder on the graphs of
    :mod:`motor_geo.testing.graphs`. They copy and save it, run it in other
    precisions and on other devices, and call it on graphs that are empty, larger,
    or different from the training graph.
    """

    #: The class under test.
    backbone: ClassVar[type[Recommender]]
    #: Additional arguments of its constructor.
    options: ClassVar[Mapping[str, Any]] = {}
    #: Sections that its docstring must have, besides an entry for every argument.
    sections: ClassVar[tuple[str, ...]] = ('Args:',)
    #: Whether adding items changes the vectors of existing items.
    joins_items: ClassVar[bool] = False
    #: Number of epochs that the backbone needs to learn a small graph.
    epochs: ClassVar[int] = 100
    #: Whether a training step may synchronize with the GPU.
    waits: ClassVar[bool] = False

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        backbone = getattr(cls, 'backbone', None)
        known = inspect.isclass(backbone) and issubclass(backbone, Recommender)
        if backbone is not None and not known:
            found = backbone.__name__ if inspect.isclass(backbone) else repr(backbone)
            raise TypeError(
                f'{cls.__name__}.backbone is {found}; expected a subclass of Recommender'
            )

    def build(
        self, data: HeteroData, items: str = 'specific', seed: int = 0, **options: Any
    ) -> Recommender:
        r"""Builds the backbone with the item encoder of :obj:`--items`."""
        torch.manual_seed(seed)
        encoder = item_encoder(items, data, CHANNELS)
        options = {**self.options, **options}
        return self.backbone(data, item_encoder=encoder, channels=CHANNELS, **options)

    @pytest.fixture
    def data(self) -> HeteroData:
        return prepared(self.backbone)

    # Training and ranking

    @pytest.mark.parametrize('items', ITEMS)
    def test_every_item_encoder(self, data: HeteroData, items: str) -> None:
        model = self.build(data, items)
        losses = training_step(model, data, random_batch(data))
        assert_finite(losses, model)
        if items != 'id':
            for key, parameter in model.item_encoder.named_parameters():
                assert parameter.grad is not None and parameter.grad.any(), key
        out = rank(model, data)
        assert out.user.size(0) == NUM_USERS and out.item.size(0) == NUM_ITEMS
        assert out.user.size(1) == out.item.size(1)
        assert out.user.isfinite().all() and out.item.isfinite().all()

    @pytest.mark.parametrize('items', ITEMS)
    def test_autocast(self, data: HeteroData, items: str) -> None:
        r"""Half precision keeps the losses and the direction of gradients close to
        those of full precision. Losses stay in float32.
        """
        exact, model = self.build(data, items), self.build(data, items)
        expected = training_step(exact, data, random_batch(data))
        with torch.autocast('cpu', torch.bfloat16):
            losses = training_step(model, data, random_batch(data))
        for key, value in losses.items():
            assert value.dtype == torch.float32, key
            torch.testing.assert_close(value, expected[key], rtol=0.02, atol=1e-3)
        grads, others = gradients(model), gradients(exact)
        assert set(grads) == set(others)
        grad, other = (torch.cat([x.flatten() for x in y.values()]) for y in (grads, others))
        assert grad.dtype == torch.float32
        assert torch.cosine_similarity(grad, other, dim=0) > 0.98
        assert 0.95 < grad.norm() / other.norm() < 1.05
        with torch.autocast('cpu', torch.bfloat16):
            out = rank(model, data)
        assert out.user.isfinite().all() and out.item.isfinite().all()

    @pytest.mark.parametrize('items', ['specific', 'features'])
    def test_half_features(self, data: HeteroData, items: str) -> None:
        r"""Features may stay in half precision, as in a memory-mapped file."""
        store, results = data[ITEM], []
        names = modalities(data)
        for name in names:
            store[f'x_{name}'] = store[f'x_{name}'].half()
        for dtype in (torch.half, torch.float):
            graph = copy.copy(data)
            for name in names:
                graph[ITEM][f'x_{name}'] = store[f'x_{name}'].to(dtype)
            model = self.build(graph, items)
            losses = training_step(model, graph, random_batch(graph))
            results.append((losses, gradients(model), rank(model, graph)))
        torch.testing.assert_close(*results, rtol=1e-3, atol=1e-5)

    def test_same_seed_same_numbers(self, data: HeteroData) -> None:
        results = []
        for _ in range(2):
            model = self.build(data)
            losses = training_step(model, data, random_batch(data))
            results.append([*losses.values(), *gradients(model).values()])
        assert all(torch.equal(a, b) for a, b in zip(*results))

    def test_ranking_is_deterministic(self, data: HeteroData) -> None:
        model = self.build(data)
        assert_same(rank(model, data), rank(model, data))

    def test_learns(self, data: HeteroData) -> None:
        r"""A few epochs rank training interactions far better than popularity."""
        edge_index = data[RATES].edge_index
        targets = EvalTargets.from_pairs(*edge_index.numpy())
        none = torch.empty(2, 0, dtype=torch.long)
        evaluator = Evaluator(targets, none, NUM_ITEMS, ks=(20,))
        model = self.build(data)
        popularity = popularity_embeddings(edge_index, NUM_USERS, NUM_ITEMS)
        options: dict[str, Any] = {'patience': 100, 'batch_size': 256, 'progress': False}
        result = Trainer(model, data, evaluator, lr=0.01, epochs=self.epochs, **options).fit()
        # The best epoch: some backbones are unstable with so high a learning rate.
        popular = evaluator.evaluate(popularity).metrics['recall@20']
        assert result.best['recall@20'] > 1.5 * popular

    @pytest.mark.parametrize('items', ['id', 'specific'])
    def test_nothing_waits_inside_a_step(
        self, data: HeteroData, items: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if self.waits:
            pytest.skip('the test class sets waits')
        nodes = importlib.import_module('motor_geo.nn.functional.distinct')
        monkeypatch.setattr(nodes, 'SYNCHRONOUS', ())  # As on a GPU.
        model, batch = self.build(data, items), random_batch(data)
        optimizer = torch.optim.Adam(model.parameters(), fused=True)
        training_step(model, data, batch)  # Fills the caches.
        with NoWait():
            sum(model.loss(data, batch).values(), torch.zeros(())).backward()
            optimizer.step()

    @pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
    @pytest.mark.parametrize('items', ['id', 'specific'])
    def test_cuda_equals_cpu(self, data: HeteroData, items: str) -> None:
        model = self.build(data, items).double().eval()
        for modality in modalities(data):
            x = data[ITEM][f'x_{modality}'].double()  # Without ties between neighbors.
            data[ITEM][f'x_{modality}'] = x + 1e-2 * torch.randn_like(x)
        batch = random_batch(data)
        results = []
        for device in ('cpu', 'cuda'):
            copied, graph = copy.deepcopy(model).to(device), copy.copy(data).to(device)
            results.append([value.cpu() for value in rank(copied, graph)])
            # Training mode may draw noise, which differs between devices, so the loss only has
            # to be finite.
            losses = training_step(copied, graph, Batch(*(value.to(device) for value in batch)))
            assert_finite(losses, copied)
        for a, b in zip(*results):
            torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)

    def test_users_of_items(self, data: HeteroData) -> None:
        r"""Without a table of users, vectors and losses are those of a table that
        holds what users used, and nothing is kept of single users.
        """
        if not self.backbone.takes_user_encoder:
            with pytest.raises(ValueError, match='needs a user table'):
                self.build(data).set_user_encoder(UsedItems())
            pytest.skip('needs a user table')
        model, other, batch = self.build(data), self.build(data), random_batch(data)
        model.set_user_encoder(UsedItems())
        model.eval()
        with torch.no_grad():
            other.user_embedding.copy_(model.encode_users(data))
        for a, b in zip(rank(model, data), rank(other, data)):
            torch.testing.assert_close(a, b)
        assert not any(NUM_USERS in p.shape and p.numel() > 0 for p in model.parameters())
        other.item_encoder.eval()
        model.item_encoder.eval()
        losses, others = training_step(model, data, batch), training_step(other, data, batch)
        for key, value in losses.items():
            torch.testing.assert_close(value, others[key])
        model.reset_parameters()
        assert rank(model, data).user.isfinite().all()

    # Parameters

    @pytest.mark.parametrize('items', ITEMS[1:])
    def test_no_parameter_per_item(self, data: HeteroData, items: str) -> None:
        model = self.build(data, items)
        assert model.item_parameters(NUM_ITEMS) == []
        assert all(NUM_ITEMS not in parameter.shape for parameter in model.parameters())

    def test_reset_parameters(self, data: HeteroData) -> None:
        model = self.build(data)
        before = {key: value.clone() for key, value in model.named_parameters()}
        torch.manual_seed(5)
        model.reset_parameters()
        after = dict(model.named_parameters())
        assert not torch.equal(before['user_embedding'], after['user_embedding'])
        assert not torch.equal(before['item_encoder.table'], after['item_encoder.table'])
        for key in before:  # The scale stays.
            if before[key].numel() > 100:
                ratio = float(after[key].detach().std() / before[key].detach().std())
                assert 0.8 < ratio < 1.25, key

    def test_state_dict_round_trip(self, data: HeteroData) -> None:
        model, other = self.build(data), self.build(data, seed=1)
        training_step(model, data, random_batch(data))
        file = io.BytesIO()
        torch.save(model.state_dict(), file)
        file.seek(0)
        other.load_state_dict(torch.load(file, weights_only=True))
        assert_same(rank(other, data), rank(model, data))

    @pytest.mark.parametrize('how', ['deepcopy', 'pickle'])
    def test_copies(self, data: HeteroData, how: str) -> None:
        r"""A copy gives the same vectors and shares no state with the original."""
        model = self.build(data)
        training_step(model, data, random_batch(data))
        model.zero_grad()
        expected = rank(model, data)
        other = copy.deepcopy(model) if how == 'deepcopy' else pickle.loads(pickle.dumps(model))
        assert_same(rank(other, data), expected)
        with torch.no_grad():
            for parameter in other.parameters():
                parameter.mul_(2)
        assert not torch.equal(rank(other, data).user, expected.user)
        assert_same(rank(model, data), expected)

    @pytest.mark.parametrize('items', ['id', 'specific', 'features'])
    def test_double(self, data: HeteroData, items: str) -> None:
        model = self.build(data, items)
        expected = rank(model, data)
        model = model.double()
        out = rank(model, data)
        for a, b in zip(out, expected):
            assert a.dtype == torch.float64
            torch.testing.assert_close(a.float(), b, atol=1e-5, rtol=1e-3)
        losses = training_step(model, data, random_batch(data))
        assert_finite(losses, model)
        assert {value.dtype for value in losses.values()} == {torch.float64}
        assert {value.dtype for value in gradients(model).values()} == {torch.float64}

    @pytest.mark.parametrize('items', ['id', 'specific', 'features'])
    def test_meta_device(self, data: HeteroData, items: str) -> None:
        r"""A model built on the meta device gives the same vectors once its state is
        loaded, for all items and for a subset.
        """
        model = self.build(data, items)
        expected = rank(model, data)
        index = torch.arange(0, NUM_ITEMS, 17)
        for assign in (False, True):
            with torch.device('meta'):
                other = self.build(data, items, seed=1)
            if not assign:
                other.to_empty(device='cpu')
            other.load_state_dict(model.state_dict(), assign=assign)
            assert_same(rank(other, data), expected)
            if items != 'id':
                with torch.no_grad():
                    rows = other.encode_items(data, index)
                    assert torch.equal(rows, model.encode_items(data, index))

    # Inference mode

    @pytest.mark.parametrize('items', ['id', 'specific', 'features'])
    def test_inference_mode(self, data: HeteroData, items: str) -> None:
        r"""Inference mode gives the same ranking, and a pass under inference mode
        does not affect later training.
        """
        model, other = self.build(data, items), self.build(data, items)
        expected = rank(other, data)
        with torch.inference_mode():
            assert_same(model.eval()(data), expected)
            assert model.recommend(data, torch.arange(2), k=3)[1].shape == (2, 3)
        batch = random_batch(data)
        losses, others = training_step(model, data, batch), training_step(other, data, batch)
        assert all(torch.equal(losses[key], others[key]) for key in others)
        grads = gradients(model)
        assert all(torch.equal(grads[key], grad) for key, grad in gradients(other).items())

    def test_graph_of_inference_mode(self, data: HeteroData) -> None:
        r"""The same holds for a graph created under inference mode, as a server does
        for new items.
        """
        model = self.build(data)
        expected = rank(model, new_items(self.backbone, data))
        with torch.inference_mode():
            out = model(new_items(self.backbone, data.clone()))
            torch.testing.assert_close(out, expected)
        assert_same(rank(model, data), rank(self.build(data), data))

    # Graphs and batches

    def test_new_items(self, data: HeteroData) -> None:
        r"""Items appended to the graph get vectors without training and leave the
        vectors of existing items unchanged.
        """
        model = self.build(data)
        out, expected = rank(model, new_items(self.backbone, data)), rank(model, data)
        assert out.item.size(0) == NUM_ITEMS + 4
        assert out.item.isfinite().all()
        if not self.joins_items:
            torch.testing.assert_close(out.item[:NUM_ITEMS], expected.item, atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(out.user, expected.user, atol=1e-5, rtol=1e-4)

    def test_another_graph_after_training(self, data: HeteroData) -> None:
        r"""Losses and vectors depend only on the graph that is passed, not on
        earlier graphs.
        """
        other = prepared(self.backbone, seed=1)
        model, fresh = self.build(data), self.build(data, seed=1)
        training_step(model, data, random_batch(data))
        rank(model, data)
        model.zero_grad()
        fresh.load_state_dict(model.state_dict())
        batch = random_batch(other)
        losses = training_step(model, other, batch, epoch=None)
        expected = training_step(fresh, other, batch, epoch=None)
        assert_same_state('loss', losses, expected)
        assert_same_state('gradient', gradients(model), gradients(fresh))
        assert_same_state('ranking', rank(model, other), rank(fresh, other))

    def test_batch_of_one(self, data: HeteroData) -> None:
        model = self.build(data)
        assert_finite(training_step(model, data, random_batch(data, size=1)), model)

    def test_empty_batch(self, data: HeteroData) -> None:
        model = self.build(data)
        assert_finite(training_step(model, data, random_batch(data, size=0)), model)

    def test_duplicate_rows(self, data: HeteroData) -> None:
        r"""A batch that repeats one triple, and one whose negative item is the
        positive item.
        """
        batch = random_batch(data, size=1)
        batch = Batch(*(value.expand(33).contiguous() for value in batch))
        for rows in (batch, batch._replace(neg=batch.pos)):
            model = self.build(data)
            assert_finite(training_step(model, data, rows), model)

    @pytest.mark.parametrize('edges', ['isolated nodes', 'one edge'])
    def test_few_edges(self, edges: str) -> None:
        r"""Users and items without training edges."""
        data = small_graph()
        edge_index = data[RATES].edge_index
        few = (edge_index[0] < NUM_USERS // 2) & (edge_index[1] < NUM_ITEMS // 2)
        edge_index = edge_index[:, :1] if edges == 'one edge' else edge_index[:, few]
        data = prepare(self.backbone, with_edges(data, edge_index.contiguous()))
        model = self.build(data)
        assert_finite(training_step(model, data, random_batch(data)), model)
        out = rank(model, data)
        assert out.user.shape[0] == NUM_USERS and out.item.shape[0] == NUM_ITEMS
        assert out.user.isfinite().all() and out.item.isfinite().all()

    def test_missing_modality(self) -> None:
        r"""Rows of items that lack a modality may be NaN."""
        data = small_graph()
        x, mask = data[ITEM].x_image.clone(), torch.ones(NUM_ITEMS, dtype=torch.bool)
        mask[:5] = False
        x[:5] = torch.nan
        data[ITEM].x_image, data[ITEM].mask_image = x, mask
        data = prepare(self.backbone, data)
        model = self.build(data, 'features')
        assert_finite(training_step(model, data, random_batch(data)), model)
        out = rank(model, data)
        assert out.user.isfinite().all() and out.item.isfinite().all()
        out = rank(model, new_items(self.backbone, data))
        assert out.user.isfinite().all() and out.item.isfinite().all()

    @pytest.mark.parametrize('items', ['id', 'specific', 'features'])
    def test_modality_names(self, items: str) -> None:
        r"""Modality names that contain dots or clash with attributes of modules."""
        names = {'image': 'clip.vit-b32', 'text': 'type'}
        data = prepare(self.backbone, with_names(small_graph(), names))
        model = self.build(data, items)
        assert_finite(training_step(model, data, random_batch(data)), model)
        other = self.build(data, items, seed=1)
        other.load_state_dict(model.state_dict())
        assert_same(rank(other, data), rank(model, data))

    @pytest.mark.parametrize('items', ['id', 'specific', 'features'])
    def test_names_of_nodes_and_edges(self, data: HeteroData, items: str) -> None:
        r"""Users, items and interactions may have any type name, and the number of
        items may have to be inferred.
        """
        parameters = inspect.signature(self.backbone).parameters.values()
        if not any(p.name == 'edge_type' or p.kind is p.VAR_KEYWORD for p in parameters):
            pytest.skip('takes no edge_type')
        edge_type = ('customer', 'buys', 'product')
        other = with_types(data, edge_type)
        del other['product'].num_nodes
        expected = self.build(data, items)
        torch.manual_seed(0)
        encoder = item_encoder(items, data, CHANNELS)
        options: dict[str, Any] = {**self.options, 'channels': CHANNELS, 'edge_type': edge_type}
        model = self.backbone(other, item_encoder=encoder, **options)
        batch = random_batch(data)
        losses = training_step(model, other, batch), training_step(expected, data, batch)
        assert all(torch.equal(losses[0][key], value) for key, value in losses[1].items())
        grads = gradients(model)
        assert all(torch.equal(grads[key], grad) for key, grad in gradients(expected).items())
        assert_same(rank(model, other), rank(expected, data))

    def test_missing_edges(self, data: HeteroData) -> None:
        r"""A graph whose interactions have another name raises an error that lists
        the available edge types, and the graph stays unchanged.
        """
        model, other = self.build(data), with_types(data, (USER, 'buys', ITEM))
        before = other.edge_types
        with pytest.raises(ValueError, match='buys'):
            model.recommend(other, torch.arange(2), k=3)
        assert other.edge_types == before

    # Documentation

    def test_documented(self) -> None:
        doc = inspect.getdoc(self.backbone) or ''
        for part in self.sections:
            assert part in doc, part
        for key in inspect.signature(self.backbone).parameters:
            assert f'{key}:' in doc, key
