r"""Checkpoints that say what they belong to."""

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
    r"""Writes :obj:`state` so that :obj:`path` holds either the old or the
    new checkpoint, whatever interrupts the writing.

    Args:
        path: The file.
        state: Tensors and plain values in dictionaries, lists and tuples.
        model: Class name of the model.
        fingerprint: Hash of the data it was trained on.

    Raises:
        OSError: If the file cannot be written.
        ValueError: If a value of :obj:`state` could not be read back.
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
    except (OSError, RuntimeError) as error:  # PyTorch reports some as the latter.
        reason = getattr(error, 'strerror', None) or str(error).splitlines()[0]
        raise OSError(f"cannot write '{path}': {reason}") from error


def load_checkpoint(
    path: str,
    *,
    model: str | None = None,
    fingerprint: str | None = None,
    map_location: str | torch.device = 'cpu',
) -> dict[str, Any]:
    r"""Reads the :obj:`state` of a checkpoint. Nothing in the file is
    executed.

    Args:
        path: The file.
        model: Expected class name of the model, if any.
        fingerprint: Expected hash of the data, if any.
        map_location: Device of the tensors.

    Raises:
        FileNotFoundError: If the file is missing.
        ValueError: If it is truncated or damaged, no checkpoint of this
            package, or belongs to another model or to other data.
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
    kind = type(value)  # Exact: a subclass such as `np.float64` is refused when reading.
    if kind in (dict, OrderedDict):
        for key, entry in value.items():
            _check_plain(key, f'a key of {where}')
            _check_plain(entry, f'{where}[{key!r}]')
    elif kind in (list, tuple):
        for i, entry in enumerate(value):
            _check_plain(entry, f'{where}[{i}]')
    elif kind not in (Tensor, Parameter, str, int, float, bool, type(None)):
        raise ValueError(
            f'{where} is a {kind.__name__}, but a checkpoint holds only tensors, strings, '
            f'numbers, booleans and None'
        )
