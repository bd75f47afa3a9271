from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar, cast

from torch import nn

T = TypeVar('T', nn.Module, nn.Linear, nn.Parameter)


class NameDict(nn.Module, Generic[T]):
    r"""Modules or parameters under arbitrary names. :class:`torch.nn.ModuleDict`
    accepts neither names with dots, such as :obj:`"clip.vit"`, nor the names of its
    own attributes, such as :obj:`"type"`. This class registers them as
    :obj:`"clip%2Evit"` and :obj:`"%type"`. Other names are unchanged, and different
    names never collide.

    Args:
        entries: Modules or parameters by name. The dictionary keeps their order.
    """

    def __init__(self, entries: Mapping[str, T]):
        super().__init__()
        self._attributes: dict[str, str] = {}
        attributes = {name: self._escape(name) for name in entries}
        for name, attribute in attributes.items():
            setattr(self, attribute, entries[name])
        self._attributes = attributes

    def _escape(self, name: str) -> str:
        # A percent sign precedes 25 or 2E, or marks an attribute name or the empty name.
        out = name.replace('%', '%25').replace('.', '%2E')
        return f'%{out}' if out == '' or hasattr(self, out) else out

    def __getitem__(self, name: str) -> T:
        return cast(T, getattr(self, self._attributes[name]))

    def __contains__(self, name: object) -> bool:
        return name in self._attributes

    def __iter__(self) -> Iterator[str]:
        return iter(self._attributes)

    def __len__(self) -> int:
        return len(self._attributes)

    def values(self) -> list[T]:
        r"""The modules or parameters, in order."""
        return [self[name] for name in self]

    def items(self) -> list[tuple[str, T]]:
        r"""Pairs of names and modules or parameters, in order."""
        return [(name, self[name]) for name in self]
