import json

import numpy as np
import pytest
import torch

from motor_geo.data import SyntheticClusters
from motor_geo.engine.evaluator import Evaluator, popularity_embeddings
from motor_geo.experiments.baselines import item_knn, run_baseline, split
from motor_geo.experiments.search import override
from motor_geo.pipeline.assemble import build_dataset
from motor_geo.pipeline.config import resolve
from motor_geo.typing import RATES

pytest.importorskip('scipy')

SIZE = {'data.num_users': 60, 'data.num_items': 50, 'data.num_interactions': 900}


def make_config(out, **options):
    config = resolve(override({}, {'data': 'synthetic', **SIZE, 'seed': 3, **options}))
    return {**config, 'out': str(out)}


def naive_scores(edges, num_users, num_items, k):
    r"""Sums of cosines over the training items of a user, item by item."""
    users = [{user for user, item in edges if item == i} for i in range(num_items)]
    score = np.zeros((num_users, num_items))
    for j in range(num_items):
        cosine = np.zeros(num_items)
        for i in range(num_items):
            if i != j and users[i] and users[j]:
                cosine[i] = len(users[i] & users[j]) / np.sqrt(len(users[i]) * len(users[j]))
        least = np.sort(cosine)[-k] if k < num_items else 0
        cosine[cosine < least] = 0
        for user in users[j]:
            score[user] += cosine
    return score


def test_neighbors_by_hand():
    # Users of the items: {0, 1}, {0, 1}, {1, 2}, {3}.
    edges = torch.tensor([[0, 1, 0, 1, 1, 2, 3], [0, 0, 1, 1, 2, 2, 3]])
    scores = item_knn(edges, 4, 4, k=1)(torch.tensor([2, 0, 3]))
    # User 2 knows item 2, to which 0 and 1 are equally similar; one of them is its neighbor.
    assert scores[0].sum().item() == pytest.approx(0.5) and scores[0, 2] == 0
    assert scores[1].tolist() == pytest.approx([1, 1, 0, 0])  # Item 0 of item 1, and back.
    assert scores[2].tolist() == [0, 0, 0, 0]  # Nobody shares a user with item 3.
    twice = torch.cat([edges, edges[:, :3]], dim=1)
    assert item_knn(twice, 4, 4, k=1)(torch.tensor([2, 0, 3])).equal(scores)


def test_item_knn_equals_naive():
    dataset = SyntheticClusters(num_users=60, num_items=50, num_interactions=900)
    edge_index = dataset.data[RATES].edge_index
    scores = item_knn(edge_index, 60, 50, k=49)(torch.arange(60))
    expected = naive_scores(edge_index.t().tolist(), 60, 50, 49)
    np.testing.assert_allclose(scores.numpy(), expected, atol=1e-5)


@pytest.mark.parametrize('name, setting', [('Popularity', {}), ('ItemKNN', {'k': 49})])
def test_results_are_those_of_the_evaluator(tmp_path, name, setting):
    config = make_config(tmp_path / 'out')
    result = run_baseline(config, name, setting)
    assert result == json.loads((tmp_path / 'out' / 'result.json').read_text())
    dataset = build_dataset(config)
    edge_index = dataset.data[RATES].edge_index
    if name == 'Popularity':
        emb = popularity_embeddings(edge_index, 60, 50)
        scores = emb.user @ emb.item.t()
    else:
        scores = torch.from_numpy(naive_scores(edge_index.t().tolist(), 60, 50, 49))
    for split_name in ('val', 'test'):
        evaluator = Evaluator(dataset.targets(split_name), edge_index, 50, [5, 10, 20, 50])
        metrics = evaluator.evaluate(lambda users, scores=scores: scores[users]).metrics
        # Ties fall differently, which few of the lists have.
        limit = 0.02 if name == 'ItemKNN' else 0.1
        assert result[split_name]['recall@20'] == pytest.approx(metrics['recall@20'], abs=limit)
    with np.load(tmp_path / 'out' / 'per_user.npz') as file:
        assert file['recall@20'].mean() == pytest.approx(result['test']['recall@20'])
        assert np.array_equal(file['item'], dataset.targets('test').item.numpy())
        rank = file['rank']
    count = edge_index[1].bincount(minlength=50)
    assert sum(group['items'] for group in result['slices'].values()) == 50
    held_out = dataset.targets('test').item
    head = result['slices']['head']
    assert (count[held_out] > count[count > 0].sort().values[39]).sum() == head['interactions']
    assert rank.shape == held_out.shape

    again = run_baseline({**config, 'out': str(tmp_path / 'again')}, name, setting)
    assert again['test'] == result['test'] and again['hashes'] == result['hashes']


def test_hashes_tell_settings_and_seeds_apart(tmp_path):
    hashes = set()
    for i, (seed, k, ks) in enumerate([(0, 5, [20]), (1, 5, [20]), (0, 6, [20]), (0, 5, [10])]):
        config = make_config(tmp_path / str(i), **{'evaluator.ks': ks, 'seed': seed})
        hashes.add(run_baseline(config, 'ItemKNN', {'k': k})['hashes']['run'])
    assert len(hashes) == 4


def test_ties_do_not_follow_the_file(tmp_path):
    r"""The first items of the file are held out, and all scores are equal."""
    folder = tmp_path / 'toy'
    folder.mkdir()
    lines = ['userID\titemID\tx_label', *(f'{i}\t{i}\t0' for i in range(400))]
    lines += [f'0\t{i}\t{label}' for i, label in [(1, 1), (2, 1), (3, 2), (4, 2)]]
    (folder / 'toy.inter').write_text('\n'.join(lines) + '\n')
    values = []
    for seed in range(5):
        config = make_config(tmp_path / str(seed), seed=seed)
        config['data'] = resolve(override({}, {'data': str(folder)}))['data']
        values.append(run_baseline(config, 'ItemKNN', {'k': 5})['test']['recall@20'])
    assert np.mean(values) < 0.5  # In the order of the file: 1.


def test_arguments_of_a_baseline():
    assert split({'data': 'a', 'baseline.k': 3}) == ({'data': 'a'}, {'k': 3})
