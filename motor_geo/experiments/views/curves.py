r"""Curves of metrics over a varying quantity."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from motor_geo.experiments.metrics import spelled, stem
from motor_geo.experiments.results import Label, Results, of_group, summary
from motor_geo.experiments.views.comparison import tests
from motor_geo.report.document import Block, Column, Figure, Row, Series, Table, Text, Value

#: Groups of items by their number of training interactions.
GROUPS = ('tail', 'middle', 'head')
#: Values of a metric over seeds, by label.
Values = Mapping[Label, Sequence[float]]


def lines(results: Results, logx: bool = False) -> Iterator[Block]:
    r"""Plots metrics over the last label, which is a number."""
    for data in results.options.data:
        variants = results.of(data)
        names = list(dict.fromkeys(label[1:-1] for label in variants))
        levels = list(dict.fromkeys(label[-1] for label in variants))
        models = list(dict.fromkeys(model for model, *_ in names))
        if not variants:
            continue
        for metric in results.metrics.tested:
            rows, series = [], {}
            for own in names:
                cells: list[Value] = []
                for level in levels:
                    label = (data, *own, level)
                    known = label in variants
                    cells.append(results.value(label, metric) if known else Value(None))
                rows.append(Row(list(own), list(cells)))
                y, std = [cell.mean for cell in cells], [cell.std for cell in cells]
                runs = tuple(run for cell in cells for run in cell.runs)
                x = [float(level) for level in levels]
                series[own] = Series(own[-1], x, y, std, runs)
            name = f'{results.experiment.name}-{data}-{stem(metric)}'
            yield Table(
                name,
                f'{spelled(metric)} by {results.experiment.head[-1]}: {data}',
                list(results.experiment.head[1:-1]),
                [Column(level, 'metric') for level in levels],
                rows,
                [],
            )
            for model in models:
                found = {own[-1]: line for own, line in series.items() if own[0] == model}
                several = model if len(models) > 1 else ''
                on = f'{several}, {data}' if several else data
                for family, members in families(list(found)).items():
                    yield Figure(
                        f'{name}{_suffix(several)}{_suffix(family)}-plot',
                        f'{spelled(metric)}{_of(family)}: {on}',
                        'line',
                        results.experiment.head[-1],
                        spelled(metric),
                        [found[member] for member in members],
                        logx=logx,
                        panels=f'{name}{_suffix(several)}',
                    )


def sizes(results: Results) -> Iterator[Block]:
    r"""Plots metrics over the last label on a log scale, with tests against the
    reference.
    """
    yield from lines(results, logx=True)
    yield from tests(results)


def families(names: Sequence[str]) -> dict[str, list[str]]:
    r"""Groups names into figures. The first figure has the names without
    variations. Then each family of variations (:obj:`"name, what differs"`) has
    a figure, together with IDs and the name that it varies.
    """
    out = {'': [name for name in names if ', ' not in name]}
    for name in names:
        family, _, variation = name.partition(', ')
        if variation:
            known = [other for other in ('id', family) if other in names]
            out.setdefault(family, known).append(name)
    return out


def _suffix(family: str) -> str:
    return f'-{family}' if family else ''


def _of(family: str) -> str:
    return f' of variations of {family}' if family else ''


def shares(results: Results) -> Iterator[Block]:
    r"""Plots metrics over the share of training interactions, and shows where the
    curves of tokens and of IDs cross, for all items and by popularity.
    """
    yield from lines(results, logx=True)
    for data in results.options.data:
        variants = results.of(data)
        forms = list(dict.fromkeys(label[2] for label in variants))
        main, of_groups = results.metrics.main, results.metrics.of_groups[0]
        values = {'': {label: out.values('test', main) for label, out in variants.items()}}
        groups = {label: results.groups(own) for label, own in variants.items()}
        for name in GROUPS:
            values[name] = {
                label: of_group(found, name, of_groups) for label, found in groups.items()
            }
        if not any(len(gains(values[''], form)) > 1 for form in forms if form != 'id'):
            continue
        yield _crossings(results, data, forms, values)
        yield _evaluated(results, data)

        runs = {
            form: [job.name for key, out in variants.items() if key[2] == form for job in out.jobs]
            for form in forms
        }
        for family, members in families(forms).items():
            series = []
            for form in members:
                points = gains(values[''], form)
                above = [100 * gain for _, gain in points]
                x = [share for share, _ in points]
                series.append(Series(form, x, above, None, runs[form]))
            title = f'Gain over IDs{_of(family)}: {data}'
            yield _figure(results, data, family, 'gain', title, series)
            for name in GROUPS:
                series = []
                for form in members:
                    found = {key: out for key, out in variants.items() if key[2] == form}
                    cells = [summary(values[name][key], out) for key, out in found.items()]
                    x = [float(key[-1]) for key in found]
                    y, std = [cell.mean for cell in cells], [cell.std for cell in cells]
                    series.append(Series(form, x, y, std, runs[form]))
                title = f'{name.capitalize()} items of {data}{_of(family)}'
                yield _figure(results, data, family, name, title, series)


def _figure(
    results: Results, data: str, family: str, name: str, title: str, series: list[Series]
) -> Figure:
    main, groups = results.metrics.main, results.metrics.of_groups[0]
    return Figure(
        f'{results.experiment.name}-{data}-{name}{_suffix(family)}-plot',
        title,
        'line',
        results.experiment.head[-1],
        f'gain in {spelled(main)} over IDs, %' if name == 'gain' else spelled(groups),
        series,
        logx=True,
        panels=f'{results.experiment.name}-groups-{data}{_suffix(family)}',
    )


def _crossings(
    results: Results, data: str, forms: Sequence[str], values: Mapping[str, Values]
) -> Table:
    levels = sorted({float(label[-1]) for label in values['']}, reverse=True)
    rows = []
    for form in forms:
        if form == 'id':
            continue
        known = dict(gains(values[''], form))
        cells: list[Value | str] = [Value(known.get(level)) for level in levels]
        cells += [ahead(gains(of, form)) for of in values.values()]
        rows.append(Row([form], cells))
    columns = [Column(f'gain at {100 * level:g} %', 'percent') for level in levels]
    columns += [Column(f'ahead {name}'.rstrip(), 'text') for name in ('', *GROUPS)]
    return Table(
        f'{results.experiment.name}-{data}-crossings',
        f'Gain in {spelled(results.metrics.main)} over IDs, and the shares of training '
        f'interactions with a gain: {data}',
        ['items'],
        columns,
        rows,
        ['Between measured shares, the gain is interpolated linearly on a log scale.'],
    )


def _evaluated(results: Results, data: str) -> Text:
    users = {
        float(label[-1]): own.arrays()[0]['user'].size
        for label, own in results.of(data).items()
        if own.jobs
    }
    counts = ', '.join(f'{users[share]:,} at {100 * share:g} %' for share in sorted(users))
    body = (
        f'Users with a training and a held-out interaction: {counts}. Items are grouped by their '
        'remaining training interactions: among the items that have any, tail items have at most '
        'the median number, and head items have more than the 80th percentile.'
    )
    return Text(f'Evaluated users: {data}', body)


def gains(values: Values, form: str) -> list[tuple[float, float]]:
    r"""Returns the shares of training interactions, and the gain over IDs at
    each share.

    Args:
        values: A metric over seeds, by data, backbone, items and share.
        form: The item representation.
    """
    points = []
    for label, own in values.items():
        other = values.get((*label[:2], 'id', *label[3:]))
        if label[2] == form and own and other and np.mean(other) > 0:
            points.append((float(label[-1]), float(np.mean(own)) / float(np.mean(other)) - 1))
    return sorted(points)


def ahead(points: Sequence[tuple[float, float]]) -> str:
    r"""Describes the shares with a positive gain in words."""
    if len(points) < 2:
        return '–'
    cross = [f'{100 * _zero(a, b):.0f}' for a, b in zip(points, points[1:]) if a[1] * b[1] < 0]
    first = points[0][1] > 0
    if not cross:
        return 'everywhere' if first else 'nowhere'
    spans = [f'below {cross.pop(0)} %'] if first else []
    while len(cross) > 1:
        spans.append(f'{cross.pop(0)} to {cross.pop(0)} %')
    return ', '.join([*spans, *(f'above {at} %' for at in cross)])


def _zero(a: tuple[float, float], b: tuple[float, float]) -> float:
    r"""Returns the zero of a line through two points, with shares on a log scale."""
    part = a[1] / (a[1] - b[1])
    return math.exp((1 - part) * math.log(a[0]) + part * math.log(b[0]))


def epochs(results: Results) -> Iterator[Block]:
    r"""Plots the main metric on validation over epochs."""
    metric = results.metrics.main
    shown = f'{spelled(metric)} on validation'
    for data in results.options.data:
        series = []
        for label, own in results.of(data).items():
            curves = own.epochs(metric)
            if not curves:
                continue
            length = min(len(curve) for curve in curves)
            values = np.array([curve[:length] for curve in curves])
            std = values.std(axis=0, ddof=1).tolist() if len(curves) > 1 else None
            name = label[1] if label[2] == 'id' else f'{label[1]} ({label[2]})'
            runs = tuple(job.name for job in own.jobs)
            x = [float(epoch + 1) for epoch in range(length)]
            series.append(Series(name, x, values.mean(axis=0).tolist(), std, runs))
        if series:
            name = f'{results.experiment.name}-{data}'
            title = f'{shown} by epoch: {data}'
            yield Figure(f'{name}-plot', title, 'line', 'epoch', shown, series)
            rows = [
                Row([s.label], [Value(s.y[i - 1]) if i <= len(s.y) else Value(None) for i in marks])
                for s in series
                for marks in [(1, 5, 10, 20, 40, 60)]
            ]
            columns = [Column(f'epoch {i}', 'metric') for i in (1, 5, 10, 20, 40, 60)]
            yield Table(name, f'{shown}: {data}', ['backbone'], columns, rows, [])


def heat(results: Results) -> Iterator[Block]:
    r"""Shows the main metric over two options as a heat map."""
    metric = results.metrics.main
    for data in results.options.data:
        variants = results.of(data)
        _, first, second = results.experiment.head
        rows = list(dict.fromkeys(label[1] for label in variants))
        columns = list(dict.fromkeys(label[2] for label in variants))
        series, table = [], []
        for row in rows:
            values = [results.value((data, row, column), metric) for column in columns]
            runs = tuple(run for value in values for run in value.runs)
            y = [value.mean for value in values]
            series.append(Series(f'{first} {row}', [], y, None, runs))
            table.append(Row([row], list(values)))
        name = f'{results.experiment.name}-{data}'
        if not table:
            continue
        heads = [Column(column, 'metric') for column in columns]
        title = f'{spelled(metric)} by {first} (rows) and {second} (columns): {data}'
        yield Table(name, title, [first], heads, table, [])
        title = f'{spelled(metric)}: {data}'
        yield Figure(
            f'{name}-plot', title, 'heat', second, spelled(metric), series, categories=columns
        )
