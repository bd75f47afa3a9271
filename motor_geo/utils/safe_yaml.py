r"""Reads YAML of bounded size, depth and cost, without tags that create objects."""

from __future__ import annotations

import os
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from motor_geo.utils.errors import ConfigError, one_line
from motor_geo.utils.files import check_file

MOST_BYTES = 2**20
MOST_DEPTH = 30
#: Maximum number of values, including those that aliases refer to.
MOST_VALUES = 100_000
#: Maximum number of characters in a number.
MOST_DIGITS = 64


class _Loader(yaml.SafeLoader):
    depth = 0

    def compose_node(self, parent: Node | None, index: int) -> Node | None:
        self.depth += 1
        if self.depth > MOST_DEPTH:
            raise ValueError(f'it is nested deeper than {MOST_DEPTH} levels')
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


def load_yaml(path: str) -> Any:
    r"""Reads a YAML file.

    Args:
        path: The file.

    Raises:
        ConfigError: If the file is missing, is not valid YAML, or is too large;
            the message names the file.
    """
    if not os.path.lexists(path):
        raise ConfigError(f"'{path}' cannot be read: No such file or directory")
    try:
        check_file(path, 'a YAML file')
        if os.path.getsize(path) > MOST_BYTES:
            raise ConfigError(
                f"'{path}' is larger than {MOST_BYTES // 2**20} MB; expected a file of options"
            )
        with open(path, encoding='utf-8') as file:
            text = file.read()
    except UnicodeDecodeError as error:
        raise ConfigError(f"'{path}': not valid YAML ({one_line(error)})") from error
    except OSError as error:
        if error.strerror is None:  # Raised by `check_file`, whose message names the file.
            raise ConfigError(str(error)) from error
        raise ConfigError(f"'{path}' cannot be read: {error.strerror}") from error
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _size(node, {}, set())
        return loader.construct_document(node)
    except yaml.YAMLError as error:
        mark = getattr(error, 'problem_mark', None)
        place = '' if mark is None else f', line {mark.line + 1}, column {mark.column + 1}'
        problem = getattr(error, 'problem', None) or one_line(error)
        raise ConfigError(f"'{path}'{place}: not valid YAML ({problem})") from error
    except Exception as error:  # Constructors of tags raise many kinds of errors.
        reason = (
            one_line(error) if isinstance(error, ValueError) else 'a value does not fit its tag'
        )
        raise ConfigError(f"'{path}': not valid YAML ({reason})") from error
    finally:
        if loader is not None:
            loader.dispose()


def _size(node: Node, known: dict[int, int], open_: set[int]) -> int:
    r"""Returns the number of values in a node.

    Raises:
        ValueError: If an alias refers to its own ancestor, or a number or the
            node is too large.
    """
    if id(node) in known:
        return known[id(node)]
    if id(node) in open_:
        raise ValueError('an alias refers to a value that contains it')
    open_.add(id(node))
    size = 1
    if isinstance(node, ScalarNode):
        kind = node.tag.rpartition(':')[2]
        if kind in ('int', 'float') and len(node.value) > MOST_DIGITS:
            raise ValueError(f'a number has {len(node.value)} characters')
    elif isinstance(node, SequenceNode):
        size += sum(_size(entry, known, open_) for entry in node.value)
    elif isinstance(node, MappingNode):
        size += sum(_size(part, known, open_) for pair in node.value for part in pair)
    if size > MOST_VALUES:
        raise ValueError(f'it holds more than {MOST_VALUES:,} values, including aliases')
    open_.discard(id(node))
    known[id(node)] = size
    return size
