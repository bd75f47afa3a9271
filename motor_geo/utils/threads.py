r"""Results that do not depend on the number of threads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from threadpoolctl import threadpool_limits


@contextmanager
def one_thread() -> Iterator[None]:
    r"""Limits PyTorch and other numerical libraries to one thread, so that results
    do not depend on the number of threads. Several threads would split a sum
    into parts, and rounding depends on these parts. The limit does not apply to
    libraries that are imported inside the block.
    """
    threads = torch.get_num_threads()
    with threadpool_limits(limits=1):  # Includes BLAS in NumPy, SciPy and faiss.
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
