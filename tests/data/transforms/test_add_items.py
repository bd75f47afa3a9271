import pytest
import torch
from torch_geometric.data import HeteroData
from torch_geometric.transforms import BaseTransform

from motor_geo.data import ItemKNN, OPQTokenizer, SyntheticClusters
from motor_geo.data.transforms.add_items import add_items
from motor_geo.data.transforms.knn import knn_graph_cosine, knn_weights
from motor_geo.typing import ITEM, RATED_BY, RATES, USER, similar
from motor_geo.utils.lazy import Lazy


def small(weighting, k=2):
    r"""Three items; similarities 0, 0.6 and 0.8, so that 0 and 1 have the
    neighbor 2, and 2 has the neighbor 1.
    """
    data = SyntheticClusters(num_users=10, num_items=8, num_interactions=30)[0]
    data[ITEM].num_nodes = 3
    for key in list(data[ITEM].keys()):
        if key != 'num_nodes':
            del data[ITEM][key]
    data[ITEM].x_text = torch.tensor([[1.0, 0.0], [0.0, 2.0], [0.6, 0.8]])
    data[RATES].edge_index = torch.tensor([[0, 1], [0, 2]])
    data[RATED_BY].edge_index = data[RATES].edge_index.flip(0)
    return ItemKNN(k=k, weighting=weighting, cache=False)(data)


def weights(data, target):
    graph = data[similar('text')]
    row = graph.edge_index[1] == target
    return dict(zip(graph.edge_index[0, row].tolist(), graph.edge_weight[row].tolist()))


def test_cosine_weights_by_hand():
    data = small('cosine')
    assert weights(data, 2) == pytest.approx({2: 1 / 1.8, 1: 0.8 / 1.8})
    new = {'text': torch.tensor([[8.0, 6.0], [0.0, 1.0]])}  # Similarities .8, .6, .96; 0, 1, .8.
    out = add_items(data, new, None, [ItemKNN(2, weighting='cosine')])
    assert weights(out, 3) == pytest.approx({3: 1 / 1.96, 2: 0.96 / (1.96 * 1.8) ** 0.5})
    assert weights(out, 4) == pytest.approx({4: 0.5, 1: 1 / (2.0 * 1.8) ** 0.5})
    for item in range(3):
        assert weights(out, item) == weights(data, item)


def test_binary_weights_by_hand():
    data = small('binary')
    new = {'text': torch.tensor([[8.0, 6.0]])}
    assert weights(
        add_items(data, new, None, [ItemKNN(2, weighting='binary')]), 3
    ) == pytest.approx({3: 0.5, 2: 0.5})
    half = 1 / 6**0.5  # One over the root of three times two neighbors.
    assert weights(
        add_items(data, new, None, [ItemKNN(3, weighting='binary')]), 3
    ) == pytest.approx({3: 1 / 3, 2: half, 0: half})
    assert weights(add_items(data, new, None, [ItemKNN(1, weighting='binary')]), 3) == {3: 1.0}


@pytest.mark.parametrize('weighting', ['binary', 'cosine'])
def test_item_without_a_direction_is_alone(weighting):
    out = add_items(
        small(weighting), {'text': torch.zeros(1, 2)}, None, [ItemKNN(2, weighting=weighting)]
    )
    assert weights(out, 3) == {3: 1.0}


@pytest.mark.parametrize('weighting', ['binary', 'cosine'])
def test_weights_equal_those_of_the_formula(weighting):
    data = SyntheticClusters(num_users=20, num_items=40, num_interactions=100)[0]
    data = ItemKNN(k=5, weighting=weighting, cache=False)(data)
    generator = torch.Generator().manual_seed(0)
    new = {
        m: torch.randn(3, data[ITEM][f'x_{m}'].size(1), generator=generator).abs()
        for m in ('image', 'text')
    }
    out = add_items(data, new, None, [ItemKNN(5, weighting=weighting)])
    for m, x in new.items():
        old = data[ITEM][f'x_{m}'].double()
        index, similarity = knn_graph_cosine(old, 5)
        degree = (similarity if weighting == 'cosine' else torch.ones_like(similarity)).sum(1)
        graph, before = out[similar(m)], data[similar(m)]
        assert torch.equal(graph.edge_index[:, :200], before.edge_index)
        assert torch.equal(graph.edge_weight[:200], before.edge_weight)
        unit = torch.nn.functional.normalize(torch.cat([old, x.double()]))
        for row in range(3):
            value = unit[40 + row] @ unit[:40].t()
            nearest = value.topk(4).indices
            w = torch.cat([torch.ones(1).double(), value[nearest]])
            w = w if weighting == 'cosine' else torch.ones(5).double()
            neighbor = torch.cat([w.sum().view(1), degree[nearest]])
            expected = w / (w.sum() * neighbor).sqrt()
            part = slice(200 + 5 * row, 205 + 5 * row)
            assert graph.edge_index[0, part].tolist() == [40 + row, *nearest.tolist()]
            assert graph.edge_index[1, part].tolist() == 5 * [40 + row]
            torch.testing.assert_close(
                graph.edge_weight[part].double(), expected, rtol=1e-5, atol=0
            )
    assert knn_weights(index, similarity, weighting)[0].size(1) == 200


def test_the_rest_of_the_graph_stays():
    data = SyntheticClusters(num_users=20, num_items=40, num_interactions=100)[0]
    data = OPQTokenizer(2, codebook_size=8, cache=False, verbose=False)(data)
    features = {m: data[ITEM][f'x_{m}'][[7, 3]] for m in ('image', 'text')}
    tokens = data[ITEM].token_id[[7, 3]]
    out = add_items(data, features, tokens)
    assert out[ITEM].num_nodes == 42 and out[USER].num_nodes == 20
    assert data[ITEM].num_nodes == 40 and data[ITEM].x_text.size(0) == 40
    assert torch.equal(out[RATES].edge_index, data[RATES].edge_index)
    assert torch.equal(out[RATED_BY].edge_index, data[RATED_BY].edge_index)
    rows = [*range(40), 7, 3]
    for key in ('x_image', 'x_text', 'token_id'):
        assert torch.equal(out[ITEM][key], data[ITEM][key][rows])
        assert out[ITEM][key].dtype == data[ITEM][key].dtype


def test_bad_input():
    data = small('binary')
    x = torch.ones(2, 2)
    for features, kwargs, message in [
        ({}, {}, r"lack features of the modalities \['text'\]"),
        ({'text': torch.ones(2, 3)}, {}, "3 columns of 'text', but the graph has 2"),
        ({'text': x}, {}, "expected the 'transforms' that created them"),
        ({'text': x * torch.nan}, {'transforms': [ItemKNN(2)]}, 'NaN or infinite'),
        ({'text': x}, {'transforms': [ItemKNN(5)]}, 'k must be between 1 and 4'),
    ]:
        with pytest.raises(ValueError, match=message):
            add_items(data, features, **kwargs)
    data[ITEM].token_id = torch.zeros(3, 4, dtype=torch.uint8)
    with pytest.raises(ValueError, match="expected 'token_id' of the new items"):
        add_items(data, {'text': x}, None, [ItemKNN(2, weighting='binary')])
    for shape in ((3, 4), (2, 5)):
        with pytest.raises(ValueError, match=r"'token_id' of the new items must be \[2, 4\], got"):
            tokens = torch.zeros(shape, dtype=torch.uint8)
            add_items(data, {'text': x}, tokens, [ItemKNN(2, weighting='binary')])
    data[ITEM].x_image = torch.ones(3, 1)
    with pytest.raises(ValueError, match='differ in their number of rows'):
        add_items(data, {'text': x, 'image': torch.ones(1, 1)}, torch.zeros(2, 4))
    del data[ITEM].x_image, data[ITEM].x_text
    with pytest.raises(ValueError, match='no item features'):
        add_items(data, {'text': x})


class CommonUsers(BaseTransform):
    r"""Connects the first user to the last item, and counts its calls."""

    calls = 0

    def forward(self, data):
        self.calls += 1
        data['user', 'likes', 'item'].edge_index = torch.tensor([[0], [data[ITEM].num_nodes - 1]])
        return data


def test_other_transforms_are_applied_anew():
    transforms = [Lazy('motor_geo.data.ItemKNN', k=2, cache=False), CommonUsers()]
    data = transforms[1](small('binary'))
    data[USER].x = torch.ones(10, 2)
    out = add_items(data, {'text': torch.tensor([[8.0, 6.0]])}, transforms=transforms)
    assert transforms[1].calls == 2
    assert out['user', 'likes', 'item'].edge_index.tolist() == [[0], [3]]
    assert data['user', 'likes', 'item'].edge_index.tolist() == [[0], [2]]
    assert weights(out, 3) == pytest.approx({3: 0.5, 2: 0.5})
    assert torch.equal(out[USER].x, data[USER].x)


def test_graphs_of_some_modalities():
    data = small('binary')
    data[ITEM].x_image = torch.ones(3, 1)
    new = {'text': torch.tensor([[8.0, 6.0]]), 'image': torch.ones(1, 1)}
    out = add_items(data, new, transforms=[ItemKNN(2)])
    assert out.edge_types == data.edge_types
    assert weights(out, 3) == pytest.approx({3: 0.5, 2: 0.5})


def test_a_transform_that_returns_nothing():
    class Forgets(BaseTransform):
        def forward(self, data):
            pass

    data = HeteroData()
    data['item'].x_text = torch.rand(3, 2)
    data['item'].num_nodes = 3
    with pytest.raises(ValueError, match='^Forgets returned None; expected the graph$'):
        add_items(data, {'text': torch.rand(1, 2)}, transforms=[Forgets()])


def test_rows_of_items_without_the_modality():
    data = small('binary')
    data[ITEM].mask_text = torch.tensor([True, True, False])
    data[ITEM].x_text = torch.tensor([[1.0, 0.0], [0.0, 2.0], [float('nan')] * 2])
    out = add_items(data, {'text': torch.tensor([[8.0, 6.0]])}, None, [ItemKNN(2, cache=False)])
    assert torch.equal(out[ITEM].x_text[2:], torch.tensor([[0.5, 1.0], [8.0, 6.0]]))
    assert out[similar('text')].edge_weight.isfinite().all()


def with_attributes():
    data = small('cosine')
    data[ITEM].mask_text = torch.tensor([True, False, True])
    data[ITEM].category = torch.tensor([4, 0, 2])
    return data


def test_masks_and_other_attributes():
    data, new = with_attributes(), {'text': torch.ones(2, 2)}
    category = torch.tensor([1, 3], dtype=torch.int32)
    out = add_items(data, new, None, [ItemKNN(2)], {'category': category})
    assert out[ITEM].mask_text.tolist() == [True, False, True, True, True]
    assert out[ITEM].category.tolist() == [4, 0, 2, 1, 3]
    assert out[ITEM].category.dtype == torch.long
    given = {'category': category, 'mask_text': torch.tensor([True, False])}
    out = add_items(data, new, None, [ItemKNN(2)], given)
    assert out[ITEM].mask_text.tolist() == [True, False, True, True, False]


@pytest.mark.parametrize(
    ('attributes', 'message'),
    [
        (
            None,
            r"holds \['category'\] of every item: expected those of the new items in 'attributes'",
        ),
        ({'category': torch.tensor([1])}, r"'category' of the new items must be \[2\], got \[1\]"),
        (
            {'category': torch.tensor([1, 2]), 'color': torch.tensor([1, 2])},
            r"'attributes' holds \['color'\], which the graph has of no item",
        ),
    ],
)
def test_bad_attributes(attributes, message):
    new = {'text': torch.ones(2, 2)}
    with pytest.raises(ValueError, match=message):
        add_items(with_attributes(), new, None, [ItemKNN(2)], attributes)


def test_attributes_that_a_transform_adds():
    class Categories(BaseTransform):
        def forward(self, data):
            data[ITEM].category = torch.arange(data[ITEM].num_nodes)
            return data

    new = {'text': torch.ones(2, 2)}
    out = add_items(with_attributes(), new, None, [ItemKNN(2), Categories()])
    assert out[ITEM].category.tolist() == [0, 1, 2, 3, 4]
