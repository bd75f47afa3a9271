r"""How the memory allocator of the process treats what is freed."""

from __future__ import annotations

import ctypes
import os
import sys

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3  # From malloc.h of glibc.
KEEP = 2**30
LARGEST = 2**25  # What is larger than this, glibc always maps.


def keep_freed_memory() -> bool:
    r"""Asks glibc to keep memory that is freed, for the whole process.

    A training step allocates and frees the same arrays of some MB over and
    over. By default they go back to the operating system in between, which
    then has to clear their pages every time: a fifth of a step on CPUs. The
    peak of memory stays what it was (within 64 MB); only what is free in
    between is not returned.

    Returns:
        Whether there is a glibc that could be asked; elsewhere, nothing is
        done.
    """
    if not sys.platform.startswith('linux'):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # Another C library.
        return False
    options = ((M_MMAP_THRESHOLD, LARGEST), (M_TRIM_THRESHOLD, KEEP), (M_TOP_PAD, 2**26))
    return all(mallopt(option, value) == 1 for option, value in options)


def physical_memory() -> int:
    r"""Bytes of memory of this machine, or a terabyte where it does not tell."""
    try:
        return os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
    except (AttributeError, ValueError, OSError):
        return 2**40


def tune_process() -> None:
    r"""What a command does before it imports PyTorch: large tensors get huge
    pages, which are twice as fast where rows are read in random order (PyTorch
    looks :obj:`THP_MEM_ALLOC_ENABLE` up once, when it makes its first tensor),
    and freed memory is kept.
    """
    os.environ.setdefault('THP_MEM_ALLOC_ENABLE', '1')
    keep_freed_memory()


def available_memory() -> int | None:
    r"""Bytes of memory that can be taken without swapping, if the system says
    so.
    """
    try:
        with open('/proc/meminfo') as file:
            sizes = dict(line.split(':', 1) for line in file)
        return int(sizes['MemAvailable'].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None
