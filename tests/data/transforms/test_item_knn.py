import json
import os.path as osp

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torch_geometric
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.data import Data, HeteroData

from motor_geo.data.transforms.item_knn import ItemKNN
from motor_geo.data.transforms.knn import attach, knn_graph_cosine, knn_weights

GOLDEN = osp.join(osp.dirname(__file__), '..', '..', 'golden')


def load_golden(name):
    arrays = np.load(osp.join(GOLDEN, f'{name}.npz'))
    with open(osp.join(GOLDEN, f'{name}.json')) as f:
        return arrays, json.load(f)['hyper_parameters']


def make_data(**features):
    data = HeteroData()
    for name, x in features.items():
        data['item'][f'x_{name}'] = x
    return data


def to_dense(edge_index, edge_weight, num_nodes):
    out = torch.zeros(num_nodes, num_nodes, dtype=edge_weight.dtype)
    assert torch.unique(edge_index, dim=1).size(1) == edge_index.size(1)
    out[edge_index[1], edge_index[0]] = edge_weight
    return out


def golden_dense(arrays, prefix, num_nodes):
    row, col = arrays[f'{prefix}_row'], arrays[f'{prefix}_col']
    out = torch.zeros(num_nodes, num_nodes, dtype=torch.double)
    out[row, col] = torch.from_numpy(arrays[f'{prefix}_value'])
    return out


def naive_neighbors(x, k):
    r"""Itself, then descending similarity, then ascending index; zero rows
    come last and have themselves alone.
    """
    x = x.double().tolist()
    norm = [sum(v * v for v in row) ** 0.5 for row in x]
    lists = []
    for i in range(len(x)):
        if norm[i] == 0:
            lists.append(([i] * k, [1.0] + [0.0] * (k - 1)))
            continue
        scores = []
        for j in range(len(x)):
            if j == i:
                scores.append((-2.0, j, 1.0))
            elif norm[j] == 0:
                scores.append((2.0, j, 0.0))
            else:
                dot = sum(a * b for a, b in zip(x[i], x[j])) / (norm[i] * norm[j])
                scores.append((-dot, j, dot))
        scores.sort()
        lists.append(([s[1] for s in scores[:k]], [s[2] for s in scores[:k]]))
    return (
        torch.tensor([entry[0] for entry in lists]),
        torch.tensor([entry[1] for entry in lists], dtype=torch.double),
    )


def test_golden_freedom():
    arrays, hyper = load_golden('freedom')
    num_items, k, w = hyper['N'], hyper['k'], hyper['w']
    data = make_data(
        image=torch.from_numpy(arrays['image_feat']).double(),
        text=torch.from_numpy(arrays['text_feat']).double(),
    )
    data = ItemKNN(k, weighting='binary', cache=False)(data)
    graphs = {}
    for m in ['image', 'text']:
        store = data['item', f'similar_{m}', 'item']
        graphs[m] = to_dense(store.edge_index, store.edge_weight, num_items)
    expected = golden_dense(arrays, 'item_adj', num_items)
    out = w * graphs['image'] + (1 - w) * graphs['text']
    assert torch.allclose(out, expected, atol=1e-6, rtol=0)
    assert not torch.allclose(out.t(), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize('name', ['mgcn', 'lattice'])
@pytest.mark.parametrize('modality', ['image', 'text'])
def test_golden_cosine(name, modality):
    arrays, hyper = load_golden(name)
    x = torch.from_numpy(arrays[f'{modality}_feat']).double()
    data = ItemKNN(hyper['k'], weighting='cosine', cache=False)(make_data(m=x))
    store = data['item', 'similar_m', 'item']
    assert store.edge_weight.dtype == torch.double
    out = to_dense(store.edge_index, store.edge_weight, hyper['N'])
    expected = golden_dense(arrays, f'{modality}_item_adj', hyper['N'])
    assert torch.allclose(out, expected, atol=1e-6, rtol=0)


def test_by_hand():
    # Angles of 0, 60, 90 and 180 degrees; lengths do not matter.
    x = torch.tensor([[2.0, 0.0], [0.5, 0.75**0.5], [0.0, 3.0], [-1.0, 0.0]]).double()
    index, similarity = knn_graph_cosine(x, k=2)
    assert index.tolist() == [[0, 1], [1, 2], [2, 1], [3, 2]]
    expected = torch.tensor([[1, 0.5], [1, 0.75**0.5], [1, 0.75**0.5], [1, 0.0]]).double()
    assert torch.allclose(similarity, expected)

    edge_index, weight = knn_weights(index, similarity, 'binary')
    assert edge_index.tolist() == [[0, 1, 1, 2, 2, 1, 3, 2], [0, 0, 1, 1, 2, 2, 3, 3]]
    assert weight.tolist() == [0.5] * 8

    _, weight = knn_weights(index, similarity, 'cosine')
    root = 0.75**0.5
    assert weight[0].item() == pytest.approx(1 / 1.5)
    assert weight[1].item() == pytest.approx(0.5 / (1.5 * (1 + root)) ** 0.5)
    assert weight[7].item() == pytest.approx(0.0)


def test_binary_rows():
    x = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
    data = ItemKNN(k=7, cache=False)(make_data(text=x))
    store = data['item', 'similar_text', 'item']
    assert store.edge_index.shape == (2, 40 * 7)
    assert torch.equal(store.edge_index[1], torch.arange(40).repeat_interleave(7))
    assert torch.allclose(store.edge_weight, torch.tensor(1 / 7))
    dense = to_dense(store.edge_index, store.edge_weight, 40)
    assert bool((dense.diagonal() > 0).all())
    assert torch.allclose(dense.sum(dim=1), torch.ones(40))


def test_chunked_equals_dense():
    x = torch.randn(500, 24, generator=torch.Generator().manual_seed(1)).double()
    unit = F.normalize(x)
    value, index = (unit @ unit.t()).topk(10, dim=1)
    for block_size in [7, 64, 1024]:
        out = knn_graph_cosine(x, 10, block_size)
        assert torch.equal(out[0], index)
        assert torch.allclose(out[1], value, atol=1e-12)


@pytest.mark.parametrize('max_values', [0, 1300, 10**6])
def test_parts_in_memory(monkeypatch, max_values):
    r"""Blocks left of the diagonal come from transposed ones, whatever part of
    the rows is in memory.
    """
    x = torch.randn(150, 8, generator=torch.Generator().manual_seed(2)).double()
    x[[3, 90]] = 0
    x[77] = 2 * x[5]
    expected = naive_neighbors(x, 6)
    monkeypatch.setattr('motor_geo.data.transforms.knn.MAX_VALUES', max_values)
    for block_size in [3, 8, 50]:
        index, similarity = knn_graph_cosine(x, 6, block_size)
        assert torch.equal(index, expected[0])
        assert torch.allclose(similarity, expected[1], atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 30), st.integers(1, 4), st.integers(1, 8))
def test_naive(seed, num_rows, width, block_size):
    # Small integers: many duplicate, parallel, opposite and zero rows.
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(-2, 3, (num_rows, width), generator=generator).double()
    for k in {1, min(3, num_rows), num_rows}:
        index, similarity = knn_graph_cosine(x, k, block_size)
        _, expected = naive_neighbors(x, k)
        assert index.shape == similarity.shape == (num_rows, k)
        assert torch.allclose(similarity, expected, atol=1e-12)
        zero = (x == 0).all(dim=1)
        assert torch.equal(index[:, 0], torch.arange(num_rows))
        assert bool((index[zero] == torch.arange(num_rows)[zero].view(-1, 1)).all())
        distinct = index[~zero].sort(dim=1).values
        assert bool((distinct.diff(dim=1) > 0).all())
        if int((~zero).sum()) >= k:
            assert not bool(zero[index[~zero]].any())


def test_duplicates():
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(5, 8, generator=generator).repeat(6, 1)[torch.randperm(30, generator=generator)]
    index, similarity = knn_graph_cosine(x, k=4, block_size=4)
    for i in range(30):
        copies = [j for j in range(30) if torch.equal(x[i], x[j]) and j != i]
        assert index[i].tolist() == [i, *copies[:3]]
    assert torch.allclose(similarity, torch.ones(30, 4))
    again = knn_graph_cosine(x, k=4)
    assert torch.equal(index, again[0]) and torch.allclose(similarity, again[1])


def test_zero_rows():
    x = torch.tensor([[0.0, 0.0], [1.0, 0.0], [-1.0, 0.1], [0.0, 0.0], [1.0, 1.0]])
    index, _ = knn_graph_cosine(x, k=3)
    assert index.tolist() == [[0, 0, 0], [1, 4, 2], [2, 4, 1], [3, 3, 3], [4, 1, 2]]
    for weighting in ['binary', 'cosine']:
        data = ItemKNN(k=2, weighting=weighting, cache=False)(make_data(m=x))
        store = data['item', 'similar_m', 'item']
        dense = to_dense(store.edge_index, store.edge_weight, 5)
        assert store.edge_weight.isfinite().all()
        for i in [0, 3]:
            assert dense[i].tolist() == [float(i == j) for j in range(5)]
            assert dense[:, i].tolist() == [float(i == j) for j in range(5)]
    # Nothing else is left:
    index, similarity = knn_graph_cosine(x[:2], k=2)
    assert index.tolist() == [[0, 0], [1, 0]] and similarity.tolist() == [[1, 0], [1, 0]]


def test_opposite_rows():
    x = torch.tensor([[1.0], [-1.0], [-2.0]])
    transform = ItemKNN(k=3, weighting='cosine', cache=False)
    with pytest.raises(ValueError, match='similarities of row 0 to its 3 nearest rows do not add'):
        transform(make_data(m=x))
    out = ItemKNN(k=3, cache=False)(make_data(m=x))
    assert torch.allclose(out['item', 'similar_m', 'item'].edge_weight, torch.tensor(1 / 3))


def test_half_precision_and_memory_map(tmp_path):
    x = torch.randn(50, 16, generator=torch.Generator().manual_seed(5)).half()
    np.save(tmp_path / 'x.npy', x.numpy())
    expected = knn_graph_cosine(x.float(), k=5)
    assert expected[1].dtype == torch.float
    mapped = np.load(tmp_path / 'x.npy', mmap_mode='r')
    for value in [x, mapped]:
        out = knn_graph_cosine(value, k=5, block_size=16)
        assert out[1].dtype == torch.float
        assert torch.equal(out[0], expected[0])
        assert torch.allclose(out[1], expected[1], atol=1e-6)
    assert knn_graph_cosine(x.bfloat16(), k=5)[0].shape == (50, 5)


def test_huge_and_tiny_rows():
    x = torch.tensor([[1.0, 0.0], [1.0, 0.2], [0.0, 1.0]])
    expected = knn_graph_cosine(x, k=2)
    out = knn_graph_cosine(x * torch.tensor([[1e30], [1e-30], [1.0]]), k=2)
    assert torch.equal(out[0], expected[0]) and torch.allclose(out[1], expected[1])


def test_attach():
    generator = torch.Generator().manual_seed(6)
    old = torch.randn(30, 6, generator=generator).double()
    new = torch.randn(4, 6, generator=generator).double()
    new[2] = 0
    new[3] = old[7]
    old[20] = old[7]
    index, similarity = attach(old, new, k=3, block_size=8)
    assert index[:, 0].tolist() == [30, 31, 32, 33]
    assert index[2].tolist() == [32, 32, 32] and similarity[2].tolist() == [1, 0, 0]
    assert index[3].tolist() == [33, 7, 20]
    score = F.normalize(new) @ F.normalize(old).t()
    for i in [0, 1]:
        value, expected = score[i].topk(2)
        assert torch.equal(index[i, 1:], expected)
        assert torch.allclose(similarity[i, 1:], value)
    # As if the new row had always been there, apart from the lists of others:
    whole, _ = knn_graph_cosine(torch.cat([old, new[:1]]), k=3)
    assert torch.equal(whole[-1], index[0])
    assert attach(old, new, k=1)[0].tolist() == [[30], [31], [32], [33]]
    assert attach(old, new, k=31)[0].shape == (4, 31)
    assert attach(old, new[:0], k=3)[0].shape == (0, 3)
    with pytest.raises(ValueError, match='k must be between 1 and 31'):
        attach(old, new, k=32)
    with pytest.raises(ValueError, match='5 columns, expected 6'):
        attach(old, new[:, :5], k=2)


def test_errors():
    x = torch.randn(4, 3)
    with pytest.raises(ValueError, match=r'number of rows \(4\), got 5'):
        knn_graph_cosine(x, k=5)
    with pytest.raises(ValueError, match=r'k=10 exceeds the number of items \(4\)'):
        ItemKNN(cache=False)(make_data(text=x))
    with pytest.raises(ValueError, match="weighting must be one of binary, cosine, got 'tanh'"):
        ItemKNN(weighting='tanh')
    with pytest.raises(ValueError, match='at least 1'):
        ItemKNN(k=0)
    with pytest.raises(ValueError, match=r"x_image is missing.*\['text'\]"):
        ItemKNN(2, modalities=['image'])(make_data(text=x))
    with pytest.raises(ValueError, match="no nodes 'item', it has none"):
        ItemKNN(2)(make_data())
    empty = make_data()
    empty['item'].num_nodes = 9
    with pytest.raises(ValueError, match='no item features'):
        ItemKNN(2)(empty)
    x[2, 1] = torch.nan
    with pytest.raises(ValueError, match=r'x_text: row 2 holds NaN'):
        ItemKNN(2, cache=False)(make_data(text=x))


def test_transform(tmp_path, monkeypatch):
    monkeypatch.setattr(torch_geometric, 'get_home_dir', lambda: str(tmp_path))
    x = torch.randn(12, 4, generator=torch.Generator().manual_seed(8))
    data = make_data(text=x, image=x[:, :2])
    transform = ItemKNN(k=3)
    assert str(transform) == "ItemKNN(k=3, weighting='binary')"
    out = transform(data)
    assert data.edge_types == []
    assert out.edge_types == [('item', 'similar_image', 'item'), ('item', 'similar_text', 'item')]
    assert ItemKNN(k=3, modalities=['text'])(data).edge_types == [('item', 'similar_text', 'item')]

    def broken(*args, **kwargs):
        raise AssertionError

    with monkeypatch.context() as patch:
        patch.setattr('motor_geo.data.transforms.item_knn.knn_graph_cosine', broken)
        again = ItemKNN(k=3)(data)  # From the cache.
        for edge_type in out.edge_types:
            assert torch.equal(out[edge_type].edge_index, again[edge_type].edge_index)
        for changed in [(ItemKNN(k=2), data), (ItemKNN(k=3), make_data(text=x + 1))]:
            with pytest.raises(AssertionError):
                changed[0](changed[1])


def test_nodes_of_any_name():
    x = torch.randn(12, 4, generator=torch.Generator().manual_seed(0))
    expected = ItemKNN(3, cache=False)(make_data(text=x))['item', 'similar_text', 'item']
    data = HeteroData()
    data['product'].x_text, data['product'].x = x, x
    out = ItemKNN(np.int64(3), node_type='product', cache=False)(data)
    assert data.edge_types == []
    assert sorted(relation for _, relation, _ in out.edge_types) == ['similar_text', 'similar_x']
    for edge_type in out.edge_types:
        assert edge_type[0] == edge_type[2] == 'product'
        assert torch.equal(out[edge_type].edge_index, expected.edge_index)
        assert torch.equal(out[edge_type].edge_weight, expected.edge_weight)
    one = ItemKNN(3, modalities='x', node_type='product', cache=False)
    assert one(data).edge_types == [('product', 'similar_x', 'product')]
    assert str(one) == ("ItemKNN(k=3, modalities=['x'], weighting='binary', node_type='product')")
    with pytest.raises(ValueError, match="no nodes 'item', it has 'product'"):
        ItemKNN(3)(data)
    with pytest.raises(ValueError, match='got a Data'):
        ItemKNN(3)(Data(x=x))
    with pytest.raises(ValueError, match='k must be an integer, got 2.5'):
        ItemKNN(2.5)
    with torch.inference_mode():
        graph = ItemKNN(3, cache=False)(make_data(text=x.clone()))['item', 'similar_text', 'item']
    assert not graph.edge_index.is_inference() and not graph.edge_weight.is_inference()


def test_items_without_the_modality_may_hold_anything():
    x = torch.randn(12, 4, generator=torch.Generator().manual_seed(0))
    zero, holes = x.clone(), x.clone()
    zero[5], holes[5] = 0, torch.nan
    data = make_data(text=holes)
    data['item'].mask_text = torch.arange(12) != 5
    edge_type = 'item', 'similar_text', 'item'
    out = ItemKNN(3, cache=False)(data)[edge_type]
    expected = ItemKNN(3, cache=False)(make_data(text=zero))[edge_type]
    assert torch.equal(out.edge_index, expected.edge_index)
    assert torch.equal(out.edge_weight, expected.edge_weight)
