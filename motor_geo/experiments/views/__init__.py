r"""The views of experiments, which build reports from results."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from motor_geo.experiments.results import Results
from motor_geo.experiments.views.comparison import cold, comparison, counts, validation
from motor_geo.experiments.views.curves import epochs, heat, lines, shares, sizes
from motor_geo.experiments.views.datasets import neighbors, statistics, tokens
from motor_geo.experiments.views.groups import buckets
from motor_geo.experiments.views.labels import labels
from motor_geo.experiments.views.stopping import stopping
from motor_geo.experiments.views.tokenizers import quantizers
from motor_geo.report.document import Block, Figure, Text

VIEWS: dict[str, Callable[[Results], Iterator[Block]]] = {
    'comparison': comparison,
    'buckets': buckets,
    'counts': counts,
    'lines': lines,
    'shares': shares,
    'sizes': sizes,
    'epochs': epochs,
    'cold': cold,
    'heat': heat,
    'statistics': statistics,
    'neighbors': neighbors,
    'labels': labels,
    'tokens': tokens,
    'quantizers': quantizers,
}


def blocks(results: Results, prefix: str = '') -> list[Block]:
    r"""Builds the tables, figures and texts of a report.

    Args:
        results: The results of an experiment.
        prefix: Prefix of the names of figures. (default: :obj:`''`)
    """
    out: list[Block] = []
    names: set[str] = set()
    found = [*VIEWS[results.experiment.view](results), *validation(results)]
    if results.experiment.view == 'comparison':
        found += stopping(results)
    for block in found:
        if not isinstance(block, Text):
            name = f'{prefix}{block.name}' if isinstance(block, Figure) else block.name
            block = block._replace(name=_file_name(name, names))
            names.add(block.name)
        out.append(block)
    return out


def _file_name(name: str, taken: set[str]) -> str:
    r"""Returns a unique name that is valid for files. Names of data sets and
    backbones may contain any character.
    """
    name = re.sub('[^A-Za-z0-9_-]+', '-', name)
    numbered = (f'{name}-{i}' for i in range(2, len(taken) + 2))
    return name if name not in taken else next(new for new in numbered if new not in taken)
