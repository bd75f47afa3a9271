r"""Splits interactions into training (0), validation (1) and test (2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

TRAIN, VAL, TEST = 0, 1, 2


def held_out_sizes(n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    r"""Returns the numbers of validation and test interactions of users.

    Args:
        n: Number of interactions of each user, **[M]**.
    """
    held = np.where(n >= 10, n // 5, np.where(n >= 3, 2, n - 1))
    return held // 2, held - held // 2


def _leave_one(n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return (n >= 3).astype(np.int64), (n >= 2).astype(np.int64)


def _label_tail(
    user: np.ndarray,
    order: np.ndarray,
    sizes: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
) -> np.ndarray:
    r"""Assigns the last rows of each user to test and the rows before them to
    validation. :obj:`order` groups the rows by user.
    """
    grouped = user[order]
    first = np.flatnonzero(np.diff(grouped, prepend=grouped[:1] - 1))
    count = np.diff(first, append=len(grouped))
    from_end = np.repeat(first + count, count) - np.arange(len(grouped))  # 1 is the last.
    val, test = (np.repeat(size, count) for size in sizes(count))
    label = np.empty(len(user), np.int8)
    label[order] = np.where(from_end <= test, TEST, np.where(from_end <= test + val, VAL, TRAIN))
    return label


def _shuffled(user: np.ndarray, item: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    r"""Returns a random order within users that depends on the set of pairs,
    but not on the order of rows.
    """
    canonical = np.lexsort((item, user))
    return canonical[np.lexsort((rng.random(len(user)), user[canonical]))]


def random_split(
    user: np.ndarray, item: np.ndarray, seed: int = 0, timestamp: np.ndarray | None = None
) -> np.ndarray:
    r"""Splits each user's interactions randomly 8:1:1.

    Of the :math:`n` interactions of a user, it holds out
    :math:`h = \lfloor n / 5 \rfloor` if :math:`n \geq 10`, :math:`h = 2` if
    :math:`3 \leq n < 10`, and :math:`h = n - 1` otherwise. Validation gets
    :math:`\lfloor h / 2 \rfloor` of them, and test gets the rest. Afterwards,
    one held-out interaction of every item without a training interaction moves
    to training. As a result, every user and every item has a training
    interaction, and held-out items were seen at least once.

    Args:
        user: User of each distinct interaction, **[E]**.
        item: Item of each interaction, **[E]**.
        seed: Seed of the random choices.
        timestamp: Not used.

    Returns:
        The label of each interaction, **[E]**.
    """
    rng = np.random.default_rng(seed)
    label, order = random_labels(user, item, rng)
    unseen = order[~np.isin(item[order], item[label == TRAIN])]
    label[unseen[moved_to_training(item[unseen], rng)]] = TRAIN
    return label


def random_labels(
    user: np.ndarray, item: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    r"""Returns the labels of :func:`random_split` before interactions move to
    training, and the random order, grouped by user. It draws one number per
    interaction, in ascending order of users and items.

    Args:
        user: User of each distinct interaction, **[E]**.
        item: Item of each interaction, **[E]**.
        rng: The random number generator.
    """
    order = _shuffled(user, item, rng)
    return _label_tail(user, order, held_out_sizes), order


def moved_to_training(item: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    r"""Draws the interaction that moves to training for every item without any.

    Args:
        item: Items of their interactions in the random order, **[n]**.
        rng: The random number generator.

    Returns:
        Positions in :obj:`item`.
    """
    shuffled = rng.permutation(len(item))
    return shuffled[np.unique(item[shuffled], return_index=True)[1]]


def temporal_split(
    user: np.ndarray, item: np.ndarray, seed: int = 0, timestamp: np.ndarray | None = None
) -> np.ndarray:
    r"""Splits each user's interactions by time, with the sizes of
    :meth:`random_split`: the latest ones are for test, the ones before for
    validation.

    Interactions at the same time keep the order of their rows. Unlike
    :meth:`random_split`, it moves no interaction of an item without a training
    interaction, because this would train on a user's future.

    Args:
        user: User of each distinct interaction, **[E]**.
        item: Not used.
        seed: Not used.
        timestamp: Time of each interaction, **[E]**.

    Returns:
        The label of each interaction, **[E]**.

    Raises:
        ValueError: If :obj:`timestamp` is missing.
    """
    if timestamp is None:
        raise ValueError("The split 'temporal' needs a column 'timestamp', which is missing.")
    return _label_tail(user, np.lexsort((timestamp, user)), held_out_sizes)


def leave_one_out(
    user: np.ndarray, item: np.ndarray, seed: int = 0, timestamp: np.ndarray | None = None
) -> np.ndarray:
    r"""Holds out the last interaction of each user for test and the one before
    it for validation. A user with two interactions has none for validation,
    and a user with one has it in training. Without timestamps, the order is
    random.

    Args:
        user: User of each distinct interaction, **[E]**.
        item: Item of each interaction, **[E]**.
        seed: Seed of the random order.
        timestamp: Time of each interaction, **[E]**. (default: none)

    Returns:
        The label of each interaction, **[E]**.
    """
    if timestamp is None:
        return random_leave_one_out(user, item, np.random.default_rng(seed))
    return _label_tail(user, np.lexsort((timestamp, user)), _leave_one)


def random_leave_one_out(
    user: np.ndarray, item: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    r"""Returns the labels of :func:`leave_one_out` without timestamps. It draws one
    number per interaction, in ascending order of users and items.

    Args:
        user: User of each distinct interaction, **[E]**.
        item: Item of each interaction, **[E]**.
        rng: The random number generator.
    """
    return _label_tail(user, _shuffled(user, item, rng), _leave_one)


def cold_items(
    item: np.ndarray, seed: int = 0, fraction: float = 0.2
) -> tuple[np.ndarray, np.ndarray]:
    r"""Draws a fraction of the items, half of it for validation and half for
    test.

    Args:
        item: Item of each interaction, **[E]**.
        seed: Seed of the draw.
        fraction: Fraction of the items to draw.

    Returns:
        The sorted ids of the items for validation and for test.
    """
    items = np.unique(item)
    held = np.random.default_rng(seed).permutation(items)[: round(fraction * len(items))]
    half = len(held) // 2
    return np.sort(held[:half]), np.sort(held[half:])


def cold_item_split(
    user: np.ndarray, item: np.ndarray, seed: int = 0, timestamp: np.ndarray | None = None
) -> np.ndarray:
    r"""Holds out all interactions of the items that :meth:`cold_items` draws.
    Some users may have no training interaction left.

    Args:
        user: Not used.
        item: Item of each interaction, **[E]**.
        seed: Seed of the draw.
        timestamp: Not used.

    Returns:
        The label of each interaction, **[E]**.
    """
    val, test = cold_items(item, seed)
    label = np.zeros(len(item), np.int8)
    label[np.isin(item, val)] = VAL
    label[np.isin(item, test)] = TEST
    return label


def hold_out_items(
    item: np.ndarray, label: np.ndarray, seed: int = 0, fraction: float = 0.2
) -> np.ndarray:
    r"""Changes labels so that all interactions of the items that
    :meth:`cold_items` draws are held out. All other interactions keep their
    labels. The same ranked lists then measure recommendations of both new and
    known items.

    Args:
        item: Item of each interaction, **[E]**.
        label: Label of each interaction, **[E]**.
        seed: Seed of the draw.
        fraction: Fraction of the items to hold out.

    Returns:
        The new label of each interaction, **[E]**.
    """
    label = label.copy()
    for split, items in zip((VAL, TEST), cold_items(item, seed, fraction)):
        label[np.isin(item, items)] = split
    return label


def global_time_split(
    user: np.ndarray, item: np.ndarray, seed: int = 0, timestamp: np.ndarray | None = None
) -> np.ndarray:
    r"""Splits all interactions at the same two points in time: the last tenth
    is for test and the tenth before it for validation. Interactions at the
    same time stay together in the later split. Some users and items may have
    no training interaction left.

    Args:
        user: User of each distinct interaction, **[E]**.
        item: Not used.
        seed: Not used.
        timestamp: Time of each interaction, **[E]**.

    Returns:
        The label of each interaction, **[E]**.

    Raises:
        ValueError: If :obj:`timestamp` is missing.
    """
    if timestamp is None:
        raise ValueError("The split 'global_time' needs a column 'timestamp', which is missing.")
    order = np.sort(timestamp)
    bounds = [order[place] for place in global_places(len(order))] if len(order) else []
    return label_from(timestamp, bounds)


def global_places(size: int) -> tuple[int, int]:
    r"""Positions of the first interactions for validation and test among all
    interactions in the order of time.
    """
    return size * 8 // 10, size * 9 // 10


def label_from(timestamp: np.ndarray, bounds: Sequence[Any]) -> np.ndarray:
    r"""Labels interactions from two points in time on for validation and test.

    Args:
        timestamp: Time of each interaction, **[E]**.
        bounds: The points in time.
    """
    label = np.zeros(len(timestamp), np.int8)
    for split, bound in zip((VAL, TEST), bounds):
        label[timestamp >= bound] = split
    return label


SPLITS: dict[str, Callable[..., np.ndarray]] = {
    'random': random_split,
    'temporal': temporal_split,
    'leave_one_out': leave_one_out,
    'cold_item': cold_item_split,
    'global_time': global_time_split,
}
#: What a rule needs in order to hold out interactions for both validation and test.
NEEDS = {
    'random': "it needs users with 3 interactions ('cold_item' holds out items instead)",
    'temporal': "it needs users with 3 interactions ('global_time' holds out the latest overall)",
    'leave_one_out': 'it needs users with 3 interactions',
    'cold_item': 'it needs 10 items whose users also have other items',
    'global_time': 'it needs users with interactions before and after the points of the split',
}


def split_interactions(
    user: np.ndarray,
    item: np.ndarray,
    rule: str,
    seed: int = 0,
    timestamp: np.ndarray | None = None,
) -> np.ndarray:
    r"""Labels interactions with 0 (training), 1 (validation) or 2 (test).

    Random rules depend on the set of pairs and the seed, but not on the order
    of rows. Rules that use times resolve equal timestamps by that order.

    Args:
        user: User of each distinct interaction, **[E]**.
        item: Item of each interaction, **[E]**.
        rule: A key of :obj:`SPLITS`: :obj:`'random'`, :obj:`'temporal'`,
            :obj:`'leave_one_out'`, :obj:`'cold_item'` or
            :obj:`'global_time'`.
        seed: Seed of the random choices.
        timestamp: Time of each interaction, **[E]**. (default: none)

    Returns:
        The label of each interaction, **[E]**.

    Raises:
        ValueError: If the rule is unknown, lengths differ, or the rule needs
            timestamps that are missing.
    """
    if rule not in SPLITS:
        raise ValueError(f"Unknown split '{rule}'; expected one of {sorted(SPLITS)}.")
    for name, values in (('item', item), ('timestamp', timestamp)):
        if values is not None and len(values) != len(user):
            raise ValueError(f"Expected {len(user)} entries in '{name}', got {len(values)}.")
    return SPLITS[rule](np.asarray(user), np.asarray(item), seed, timestamp)
