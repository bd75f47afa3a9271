r"""What every backbone must keep; being listed in `MODELS` is enough."""

import copy
import inspect
import io

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from motor_geo.data import ItemKNN, OPQTokenizer, SyntheticMultimodal
from motor_geo.data.transforms.add_items import add_items
from motor_geo.engine.evaluator import Evaluator, popularity_embeddings
from motor_geo.engine.trainer import Trainer
from motor_geo.nn import FeatureProjection, TokenCrossEncoder
from motor_geo.nn.functional import distinct as nodes
from motor_geo.nn.models import MODELS
from motor_geo.typing import ITEM, RATES, Batch, EvalTargets

M, N = 211, 173  # Primes that no other size equals.
ENCODERS = ['id', 'specific', 'agnostic', 'mean', 'linear', 'features']
TOKENS = {'image': 2, 'text': 2}


@pytest.fixture(scope='module')
def dataset():
    return SyntheticMultimodal(num_users=M, num_items=N, num_interactions=1500, seed=0)


@pytest.fixture(scope='module')
def graphs(dataset):
    tokenizer = OPQTokenizer(2, codebook_size=16, cache=False, verbose=False)
    data = tokenizer(dataset.data)
    return {
        weighting: ItemKNN(k=5, weighting=weighting or 'binary', cache=False)(copy.copy(data))
        for weighting in (None, 'binary', 'cosine')
    }


def build(name, data, encoder='specific', seed=0, **kwargs):
    torch.manual_seed(seed)
    module = None
    if encoder in ('specific', 'agnostic', 'mean', 'linear'):
        module = TokenCrossEncoder(TOKENS, 16, 24, mode=encoder)
    elif encoder == 'features':
        widths = {m: data[ITEM][f'x_{m}'].size(1) for m in TOKENS}
        module = FeatureProjection(widths, 24)
    return MODELS[name](data, item_encoder=module, channels=24, **kwargs)


def make_batch(data, size=64):
    generator = torch.Generator().manual_seed(0)
    edge_index = data[RATES].edge_index
    edge = torch.randint(edge_index.size(1), (size,), generator=generator)
    return Batch(*edge_index[:, edge], torch.randint(N, (size,), generator=generator))


def step(model, data, batch, epoch=0):
    device = data[RATES].edge_index.device
    model.train()
    model.begin_epoch(data, epoch, torch.Generator(device).manual_seed(3))
    torch.manual_seed(4)
    losses = model.loss(data, batch)
    sum(losses.values()).backward()
    return losses


class NoWait(TorchDispatchMode):
    r"""Fails where a GPU would have to finish before Python can go on."""

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

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        assert name not in self.waits, f'{name} waits for its result'
        if name == 'index' or name == 'index_put_':
            for index in args[1]:
                assert index is None or index.dtype != torch.bool, 'a mask as index'
        if name == 'repeat_interleave':
            assert kwargs and kwargs.get('output_size') is not None, 'an unknown size'
        return function(*args, **(kwargs or {}))


@pytest.fixture(params=sorted(MODELS))
def name(request):
    return request.param


@pytest.fixture
def data(name, graphs):
    transforms = MODELS[name].transforms
    return graphs[transforms[0].options['weighting'] if transforms else None]


@pytest.mark.parametrize('encoder', ENCODERS)
def test_every_item_encoder(name, data, encoder):
    model = build(name, data, encoder)
    losses = step(model, data, make_batch(data))
    assert all(value.dim() == 0 and value.isfinite() for value in losses.values())
    if encoder != 'id':
        for key, parameter in model.item_encoder.named_parameters():
            assert parameter.grad is not None and parameter.grad.any(), key
    model.eval()
    with torch.no_grad():
        out = model(data)
    assert out.user.size(0) == M and out.item.size(0) == N
    assert out.user.size(1) == out.item.size(1)
    assert out.user.isfinite().all() and out.item.isfinite().all()


@pytest.mark.parametrize('encoder', ENCODERS)
def test_autocast(name, data, encoder):
    r"""Half precision changes losses and the direction of gradients little;
    losses stay in float32.
    """
    expected = step(build(name, data, encoder), data, make_batch(data))
    model = build(name, data, encoder)
    with torch.autocast('cpu', torch.bfloat16):
        losses = step(model, data, make_batch(data))
    for key, value in losses.items():
        assert value.dtype == torch.float32, key
        torch.testing.assert_close(value, expected[key], rtol=0.02, atol=1e-3)
    exact = build(name, data, encoder)
    step(exact, data, make_batch(data))
    grads, others = ([p.grad for p in m.parameters()] for m in (model, exact))
    assert [x is None for x in grads] == [x is None for x in others]
    grad, other = (torch.cat([x.flatten() for x in y if x is not None]) for y in (grads, others))
    assert grad.dtype == torch.float32
    assert torch.cosine_similarity(grad, other, dim=0) > 0.98
    assert 0.95 < grad.norm() / other.norm() < 1.05
    with torch.autocast('cpu', torch.bfloat16), torch.no_grad():
        out = model.eval()(data)
    assert out.user.isfinite().all() and out.item.isfinite().all()


@pytest.mark.parametrize('encoder', ENCODERS[1:])
def test_no_parameter_per_item(name, data, encoder):
    model = build(name, data, encoder)
    assert model.item_parameters(N) == []
    assert all(N not in parameter.shape for parameter in model.parameters())


def test_state_dict_round_trip(name, data):
    model, other = build(name, data), build(name, data, seed=1)
    step(model, data, make_batch(data))
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    model.eval(), other.eval()
    with torch.no_grad():
        for out, expected in zip(other(data), model(data)):
            assert torch.equal(out, expected)
    with torch.no_grad():
        for out, expected in zip(copy.deepcopy(model)(data), model(data)):
            assert torch.equal(out, expected)


def test_same_seed_same_numbers(name, data):
    results = []
    for _ in range(2):
        model = build(name, data)
        losses = step(model, data, make_batch(data))
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        results.append([*losses.values(), *gradients])
    assert all(torch.equal(a, b) for a, b in zip(*results))


@pytest.mark.parametrize('encoder', ['id', 'specific'])
def test_nothing_waits_inside_a_step(name, data, encoder, monkeypatch):
    monkeypatch.setattr(nodes, 'SYNCHRONOUS', ())  # As on a GPU.
    model = build(name, data, encoder)
    batch = make_batch(data)
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    step(model, data, batch)  # What is kept from step to step is made here.
    with NoWait():
        sum(model.loss(data, batch).values()).backward()
        optimizer.step()
    with pytest.raises(AssertionError, match='waits for its result'), NoWait():
        bool(model.user_embedding.sum() > 0)


def test_ranking_is_deterministic(name, data):
    model = build(name, data).eval()
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(model(data), model(data)))


def test_reset_parameters(name, data):
    model = build(name, data)
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


def test_new_items(name, data):
    r"""Items appended to the graph get vectors without training, and leave
    the others as they are.
    """
    model = build(name, data).eval()
    torch.manual_seed(0)
    features = {m: torch.randn(4, data[ITEM][f'x_{m}'].size(1)) for m in TOKENS}
    token_id = torch.randint(16, (4, 4))
    transforms = [transform.build(k=5) for transform in MODELS[name].transforms]
    extended = add_items(data, features, token_id, transforms)
    with torch.no_grad():
        out, expected = model(extended), model(data)
    assert out.item.size(0) == N + 4
    if name not in ('LATTICE', 'MICRO', 'LGMRec'):  # These join old items to new ones.
        torch.testing.assert_close(out.item[:N], expected.item, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(out.user, expected.user, atol=1e-5, rtol=1e-4)
    assert out.item[N:].isfinite().all()


def test_documented(name):
    doc = inspect.getdoc(MODELS[name])
    for part in ('https://', '.. math::', 'ID-free:', 'Args:', 'Shapes:'):
        assert part in doc, part
    signature = inspect.signature(MODELS[name])
    for key in signature.parameters:
        assert f'{key}:' in doc, key


def test_learns(name, data, dataset):
    r"""A few epochs lift the ranking of training interactions far above
    popularity.
    """
    targets = EvalTargets.from_pairs(*data[RATES].edge_index.numpy())
    none = torch.empty(2, 0, dtype=torch.long)
    evaluator = Evaluator(targets, none, N, ks=(20,))
    model = build(name, data)
    popularity = popularity_embeddings(data[RATES].edge_index, M, N)
    Trainer(
        model, data, evaluator, lr=0.01, epochs=100, patience=100, batch_size=256, progress=False
    ).fit()
    model.eval()
    with torch.no_grad():
        learned = evaluator.evaluate(model(data)).metrics['recall@20']
    assert learned > 1.3 * evaluator.evaluate(popularity).metrics['recall@20']


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
@pytest.mark.parametrize('encoder', ['id', 'specific'])
def test_cuda_equals_cpu(name, data, encoder):
    model = build(name, data, encoder).double().eval()
    data = copy.copy(data)
    for modality in TOKENS:
        x = data[ITEM][f'x_{modality}'].double()  # Without ties between neighbours.
        data[ITEM][f'x_{modality}'] = x + 1e-2 * torch.randn_like(x)
    batch = make_batch(data)
    results = []
    for device in ('cpu', 'cuda'):
        copied, graph = copy.deepcopy(model).to(device), copy.copy(data).to(device)
        on_device = Batch(*(value.to(device) for value in batch))
        with torch.no_grad():
            out = [value.cpu() for value in copied(graph)]
        # Training mode may draw noise, which differs between devices: there
        # the loss is only carried out.
        losses = step(copied, graph, on_device)
        assert all(value.isfinite() for value in losses.values())
        results.append(out)
    for a, b in zip(*results):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)
