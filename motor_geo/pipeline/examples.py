r"""Example lists of a few users."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from motor_geo.pipeline.catalog import read_catalog
from motor_geo.pipeline.folder import load_run
from motor_geo.pipeline.recommend import excluded_pairs
from motor_geo.typing import RATES
from motor_geo.utils.ranking import top_k


class Example(NamedTuple):
    r"""Titles of the items of a user. A star marks test items, which the model
    has not seen.

    Args:
        user: Raw id of the user.
        had: Items of training.
        gets: Recommended items.
        new: Recommended items without a training interaction.
    """

    user: str
    had: list[str]
    gets: list[str]
    new: list[str]


@torch.no_grad()
def examples(folder: str, device: str = 'auto', num_users: int = 3, k: int = 3) -> list[Example]:
    r"""Returns the lists of users drawn at random among those with a test item.

    Args:
        folder: The folder of a finished run.
        device: The device. (default: :obj:`'auto'`)
        num_users: Number of users. (default: :obj:`3`)
        k: Length of the lists. (default: :obj:`3`)
    """
    run = load_run(folder, device)
    dataset, edge_index = run.dataset, run.data[RATES].edge_index
    titles = read_catalog(dataset, run.config.data.get('item')).titles
    targets = dataset.targets('test')
    drawn = np.random.default_rng(0).permutation(len(targets.user))[:num_users]
    held_out = targets.index
    emb, excluded = run.model(run.data), excluded_pairs(run, 'train')
    seen = edge_index[1].cpu().bincount(minlength=dataset.num_items) > 0
    known = dataset.known_items
    unseen = (~seen & known).nonzero().view(-1)
    out = []
    for position in drawn.tolist():
        user = targets.user[position].view(1)
        later = set(held_out[1][held_out[0] == position].tolist())

        def best(candidates: Tensor, user: Tensor = user, later: set[int] = later) -> list[str]:
            if len(candidates) == 0:
                return []
            score, item = top_k(emb, user, k, exclude=excluded, candidates=candidates)
            found = [i for i, s in zip(item[0].tolist(), score[0].tolist()) if np.isfinite(s)]
            return [f'{titles[i]}{" *" if i in later else ""}' for i in found]

        had = edge_index[1, edge_index[0] == int(user)].tolist()[:k]
        lists = best(known.nonzero().view(-1)), best(unseen)
        out.append(Example(str(dataset.user_ids[int(user)]), [titles[i] for i in had], *lists))
    return out
