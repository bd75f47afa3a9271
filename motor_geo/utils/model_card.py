r"""Writes model cards for the Hugging Face Hub."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import yaml

TAGS = ('recommendation', 'multimodal', 'graph-neural-networks')
NO_LICENSE = '# license: add the license of the weights; check that the training data permits it'
INTRODUCTION = """\
# {title}

Saved with `motor_geo`, a library of ID-free multimodal recommendation on graphs
([paper](https://arxiv.org/abs/2410.19276)).

## Intended use

The tokenizer maps features of items to tokens, and the encoder maps tokens to item vectors. Vectors
of new items come from their features alone. The vectors are part of a recommender: compare them
with user vectors of the same model, or start another one from them.

## Limits

- The features of new items must come from the encoders, versions and preprocessing of the training
  features. Other features of the same width give meaningless tokens, and no error.
- Items that share all their tokens have the same vector.
- Vectors reflect the items and the interactions of the training data, popularity included. Results
  on other data, groups of users or periods of time can differ.
- Offline metrics count hidden interactions of the past. They do not measure the effect of showing
  an item.
- Codebooks and weights are computed from the training data, and can reveal properties of them.

## Data and license

*To be written: the source and the license of the training data, and the license of the weights.*
"""


class Section(NamedTuple):
    r"""The section of a card on one object.

    Args:
        name: Name of its class.
        usage: Python code that loads it.
        files: Names of the files of its arguments and of its tensors.
        settings: The arguments.
        size: Number of values in the tensors.
        versions: Versions of the packages that saved it, by name.
    """

    name: str
    usage: str
    files: tuple[str, str]
    settings: Mapping[str, Any]
    size: int
    versions: Mapping[str, str] = {}

    def __str__(self) -> str:
        config, weights = self.files
        rows = [[f'`{key}`', f'`{json.dumps(value)}`'] for key, value in self.settings.items()]
        lines = [self.begin, f'## {self.name}', '', '```python', self.usage, '```', '']
        lines += [f'Saved with {_joined(self.versions)}.', ''] if self.versions else []
        lines += [f'`{weights}` contains {self.size:,} values. Arguments in `{config}`:', '']
        return '\n'.join([*lines, *_table(['argument', 'value'], rows), self.end])

    @property
    def begin(self) -> str:
        return f'<!-- motor_geo {self.files[1]} -->'

    @property
    def end(self) -> str:
        return f'<!-- end of {self.files[1]} -->'


class Training(NamedTuple):
    r"""The section of a card on the run that trained an object.

    Args:
        data: Name, sizes and split of the data, by caption.
        settings: Settings of the run, by caption.
        metrics: Metrics by their caption, such as :obj:`'test'`, and name.
        versions: Versions of the packages that trained it, by name.
    """

    data: Mapping[str, str]
    settings: Mapping[str, str]
    metrics: Mapping[str, Mapping[str, float]]
    versions: Mapping[str, str]

    def __str__(self) -> str:
        lines = [self.begin, '## Training and evaluation', '']
        lines += [*_table(['data', ''], self.data.items()), '']
        lines += [*_table(['run', ''], self.settings.items()), '']
        found = {caption: values for caption, values in self.metrics.items() if values}
        names = dict.fromkeys(name for values in found.values() for name in values)
        rows = [
            [name, *(f'{values[name]:.4f}' if name in values else '' for values in found.values())]
            for name in names
        ]
        lines += [*_table(['metric', *found], rows), ''] if rows else ['Not evaluated.', '']
        return '\n'.join([*lines, f'Trained with {_joined(self.versions)}.', self.end])

    @property
    def begin(self) -> str:
        return '<!-- motor_geo run -->'

    @property
    def end(self) -> str:
        return '<!-- end of run -->'


def _joined(versions: Mapping[str, str]) -> str:
    return ', '.join(f'{name} {version}' for name, version in versions.items())


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    r"""Returns the lines of a table."""
    cells = [[' '.join(cell.split()).replace('|', '\\|') for cell in row] for row in rows]
    rule = '|' + '---|' * len(columns)
    return [f'| {" | ".join(columns)} |', rule, *(f'| {" | ".join(row)} |' for row in cells)]


def model_card(
    title: str,
    section: Section | Training,
    before: str | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> str:
    r"""Returns a card with the section of an object or a run. A new card also
    describes the intended use and the limits, and leaves the license open.

    Args:
        title: Name of the folder or repository.
        section: The section. It replaces an existing section on the same file
            or on a run.
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
