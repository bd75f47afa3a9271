r"""Reads NumPy files without trusting their headers."""

from __future__ import annotations

import math
import os
import zipfile
from typing import Any

import numpy as np

from motor_geo.utils.errors import one_line
from motor_geo.utils.files import check_file

MAGIC, PACKED = b'\x93NUMPY', b'PK'
#: Signature of the last record of an archive, and its maximum length.
END, LONGEST_END = b'PK\x05\x06', 2**16 + 22
#: Maximum compression ratio of a deflated file.
MOST_DEFLATED = 1032


def load_npy(path: str, expected: str = 'a .npy file', mmap: bool = False) -> np.ndarray:
    r"""Reads a :obj:`.npy` file without pickled objects.

    Args:
        path: The file.
        expected: What the file should be, for messages.
        mmap: If set to :obj:`True`, memory-maps the file.

    Raises:
        FileNotFoundError: If the file is missing.
        PermissionError: If the file must not be read.
        ValueError: If it is not a :obj:`.npy` file, contains pickled objects,
            or is shorter than its header states.
        MemoryError: If it does not fit into memory; the message names the file.
    """
    check_file(path, expected)
    found = 0
    try:
        with open(path, 'rb') as file:
            start = file.read(len(MAGIC))
            file.seek(0)
            if start.startswith(PACKED):
                raise ValueError('it is an archive')
            found = _check_header(file, os.path.getsize(path))
        return np.load(path, allow_pickle=False, mmap_mode='r' if mmap else None)
    except MemoryError:
        raise MemoryError(f"'{path}' does not fit into memory ({found / 1e9:.1f} GB)") from None
    except PermissionError as error:
        raise PermissionError(f"'{path}' cannot be read: {error.strerror}") from error
    except Exception as error:  # NumPy parses headers as Python, which raises many kinds of errors.
        raise ValueError(f"'{path}' cannot be read as {expected}: {_reason(error)}") from error


def load_npz(path: str, expected: str = 'a .npz archive') -> dict[str, np.ndarray]:
    r"""Reads the arrays of a :obj:`.npz` file and verifies their checksums.

    Args:
        path: The file.
        expected: What the file should be, for messages.

    Returns:
        The arrays by name.

    Raises:
        FileNotFoundError: If the file is missing.
        PermissionError: If the file must not be read.
        ValueError: If it is damaged or not a :obj:`.npz` file.
        MemoryError: If it does not fit into memory; the message names the file.
    """
    check_file(path, expected)
    total = 0
    try:
        with zipfile.ZipFile(path) as archive:
            _check_count(path, len(archive.infolist()))
            for entry in archive.infolist():
                factor = 1 if entry.compress_type == zipfile.ZIP_STORED else MOST_DEFLATED
                if entry.file_size > entry.compress_size * factor + 1024:
                    raise ValueError(f"'{entry.filename}' is shorter than its header states")
                with archive.open(entry) as file:
                    total += _check_header(file, entry.file_size)
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    except MemoryError:
        raise MemoryError(f"'{path}' does not fit into memory ({total / 1e9:.1f} GB)") from None
    except PermissionError as error:
        raise PermissionError(f"'{path}' cannot be read: {error.strerror}") from error
    except Exception as error:
        raise ValueError(f"'{path}' cannot be read as {expected}: {_reason(error)}") from error


def _check_count(path: str, found: int) -> None:
    r"""Compares the number of entries with the number in the last record of an
    archive, which :mod:`zipfile` does not check.

    Raises:
        ValueError: If the numbers differ, or there is no entry.
    """
    with open(path, 'rb') as file:
        file.seek(max(0, os.path.getsize(path) - LONGEST_END))
        record = file.read().rpartition(END)[2]
    count = int.from_bytes(record[6:8], 'little')
    if found == 0:
        raise ValueError('it lists no array')
    if count not in (found, 2**16 - 1):  # The latter means that another record has the number.
        raise ValueError(f'it says that it holds {count} arrays, and lists {found}')


def _check_header(file: Any, size: int) -> int:
    r"""Returns the number of bytes of an array according to its header.

    Raises:
        ValueError: If the file is shorter, or its header is not supported.
    """
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    elif version == (2, 0):
        length = int.from_bytes(file.read(4), 'little')
        if length > size:
            raise ValueError(f'it is truncated: expected a header of {length} bytes')
        file.seek(-4, os.SEEK_CUR)
        shape, _, dtype = np.lib.format.read_array_header_2_0(file)
    else:
        raise ValueError(f'version {version[0]}.{version[1]} of the format is not supported')
    if dtype.hasobject:
        raise ValueError('it holds pickled objects')
    if not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError(f'its shape {shape} is not valid')
    count, there = math.prod(shape) * dtype.itemsize, size - file.tell()
    if count > there:
        raise ValueError(f'it is truncated: expected {count} bytes of values, found {there}')
    return count


def _reason(error: Exception) -> str:
    return one_line(error)[:200] or type(error).__name__


def load_array(
    path: str, num_rows: int | None = None, mmap: bool = False, finite: bool = True
) -> np.ndarray:
    r"""Loads a feature matrix from a :obj:`.npy` file and checks it.

    Args:
        path: The file.
        num_rows: Expected number of rows. (default: any)
        mmap: If set to :obj:`True`, memory-maps the file.
        finite: If set to :obj:`False`, allows NaN and infinite values.

    Returns:
        The matrix, **[N, d]**.

    Raises:
        FileNotFoundError: If the file is missing.
        ValueError: If it is not a two-dimensional numeric :obj:`.npy`, has
            the wrong number of rows, or contains NaN or infinite values; the
            message names the file and the first bad row.
        MemoryError: If it does not fit into memory; the message names the file.
    """
    array = load_npy(path, 'a numeric .npy file without pickled objects', mmap)
    if array.ndim != 2 or array.dtype.kind not in 'fiu':
        raise ValueError(
            f"'{path}': expected a numeric matrix [items, width], got {array.ndim} dimensions of "
            f'{array.dtype}'
        )
    if num_rows is not None and array.shape[0] != num_rows:
        raise ValueError(f"'{path}': expected {num_rows} rows (one per item), got {array.shape[0]}")
    if array.shape[1] == 0:
        raise ValueError(f"'{path}': expected at least one column, got none")
    if finite:
        check_finite(array, f"'{path}'")
    return array


def check_single(array: np.ndarray, name: str, block: int = 65_536) -> None:
    r"""Checks that all values of a finite matrix fit into single precision.

    Args:
        array: The matrix, **[N, d]**.
        name: Its name, for messages.
        block: Number of rows to check at a time.

    Raises:
        ValueError: If a value does not fit; the message names the first such
            row.
    """
    if array.dtype.kind != 'f' or array.dtype.itemsize <= 4:
        return
    most = np.finfo(np.float32).max
    for start in range(0, array.shape[0], block):
        bad = (np.abs(array[start : start + block]) > most).any(axis=1)
        if bad.any():
            row = start + int(bad.argmax())
            raise ValueError(f'{name}: row {row} holds values beyond {most:.2g} (single precision)')


def check_finite(array: np.ndarray, name: str, block: int = 65_536) -> None:
    r"""Checks that all values of a matrix are finite.

    Args:
        array: The matrix, **[N, d]**.
        name: Its name, for messages.
        block: Number of rows to check at a time.

    Raises:
        ValueError: If there is a NaN or infinite value; the message names the
            first such row.
    """
    for start in range(0, array.shape[0], block):
        bad = ~np.isfinite(array[start : start + block]).all(axis=1)
        if bad.any():
            row = start + int(bad.argmax())
            raise ValueError(
                f'{name}: row {row} holds NaN or infinite values; expected finite numbers'
            )
