r"""Results that do not depend on the number of threads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from threadpoolctl import threadpool_limits


@contextmanager
def one_thread() -> Iterator[None]:
    r"""Computes in one thread what has to be the same to the last bit wherever
    it is computed: threads add up parts of a sum, and rounding depends on what
    the parts are. Of libraries that are imported later it knows nothing.
    """
    threads = torch.get_num_threads()
    with threadpool_limits(limits=1):  # Of BLAS in NumPy, SciPy and faiss, too.
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
