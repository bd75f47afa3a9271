import copy
import pickle
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch_geometric.data import HeteroData

from motor_geo.nn import TokenCrossEncoder
from motor_geo.nn.item_encoder import FeatureProjection
from motor_geo.nn.models.lattice import LATTICE
from motor_geo.nn.models.micro import MICRO
from motor_geo.typing import RATES, Batch, similar

NUM_USERS, NUM_ITEMS, WIDTH = 31, 53, {'audio': 7, 'image': 11, 'text': 5}
models = pytest.mark.parametrize('Model', [LATTICE, MICRO])


def build(num_items=NUM_ITEMS, modalities=('image', 'text'), k=4):
    generator = torch.Generator().manual_seed(0)
    data = HeteroData()
    data['user'].num_nodes, data['item'].num_nodes = NUM_USERS, num_items
    data['item'].token_id = torch.randint(0, 16, (100, 4), generator=generator)[:num_items]
    edges = (torch.rand(NUM_USERS, NUM_ITEMS, generator=generator) < 0.2).nonzero().t()
    data[RATES].edge_index = edges
    for m in modalities:
        x = torch.randn(100, WIDTH[m], generator=generator)[:num_items]
        similarity = F.normalize(x) @ F.normalize(x).t()
        value, index = similarity.topk(k)
        row = torch.arange(num_items).view(-1, 1).expand(-1, k)
        d = value.sum(dim=1)
        data['item'][f'x_{m}'] = x
        data[similar(m)].edge_index = torch.stack([index.flatten(), row.flatten()])
        data[similar(m)].edge_weight = (value / (d.view(-1, 1) * d[index]).sqrt()).flatten()
    pick = torch.randint(0, edges.size(1), (20,), generator=generator)
    neg = torch.randint(0, NUM_ITEMS, (20,), generator=generator)
    return data, Batch(edges[0, pick], edges[1, pick], neg)


def token_encoder(channels=8):
    return TokenCrossEncoder({'image': 2, 'text': 2}, codebook_size=16, out_channels=channels)


def create(Model, data, **kwargs):
    torch.manual_seed(0)
    kwargs = {'channels': 8, 'k': 4, 'initial_weight': 0.5, **kwargs}
    return Model(data, kwargs.pop('item_encoder', None), **kwargs)


def has_graph_gradient(model, losses):
    weight = model.features.lins['text'].weight
    (grad,) = torch.autograd.grad(sum(losses.values()), weight, allow_unused=True)
    return grad is not None


@models
def test_only_the_first_batch_of_an_epoch_trains_the_item_graph(Model):
    data, batch = build()
    model = create(Model, data)
    assert Model.lr_decay == (0.96, 50.0)
    for epoch in range(2):
        model.begin_epoch(data, epoch, torch.Generator())
        assert has_graph_gradient(model, model.loss(data, batch))
        expected = model.loss(data, batch)
        assert not has_graph_gradient(model, expected)
        # Ranking rebuilds the graph, the other batches keep theirs.
        before = model(data).item
        with torch.no_grad():
            for lin in model.features.lins.values():
                lin.weight.normal_()
        assert not torch.allclose(model(data).item, before)
        for term, value in model.loss(data, batch).items():
            assert torch.equal(value, expected[term])


@models
def test_a_loss_without_gradient_does_not_use_up_the_first_batch(Model):
    data, batch = build()
    model = create(Model, data)
    model.begin_epoch(data, 0, torch.Generator())
    with torch.no_grad():
        model.loss(data, batch)
    assert has_graph_gradient(model, model.loss(data, batch))


@models
def test_other_item_graphs_are_not_taken_for_those_of_the_epoch(Model):
    data, batch = build()
    model = create(Model, data)
    model.loss(data, batch)
    data[similar('text')].edge_weight = torch.rand_like(data[similar('text')].edge_weight)
    data[similar('text')].edge_index = data[similar('text')].edge_index.clone()
    assert has_graph_gradient(model, model.loss(data, batch))


@models
@pytest.mark.parametrize('item_encoder', [None, 'tokens'])
def test_resume_at_an_epoch_boundary_replays(Model, item_encoder):
    data, batch = build()

    def start():
        encoder = None if item_encoder is None else token_encoder()
        model = create(Model, data, item_encoder=encoder)
        return model, torch.optim.Adam(model.parameters(), lr=0.01)

    def train(model, optimizer, epochs):
        for epoch in epochs:
            model.begin_epoch(data, epoch, torch.Generator().manual_seed(epoch))
            for _ in range(3):
                optimizer.zero_grad()
                sum(model.loss(data, batch).values()).backward()
                optimizer.step()

    model, optimizer = start()
    train(model, optimizer, range(2))
    state = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    train(model, optimizer, range(2, 4))

    resumed, optimizer = start()
    resumed.loss(data, batch)  # Leaves a graph behind that must not be reused.
    resumed.load_state_dict(state[0])
    optimizer.load_state_dict(state[1])
    train(resumed, optimizer, range(2, 4))
    for name, value in model.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


@models
def test_ranks_more_items_than_in_training(Model):
    data, batch = build()
    encoder = token_encoder()
    model = create(Model, data, item_encoder=encoder)
    sum(model.loss(data, batch).values()).backward()
    more, _ = build(num_items=60)
    out = model(more)
    assert out.item.shape == (60, 8) and out.item.isfinite().all()
    # A new item has no training edge: its vector stays at every hop.
    h = out.item[59] - model.encode_items(more)[59]
    torch.testing.assert_close(h.norm(), torch.tensor(1.0))
    # Its neighbors come from its own features, and the old graph is back after.
    before, more['item'].x_text = out.item, more['item'].x_text.clone()
    more['item'].x_text[59] *= -1
    assert not torch.allclose(model(more).item[59], before[59])
    assert model(data).item.shape == (NUM_ITEMS, 8)


@models
def test_trained_features_cannot_rank_new_items(Model):
    data, _ = build()
    model = create(Model, data, item_encoder=token_encoder(), train_features=True)
    assert model.item_parameters(NUM_ITEMS) == ['features.tables.image', 'features.tables.text']
    more, _ = build(num_items=60)
    with pytest.raises(ValueError, match="'image' features of 53 items but the graph has 60"):
        model(more)


@models
@pytest.mark.parametrize('modalities', [('audio',), ('image', 'text'), ('audio', 'image', 'text')])
def test_any_modalities_and_item_encoders(Model, modalities):
    data, batch = build(modalities=modalities)
    channels = {m: WIDTH[m] for m in modalities}
    for encoder in (None, token_encoder(), FeatureProjection(channels, 8)):
        model = create(Model, data, item_encoder=encoder)
        assert model.features.names == sorted(modalities)
        assert (model.item_parameters(NUM_ITEMS) == []) == (encoder is not None)
        losses = model.loss(data, batch)
        sum(losses.values()).backward()
        assert all(value.isfinite() for value in losses.values())
        for name, parameter in model.named_parameters():
            # A softmax over one modality is constant.
            if len(modalities) > 1 or not name.startswith(('modal_logits', 'attention')):
                assert parameter.grad is not None and parameter.grad.any(), name
        scores, items = model.recommend(data, k=5)
        assert scores.shape == items.shape == (NUM_USERS, 5)


@models
def test_copies_start_without_an_epoch(Model):
    data, batch = build()
    model = create(Model, data)
    model.loss(data, batch)
    for clone in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(clone(data).item, model(data).item)
        assert not has_graph_gradient(model, model.loss(data, batch))
        assert has_graph_gradient(clone, clone.loss(data, batch))


@models
def test_rejects_bad_arguments(Model):
    data, _ = build()
    with pytest.raises(ValueError, match=r"'k' must be positive \(got 0\)"):
        Model(data, k=0)
    with pytest.raises(ValueError, match=r"'initial_weight' must lie in \[0, 1\] \(got 1.5\)"):
        Model(data, initial_weight=1.5)
    with pytest.raises(ValueError, match="'num_item_layers' must not be negative"):
        Model(data, num_item_layers=-1)
    del data[similar('text')]
    with pytest.raises(ValueError, match="needs the item graph .*text.*apply 'ItemKNN'"):
        Model(data)
    for modality in ('image', 'text'):
        del data['item'][f'x_{modality}']
    with pytest.raises(ValueError, match=f"'{Model.__name__}' needs item features"):
        Model(data)


@models
def test_pairs_of_many_items_take_long(monkeypatch, Model):
    data, _ = build()
    monkeypatch.setattr('motor_geo.utils.cost.SPEED', 100 / torch.get_num_threads())
    # Two passes, two modalities, 53 items, 8 channels.
    message = rf"^'{Model.__name__}' compares all pairs of 53 items .* 898.9 seconds .*'initial_w"
    options = {'contrast_weight': 0} if Model is MICRO else {}
    with pytest.warns(UserWarning, match=message):
        Model(data, channels=8, **options)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        Model(data, channels=8, initial_weight=1, **options)


def test_contrast_of_many_items_takes_long(monkeypatch):
    data, _ = build()
    monkeypatch.setattr('motor_geo.utils.cost.SPEED', 10_000 / torch.get_num_threads())
    message = r"^The contrast of 'MICRO' compares all pairs of 53 items .* 22.5 seconds"
    with pytest.warns(UserWarning, match=message):
        MICRO(data, channels=8)
