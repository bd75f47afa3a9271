r"""Settings of the memory allocator, and the available memory."""

from __future__ import annotations

import ctypes
import os
import sys

# From malloc.h of glibc.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -2, -3, -4
KEEP = 2**30
LARGEST = 2**25  # glibc always maps allocations from this size on.


def keep_freed_memory() -> bool:
    r"""Configures glibc to keep freed memory, for the whole process.

    A training step repeatedly allocates and frees the same arrays of a few MB.
    By default, glibc returns them to the operating system in between, which
    then has to clear their pages each time. On CPUs, this takes a fifth of a
    step. The peak memory stays the same (within 64 MB), but the process does
    not return memory that is free in between.

    Returns:
        Whether glibc accepted the settings. Without glibc, nothing happens.
    """
    options = ((M_MMAP_THRESHOLD, LARGEST), (M_TRIM_THRESHOLD, KEEP), (M_TOP_PAD, 2**26))
    return _set(*options)


def keep_large_arrays() -> bool:
    r"""Configures glibc to keep also the memory of freed arrays from 32 MB on, for the whole
    process. Clearing their pages takes up to a third of a step. Arrays of different
    sizes may leave gaps, so that the process needs more memory.

    Returns:
        Whether glibc accepted the settings. Without glibc, nothing happens.
    """
    return _set((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, -1))


def _set(*options: tuple[int, int]) -> bool:
    if not sys.platform.startswith('linux'):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # Another C library.
        return False
    return all(mallopt(option, value) == 1 for option, value in options)


def physical_memory() -> int:
    r"""Returns the size of the physical memory in bytes, or one terabyte if it is
    unknown.
    """
    try:
        return os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
    except (AttributeError, ValueError, OSError):
        return 2**40


def tune_process() -> None:
    r"""Tunes the memory of a command before it imports PyTorch. Large tensors get
    huge pages, which make reading rows in random order twice as fast, and freed
    memory is kept. PyTorch reads :obj:`THP_MEM_ALLOC_ENABLE` only once, when it
    creates the first tensor.
    """
    os.environ.setdefault('THP_MEM_ALLOC_ENABLE', '1')
    keep_freed_memory()


def available_memory() -> int | None:
    r"""Returns how many bytes of memory are available without swapping, or
    :obj:`None` if this is unknown.
    """
    try:
        with open('/proc/meminfo') as file:
            sizes = dict(line.split(':', 1) for line in file)
        return int(sizes['MemAvailable'].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None
