r"""Batch sizes and learning rates that grow with the data."""

from __future__ import annotations

import math

#: The batch size that the published learning rates belong to.
USUAL = 2048
#: Number of steps per epoch of larger data sets, up to rounding to a power of two.
STEPS = 50
#: The exponent of the batch size in the learning rate, and the highest learning rate.
POWER, HIGHEST = 0.5, 0.01


def auto_batch_size(num_interactions: int) -> int:
    r"""Returns the power of two that is closest to a fiftieth of the number of
    training interactions, and at least 2,048.

    Args:
        num_interactions: Number of training interactions.
    """
    return max(USUAL, 2 ** round(math.log2(max(num_interactions / STEPS, 1))))


def auto_lr(lr: float, batch_size: int) -> float:
    r"""Returns the learning rate of a batch size :math:`B`,

    .. math::
        \eta \sqrt{B / 2048} ,

    but at most 0.01 (or :math:`\eta`, if this is higher).

    Args:
        lr: The learning rate :math:`\eta` for batches of 2,048.
        batch_size: The batch size.
    """
    return min(lr * (batch_size / USUAL) ** POWER, max(lr, HIGHEST))
