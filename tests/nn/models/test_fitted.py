import copy
import inspect
import io

import pytest
import torch

from motor_geo.nn.models import FITTED, MODELS, FittedRecommender
from motor_geo.testing.graphs import NUM_ITEMS, NUM_USERS, small_graph, with_edges, with_types
from motor_geo.typing import ITEM, RATES, Embeddings, Scores

CLOSED = [name for name, model in FITTED.items() if not model.iterative]


@pytest.fixture(scope='module')
def data():
    return small_graph()


def build(name, data, seed=0, **options):
    torch.manual_seed(seed)
    return FITTED[name](data, **options)


def scores(out):
    if isinstance(out, Embeddings):
        return out.user @ out.item.t()
    return out(torch.arange(out.num_users))


@pytest.mark.parametrize('name', FITTED)
def test_documentation(name):
    text = inspect.getdoc(FITTED[name])
    assert all(mark in text for mark in ('.. math::', 'Args:', 'Shapes:'))
    assert name == 'Popularity' or 'https://' in text
    assert name not in MODELS and issubclass(FITTED[name], FittedRecommender)
    for argument in inspect.signature(FITTED[name]).parameters:
        assert f'\n    {argument}: ' in text


@pytest.mark.parametrize('name', CLOSED)
def test_models_in_closed_form_depend_on_the_graph_alone(name, data):
    model = build(name, data)
    found = scores(model(data))
    assert found.shape == (NUM_USERS, NUM_ITEMS) and found.isfinite().all()
    assert list(model.fit(data)) == [{}]
    again = build(name, data)
    torch.testing.assert_close(scores(again(data)), found, rtol=0, atol=0)
    # Another order of the same edges, some of them twice.
    edge_index = data[RATES].edge_index
    edge_index = torch.cat([edge_index.flip(1), edge_index[:, :50]], dim=1)
    if name != 'Popularity':
        other = scores(model(with_edges(data, edge_index)))
        torch.testing.assert_close(other, found, rtol=1e-5, atol=1e-6)
    fewer = scores(model(with_edges(data, edge_index[:, :300])))
    assert not torch.allclose(fewer, found)


@pytest.mark.parametrize('name', CLOSED)
def test_what_is_stored_restores_the_model(name, data):
    model, file = build(name, data, seed=1), io.BytesIO()
    found = scores(model(data))
    torch.save(model.state_dict(), file)
    assert file.tell() < 10_000  # No matrix of all items, which would take 120 kB.
    file.seek(0)
    other = build(name, data, seed=2)
    scores(other(data))  # What it keeps must not be that of its own state.
    other.load_state_dict(torch.load(file, weights_only=True))
    torch.testing.assert_close(scores(other(data)), found, rtol=0, atol=0)
    torch.testing.assert_close(scores(copy.deepcopy(model)(data)), found, rtol=0, atol=0)


@pytest.mark.parametrize('name', FITTED)
def test_recommend(name, data):
    model, user = build(name, data), torch.tensor([5, 3])
    score, item = model.recommend(data, user, k=7)
    table = scores(model(data))
    seen = torch.zeros(NUM_USERS, NUM_ITEMS, dtype=torch.bool)
    seen[tuple(data[RATES].edge_index)] = True
    assert not seen[user.view(-1, 1), item].any()
    expected = table.masked_fill(seen, -torch.inf)[user].topk(7).values
    torch.testing.assert_close(score, expected)
    torch.testing.assert_close(score, table[user].gather(1, item))
    assert model.recommend(data, k=1000)[1].shape == (NUM_USERS, NUM_ITEMS)


@pytest.mark.parametrize('name', FITTED)
def test_other_names_of_types(name, data):
    edge_type = ('reader', 'reads', 'book')
    renamed = with_types(data, edge_type)
    model = build(name, renamed, edge_type=edge_type)
    torch.testing.assert_close(scores(model(renamed)), scores(build(name, data)(data)))


@pytest.mark.parametrize('name', ['EASE', 'ItemKNN', 'RP3beta'])
def test_items_that_were_not_there_are_refused(name, data):
    model, larger = build(name, data), small_graph()
    larger[ITEM].update(data[ITEM])
    larger[ITEM].num_nodes = NUM_ITEMS + 2
    message = f"^'{name}' knows {NUM_ITEMS} items but the graph has {NUM_ITEMS + 2}: it cannot"
    with pytest.raises(ValueError, match=message):
        model(larger)


def test_sizes(data):
    pairs = NUM_ITEMS * NUM_ITEMS
    sizes = {name: build(name, data).num_parameters() for name in FITTED}
    assert sizes['EASE'] == {'weight': pairs}
    assert sizes['ItemKNN'] == sizes['ContentKNN'] == sizes['RP3beta'] == sizes['Popularity'] == {}
    assert sum(sizes['IALS'].values()) == 64 * (NUM_USERS + NUM_ITEMS)
    assert build('EASE', data).item_parameters(NUM_ITEMS) == ['weight']
    assert build('IALS', data).item_parameters(NUM_ITEMS) == ['item_embedding']
    assert build('ItemKNN', data).item_parameters(NUM_ITEMS) == []


def test_interactions_are_zeros_and_ones(data):
    edges = torch.tensor([[0, 0, 1], [2, 2, 0]])
    train = build('EASE', data).interactions(with_edges(data, edges))
    assert train.shape == (NUM_USERS, NUM_ITEMS) and train.sum() == 2
    assert train[0, 2] == train[1, 0] == 1


def test_the_base_has_no_scores(data):
    with pytest.raises(NotImplementedError):
        FittedRecommender(data)(data)
    assert repr(FittedRecommender(data)) == f'FittedRecommender({NUM_USERS}, {NUM_ITEMS})'
    assert isinstance(build('EASE', data)(data), Scores)
