r"""The view of tokenizers: their metrics, and statistics of their tokens."""

from __future__ import annotations

from collections.abc import Iterator

from motor_geo.experiments.results import Results
from motor_geo.experiments.search import override
from motor_geo.experiments.views.comparison import comparison
from motor_geo.pipeline.config import resolve
from motor_geo.pipeline.tokens import measure
from motor_geo.report.document import Block, Column, Row, Table, Value


def quantizers(results: Results) -> Iterator[Block]:
    r"""Shows the metrics, and a table with statistics of the tokens."""
    yield from comparison(results)
    for data in results.options.data:
        rows = [Row([name, *label], cells) for name, label, cells in _rows(results, data)]
        if rows:
            yield Table(
                f'{results.experiment.name}-{data}-tokens',
                f'Tokens of the first seed: {data}',
                ['quantizer', 'modality'],
                [
                    Column('used', 'number'),
                    Column('perplexity', 'number'),
                    Column('collisions', 'count'),
                    Column('duplicates', 'count'),
                    Column('error', 'number'),
                    Column('neighbors', 'number'),
                ],
                rows,
                [
                    'used: codes that occur; perplexity: effective number of codes (both are means '
                    'over slots); collisions: items that share all tokens with another item; '
                    'duplicates: items that share their features with another item; error: share '
                    'of the variance that the tokens lose; neighbors: share of the ten nearest '
                    'neighbors that the tokens preserve.'
                ],
            )


def _rows(results: Results, data: str) -> Iterator[tuple[str, list[str], list[Value | str]]]:
    r"""Yields the statistics of the tokens of each quantizer once, regardless of
    the item encoder.
    """
    seen: set[str] = set()
    for label, own in results.of(data).items():
        name = label[-1]
        if name in seen or not own.jobs:
            continue
        seen.add(name)
        config = resolve(override({}, {**own.jobs[0].options, 'trainer.progress': False}))
        report = measure(config)
        for modality, row in report['modalities'].items():
            means = [sum(row[key]) / len(row[key]) for key in ('used', 'perplexity')]
            others = [float(row[key]) for key in ('collisions', 'duplicates', 'error', 'neighbors')]
            yield name, [modality], [Value(value) for value in (*means, *others)]
        count = float(report['collisions'])
        yield name, ['all'], [*[Value(None)] * 2, Value(count), *[Value(None)] * 3]
