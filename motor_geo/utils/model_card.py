r"""Writes model cards for the Hugging Face Hub."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import yaml

TAGS = ('recommendation', 'multimodal', 'graph-neural-networks')
NO_LICENSE = '# license: add the license of the weights; check that the training data permits it'
INTRODUCTION = """\
# {title}

Saved with `motor_geo`, a library of ID-free multimodal recommendation on graphs
([paper](https://arxiv.org/abs/2410.19276)).

## Data and license

*To be written: the training data and their license, the license of the weights, and results.*
"""


class Section(NamedTuple):
    r"""The section of a card on one object.

    Args:
        name: Name of its class.
        usage: Python code that loads it.
        files: Names of the files of its arguments and of its tensors.
        settings: The arguments.
        size: Number of values in the tensors.
    """

    name: str
    usage: str
    files: tuple[str, str]
    settings: Mapping[str, Any]
    size: int

    def __str__(self) -> str:
        config, weights = self.files
        rows = [f'| `{key}` | `{json.dumps(value)}` |' for key, value in self.settings.items()]
        lines = [self.begin, f'## {self.name}', '', '```python', self.usage, '```', '']
        lines += [f'`{weights}` contains {self.size:,} values. Arguments in `{config}`:', '']
        return '\n'.join([*lines, '| argument | value |', '|---|---|', *rows, self.end])

    @property
    def begin(self) -> str:
        return f'<!-- motor_geo {self.files[1]} -->'

    @property
    def end(self) -> str:
        return f'<!-- end of {self.files[1]} -->'


def model_card(
    title: str,
    section: Section,
    before: str | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> str:
    r"""Returns a card with the section of an object.

    Args:
        title: Name of the folder or repository.
        section: The section. It replaces an existing section on the same file.
        before: The existing card. The rest of it is kept.
        metadata: Entries of the YAML header. Other entries are kept.
    """
    if before is None:
        before = head(metadata or {}) + '\n' + INTRODUCTION.format(title=title)
    elif metadata:
        before = _with_metadata(before, metadata)
    start, stop = before.find(section.begin), before.find(section.end)
    if 0 <= start < stop:
        return before[:start] + str(section) + before[stop + len(section.end) :]
    return f'{before.rstrip()}\n\n{section}\n'


def head(metadata: Mapping[str, Any]) -> str:
    r"""Returns the YAML header of a card, without a default license.

    Args:
        metadata: Entries of the header.
    """
    content = {'library_name': 'motor_geo', 'tags': list(TAGS), **metadata}
    lines = ['---', yaml.safe_dump(content, sort_keys=False, allow_unicode=True).rstrip()]
    return '\n'.join([*lines, *([] if 'license' in metadata else [NO_LICENSE]), '---', ''])


def _with_metadata(text: str, metadata: Mapping[str, Any]) -> str:
    r"""Updates entries of the YAML header of a card, and keeps the others."""
    found = re.match(r'---\n(.*?)\n?---\n', text, re.DOTALL)
    if found is None:
        return head(metadata) + '\n' + text
    known = yaml.safe_load(found[1])
    return head({**(known if isinstance(known, dict) else {}), **metadata}) + text[found.end() :]
