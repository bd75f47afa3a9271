r"""The card of what is in a folder or a repository of the Hugging Face Hub."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import yaml

TAGS = ('recommendation', 'multimodal', 'graph-neural-networks')
NO_LICENSE = '# license: yours to name; it covers the weights and what they were trained on'
INTRODUCTION = """\
# {title}

Saved with `motor_geo`, a library of ID-free multimodal recommendation on graphs
([paper](https://arxiv.org/abs/2410.19276)).

## Data and license

*To be written: the data that this was trained on, what their license allows, the license of the
weights, and what was measured.*
"""


class Section(NamedTuple):
    r"""What a card says of one object.

    Args:
        name: Its class.
        usage: Lines of Python that read it.
        files: Files of its arguments and its tensors.
        settings: The arguments.
        size: How many numbers the tensors have.
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
        lines += [f'{self.size:,} numbers in `{weights}`. `{config}`:', '']
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
    r"""A card with a section of an object.

    Args:
        title: Name of the folder or repository.
        section: The section, which takes the place of a former one of the same
            file.
        before: The card that is there; everything else in it stays.
        metadata: Entries of its head, which is YAML; other ones stay.
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
    r"""The head of a card. A license is not chosen for anybody."""
    content = {'library_name': 'motor_geo', 'tags': list(TAGS), **metadata}
    lines = ['---', yaml.safe_dump(content, sort_keys=False, allow_unicode=True).rstrip()]
    return '\n'.join([*lines, *([] if 'license' in metadata else [NO_LICENSE]), '---', ''])


def _with_metadata(text: str, metadata: Mapping[str, Any]) -> str:
    r"""A card with other entries of its head; the other ones stay."""
    found = re.match(r'---\n(.*?)\n?---\n', text, re.DOTALL)
    if found is None:
        return head(metadata) + '\n' + text
    known = yaml.safe_load(found[1])
    return head({**(known if isinstance(known, dict) else {}), **metadata}) + text[found.end() :]
