r"""Top-k lists from a finished run: :obj:`python -m motor_geo.recommend RUN`."""

from __future__ import annotations

import csv
import os.path as osp
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from motor_geo.data import RecommendationDataset
from motor_geo.data.datasets.features_folder import load_features
from motor_geo.data.datasets.reader import read_table
from motor_geo.data.transforms.add_items import add_items
from motor_geo.pipeline.assemble import build_transforms, encode_items
from motor_geo.pipeline.folder import LoadedRun
from motor_geo.typing import ITEM, RATES
from motor_geo.utils.files import atomic_write, writing
from motor_geo.utils.ranking import top_k


class Recommendations(NamedTuple):
    r"""Lists of raw ids, best first. A list that ran out of items ends in the
    score :obj:`-inf`.
    """

    user: np.ndarray  # [U]
    item: np.ndarray  # [U, k]
    score: np.ndarray  # [U, k]


@torch.no_grad()
def recommend(
    run: LoadedRun,
    users: Sequence[str] | None = None,
    k: int = 20,
    new_items: str | None = None,
) -> Recommendations:
    r"""The best items of users, training items of a user excluded.

    Args:
        run: The run, from :func:`load_run`.
        users: Raw user ids; all users if :obj:`None`.
        k: Length of the lists.
        new_items: A folder with :obj:`<modality>_feat.npy` files of items
            that were not there in training, and optionally an
            :obj:`items.tsv` with their ids in a column :obj:`itemID`. Only
            these items are ranked then.

    Raises:
        ValueError: If a user is unknown, or new items cannot be scored.
    """
    dataset, data, item_ids = run.dataset, run.data, run.dataset.item_ids
    index = user_index(dataset, users)
    candidates = None
    if new_items is not None:
        data, new_ids = with_new_items(run, new_items)
        candidates = torch.arange(len(item_ids), len(item_ids) + len(new_ids))
        item_ids = np.concatenate([item_ids.astype(str), new_ids])
    embeddings = run.model(data)
    edge_index = data[RATES].edge_index
    score, item = top_k(embeddings, index, k, exclude=edge_index, candidates=candidates)
    return Recommendations(
        dataset.user_ids[index.numpy()], item_ids[item.cpu().numpy()], score.cpu().numpy()
    )


def user_index(dataset: RecommendationDataset, users: Sequence[str] | None) -> Tensor:
    r"""Indices of raw user ids, all users if :obj:`None`."""
    if users is None:
        return torch.arange(dataset.num_users)
    known = {str(user): position for position, user in enumerate(dataset.user_ids)}
    for user in users:
        if str(user) not in known:
            raise ValueError(
                f"The user '{user}' is not in '{dataset.name}'; expected one of its raw ids, such "
                f"as '{dataset.user_ids[0]}'"
            )
    return torch.tensor([known[str(user)] for user in users], dtype=torch.long)


def with_new_items(run: LoadedRun, folder: str) -> tuple[HeteroData, np.ndarray]:
    r"""The graph with new items appended, and their raw ids."""
    if run.config.reads('num_items'):
        raise ValueError(
            'A model with ID embeddings has no vector for an item that was not there in training; '
            'train with token-based items (--items specific) or --items features'
        )
    expected = run.dataset.modalities
    if not osp.isdir(folder):
        raise ValueError(
            f"--new-items: the folder '{folder}' does not exist; expected one with features of "
            f'{", ".join(expected)} (<modality>_feat.npy)'
        )
    arrays, masks = load_features(folder)
    features = {}
    for name in expected:
        path = osp.join(folder, f'{name}_feat.npy')
        if name not in arrays:
            raise ValueError(f"'{path}' is missing; expected features of {', '.join(expected)}")
        old = run.data[ITEM][f'x_{name}']
        if arrays[name].shape[1] != old.size(1) or len(arrays[name]) == 0:
            raise ValueError(
                f"'{path}': expected at least one row of {old.size(1)} columns as in training, got "
                f'{list(arrays[name].shape)}'
            )
        features[name] = torch.from_numpy(arrays[name].astype(np.float32))
        if name in masks:  # As in training: items that lack a modality have its mean.
            features[name][~torch.from_numpy(masks[name])] = old.double().mean(0).float().cpu()
    token_id = None
    if run.tokenizer is not None:
        present = {m: torch.from_numpy(mask) for m, mask in masks.items() if m in expected}
        token_id = encode_items(run.config, run.data, run.tokenizer, features, present)
    data = add_items(run.data, features, token_id, transforms=build_transforms(run.config))
    num_new = features[expected[0]].size(0)
    for name in ('items.tsv', 'items.csv', 'items.parquet'):
        path = osp.join(folder, name)
        if osp.exists(path):
            ids = read_table(path, ids=('itemID',)).ids['itemID']
            new_ids = np.asarray(ids.values)[ids.codes].astype(str)
            if len(new_ids) != num_new:
                raise ValueError(f"'{path}' has {len(new_ids)} rows, the features have {num_new}")
            return data, new_ids
    return data, np.array([f'new_{position}' for position in range(num_new)])


def write(recommendations: Recommendations, path: str) -> int:
    r"""Writes one row per user and rank (userID, rank, itemID, score) as
    :obj:`.csv`, :obj:`.tsv` or :obj:`.parquet`; returns the number of rows.

    Raises:
        ValueError: If the file has another ending.
    """
    valid = np.isfinite(recommendations.score)
    row, rank = valid.nonzero()
    user, item = recommendations.user[row], recommendations.item[valid]
    columns = {
        'userID': user,
        'rank': rank + 1,
        'itemID': item,
        'score': recommendations.score[valid],
    }
    ending = check_ending(path)
    with writing(path), atomic_write(path) as temporary:
        if ending == '.parquet':
            import pyarrow
            import pyarrow.parquet

            pyarrow.parquet.write_table(pyarrow.table(columns), temporary)
        else:
            with open(temporary, 'w', newline='', encoding='utf-8') as file:
                delimiter = '\t' if ending == '.tsv' else ','
                writer = csv.writer(file, delimiter=delimiter, lineterminator='\n')
                writer.writerow(columns)
                writer.writerows(zip(*(column.tolist() for column in columns.values())))
    return len(row)


def check_ending(path: str) -> str:
    r"""The ending of an output file, if lists can be written to it."""
    ending = osp.splitext(path)[1]
    if ending not in ('.csv', '.tsv', '.parquet'):
        raise ValueError(f"'{path}' must end in .csv, .tsv or .parquet")
    if ending == '.parquet':
        try:
            import pyarrow  # noqa: F401
        except ImportError as error:
            raise ValueError("Writing .parquet needs 'pip install pyarrow'") from error
    return ending
