r"""Values as JSON. Unlike pickles, they cannot run code in the process that reads them."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import torch

KEY = '!'
#: Largest message in bytes.
LIMIT = 2**28


def dumps(value: Any) -> bytes:
    r"""Encodes numbers, strings, lists, tuples, dictionaries, arrays and tensors.

    Raises:
        TypeError: If it contains anything else.
    """
    return json.dumps(_plain(value)).encode()


def loads(data: bytes) -> Any:
    r"""Decodes a value of :func:`dumps`."""
    return _value(json.loads(data))


def _plain(value: Any) -> Any:
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        if value.layout != torch.strided:
            value = value.to_dense()
        if value.dtype == torch.bfloat16:
            value = value.float()
        return _array('tensor', value.contiguous().numpy())
    if isinstance(value, np.ndarray):
        if value.dtype.hasobject:
            raise TypeError('an array of Python objects')
        return _array('array', value)
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, list):
        return [_plain(x) for x in value]
    if isinstance(value, tuple):
        return {KEY: 'tuple', 'data': [_plain(x) for x in value]}
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f'a dictionary with the key {key!r}, which is no string')
        return {KEY: 'dict', 'data': {key: _plain(x) for key, x in value.items()}}
    raise TypeError(f"a value of type '{type(value).__name__}'")


def _array(kind: str, value: np.ndarray) -> dict[str, Any]:
    data = base64.b64encode(np.ascontiguousarray(value).tobytes()).decode()
    return {KEY: kind, 'dtype': value.dtype.str, 'shape': list(value.shape), 'data': data}


def _value(value: Any) -> Any:
    if isinstance(value, list):
        return [_value(x) for x in value]
    if not isinstance(value, dict):
        return value
    kind, data = value[KEY], value['data']
    if kind == 'tuple':
        return tuple(_value(x) for x in data)
    if kind == 'dict':
        return {key: _value(x) for key, x in data.items()}
    array = np.frombuffer(base64.b64decode(data), dtype=np.dtype(value['dtype']))
    array = array.reshape(value['shape']).copy()
    return torch.from_numpy(array) if kind == 'tensor' else array
