r"""Files of :func:`torch.save`, whose checksums are compared when they are read."""

from __future__ import annotations

import os
import zipfile
from typing import Any

import torch

from motor_geo.utils.files import atomic_write, check_file

BLOCK = 2**20


def save(content: Any, path: str) -> None:
    r"""Writes what :func:`torch.save` can write, so that :obj:`path` holds the
    old or the new file, whatever interrupts it.

    Raises:
        OSError: If the file cannot be written.
    """
    with atomic_write(path) as temporary, open(temporary, 'wb') as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:  # PyTorch's, in place of that of the file.
            cause = error.__context__
            raise cause if isinstance(cause, OSError) else error from None


def load(
    path: str, expected: str, map_location: str | torch.device = 'cpu', old: bool = False
) -> Any:
    r"""Reads a file of :func:`torch.save`. Nothing in it is executed.

    Args:
        path: The file.
        expected: What it should be, for messages.
        map_location: Device of the tensors.
        old: Whether it may be of the format before PyTorch 1.6, which has no
            checksums.

    Raises:
        FileNotFoundError: If the file is missing.
        ValueError: If it is truncated, has changed since it was written, or is
            another kind of file.
        MemoryError: If it does not fit into memory; the message names it.
    """
    check_file(path, expected)
    try:
        if not old or zipfile.is_zipfile(path):
            check_sums(path)
        return torch.load(path, map_location=map_location, weights_only=True)
    except PermissionError as error:
        raise PermissionError(f"'{path}' cannot be read: {error.strerror}") from error
    except Exception as error:
        if isinstance(error, MemoryError) or 'allocate memory' in str(error):
            size = os.path.getsize(path) / 1e9
            raise MemoryError(f"'{path}' does not fit into memory ({size:.1f} GB)") from None
        raise ValueError(
            f"'{path}' cannot be read as {expected}: it is truncated or damaged, or another kind "
            'of file'
        ) from error


def check_sums(path: str) -> None:
    r"""Compares the checksums that :func:`torch.save` writes and
    :func:`torch.load` leaves alone.

    Raises:
        ValueError: If one differs.
    """
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
                raise ValueError(f"'{entry.filename}' is packed")
            with archive.open(entry) as file:
                while file.read(BLOCK):
                    pass
