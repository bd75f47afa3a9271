r"""Sparse sums, norms and losses in full precision under :class:`torch.autocast`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

HALF = (torch.float16, torch.bfloat16)

T = TypeVar('T')


def autocasts(x: Tensor) -> bool:
    r"""Whether :class:`torch.autocast` is active on the device of a tensor."""
    return torch.is_autocast_enabled(x.device.type)


def full_precision(function: Callable[..., T]) -> Callable[..., T]:
    r"""Decorator that disables :class:`torch.autocast` inside a function, as PyTorch
    does for sums and norms. It converts half-precision tensors to float32, both
    in the arguments and in named tuples among them.
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
    # Dynamo of PyTorch 2.11 on Python 3.10 does not support a comprehension here.
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
    r"""An :class:`torch.autograd.Function` that disables :class:`torch.autocast` in
    both passes, see :func:`~motor_geo.nn.functional.autocast.full_precision`.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        setattr(cls, 'backward', staticmethod(full_precision(cls.backward)))  # noqa: B010

    @classmethod
    def apply(cls, *args: Any) -> Any:
        # Not decorated, since Dynamo of PyTorch 2.14 does not support a decorated `apply`.
        first = _first_tensor(args, {})
        if first is None or not autocasts(first):
            return super().apply(*args)
        with torch.autocast(first.device.type, enabled=False):
            return super().apply(*map(_widen, args))
