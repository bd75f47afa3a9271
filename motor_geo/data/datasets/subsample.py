r"""Removes parts of a data set, to measure how much a model depends on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from motor_geo.data.datasets.split import TRAIN


def thin_training(
    user: np.ndarray, item: np.ndarray, label: np.ndarray, share: float, seed: int = 0
) -> np.ndarray:
    r"""Keeps a random share of the training interactions, and all others.

    The draw depends on the set of training pairs and the seed, but not on the
    order of rows. With the same seed, a smaller share is a subset of a larger
    one.

    Args:
        user: User of each interaction, **[E]**.
        item: Item of each interaction, **[E]**.
        label: Label of each interaction, 0 for training, **[E]**.
        share: Share of the training interactions to keep.
        seed: Seed of the draw.

    Returns:
        Which rows to keep, **[E]**.
    """
    rows = np.flatnonzero(label == TRAIN)
    rows = rows[np.lexsort((item[rows], user[rows]))]
    order = np.random.default_rng(seed).permutation(len(rows))
    keep = np.ones(len(label), bool)
    keep[rows[order[max(1, round(share * len(rows))) :]]] = False
    return keep


def thin_users(user: np.ndarray, item: np.ndarray, per_user: float, seed: int = 0) -> np.ndarray:
    r"""Keeps a random sample of the pairs with :obj:`per_user` of them per user
    on average, and at least one of every user.

    The draw depends on the set of pairs and the seed, but not on the order of
    rows. With the same seed, a smaller sample is a subset of a larger one.

    Args:
        user: User of each pair, each pair once, **[E]**.
        item: Item of each pair, **[E]**.
        per_user: Mean number of pairs per user to keep.
        seed: Seed of the draw.

    Returns:
        The rows to keep in ascending order.
    """
    place = np.empty(len(user))
    place[np.lexsort((item, user))] = np.random.default_rng(seed).permutation(len(user))
    order = np.argsort(place)
    first = np.zeros(len(user), bool)
    first[np.unique(user[order], return_index=True)[1]] = True  # The first draw of every user.
    order = np.concatenate([order[first], order[~first]])
    return np.sort(order[: max(round(per_user * first.sum()), first.sum())])


def core_mask(user: np.ndarray, item: np.ndarray, core: int) -> np.ndarray:
    r"""Marks the rows of the largest subset in which each user and each item
    has at least :obj:`core` rows.

    Args:
        user: User of each row, **[E]**.
        item: Item of each row, **[E]**.
        core: Minimum number of rows per user and item.

    Returns:
        Which rows to keep, **[E]**.
    """
    keep = np.arange(len(user))
    while True:
        enough = np.bincount(user[keep])[user[keep]] >= core if len(keep) else keep > 0
        if len(keep):
            enough &= np.bincount(item[keep])[item[keep]] >= core
        if enough.all():
            break
        keep = keep[enough]
    mask = np.zeros(len(user), bool)
    mask[keep] = True
    return mask


def drop_modalities(
    modalities: Sequence[str],
    num_items: int,
    share: float,
    seed: int = 0,
    masks: Mapping[str, np.ndarray] | None = None,
) -> dict[str, np.ndarray]:
    r"""Removes one randomly drawn modality from a share of the items. With the
    same seed, items that lose a modality at a smaller share lose the same one
    at a larger share.

    Args:
        modalities: Names of the modalities.
        num_items: Number of items.
        share: Share of the items that lose a modality.
        seed: Seed of the draw.
        masks: Which items have each modality at first, **[N]**. (default: all)

    Returns:
        Which items still have each modality, **[N]**.
    """
    generator = np.random.default_rng(seed)
    lost = generator.permutation(num_items)[: round(share * num_items)]
    which = generator.integers(len(modalities), size=num_items)[lost]
    out = {}
    for position, name in enumerate(sorted(modalities)):
        out[name] = np.ones(num_items, bool) if not masks or name not in masks else masks[name]
        out[name] = out[name].copy()
        out[name][lost[which == position]] = False
    return out
