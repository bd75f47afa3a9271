r"""Warns of computations that take long, before they start."""

from __future__ import annotations

import warnings

import torch

#: Multiplications per second of one core in matrix products.
SPEED = 2e10
#: Seconds of a wait worth a warning.
LONG = 600


def warn_of_time(what: str, products: float, advice: str, most: float = LONG) -> None:
    r"""Warns if a computation takes long on the CPU.

    Args:
        what: What takes long, as the subject of a sentence.
        products: Its number of multiplications.
        advice: What to do instead.
        most: Maximum number of seconds without a warning.
    """
    seconds = products / (SPEED * torch.get_num_threads())
    if seconds > most:
        unit, size = ('hours', 3600) if seconds > 3600 else ('seconds', 1)
        warnings.warn(
            f'{what} takes about {seconds / size:,.1f} {unit} on this CPU; {advice}', stacklevel=3
        )
