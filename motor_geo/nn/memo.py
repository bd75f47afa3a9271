from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

T = TypeVar('T')


class _Entry(NamedTuple):
    key: tuple[Any, ...]
    value: Any


class Memo:
    r"""Caches the result of a computation as long as its inputs stay the same: the
    same tensors, not changed in place, and equal values of any other kind.

    .. code-block:: python

        memo = Memo()
        graph = memo(lambda: build(edge_index, num_nodes), edge_index, num_nodes)

    The cache compares tensors by identity and version. It does not keep them
    alive: once an input tensor is freed, its entry is dropped. Values are computed
    without gradients and outside :obj:`torch.inference_mode`, so that training can
    reuse a value that a server computed. A tensor created under inference mode has
    no version, so a value that depends on one is recomputed in every call. The
    cache does not notice changes made through :obj:`tensor.data` or through a
    NumPy array that shares memory. Copies and pickles are empty.

    Args:
        size: Number of cached values. The cache keeps the most recent ones.
    """

    def __init__(self, size: int = 1):
        self.size = size
        self._entries: list[_Entry] = []
        this = weakref.ref(self)

        def forget(dead: weakref.ref) -> None:
            memo = this()
            if memo is not None:
                memo._entries = [
                    entry
                    for entry in memo._entries
                    if not any(isinstance(k, tuple) and k[0] is dead for k in entry.key)
                ]

        self._forget = forget

    @torch.compiler.disable
    def __call__(self, compute: Callable[[], T], *sources: Any) -> T:
        r"""Returns the cached value, and calls :obj:`compute` if there is none.

        Args:
            compute: Function without arguments that computes the value.
            sources: Everything that the value depends on: tensors, comparable
                values, and tuples or lists of both.
        """
        leaves = list(_leaves(sources))
        if any(isinstance(leaf, Tensor) and leaf.is_inference() for leaf in leaves):
            with torch.no_grad():
                return compute()
        for entry in self._entries:
            if _same(entry.key, leaves):
                return entry.value
        with torch.inference_mode(False), torch.no_grad():
            value = compute()
        key = tuple(
            (weakref.ref(leaf, self._forget), leaf._version) if isinstance(leaf, Tensor) else leaf
            for leaf in leaves
        )
        self._entries = [_Entry(key, value), *self._entries[: self.size - 1]]
        return value

    def get(self, *sources: Any) -> Any:
        r"""The cached value for these sources, or :obj:`None`."""
        leaves = list(_leaves(sources))
        if any(isinstance(leaf, Tensor) and leaf.is_inference() for leaf in leaves):
            return None
        return next((entry.value for entry in self._entries if _same(entry.key, leaves)), None)

    def clear(self) -> None:
        r"""Drops all cached values."""
        self._entries = []

    def __reduce__(self) -> tuple[type[Memo], tuple[int]]:
        return type(self), (self.size,)


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, (tuple, list)):
        yield len(value)
        for entry in value:
            yield from _leaves(entry)
    else:
        yield value


def _same(key: tuple[Any, ...], leaves: list[Any]) -> bool:
    if len(key) != len(leaves):
        return False
    for old, new in zip(key, leaves):
        if isinstance(new, Tensor):
            same = isinstance(old, tuple) and old[0]() is new and old[1] == new._version
        else:
            same = not isinstance(old, tuple) and type(old) is type(new) and bool(old == new)
        if not same:
            return False
    return True
