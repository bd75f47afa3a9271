r"""Top-k lists from a finished run: :obj:`python -m motor_geo.recommend RUN`."""

from __future__ import annotations

import csv
import os.path as osp
import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from motor_geo.data import RecommendationDataset
from motor_geo.data.datasets.features_folder import feature_files, load_features, load_mask
from motor_geo.data.datasets.item_index import check_distinct, find_items
from motor_geo.data.datasets.messages import clipped
from motor_geo.data.datasets.names import find_columns
from motor_geo.data.datasets.reader import read_header, read_table
from motor_geo.data.transforms.add_items import add_items
from motor_geo.pipeline.assemble import build_transforms, encode_tokens
from motor_geo.pipeline.config import NO_ITEMS
from motor_geo.pipeline.folder import LoadedRun
from motor_geo.typing import ITEM, RATES
from motor_geo.utils.files import atomic_write, writing
from motor_geo.utils.ranking import top_k

#: Which items of a user are no recommendations.
EXCLUDE = ('train', 'all')


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
    users: Sequence[str | int] | str | int | None = None,
    k: int = 20,
    new_items: str | None = None,
    exclude: str = 'train',
) -> Recommendations:
    r"""The best items of users. Users without a training interaction are left
    out, with a warning: nothing is known of them. So are users and items that
    exist as numbers only, since the numbering of their file has gaps.

    Args:
        run: The run, from :func:`~motor_geo.pipeline.folder.load_run`.
        users: Raw user ids, or a single one; all users if :obj:`None`.
        k: Length of the lists.
        new_items: A folder with :obj:`<modality>_feat.npy` files of items
            that were not there in training, and optionally an
            :obj:`items.tsv` with their ids in a column :obj:`itemID`. Only
            these items are ranked then. Items may lack modalities, of which
            :obj:`<modality>_mask.npy` tells.
        exclude: Which items of a user are no recommendations:
            :obj:`'train'`, or with :obj:`'all'` those of validation and
            testing, too.

    Raises:
        ValueError: If a user is unknown, or new items cannot be scored.
    """
    dataset, data, item_ids = run.dataset, run.data, run.dataset.item_ids
    excluded = excluded_pairs(run, exclude)
    index = trained_users(dataset, user_index(dataset, users))
    known = dataset.known_items
    candidates = None if bool(known.all()) else known.nonzero().view(-1)
    if new_items is not None:
        data, new_ids = with_new_items(run, new_items)
        candidates = torch.arange(len(item_ids), len(item_ids) + len(new_ids))
        item_ids = np.concatenate([item_ids.astype(str), new_ids])
    score, item = top_k(run.model(data), index, k, exclude=excluded, candidates=candidates)
    return Recommendations(
        dataset.user_ids[index.numpy()], item_ids[item.cpu().numpy()], score.cpu().numpy()
    )


def excluded_pairs(run: LoadedRun, exclude: str) -> Tensor:
    r"""Users and their items that are no recommendations, **[2, E]**."""
    if exclude not in EXCLUDE:
        raise ValueError(f"'exclude' must be {' or '.join(map(repr, EXCLUDE))} (got {exclude!r})")
    pairs = [run.data[RATES].edge_index]
    for split in ('val', 'test') if exclude == 'all' else ():
        targets = run.dataset.targets(split)
        row, item = targets.index
        pairs.append(torch.stack([targets.user[row], item]).to(pairs[0].device))
    return torch.cat(pairs, dim=1)


def user_index(
    dataset: RecommendationDataset, users: Sequence[str | int] | str | int | None
) -> Tensor:
    r"""Indices of raw user ids, all users if :obj:`None`."""
    exists = dataset.known_users.nonzero().view(-1)
    if users is None:
        return exists
    if isinstance(users, (str, int, np.integer)):
        users = [users]
    known = {str(dataset.user_ids[index]): index for index in exists.tolist()}
    names = [str(user.item() if isinstance(user, Tensor) else user) for user in users]
    for user in names:
        if user not in known:
            raise ValueError(
                f"The user '{user}' is not in '{dataset.name}'; expected one of its raw ids, such "
                f"as '{next(iter(known))}'"
            )
    return torch.tensor([known[user] for user in names], dtype=torch.long)


def trained_users(dataset: RecommendationDataset, index: Tensor) -> Tensor:
    r"""The users who have a training interaction; a warning names others."""
    user = dataset.data[RATES].edge_index[0]
    trained = (user.bincount(minlength=dataset.num_users) > 0)[index]
    missing = [str(dataset.user_ids[i]) for i in index[~trained].tolist()]
    if missing:
        names = ', '.join(f"'{clipped(name)}'" for name in missing[:3])
        warnings.warn(
            f"'{dataset.name}': {len(missing)} user{'s' if len(missing) > 1 else ''} without "
            f'training interactions ({names}{", ..." if len(missing) > 3 else ""}) '
            f'{"are" if len(missing) > 1 else "is"} left out',
            stacklevel=2,
        )
    return index[trained]


def with_new_items(run: LoadedRun, folder: str) -> tuple[HeteroData, np.ndarray]:
    r"""The graph with new items appended, and their raw ids."""
    if run.config.items['name'] == NO_ITEMS:
        raise ValueError(
            f'{run.config.model["name"]} has no vector for an item that was not there in training; '
            'train a model with token-based items (--items recommended) or --items features'
        )
    if run.config.reads('num_items'):
        raise ValueError(
            'A model with ID embeddings has no vector for an item that was not there in training; '
            'train with token-based items (--items recommended) or --items features'
        )
    folder = osp.expanduser(folder)
    expected = run.dataset.modalities
    if not osp.isdir(folder):
        raise ValueError(
            f"--new-items: the folder '{folder}' does not exist; expected one with features of "
            f'{", ".join(expected)} (<modality>_feat.npy)'
        )
    features, masks = new_features(run, folder)
    tokens = None
    if run.tokenizer is not None:
        tokens = encode_tokens(run.config, run.data, run.tokenizer, features, masks)
    data = add_items(run.data, features, tokens, transforms=build_transforms(run.config))
    return data, new_item_ids(run, folder, len(features[expected[0]]))


def new_features(run: LoadedRun, folder: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    r"""Features of new items, and of some modalities which items have it. As
    in training, items that lack a modality have its mean.
    """
    expected = run.dataset.modalities
    given = [name for name in expected if name in feature_files(folder)]
    arrays, found = load_features(folder, modalities=given)
    masks = {name: torch.from_numpy(mask) for name, mask in found.items()}
    features = {name: torch.from_numpy(x.astype(np.float32)) for name, x in arrays.items()}
    sizes = {f'{name}_feat.npy': len(x) for name, x in features.items()}
    for name in expected:
        path = osp.join(folder, f'{name}_feat.npy')
        old = run.data[ITEM][f'x_{name}']
        if name not in features:
            mask = load_mask(osp.join(folder, f'{name}_mask.npy'))
            if mask is None or mask.any():
                raise ValueError(
                    f"'{path}' is missing; expected features of {', '.join(expected)}, or a file "
                    f"'{name}_mask.npy' with False for every item that lacks them"
                )
            sizes[f'{name}_mask.npy'] = len(mask)
            masks[name] = torch.from_numpy(mask)
            features[name] = old.new_zeros(len(mask), old.size(1), device='cpu')
        if features[name].size(1) != old.size(1) or len(features[name]) == 0:
            raise ValueError(
                f"'{path}': expected at least one row of {old.size(1)} columns as in training, got "
                f'{list(features[name].shape)}'
            )
        if name in masks:
            features[name][~masks[name]] = old.double().mean(0).float().cpu()
    file, size = next(iter(sizes.items()))
    for other, rows in sizes.items():
        if rows != size:
            raise ValueError(
                f"'{osp.join(folder, other)}': expected {size} rows as in '{file}', got {rows}"
            )
    return features, masks


def new_item_ids(run: LoadedRun, folder: str, num_items: int) -> np.ndarray:
    r"""Raw ids of new items: distinct ones that were not there in training."""
    dataset, path = run.dataset, find_items(folder)
    old = dataset.item_ids[dataset.known_items.numpy()].astype(str)
    if path is None:
        out = np.array([f'new_{position}' for position in range(num_items)])
        locate: Callable[[int], str] = f"'{folder}', row {{}}".format
    else:
        header, name = read_header(path), run.config.data.get('item')
        given = {'item': name if name in header else None}
        name = find_columns(path, header, given, ['item'])['item']
        table = read_table(path, ids=(name,))
        if len(table) != num_items:
            raise ValueError(f"'{path}' has {len(table)} rows, the features have {num_items}")
        check_distinct(table, name)
        ids, locate = table.ids[name], table.locate
        out = ids.values[ids.codes].astype(str)
    again = np.isin(out, old)
    if again.any():
        row = int(again.argmax())
        raise ValueError(
            f"{locate(row)}: the item '{clipped(out[row])}' is in '{dataset.name}' already; "
            f'expected ids of new items'
        )
    return out


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
