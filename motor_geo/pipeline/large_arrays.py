r"""How a command keeps the memory of arrays that glibc would return."""

from __future__ import annotations

from motor_geo.nn.models import Recommender
from motor_geo.utils.memory import LARGEST, available_memory, keep_large_arrays

#: Size of all parameters in the available memory, up to which arrays of their size may
#: leave gaps: gradients, moments and a few copies take as much again.
SHARE = 8


def tune_large_arrays(model: Recommender, batch_size: int) -> bool:
    r"""Keeps the memory of arrays from 32 MB on if steps make some and their gaps fit
    into memory. Results do not change.

    Backbones that read features are left alone, since they make arrays of many
    sizes.

    Args:
        model: The model.
        batch_size: Number of interactions per step.

    Returns:
        Whether the memory is kept from now on.
    """
    if model.min_modalities > 0 or model.user_embedding.device.type != 'cpu':
        return False
    sizes = [x.numel() * x.element_size() for x in model.parameters()]
    # Positive and negative items are gathered together.
    rows = 2 * batch_size * model.channels * model.user_embedding.element_size()
    if model.reads_rows and model.user_encoder is None and not model.needs_tables:
        return rows >= LARGEST and keep_large_arrays()
    available = available_memory()
    if max(rows, *sizes) < LARGEST or available is None or SHARE * sum(sizes) > available:
        return False
    return keep_large_arrays()
