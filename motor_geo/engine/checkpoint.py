r"""Checkpoints that record their model and their data."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from motor_geo.utils.saved import load, save

FORMAT = 'motor_geo'
VERSION = 1


def save_checkpoint(path: str, state: dict[str, Any], model: str, fingerprint: str) -> None:
    r"""Writes a checkpoint atomically: after an interruption, the file contains
    either the old or the new checkpoint.

    Args:
        path: The file.
        state: Tensors and plain values in dictionaries, lists and tuples.
        model: Class name of the model.
        fingerprint: Hash of the data that the model was trained on.

    Raises:
        OSError: If the file cannot be written.
        ValueError: If :obj:`state` contains a value that could not be read
            back.
    """
    _check_plain(state, 'state')
    content = {
        'format': FORMAT,
        'version': VERSION,
        'model': model,
        'fingerprint': fingerprint,
        'state': state,
    }
    try:
        save(content, path)
    except (OSError, RuntimeError) as error:  # PyTorch reports some I/O errors as the latter.
        reason = getattr(error, 'strerror', None) or str(error).splitlines()[0]
        raise OSError(f"cannot write '{path}': {reason}") from error


def load_checkpoint(
    path: str,
    *,
    model: str | None = None,
    fingerprint: str | None = None,
    map_location: str | torch.device = 'cpu',
) -> dict[str, Any]:
    r"""Reads the :obj:`state` of a checkpoint without executing code from the
    file.

    Args:
        path: The file.
        model: Expected class name of the model. (default: any)
        fingerprint: Expected hash of the data. (default: any)
        map_location: Device of the tensors.

    Raises:
        FileNotFoundError: If the file is missing.
        ValueError: If the file is truncated or damaged, is not a checkpoint of
            this package, or belongs to another model or other data.
    """
    content = load(path, 'a checkpoint', map_location)
    if not isinstance(content, dict) or content.get('format') != FORMAT:
        raise ValueError(f"'{path}' is a PyTorch file, but not a checkpoint of motor_geo")
    if content.get('version') != VERSION:
        raise ValueError(
            f"'{path}' has checkpoint version {content.get('version')}, but this version of "
            f'motor_geo reads version {VERSION}'
        )
    for key, kind in (('model', str), ('fingerprint', str), ('state', dict)):
        if not isinstance(content.get(key), kind):
            raise ValueError(f"'{path}' is damaged: the checkpoint has no '{key}'")
    for name, noun, expected in [
        ('model', 'the model', model),
        ('fingerprint', 'data with the fingerprint', fingerprint),
    ]:
        if expected is not None and content[name] != expected:
            raise ValueError(f"'{path}' belongs to {noun} '{content[name]}', expected '{expected}'")
    return content['state']


def _check_plain(value: Any, where: str) -> None:
    kind = type(value)  # Exact type: reading rejects subclasses such as `np.float64`.
    if kind in (dict, OrderedDict):
        for key, entry in value.items():
            _check_plain(key, f'a key of {where}')
            _check_plain(entry, f'{where}[{key!r}]')
    elif kind in (list, tuple):
        for i, entry in enumerate(value):
            _check_plain(entry, f'{where}[{i}]')
    elif kind not in (Tensor, Parameter, str, int, float, bool, type(None)):
        raise ValueError(
            f'{where} is a {kind.__name__}, but a checkpoint can only hold tensors, strings, '
            f'numbers, booleans and None'
        )
