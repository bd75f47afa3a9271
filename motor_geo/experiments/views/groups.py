r"""Metrics by groups of items."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from motor_geo.experiments.metrics import spelled, stem
from motor_geo.experiments.results import Label, Results, numbers, of_group, summary
from motor_geo.report.document import Block, Column, Figure, Row, Series, Table, Value

#: Bounds of the groups of items, in training interactions.
BUCKETS = (5, 10, 20, 50)


def buckets(results: Results) -> Iterator[Block]:
    r"""Shows the sizes of groups of items by their number of training
    interactions, and the metrics of each group with IDs and with tokens.
    """
    printed = numbers()['motor']['table3']
    for data in results.options.data:
        found = {
            label: groups
            for label, own in results.of(data).items()
            if (groups := results.groups(own, BUCKETS))
        }
        if not found:
            continue
        names = list(next(iter(found.values()))[0])
        first = next(iter(found.values()))[0]
        total = sum(first[name]['items'] for name in names)
        rows = [
            Row(
                [name],
                [
                    Value(first[name]['items']),
                    Value(100 * first[name]['items'] / total),
                    Value(first[name]['interactions']),
                    Value(size),
                    Value(share),
                ],
            )
            for name, size, share in zip(names, printed['items'], printed['percentage'])
        ]
        columns = [
            Column('items', 'count'),
            Column('share of items, %', 'number'),
            Column('held-out interactions', 'count'),
            Column(f'items, {printed["dataset"]} of the paper', 'count'),
            Column('their share, %', 'number'),
        ]
        title = f'Items by training interactions: {data}'
        yield Table(f'table3-{data}', title, ['training interactions'], columns, rows, [])
        for metric in results.metrics.of_groups:
            rows = []
            for label, groups in found.items():
                own = results.variants[label]
                cells = [summary(of_group(groups, name, metric), own) for name in names]
                rows.append(Row(list(label[1:]), list(cells)))
            columns = [Column(name, 'metric') for name in names]
            yield Table(
                f'figure3-{data}-{stem(metric)}',
                f'{spelled(metric)} by training interactions of the held-out item: {data}',
                list(results.experiment.head[1:]),
                columns,
                rows,
                ['The lists are the same for all groups; only held-out items of the group count.'],
            )
            for model in dict.fromkeys(label[1] for label in found):
                series = [
                    _series(label[2], range(len(names)), groups, names, metric, results, label)
                    for label, groups in found.items()
                    if label[1] == model
                ]
                both = len(series) > 1
                yield Figure(
                    f'figure3-{data}-{model}-{stem(metric)}',
                    f'{spelled(metric)} of {model}: {data}',
                    'line',
                    'training interactions of the item',
                    spelled(metric),
                    series,
                    categories=names,
                    fill=('id', 'specific') if both else None,
                    panels=f'{data}-{metric}',
                )


def _series(
    title: str,
    x: Sequence[float],
    groups: Sequence[Mapping[str, Any]],
    names: Sequence[str],
    metric: str,
    results: Results,
    label: Label,
) -> Series:
    values = [summary(of_group(groups, name, metric), results.variants[label]) for name in names]
    runs = tuple(job.name for job in results.variants[label].jobs)
    return Series(title, list(x), [v.mean for v in values], [v.std for v in values], runs)
