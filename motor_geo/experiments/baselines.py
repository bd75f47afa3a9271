r"""Baselines without parameters, which stand beside trained backbones."""

from __future__ import annotations

import json
import os.path as osp
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from motor_geo.data import RecommendationDataset
from motor_geo.engine.evaluator import Evaluator, popularity_embeddings
from motor_geo.pipeline.assemble import build_dataset
from motor_geo.pipeline.config import Config
from motor_geo.pipeline.train import versions
from motor_geo.typing import RATES, Embeddings, EvalTargets
from motor_geo.utils.cache import fingerprint
from motor_geo.utils.files import atomic_write, check_writable, writing

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

#: Stands in place of the item representation of a backbone.
NO_ITEMS = 'none'

#: What ranks items: vectors, or a function from users **[B]** to scores **[B, N]**.
Scores = Embeddings | Callable[[Tensor], Tensor]


def popularity(edge_index: Tensor, num_users: int, num_items: int) -> Scores:
    r"""Ranks items by their number of training interactions."""
    return popularity_embeddings(edge_index, num_users, num_items)


def item_knn(edge_index: Tensor, num_users: int, num_items: int, k: int) -> Scores:
    r"""Ranks items by their similarity to the training items
    :math:`\mathcal{N}_u` of a user, from the
    `"Item-Based Top-N Recommendation Algorithms"
    <https://doi.org/10.1145/963770.963776>`_ paper

    .. math::
        y_{ui} = \sum_{j \in \mathcal{N}_u} s_{ji}, \qquad
        s_{ji} = \frac{| \mathcal{N}_i \cap \mathcal{N}_j |}
        {\sqrt{| \mathcal{N}_i | \, | \mathcal{N}_j |}}

    where :math:`\mathcal{N}_i` are the users of item :math:`i` in training, and
    :math:`s_{ji}` is zero unless :math:`i` is one of the :math:`k` items most
    similar to :math:`j`.
    """
    from scipy.sparse import csr_matrix

    user, item = edge_index.numpy()
    ones = np.ones(user.size, np.float32)
    train = csr_matrix((ones, (user, item)), shape=(num_users, num_items))
    train.data[:] = 1  # However often an item was used.
    similarity = neighbors(train, k)
    return lambda users: torch.from_numpy((train[users.numpy()] @ similarity).toarray())


class Baseline(NamedTuple):
    r"""A baseline, and the options that are tried for it on validation."""

    fit: Callable[..., Scores]
    choices: dict[str, Sequence[Any]]


BASELINES = {
    'Popularity': Baseline(popularity, {}),
    'ItemKNN': Baseline(item_knn, {'baseline.k': [50, 20, 200]}),
}


def neighbors(train: csr_matrix, k: int, block_size: int = 1024) -> csr_matrix:
    r"""The cosine similarities of every item (row) to the :obj:`k` items that
    share most users with it, **[N, N]**.
    """
    from scipy.sparse import csr_matrix, vstack

    num_items = train.shape[1]
    norm = np.sqrt(np.maximum(train.getnnz(axis=0), 1)).astype(np.float32)
    columns, blocks = train.T.tocsr(), []
    for start in range(0, num_items, block_size):
        score = torch.from_numpy((columns[start : start + block_size] @ train).toarray())
        score /= torch.from_numpy(norm)
        row = torch.arange(score.size(0))
        score /= torch.from_numpy(norm[start : start + row.numel()]).view(-1, 1)
        score[row, row + start] = 0  # Nobody's own neighbor.
        value, index = score.topk(min(k, num_items))
        row = row.repeat_interleave(value.size(1))
        entries = value.flatten().numpy(), (row.numpy(), index.flatten().numpy())
        blocks.append(csr_matrix(entries, shape=(score.size(0), num_items)))
    out = csr_matrix(vstack(blocks))
    out.eliminate_zeros()
    return out


def run_baseline(config: Config, name: str, setting: Config) -> dict[str, Any]:
    r"""Evaluates a baseline, and writes :obj:`per_user.npz` and
    :obj:`result.json` as a run does.

    Args:
        config: A resolved configuration, of which data, evaluator, seed and
            folder count.
        name: The baseline.
        setting: Its arguments.
    """
    start, out, seed = time.perf_counter(), config['out'], config['seed']
    check_writable(out)
    dataset = build_dataset(config)
    edge_index = dataset.data[RATES].edge_index
    # Ties are broken at random, since the order of items in a file may tell of popularity.
    place = torch.randperm(dataset.num_items, generator=torch.Generator().manual_seed(seed))
    edge_index = torch.stack([edge_index[0], place[edge_index[1]]])
    scores = BASELINES[name].fit(edge_index, dataset.num_users, dataset.num_items, **setting)

    def evaluator(split: str, exclude: str | None = None) -> Evaluator:
        return Evaluator(
            _placed(dataset, split, place),
            edge_index,
            dataset.num_items,
            exclude=None if exclude is None else _placed(dataset, exclude, place),
            **config['evaluator'],
        )

    val = evaluator('val').evaluate(scores)
    test = evaluator('test', 'val' if config['mask_validation'] else None)
    measured = test.evaluate(scores)
    frequent = popularity(edge_index, dataset.num_users, dataset.num_items)
    targets = dataset.targets('test')
    per_user = {key: value.numpy() for key, value in measured.per_user.items()}
    per_user |= {key: getattr(targets, key).numpy() for key in ('user', 'ptr', 'item')}
    per_user['rank'] = measured.rank.numpy()
    with writing(osp.join(out, 'per_user.npz')) as file, atomic_write(file) as temporary:
        np.savez_compressed(temporary, **per_user)  # type: ignore[arg-type]

    seconds = round(time.perf_counter() - start, 3)
    result = {
        'data': dataset.name,
        'model': name,
        'items': NO_ITEMS,
        'seed': seed,
        'epochs': 0,
        'best_epoch': 0,
        'seconds': seconds,
        'seconds_per_epoch': 0.0,
        'num_parameters': 0,
        'num_item_parameters': 0,
        'val': val.metrics,
        'test': measured.metrics,
        'slices': measured.slices(),
        'popularity': test.evaluate(frequent).metrics,
        'hashes': {
            'data': dataset.fingerprint,
            'run': baseline_fingerprint(config, name, setting, dataset.fingerprint),
        },
        'versions': versions(),
        'machine': {'device': 'cpu', 'threads': torch.get_num_threads()},
    }
    path = osp.join(out, 'result.json')
    with writing(path), atomic_write(path) as temporary, open(temporary, 'w') as stream:
        json.dump(result, stream, indent=1)
    return result


def baseline_fingerprint(config: Config, name: str, setting: Config, data: str) -> str:
    r"""Hash of the data, given by their own, and of everything that changes a
    result.
    """
    keys = 'evaluator', 'mask_validation', 'seed'
    return fingerprint(data, name, dict(setting), {key: config[key] for key in keys})


def _placed(dataset: RecommendationDataset, split: str, place: Tensor) -> EvalTargets:
    targets = dataset.targets(split)
    known = targets.candidates
    return replace(
        targets,
        item=place[targets.item],
        candidates=None if known is None else place[known],
    )


def split(options: Config) -> tuple[Config, Config]:
    r"""Options of runs, and the arguments of a baseline among them."""
    own = {key: v for key, v in options.items() if key.startswith('baseline.')}
    rest = {key: v for key, v in options.items() if key not in own}
    return rest, {key.partition('.')[2]: v for key, v in own.items()}
