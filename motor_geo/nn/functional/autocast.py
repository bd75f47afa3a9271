r"""Sums over graphs, norms and losses in full precision, whatever
:class:`torch.autocast` says.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

HALF = (torch.float16, torch.bfloat16)

T = TypeVar('T')


def autocasts(x: Tensor) -> bool:
    r"""Whether :class:`torch.autocast` acts on the device of a tensor."""
    return torch.is_autocast_enabled(x.device.type)


def full_precision(function: Callable[..., T]) -> Callable[..., T]:
    r"""Decorates a function to be left alone by :class:`torch.autocast`, as
    PyTorch does with sums and norms: tensors of half precision among its
    arguments, and in named tuples of them, are converted, and it computes in float32.
    """

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> T:
        first = _first_tensor(args, kwargs)
        if first is None or not autocasts(first):
            return function(*args, **kwargs)
        with torch.autocast(first.device.type, enabled=False):
            kwargs = {key: _widen(value) for key, value in kwargs.items()}
            return function(*map(_widen, args), **kwargs)

    return wrapper


def _first_tensor(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    # A loop: Dynamo of PyTorch 2.11 on Python 3.10 takes no comprehension here.
    for x in args:
        if isinstance(x, Tensor):
            return x
    for x in kwargs.values():
        if isinstance(x, Tensor):
            return x
    return None


def _widen(x: Any) -> Any:
    if isinstance(x, tuple) and hasattr(x, '_fields'):
        return type(x)(*map(_widen, x))
    return x.float() if isinstance(x, Tensor) and x.dtype in HALF else x


class Function(torch.autograd.Function):
    r"""An :class:`torch.autograd.Function` whose two passes are left alone by
    :class:`torch.autocast`, see :func:`~motor_geo.nn.functional.autocast.full_precision`.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        setattr(cls, 'backward', staticmethod(full_precision(cls.backward)))  # noqa: B010

    @classmethod
    def apply(cls, *args: Any) -> Any:
        # Spelled out: Dynamo of PyTorch 2.14 takes no `apply` through a decorator.
        first = _first_tensor(args, {})
        if first is None or not autocasts(first):
            return super().apply(*args)
        with torch.autocast(first.device.type, enabled=False):
            return super().apply(*map(_widen, args))
