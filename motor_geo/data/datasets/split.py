r"""Splitting interactions into training (0), validation (1) and test (2)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

TRAIN, VAL, TEST = 0, 1, 2


def held_out_sizes(n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    r"""Validation and test size of users with :obj:`n` interactions."""
    held = np.where(n >= 10, n // 5, np.where(n >= 3, 2, n - 1))
    return held // 2, held - held // 2


def _leave_one(n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return (n >= 3).astype(np.int64), (n >= 2).astype(np.int64)


def _label_tail(
    user: np.ndarray,
    order: np.ndarray,
    sizes: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
) -> np.ndarray:
    r"""Gives the last rows of each user to test and those before to
    validation; :obj:`order` groups rows by user.
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
    r"""Random order within users, for a set of pairs rather than their rows."""
    canonical = np.lexsort((item, user))
    return canonical[np.lexsort((rng.random(len(user)), user[canonical]))]


def random_split(
    user: np.ndarray, item: np.ndarray, seed: int = 0, timestamp: np.ndarray | None = None
) -> np.ndarray:
    r"""A random 8:1:1 split of each user's interactions.

    Of a user with :math:`n` interactions,
    :math:`h = \lfloor n / 5 \rfloor` are held out for :math:`n \geq 10`,
    two for :math:`3 \leq n < 10`, and :math:`n - 1` below; validation gets
    :math:`\lfloor h / 2 \rfloor` of them and test the others. Then one
    held-out interaction of every item without a training interaction moves to
    training, so that every user and every item has one there, and held-out
    items have been seen at least once.
    """
    rng = np.random.default_rng(seed)
    order = _shuffled(user, item, rng)
    label = _label_tail(user, order, held_out_sizes)
    unseen = rng.permutation(order[~np.isin(item[order], item[label == TRAIN])])
    _, first = np.unique(item[unseen], return_index=True)
    label[unseen[first]] = TRAIN
    return label


def temporal_split(
    user: np.ndarray, item: np.ndarray, seed: int = 0, timestamp: np.ndarray | None = None
) -> np.ndarray:
    r"""The sizes of :meth:`random_split`, with each user's latest interactions
    in test and those before in validation.

    Interactions at the same time keep the order of their rows. Items without
    a training interaction stay as they are: moving one would train on a
    user's future.
    """
    if timestamp is None:
        raise ValueError("The split 'temporal' needs a column 'timestamp', which is missing.")
    return _label_tail(user, np.lexsort((timestamp, user)), held_out_sizes)


def leave_one_out(
    user: np.ndarray, item: np.ndarray, seed: int = 0, timestamp: np.ndarray | None = None
) -> np.ndarray:
    r"""The last interaction of a user is for test and the one before for
    validation; a user with two has no validation interaction, and one with
    one has only training. "Last" is by time, or random without timestamps.
    """
    if timestamp is None:
        return _label_tail(user, _shuffled(user, item, np.random.default_rng(seed)), _leave_one)
    return _label_tail(user, np.lexsort((timestamp, user)), _leave_one)


def cold_items(
    item: np.ndarray, seed: int = 0, fraction: float = 0.2
) -> tuple[np.ndarray, np.ndarray]:
    r"""Draws :obj:`fraction` of the items: sorted ids of the half held out for
    validation and of the half held out for test.
    """
    items = np.unique(item)
    held = np.random.default_rng(seed).permutation(items)[: round(fraction * len(items))]
    half = len(held) // 2
    return np.sort(held[:half]), np.sort(held[half:])


def cold_item_split(
    user: np.ndarray, item: np.ndarray, seed: int = 0, timestamp: np.ndarray | None = None
) -> np.ndarray:
    r"""Holds out all interactions of the items in :meth:`cold_items`. Users
    may be left without a training interaction.
    """
    val, test = cold_items(item, seed)
    label = np.zeros(len(item), np.int8)
    label[np.isin(item, val)] = VAL
    label[np.isin(item, test)] = TEST
    return label


def hold_out_items(
    item: np.ndarray, label: np.ndarray, seed: int = 0, fraction: float = 0.2
) -> np.ndarray:
    r"""Labels in which all interactions of the items in :meth:`cold_items` are
    held out. Others stay as they are, so that lists are measured both by what
    they give to new items and by what they give to all others.
    """
    label = label.copy()
    for split, items in zip((VAL, TEST), cold_items(item, seed, fraction)):
        label[np.isin(item, items)] = split
    return label


def global_time_split(
    user: np.ndarray, item: np.ndarray, seed: int = 0, timestamp: np.ndarray | None = None
) -> np.ndarray:
    r"""The same two moments for all users: the last tenth of all interactions
    is for test and the tenth before for validation; interactions at the same
    time stay together, in the later split. Users and items may be left without
    a training interaction.
    """
    if timestamp is None:
        raise ValueError("The split 'global_time' needs a column 'timestamp', which is missing.")
    order = np.sort(timestamp)
    label = np.zeros(len(user), np.int8)
    for split, place in ((VAL, len(order) * 8 // 10), (TEST, len(order) * 9 // 10)):
        if len(order):
            label[timestamp >= order[place]] = split
    return label


SPLITS: dict[str, Callable[..., np.ndarray]] = {
    'random': random_split,
    'temporal': temporal_split,
    'leave_one_out': leave_one_out,
    'cold_item': cold_item_split,
    'global_time': global_time_split,
}
#: What a rule needs to hold out something for validation and for test.
NEEDS = {
    'random': "it needs users with 3 interactions ('cold_item' holds out items instead)",
    'temporal': "it needs users with 3 interactions ('global_time' holds out the latest of all)",
    'leave_one_out': 'it needs users with 3 interactions',
    'cold_item': 'it needs 10 items whose users have others, too',
    'global_time': 'it needs users with interactions before and after the moments of the cut',
}


def split_interactions(
    user: np.ndarray,
    item: np.ndarray,
    rule: str,
    seed: int = 0,
    timestamp: np.ndarray | None = None,
) -> np.ndarray:
    r"""Labels interactions with 0 (training), 1 (validation) or 2 (test).

    Random rules depend on the set of pairs and the seed, not on the order of
    rows; rules that use time fall back on that order for equal timestamps.

    Args:
        user: User of each distinct interaction, **[E]**.
        item: Item of each interaction, **[E]**.
        rule: A key of :obj:`SPLITS`: :obj:`'random'`, :obj:`'temporal'`,
            :obj:`'leave_one_out'`, :obj:`'cold_item'` or
            :obj:`'global_time'`.
        seed: Seed of the random choices.
        timestamp: Time of each interaction, **[E]**.

    Raises:
        ValueError: If the rule is unknown, a length differs, or a rule lacks
            its timestamps.
    """
    if rule not in SPLITS:
        raise ValueError(f"Unknown split '{rule}'; expected one of {sorted(SPLITS)}.")
    for name, values in (('item', item), ('timestamp', timestamp)):
        if values is not None and len(values) != len(user):
            raise ValueError(f"Expected {len(user)} entries in '{name}', got {len(values)}.")
    return SPLITS[rule](np.asarray(user), np.asarray(item), seed, timestamp)
