from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar, cast

from torch import nn

T = TypeVar('T', nn.Module, nn.Linear, nn.Parameter)


class NameDict(nn.Module, Generic[T]):
    r"""Modules or parameters by any name. :class:`torch.nn.ModuleDict` takes
    neither :obj:`"clip.vit"` nor the name of one of its own attributes, such
    as :obj:`"type"`; here they are registered as :obj:`"clip%2Evit"` and
    :obj:`"%type"`. Other names stay as they are, no two names become one.

    Args:
        entries: Modules or parameters by name; their order is kept.
    """

    def __init__(self, entries: Mapping[str, T]):
        super().__init__()
        self._attributes: dict[str, str] = {}
        attributes = {name: self._escape(name) for name in entries}
        for name, attribute in attributes.items():
            setattr(self, attribute, entries[name])
        self._attributes = attributes

    def _escape(self, name: str) -> str:
        # A percent sign is followed by 25, by 2E, or stands in front of an attribute or nothing.
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
        r"""The modules or parameters in their order."""
        return [self[name] for name in self]

    def items(self) -> list[tuple[str, T]]:
        r"""Names, and the modules or parameters."""
        return [(name, self[name]) for name in self]
