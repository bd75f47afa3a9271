r"""How the report of an experiment shows what came of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from motor_geo.catalogue import neighbors, statistics, tokens
from motor_geo.experiments import BUCKETS, Experiment, Setup, in_words
from motor_geo.jobs import Outcome
from motor_geo.report import Block, Column, Figure, Row, Series, Table, Text, Value
from motor_geo.scene import MAIN, METRICS, Label, Scene, numbers, summary


def comparison(scene: Scene) -> Iterator[Block]:
    r"""A table for every data set, with tests against the reference."""
    reference = scene.experiment.reference
    for data in scene.setup.data:
        columns = [Column(_title(metric), 'metric') for metric in METRICS]
        if reference is not None:
            columns.append(Column(f'gain in Recall@20 over {reference[1]}', 'percent'))
        columns += [
            Column('best epoch', 'number'),
            Column('seconds per epoch', 'seconds'),
            Column('parameters', 'count'),
            Column('setting', 'text'),
        ]
        rows = []
        for label, outcome in scene.of(data).items():
            cells: list[Value | str] = [scene.value(label, metric) for metric in METRICS]
            if reference is not None:
                cells.append(scene.gain(label))
            for key in ('best_epoch', 'seconds_per_epoch', 'num_parameters'):
                cells.append(Value(summary(outcome.values(key), outcome).mean))
            cells.append('–' if outcome.setting is None else in_words(outcome.setting))
            rows.append(Row(list(label[1:]), cells))
        notes = []
        if reference is not None:
            notes.append(
                f'Compared with {reference[1]} per user (mean over seeds) by the Wilcoxon '
                'signed-rank test, corrected for all comparisons of this report (Benjamini and '
                'Hochberg).'
            )
        yield Table(
            f'{scene.experiment.name}-{data}',
            f'{scene.experiment.title}: {data}',
            list(scene.experiment.head[1:]),
            columns,
            rows,
            notes,
        )
    yield from improvements(scene)
    yield from tests(scene)


def _title(metric: str) -> str:
    name, _, k = metric.partition('@')
    return f'{ {"recall": "Recall", "ndcg": "NDCG"}.get(name, name) }@{k}'


def improvements(scene: Scene) -> Iterator[Block]:
    r"""Gains in Recall@20 here and in the paper."""
    if scene.experiment.paper != 'motor' or scene.experiment.reference is None:
        return
    key = 'table4' if scene.experiment.name == 'table4' else 'table2'
    table = numbers()['motor'][key]
    position = table['columns'].index(MAIN)
    pairs = list(dict.fromkeys(label[1:] for label in scene.outcomes if scene.reference(label)))
    rows, published = [], []
    for model, form in pairs:
        cells: list[Value | str] = []
        for data in scene.setup.data:
            label = (data, model, form)
            cells.append(scene.gain(label) if label in scene.outcomes else Value(None))
        for name in table['results']:
            entry = table['results'][name].get(model, {})
            ok = isinstance(entry, dict) and entry.get(form) and entry.get('id')
            gain = entry[form][position] / entry['id'][position] - 1 if ok else None
            published.append(gain)
            cells.append(Value(gain))
        rows.append(Row([model, form], cells))
    if all(gain is None for gain in published):
        return  # The paper has other contenders.
    columns = [Column(data, 'percent') for data in scene.setup.data]
    columns += [Column(f'{name}, published', 'percent') for name in table['results']]
    yield Table(
        f'{scene.experiment.name}-gain',
        'Gain in Recall@20 over IDs, measured and published',
        list(scene.experiment.head[1:]),
        columns,
        rows,
        ['The published columns are of other data.'],
    )


def tests(scene: Scene) -> Iterator[Block]:
    r"""What the tests per user say."""
    rows = []
    for (label, metric), test in scene.tests.items():
        if metric == MAIN:
            cells: list[Value | str] = [
                Value(test.difference),
                *(f'{p:.2g}' for p in (test.corrected_wilcoxon, test.corrected_t)),
                str(test.n),
            ]
            rows.append(Row(list(label), cells))
    if rows:
        columns = [Column('difference', 'number'), Column('p, Wilcoxon', 'text')]
        columns += [Column('p, paired t', 'text'), Column('users', 'text')]
        yield Table(
            f'{scene.experiment.name}-tests',
            'Differences in Recall@20 per user',
            list(scene.experiment.head),
            columns,
            rows,
            ['Values of p are corrected for all comparisons of this report.'],
        )


def buckets(scene: Scene) -> Iterator[Block]:
    r"""Groups of items by training count: their number, and Recall@20 and
    NDCG@20 of each with IDs and with tokens.
    """
    printed = numbers()['motor']['table3']
    for data in scene.setup.data:
        found = {
            label: groups
            for label, outcome in scene.of(data).items()
            if (groups := scene.groups(outcome, BUCKETS))
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
        for metric in (MAIN, 'ndcg@20'):
            rows = []
            for label, groups in found.items():
                outcome = scene.outcomes[label]
                cells = [summary(_group(groups, name, metric), outcome) for name in names]
                rows.append(Row(list(label[1:]), list(cells)))
            columns = [Column(name, 'metric') for name in names]
            yield Table(
                f'figure3-{data}-{metric[:-3]}',
                f'{_title(metric)} by training interactions of the held-out item: {data}',
                list(scene.experiment.head[1:]),
                columns,
                rows,
                ['The lists stay as they are; only held-out items of a group count.'],
            )
            for model in dict.fromkeys(label[1] for label in found):
                series = [
                    _series(label[2], range(len(names)), groups, names, metric, scene, label)
                    for label, groups in found.items()
                    if label[1] == model
                ]
                both = len(series) > 1
                yield Figure(
                    f'figure3-{data}-{model}-{metric[:-3]}',
                    f'{_title(metric)} of {model}: {data}',
                    'line',
                    'training interactions of the item',
                    _title(metric),
                    series,
                    categories=names,
                    fill=('id', 'specific') if both else None,
                    panels=f'{data}-{metric}',
                )


def _group(groups: Sequence[Mapping[str, Any]], name: str, metric: str) -> list[float]:
    return [entry[name][metric] for entry in groups if metric in entry.get(name, {})]


def _series(
    title: str,
    x: Sequence[float],
    groups: Sequence[Mapping[str, Any]],
    names: Sequence[str],
    metric: str,
    scene: Scene,
    label: Label,
) -> Series:
    values = [summary(_group(groups, name, metric), scene.outcomes[label]) for name in names]
    runs = tuple(job.name for job in scene.outcomes[label].jobs)
    return Series(title, list(x), [v.mean for v in values], [v.std for v in values], runs)


def counts(scene: Scene) -> Iterator[Block]:
    r"""Parameters and Recall@20 by the number of tokens."""
    yield from comparison(scene)
    for data in scene.setup.data:
        outcomes = scene.of(data)
        models = list(dict.fromkeys(label[1] for label in outcomes))
        forms = list(dict.fromkeys(label[2] for label in outcomes))
        for title, kind, path, scale in (
            ('trainable parameters, million', 'bar', ('num_parameters',), 1e-6),
            ('Recall@20', 'line', ('test', MAIN), 1.0),
        ):
            series = []
            for model in models:
                found = [outcomes[data, model, form] for form in forms]
                values = [summary([scale * v for v in out.values(*path)], out) for out in found]
                runs = tuple(job.name for out in found for job in out.jobs)
                y, std = [v.mean for v in values], [v.std for v in values]
                series.append(Series(model, list(range(len(forms))), y, std, runs))
            name = f'figure4-{data}-{path[-1].split("@")[0]}-plot'
            label = 'tokens per modality'
            yield Figure(
                name,
                f'{title[0].upper()}{title[1:]}: {data}',
                kind,
                label,
                title,
                series,
                categories=forms,
                panels=f'figure4-{data}',
            )


def lines(scene: Scene, logx: bool = False) -> Iterator[Block]:
    r"""Recall@20 against the last label, a number."""
    for data in scene.setup.data:
        outcomes = scene.of(data)
        names = list(dict.fromkeys(label[1:-1] for label in outcomes))
        levels = list(dict.fromkeys(label[-1] for label in outcomes))
        if not outcomes:
            continue
        for metric in (MAIN, 'ndcg@20'):
            rows, series = [], []
            for name in names:
                cells: list[Value] = []
                for level in levels:
                    label = (data, *name, level)
                    known = label in outcomes
                    cells.append(scene.value(label, metric) if known else Value(None))
                rows.append(Row(list(name), list(cells)))
                y, std = [cell.mean for cell in cells], [cell.std for cell in cells]
                runs = tuple(run for cell in cells for run in cell.runs)
                x = [float(level) for level in levels]
                series.append(Series(name[-1], x, y, std, runs))
            yield Table(
                f'{scene.experiment.name}-{data}-{metric[:-3]}',
                f'{_title(metric)} by {scene.experiment.head[-1]}: {data}',
                list(scene.experiment.head[1:-1]),
                [Column(level, 'metric') for level in levels],
                rows,
                [],
            )
            yield Figure(
                f'{scene.experiment.name}-{data}-{metric[:-3]}-plot',
                f'{_title(metric)}: {data}',
                'line',
                scene.experiment.head[-1],
                _title(metric),
                series,
                logx=logx,
                panels=f'{scene.experiment.name}-{data}',
            )


def shares(scene: Scene) -> Iterator[Block]:
    r"""Metrics against the share of training interactions, and where the
    lines of tokens and of IDs cross.
    """
    yield from lines(scene, logx=True)
    for data in scene.setup.data:
        outcomes = scene.of(data)
        forms = list(dict.fromkeys(label[2] for label in outcomes))
        facts = [crossing(scene, data, form) for form in forms if form != 'id']
        if any(facts):
            body = '\n'.join(f'- {fact}' for fact in [*facts, evaluated(scene, data)] if fact)
            yield Text(f'Where the lines cross: {data}', body)
            series = []
            for form in forms:
                points = gains(scene, data, form)
                names = [
                    j.name for key, out in outcomes.items() if key[2] == form for j in out.jobs
                ]
                above = [100 * gain for _, gain in points]
                series.append(Series(form, [share for share, _ in points], above, None, names))
            yield Figure(
                f'sparsity-{data}-gain-plot',
                f'Gain over IDs: {data}',
                'line',
                scene.experiment.head[-1],
                'gain in Recall@20 over IDs, %',
                series,
                logx=True,
                panels=f'sparsity-groups-{data}',
            )
        for group in ('tail', 'middle', 'head'):
            series = []
            for form in forms:
                x, y, std, runs = [], [], [], []
                for label, outcome in outcomes.items():
                    if label[2] == form:
                        found = summary(_group(scene.groups(outcome), group, MAIN), outcome)
                        x.append(float(label[-1]))
                        y.append(found.mean)
                        std.append(found.std)
                        runs += list(found.runs)
                series.append(Series(form, x, y, std, tuple(runs)))
            yield Figure(
                f'sparsity-{data}-{group}',
                f'{group.capitalize()} items of {data}',
                'line',
                scene.experiment.head[-1],
                'Recall@20',
                series,
                logx=True,
                panels=f'sparsity-groups-{data}',
            )


def gains(scene: Scene, data: str, form: str) -> list[tuple[float, float]]:
    r"""Shares of training interactions, and the gain over IDs at each."""
    points = []
    for label, outcome in scene.of(data).items():
        base = (*label[:2], 'id', *label[3:])
        if label[2] == form and base in scene.outcomes:
            own, other = outcome.values('test', MAIN), scene.outcomes[base].values('test', MAIN)
            if own and other:
                gain = float(np.mean(own)) / float(np.mean(other)) - 1
                points.append((float(label[-1]), gain))
    return sorted(points)


def crossing(scene: Scene, data: str, form: str) -> str:
    r"""Between which shares a contender and IDs change places."""
    points = gains(scene, data, form)
    if len(points) < 2:
        return ''
    spelled = ', '.join(f'{100 * gain:+.0f} % at {100 * share:g} %' for share, gain in points)
    cross = [f'{100 * _zero(a, b):.0f} %' for a, b in zip(points, points[1:]) if a[1] * b[1] < 0]
    where = f'crosses IDs near {", ".join(cross)}' if cross else 'does not cross IDs'
    return f'{form} {where} (gain over IDs {spelled} of the training interactions).'


def evaluated(scene: Scene, data: str) -> str:
    r"""How many users are evaluated: thinning leaves some without training."""
    users = {
        float(label[-1]): outcome.arrays()[0]['user'].size
        for label, outcome in scene.of(data).items()
        if outcome.jobs
    }
    counts = ', '.join(f'{users[share]:,} at {100 * share:g} %' for share in sorted(users))
    return f'Users with a training and a held-out interaction: {counts}.'


def _zero(a: tuple[float, float], b: tuple[float, float]) -> float:
    r"""Where a line through two points is zero, shares on a log scale."""
    part = a[1] / (a[1] - b[1])
    return math.exp((1 - part) * math.log(a[0]) + part * math.log(b[0]))


def epochs(scene: Scene) -> Iterator[Block]:
    r"""Recall@20 on validation against epochs."""
    for data in scene.setup.data:
        series = []
        for label, outcome in scene.of(data).items():
            curves = outcome.epochs()
            if not curves:
                continue
            length = min(len(curve) for curve in curves)
            values = np.array([curve[:length] for curve in curves])
            std = values.std(axis=0, ddof=1).tolist() if len(curves) > 1 else None
            name = label[1] if label[2] == 'id' else f'{label[1]} ({label[2]})'
            runs = tuple(job.name for job in outcome.jobs)
            x = [float(epoch + 1) for epoch in range(length)]
            series.append(Series(name, x, values.mean(axis=0).tolist(), std, runs))
        if series:
            name = f'{scene.experiment.name}-{data}'
            title = f'Recall@20 on validation by epoch: {data}'
            yield Figure(f'{name}-plot', title, 'line', 'epoch', 'Recall@20 on validation', series)
            rows = [
                Row([s.label], [Value(s.y[i - 1]) if i <= len(s.y) else Value(None) for i in marks])
                for s in series
                for marks in [(1, 5, 10, 20, 40, 60)]
            ]
            columns = [Column(f'epoch {i}', 'metric') for i in (1, 5, 10, 20, 40, 60)]
            yield Table(name, f'Recall@20 on validation: {data}', ['backbone'], columns, rows, [])


def cold(scene: Scene) -> Iterator[Block]:
    r"""Ranking of items that were not there in training, among themselves."""
    yield from comparison(scene)
    for data in scene.setup.data:
        outcomes = {label: out for label, out in scene.of(data).items() if out.jobs}
        if not outcomes:
            continue
        names = [f'{label[1]}, {label[2]}' for label in outcomes]
        targets = scene.dataset(next(iter(outcomes.values()))).targets('test')
        assert targets.candidates is not None
        chance = min(1.0, 20 / targets.candidates.numel())
        values = [scene.value(label, MAIN) for label in outcomes]
        runs = tuple(run for value in values for run in value.runs)
        y, std = [value.mean for value in values], [value.std for value in values]
        series = [Series('Recall@20', list(range(len(names))), y, std, runs)]
        series.append(Series('random order', list(range(len(names))), [chance] * len(names), None))
        yield Figure(
            f'{scene.experiment.name}-{data}-plot',
            f'{targets.candidates.numel()} unseen items of {data}',
            'bar',
            'backbone and items',
            'Recall@20',
            series,
            categories=names,
        )


def heat(scene: Scene) -> Iterator[Block]:
    r"""Recall@20 against two options."""
    for data in scene.setup.data:
        outcomes = scene.of(data)
        _, first, second = scene.experiment.head
        rows = list(dict.fromkeys(label[1] for label in outcomes))
        columns = list(dict.fromkeys(label[2] for label in outcomes))
        series, table = [], []
        for row in rows:
            values = [scene.value((data, row, column), MAIN) for column in columns]
            runs = tuple(run for value in values for run in value.runs)
            y = [value.mean for value in values]
            series.append(Series(f'{first} {row}', [], y, None, runs))
            table.append(Row([row], list(values)))
        name = f'{scene.experiment.name}-{data}'
        if not table:
            continue
        heads = [Column(column, 'metric') for column in columns]
        title = f'Recall@20 by {first} (rows) and {second} (columns): {data}'
        yield Table(name, title, [first], heads, table, [])
        title = f'Recall@20: {data}'
        yield Figure(f'{name}-plot', title, 'heat', second, 'Recall@20', series, categories=columns)


VIEWS: dict[str, Callable[[Scene], Iterator[Block]]] = {
    'comparison': comparison,
    'buckets': buckets,
    'counts': counts,
    'lines': lines,
    'shares': shares,
    'epochs': epochs,
    'cold': cold,
    'heat': heat,
    'statistics': statistics,
    'neighbors': neighbors,
    'tokens': tokens,
}


def blocks(experiment: Experiment, setup: Setup, outcomes: Sequence[Outcome]) -> list[Block]:
    r"""The tables, figures and texts of a report."""
    return list(VIEWS[experiment.view](Scene(experiment, setup, outcomes)))
