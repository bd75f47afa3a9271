r"""Reads and folds in users who are new or have no training interaction."""

from __future__ import annotations

import os.path as osp
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from motor_geo.data.datasets.columns import Columns
from motor_geo.data.datasets.frame import read_frame
from motor_geo.data.datasets.messages import clipped
from motor_geo.data.datasets.names import find_columns
from motor_geo.data.datasets.reader import read_header, read_table
from motor_geo.engine.evaluator import Evaluator
from motor_geo.nn.fold_in import fold_in_functions, fold_in_scores
from motor_geo.nn.models.popularity import popularity_embeddings
from motor_geo.pipeline.folder import LoadedRun
from motor_geo.typing import RATES, Embeddings, EvalTargets, Scores
from motor_geo.utils.files import check_file

#: Maximum number of users for choosing the fold-in method.
SAMPLE = 500
ROLES = ('user', 'item')


class NewUsers(NamedTuple):
    r"""Users and their interactions.

    Args:
        ids: Raw ids of the users, **[n]**.
        pairs: The position of the user and the index of the item of each
            interaction, **[2, E]**.
    """

    ids: np.ndarray
    pairs: Tensor


def read_users(run: LoadedRun, interactions: Any, item_ids: np.ndarray | None = None) -> NewUsers:
    r"""Reads users and their interactions.

    Args:
        run: The run, which defines the items.
        interactions: A file with the columns :obj:`userID` and
            :obj:`itemID`, a mapping from users to their items, pairs of a
            user and an item, or a data frame.
        item_ids: Raw ids of all items, including those that were absent in
            training. (default: the items of the run)

    Raises:
        FileNotFoundError: If the file is missing or not a regular file.
        ValueError: If a column is missing, or an item is unknown.
    """
    dataset = run.dataset
    given = {role: run.config.data.get(role) for role in ROLES}
    if isinstance(interactions, str):
        path = osp.expanduser(interactions)
        check_file(path, 'a table of users and items')
        header = read_header(path)
        given = {role: name if name in header else None for role, name in given.items()}
        names = find_columns(path, header, given, list(ROLES))
        table: Columns = read_table(path, ids=tuple(names[role] for role in ROLES))
    else:
        if isinstance(interactions, Mapping) and not set(ROLES_OF) & set(map(str, interactions)):
            interactions = [(user, item) for user, own in interactions.items() for item in own]
        if isinstance(interactions, Sequence):
            users, items = zip(*interactions) if len(interactions) else ((), ())
            interactions = {
                'userID': np.array(list(map(str, users)), dtype=str),
                'itemID': np.array(list(map(str, items)), dtype=str),
            }
            given = dict.fromkeys(ROLES)
        table, names = read_frame(interactions, 'interactions', None, given, (), list(ROLES))
    user, item = (table.ids[names[role]] for role in ROLES)
    if item_ids is None:
        item_ids = dataset.item_ids
        known = dataset.known_items.numpy()
    else:
        known = np.ones(len(item_ids), bool)
        known[: dataset.num_items] = dataset.known_items.numpy()
    place = {str(item_ids[i]): i for i in np.flatnonzero(known).tolist()}
    index = np.array([place.get(str(raw), -1) for raw in item.values], np.int64)
    column = index[item.codes] if len(item.codes) else np.empty(0, np.int64)
    if (column < 0).any():
        row = int((column < 0).argmax())
        raw = clipped(str(item.values[item.codes[row]]))
        raise ValueError(
            f"{table.locate(row)}: the item '{raw}' is not in '{dataset.name}'; expected raw ids "
            f"such as '{next(iter(place))}'"
        )
    ids = np.array([str(raw) for raw in user.values], dtype=str)
    pairs = np.unique(np.stack([user.codes.astype(np.int64), column]), axis=1)
    return NewUsers(ids, torch.from_numpy(pairs))


ROLES_OF = ('userID', 'itemID', 'user_id', 'item_id', 'user', 'item')


def with_known(run: LoadedRun, users: NewUsers) -> NewUsers:
    r"""Adds the known interactions of users who are already in the data."""
    place = {str(raw): i for i, raw in enumerate(run.dataset.user_ids.tolist())}
    index = torch.tensor([place.get(raw, -1) for raw in users.ids.tolist()], dtype=torch.long)
    old = known_pairs(run, 'all').cpu()
    row = index.new_full((run.dataset.num_users + 1,), -1)
    row[index[index >= 0]] = (index >= 0).nonzero().view(-1)
    mine = row[old[0]] >= 0
    more = torch.stack([row[old[0][mine]], old[1][mine]])
    return users._replace(pairs=torch.cat([users.pairs, more], dim=1).unique(dim=1))


def known_pairs(run: LoadedRun, exclude: str) -> Tensor:
    r"""Returns the interactions of training, or of all splits if
    :obj:`exclude` is :obj:`'all'`, **[2, E]**.
    """
    pairs = [run.data[RATES].edge_index]
    for split in ('val', 'test') if exclude == 'all' else ():
        targets = run.dataset.targets(split)
        row, item = targets.index
        pairs.append(torch.stack([targets.user[row], item]).to(pairs[0].device))
    if exclude == 'all':
        pairs.append(run.dataset.dropped.to(pairs[0].device))
    return torch.cat(pairs, dim=1)


@torch.no_grad()
def fold_in(
    run: LoadedRun, emb: Embeddings | Scores, pairs: Tensor, size: int, method: str | None = None
) -> Embeddings | Scores:
    r"""Folds in users: computes their vectors or scores from their items.

    Args:
        run: The run.
        emb: The output of its model, which may include new items.
        pairs: Positions of users and indices of items, **[2, E]**.
        size: Number of users.
        method: A name of :func:`~motor_geo.nn.fold_in.fold_in_functions`.
            (default: the best one on validation)

    Raises:
        ValueError: If the method is unknown.
    """
    if isinstance(emb, Scores):
        return fold_in_scores(emb, pairs[0], pairs[1], size)
    functions = fold_in_functions(run.model, run.data, emb)
    if method is None:
        method = choose_fold_in(run, emb)
    elif method not in functions:
        raise ValueError(f"'method' must be one of {', '.join(map(repr, functions))}")
    pairs = pairs.to(emb.item.device)
    return Embeddings(functions[method](pairs[0], pairs[1], size), emb.item)


@torch.no_grad()
def choose_fold_in(run: LoadedRun, emb: Embeddings) -> str:
    r"""Chooses the fold-in method that is best on validation, by folding in
    users of training.
    """
    tried = try_fold_in(run, emb)
    return max(tried, key=lambda name: tried[name])


@torch.no_grad()
def try_fold_in(run: LoadedRun, emb: Embeddings, split: str = 'val') -> dict[str, float]:
    r"""Evaluates each fold-in method. Users with held-out items are folded in
    from their training items.

    Args:
        run: The run.
        emb: The output of its model.
        split: The split to evaluate on. (default: :obj:`'val'`)

    Returns:
        The value of the metric of early stopping by method. If that metric
        needs more than the lists of single users, it is recall.
    """
    functions = fold_in_functions(run.model, run.data, emb)
    targets = run.dataset.targets(split)
    if len(targets) == 0:
        return dict.fromkeys(functions, 0.0)
    drawn = np.random.default_rng(0).permutation(len(targets))[:SAMPLE]
    users = targets.user[torch.from_numpy(np.sort(drawn))]
    edge_index = run.data[RATES].edge_index
    place = users.new_full((run.dataset.num_users,), -1)
    place[users] = torch.arange(len(users))
    place = place.to(edge_index.device)
    mine = place[edge_index[0]] >= 0
    row, index = place[edge_index[0][mine]], edge_index[1][mine]
    user, item = targets.index
    user = place.cpu()[targets.user[user]]
    held = EvalTargets.from_pairs(user[user >= 0].numpy(), item[user >= 0].numpy())
    name, _, k = run.config.trainer['metric'].partition('@')
    name, k = (name, k) if name in ('recall', 'ndcg', 'precision', 'map', 'mrr') else ('recall', k)
    evaluator = Evaluator(
        held.to(edge_index.device),
        torch.stack([row, index]),
        emb.item.size(0),
        ks=int(k),
        metrics=[name],
    )
    out = {}
    for key, function in functions.items():
        x = Embeddings(function(row, index, len(users)), emb.item)
        out[key] = evaluator.evaluate(x).metrics[f'{name}@{k}']
    return out


def popular(run: LoadedRun, num_items: int, size: int) -> Embeddings:
    r"""Returns vectors that recommend popular items to users without any known
    interaction.
    """
    edge_index = run.data[RATES].edge_index
    return popularity_embeddings(edge_index, size, num_items)
