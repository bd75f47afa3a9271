import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from benchmarks.baselines import center, evaluate, item_knn, item_similarity, popularity
from motor_geo.data import SyntheticMultimodal
from motor_geo.data.datasets.base import RecommendationDataset
from motor_geo.data.transforms.knn import knn_graph_cosine
from motor_geo.engine.evaluator import Evaluator, popularity_embeddings
from motor_geo.typing import RATES, Embeddings, EvalTargets


class Toy(RecommendationDataset):
    def __init__(self, user, item, label, features, num_users, num_items):
        arrays = [np.array(values) for values in (user, item, label)]
        self._build('toy', *arrays, features, np.arange(num_users), np.arange(num_items))


def test_center():
    x = torch.tensor([[1.0, 3.0], [3.0, 5.0], [0.0, 0.0], [9.0, 9.0]])
    expected = torch.tensor([[-1.0, -1.0], [1.0, 1.0], [0.0, 0.0], [7.0, 5.0]])
    assert center(x, torch.tensor([0, 1, 1])).equal(expected)


def test_item_similarity_by_hand():
    # Cosines: .8 within (0, 1) and (2, 3), -.8 and -1 between the pairs.
    image = torch.tensor([[1.0, 0.0], [0.8, 0.6], [-1.0, 0.0], [-0.8, -0.6]])
    # Equal within (0, 3), the others are perpendicular to them and opposite.
    text = torch.tensor([[2.0, 0.0], [0.0, 1.0], [0.0, -1.0], [2.0, 0.0]])
    lists = [knn_graph_cosine(x, 3) for x in (image, text)]
    expected = [[0, 0.8, 0, 1], [0.8, 0, 0, 0], [0, 0, 0, 0.8], [1, 0, 0.8, 0]]
    np.testing.assert_allclose(item_similarity(lists, 1).toarray(), expected, atol=1e-6)


def test_evaluate_by_hand():
    train = csr_matrix(np.array([[1, 0, 0, 1], [0, 1, 0, 0]], np.float32))
    similarity = np.array([[0, 0.5, 0.2, 9], [0.1, 0, 0.3, 0.2], [0] * 4, [0, 0.1, 0.7, 0]])
    similarity = csr_matrix(similarity.astype(np.float32))
    # Scores: user 0 has .6 for item 1 and .9 for item 2; user 1 .3 for 2, .2 for 3, .1 for 0.
    targets = EvalTargets(torch.tensor([0, 1]), torch.tensor([0, 1, 3]), torch.tensor([1, 0, 2]))
    metrics = evaluate(train, similarity, targets, k=2)
    assert metrics['recall@2'] == pytest.approx((1 + 0.5) / 2)
    second = 1 / np.log2(3)
    assert metrics['ndcg@2'] == pytest.approx((second + 1 / (1 + second)) / 2)
    # Training items are behind everything, also behind negative scores.
    negative = csr_matrix(-np.ones((4, 4), np.float32))
    only = EvalTargets(torch.tensor([0]), torch.tensor([0, 2]), torch.tensor([1, 2]))
    assert evaluate(train, negative, only, k=2)['recall@2'] == 1


def naive_scores(dataset, k):
    edges = dataset.data[RATES].edge_index.t().tolist()
    score = np.zeros((dataset.num_users, dataset.num_items))
    for modality in dataset.modalities:
        x = dataset.data['item'][f'x_{modality}'].double().numpy()
        x = x - x[sorted({item for _, item in edges})].mean(axis=0)
        x = x / np.linalg.norm(x, axis=1, keepdims=True)
        for user, item in edges:
            cosine = x @ x[item]
            cosine[item] = -np.inf
            for neighbor in np.argsort(-cosine)[:k]:
                score[user, neighbor] += cosine[neighbor]
    return score


def naive_metrics(dataset, score, split):
    seen = set(map(tuple, dataset.data[RATES].edge_index.t().tolist()))
    targets = dataset.targets(split)
    recall, ndcg = [], []
    for i, user in enumerate(targets.user.tolist()):
        held_out = set(targets.item[targets.ptr[i] : targets.ptr[i + 1]].tolist())
        ranked = [item for item in np.argsort(-score[user]) if (user, item) not in seen][:20]
        hits = [rank for rank, item in enumerate(ranked) if item in held_out]
        ideal = sum(1 / np.log2(rank + 2) for rank in range(min(20, len(held_out))))
        recall.append(len(hits) / len(held_out))
        ndcg.append(sum(1 / np.log2(rank + 2) for rank in hits) / ideal)
    return np.mean(recall), np.mean(ndcg)


def test_item_knn_equals_naive():
    # Few items and many neighbours: nobody's list has a score of zero.
    dataset = SyntheticMultimodal(num_users=60, num_items=50, num_interactions=900)
    ks = (30, 40)
    scores = {k: naive_scores(dataset, k) for k in ks}
    val = {k: naive_metrics(dataset, scores[k], 'val')[0] for k in ks}
    row = item_knn(dataset, ks)
    k = row['setting']['k']
    assert k == max(ks, key=val.get) and val[30] != val[40]
    assert row['val'] == pytest.approx(val[k], abs=1e-5)
    recall, ndcg = naive_metrics(dataset, scores[k], 'test')
    assert row['recall@20'] == pytest.approx(recall, abs=1e-5)
    assert row['ndcg@20'] == pytest.approx(ndcg, abs=1e-5)


def test_evaluate_equals_evaluator():
    dataset = SyntheticMultimodal(num_users=300, num_items=100, num_interactions=1500)
    edge_index, targets = dataset.data[RATES].edge_index, dataset.targets('test')
    similarity = torch.rand(100, 100)
    train = torch.zeros(300, 100).index_put_(tuple(edge_index), torch.tensor(1.0))
    found = evaluate(csr_matrix(train.numpy()), csr_matrix(similarity.numpy()), targets)
    emb = Embeddings(train @ similarity, torch.eye(100))
    expected = Evaluator(targets, edge_index, 100, [20]).evaluate(emb).metrics
    assert found == pytest.approx({name: expected[name] for name in found})


@pytest.mark.parametrize('value', [0.0, 1.0])
def test_ties_do_not_follow_the_file(value):
    # All items but the last are equal, and the first ones of the file are held out.
    x = np.full((2000, 1), value)
    x[-1] = -value
    item, label = [1998, 1999, *range(20)], [0, 0, *[1] * 10, *[2] * 10]
    row = item_knn(Toy([0] * 22, item, label, {'text': x}, 1, 2000))
    assert row['val'] < 0.2 and row['recall@20'] < 0.2  # In the order of the file: 1.


def test_short_lists():
    dataset = Toy([0, 0, 0], [0, 1, 2], [0, 1, 2], {'text': np.eye(3)}, 1, 3)
    assert item_knn(dataset)['recall@20'] == 1.0  # All items that are not masked.


def test_popularity():
    dataset = SyntheticMultimodal(num_users=200, num_items=100, num_interactions=900)
    edge_index = dataset.data[RATES].edge_index
    emb = popularity_embeddings(edge_index, 200, 100)
    metrics = Evaluator(dataset.targets('test'), edge_index, 100).evaluate(emb).metrics
    row = popularity(dataset)
    assert row['setting'] == {} and list(row) == ['setting', 'val', 'recall@20', 'ndcg@20']
    assert row['recall@20'] == round(metrics['recall@20'], 5)
    assert row['ndcg@20'] == round(metrics['ndcg@20'], 5)
