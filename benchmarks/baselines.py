r"""Baselines that learn nothing: popularity, and neighbours of items by
content.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from motor_geo.data import RecommendationDataset
from motor_geo.data.transforms.knn import knn_graph_cosine
from motor_geo.engine.evaluator import Evaluator, popularity_embeddings
from motor_geo.engine.metrics import ranking_metrics
from motor_geo.typing import ITEM, RATES, EvalTargets

NEIGHBORS = (5, 10, 20, 50, 100)
METRICS = ('recall', 'ndcg')


def popularity(dataset: RecommendationDataset) -> dict[str, Any]:
    r"""Ranks items by their number of training interactions."""
    edge_index, num_items = dataset.data[RATES].edge_index, dataset.num_items
    emb = popularity_embeddings(edge_index, dataset.num_users, num_items)
    val, test = (
        Evaluator(dataset.targets(split), edge_index, num_items, [20], metrics=METRICS)
        .evaluate(emb)
        .metrics
        for split in ('val', 'test')
    )
    return summary({}, val, test)


def item_knn(
    dataset: RecommendationDataset, ks: Sequence[int] = NEIGHBORS, seed: int = 0
) -> dict[str, Any]:
    r"""Ranks items by their similarity in content to the training items
    :math:`\mathcal{N}_u` of a user,

    .. math::
        y_{ui} = \sum_{j \in \mathcal{N}_u} \sum_m s^m_{ji}

    where :math:`s^m_{ji}` is the cosine similarity of the centred features of
    modality :math:`m` if :math:`i` is one of the :math:`k` nearest items of
    :math:`j`, and zero otherwise. :math:`k` is chosen on validation.

    Ties, of neighbours and of scores, are broken at random.

    Args:
        dataset: A data set with item features.
        ks: The numbers of neighbours to choose from.
        seed: Seed of the order of tied items.
    """
    # The order of items in a file may tell of popularity.
    order = torch.randperm(dataset.num_items, generator=torch.Generator().manual_seed(seed))
    place = order.argsort()
    user, item = dataset.data[RATES].edge_index
    train = csr_matrix(
        (torch.ones(user.numel()), (user, place[item])),
        shape=(dataset.num_users, dataset.num_items),
    )
    held_out = {}
    for split in ('val', 'test'):
        targets = dataset.targets(split)
        held_out[split] = EvalTargets(targets.user, targets.ptr, place[targets.item])

    width = min(max(ks) + 1, dataset.num_items)
    lists = [
        knn_graph_cosine(center(dataset.data[ITEM][f'x_{modality}'], item)[order], width)
        for modality in dataset.modalities
    ]
    val = {k: evaluate(train, item_similarity(lists, k), held_out['val']) for k in ks}
    k = max(ks, key=lambda k: val[k]['recall@20'])
    test = evaluate(train, item_similarity(lists, k), held_out['test'])
    return summary({'k': k}, val[k], test)


def center(x: Tensor, item: Tensor) -> Tensor:
    r"""Subtracts the mean over the items with a training interaction, as the
    tokenizer does, but leaves zero rows (no features) as they are.
    """
    x = x.double()
    return ((x - x[item.unique()].mean(dim=0)) * (x != 0).any(dim=1, keepdim=True)).float()


def item_similarity(lists: Sequence[tuple[Tensor, Tensor]], k: int) -> csr_matrix:
    r"""The sparse matrix **[N, N]** of similarities of each item (row) to its
    :obj:`k` nearest others, summed over modalities.

    Args:
        lists: Indices and similarities of each modality, as
            :meth:`~motor_geo.data.transforms.knn.knn_graph_cosine` returns them.
        k: Number of neighbours, at most as many as there are in the lists.
    """
    size = lists[0][0].size(0)
    total = csr_matrix((size, size), dtype='float32')
    for index, similarity in lists:
        index, similarity = index[:, 1 : k + 1], similarity[:, 1 : k + 1]  # Without itself.
        row = torch.arange(size).repeat_interleave(index.size(1))
        total += csr_matrix((similarity.flatten(), (row, index.flatten())), shape=(size, size))
    return total


def evaluate(
    train: csr_matrix,
    similarity: csr_matrix,
    targets: EvalTargets,
    k: int = 20,
    batch_size: int = 128,
) -> dict[str, float]:
    r"""Metrics of the ranking by :obj:`train @ similarity` without training
    items, as :class:`~motor_geo.engine.evaluator.Evaluator` has them for embeddings.
    """
    shape = len(targets), train.shape[1]
    there = torch.ones(targets.item.numel(), dtype=torch.bool)
    held_out = csr_matrix((there, targets.item, targets.ptr), shape)
    hits = []
    for start in range(0, len(targets), batch_size):
        rows = slice(start, start + batch_size)
        known = train[targets.user[rows].numpy()]
        score = torch.from_numpy((known @ similarity).toarray())
        score[known.nonzero()] = -torch.inf
        value, index = score.topk(min(k, score.size(1)))
        found = torch.from_numpy(held_out[rows].toarray()).gather(1, index)
        hits.append(found & (value > -torch.inf))
    values = ranking_metrics(torch.cat(hits), targets.count, [k], METRICS)
    return {name: float(value.mean()) for name, value in values.items()}


def summary(
    setting: dict[str, Any], val: dict[str, float], test: dict[str, float]
) -> dict[str, Any]:
    return {
        'setting': setting,
        'val': round(val['recall@20'], 5),
        'recall@20': round(test['recall@20'], 5),
        'ndcg@20': round(test['ndcg@20'], 5),
    }
