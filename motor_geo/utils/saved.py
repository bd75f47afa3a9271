r"""Reads and writes files of :func:`torch.save`, and verifies their checksums."""

from __future__ import annotations

import os
import zipfile
from typing import Any

import torch

from motor_geo.utils.files import atomic_write, check_file

BLOCK = 2**20


def save(content: Any, path: str) -> None:
    r"""Writes a file with :func:`torch.save` atomically: after an interruption,
    :obj:`path` is either the old or the new file.

    Args:
        content: Anything that :func:`torch.save` can write.
        path: The file.

    Raises:
        OSError: If the file cannot be written.
    """
    with atomic_write(path) as temporary, open(temporary, 'wb') as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:  # PyTorch raises it in place of the original error.
            cause = error.__context__
            raise cause if isinstance(cause, OSError) else error from None


def load(
    path: str, expected: str, map_location: str | torch.device = 'cpu', old: bool = False
) -> Any:
    r"""Reads a file of :func:`torch.save` without executing code from it.

    Args:
        path: The file.
        expected: What the file should be, for messages.
        map_location: Device of the tensors.
        old: If set to :obj:`True`, accepts the format of PyTorch before 1.6,
            which has no checksums.

    Raises:
        FileNotFoundError: If the file is missing.
        PermissionError: If the file must not be read.
        ValueError: If it is truncated or damaged, or is another kind of file.
        MemoryError: If it does not fit into memory; the message names the file.
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
    r"""Verifies the checksums that :func:`torch.save` writes, which
    :func:`torch.load` ignores.

    Args:
        path: The file.

    Raises:
        ValueError: If an entry is compressed. If the file is not an archive or
            a checksum differs, :obj:`zipfile` raises its own
            :obj:`BadZipFile`.
    """
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
                raise ValueError(f"'{entry.filename}' is compressed")
            with archive.open(entry) as file:
                while file.read(BLOCK):
                    pass
