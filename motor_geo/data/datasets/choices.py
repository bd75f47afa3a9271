r"""Random draws of items for users of synthetic data sets."""

from __future__ import annotations

import numpy as np

MIN_PER_USER = 3  # One each for training, validation and test.
BLOCK = 4_000_000  # User-item weights in memory at a time.


def sample_interactions(
    rng: np.random.Generator,
    users: np.ndarray,
    items: np.ndarray,
    weight: np.ndarray,
    counts: np.ndarray,
    block: int = BLOCK,
    taken: tuple[np.ndarray, np.ndarray] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    r"""Draws :obj:`counts[u]` distinct items for each user :math:`u`
    sequentially. Each draw picks one of the remaining items with probability
    proportional to :math:`w_i \exp(\mathbf{p}_u^{\top} \mathbf{z}_i)`.

    Equivalently, each item gets an independent exponential waiting time with
    this rate, and the items with the shortest waiting times are drawn in order
    (the Gumbel top-k trick, up to a change of variables). The result does not
    depend on :obj:`block`.

    Args:
        rng: The random number generator.
        users: Vectors :math:`\mathbf{p}_u`, **[M, d]**.
        items: Vectors :math:`\mathbf{z}_i`, **[N, d]**.
        weight: Weights :math:`w_i`, **[N]**. Items of weight zero are never
            drawn.
        counts: Number of items to draw for each user, **[M]**.
        block: Number of waiting times in memory.
        taken: Pairs to exclude, as users and items, **[E]** each.

    Returns:
        Users and items of the draws, **[E]** each, sorted by user and in the
        order of the draws.
    """
    found_user, found_item = [], []
    with np.errstate(divide='ignore'):
        log_weight = np.log(weight)
    size = max(block // len(items), 1)
    for start in range(0, len(users), size):
        count = counts[start : start + size]
        # Logarithms of the waiting times, because rates may underflow.
        clock = np.log(rng.standard_exponential((len(count), len(items))))
        clock -= users[start : start + size] @ items.T
        clock -= log_weight
        if taken is not None:
            here = (taken[0] >= start) & (taken[0] < start + len(count))
            clock[taken[0][here] - start, taken[1][here]] = np.inf
        most = int(count.max())
        first = np.argpartition(clock, most - 1, axis=1)[:, :most]
        order = np.take_along_axis(clock, first, axis=1).argsort(axis=1)
        first = np.take_along_axis(first, order, axis=1)
        row, rank = np.nonzero(np.arange(most) < count[:, None])
        found_user.append(start + row)
        found_item.append(first[row, rank])
    return np.concatenate(found_user), np.concatenate(found_item)


def draw_counts(rng: np.random.Generator, num_users: int, total: int, limit: int) -> np.ndarray:
    r"""Draws the number of interactions of each user from a log-normal
    distribution, subject to limits and a given sum.

    Args:
        rng: The random number generator.
        num_users: Number of users.
        total: Sum of the numbers.
        limit: Maximum per user; the minimum is :obj:`MIN_PER_USER`.

    Returns:
        Numbers of interactions, **[M]**.
    """
    share = rng.lognormal(sigma=0.6, size=num_users)
    counts = np.full(num_users, MIN_PER_USER)
    while (rest := total - int(counts.sum())) > 0:
        part = share * (counts < limit)
        counts = np.minimum(counts + rng.multinomial(rest, part / part.sum()), limit)
    return counts


def numbered(kind: str, size: int) -> np.ndarray:
    r"""Returns numbered names such as :obj:`"user_0007"`, **[size]**."""
    width = max(len(str(size - 1)), 4)
    return np.array([f'{kind}_{index:0{width}d}' for index in range(size)])
