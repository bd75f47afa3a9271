r"""Curves of a report: metrics against something that changes."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from motor_geo.report import Block, Column, Figure, Row, Series, Table, Text, Value
from motor_geo.scene import MAIN, Scene, of_group, spelled, summary


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
                f'{spelled(metric)} by {scene.experiment.head[-1]}: {data}',
                list(scene.experiment.head[1:-1]),
                [Column(level, 'metric') for level in levels],
                rows,
                [],
            )
            yield Figure(
                f'{scene.experiment.name}-{data}-{metric[:-3]}-plot',
                f'{spelled(metric)}: {data}',
                'line',
                scene.experiment.head[-1],
                spelled(metric),
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
                        found = summary(of_group(scene.groups(outcome), group, MAIN), outcome)
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
    listed = ', '.join(f'{100 * gain:+.0f} % at {100 * share:g} %' for share, gain in points)
    cross = [f'{100 * _zero(a, b):.0f} %' for a, b in zip(points, points[1:]) if a[1] * b[1] < 0]
    where = f'crosses IDs near {", ".join(cross)}' if cross else 'does not cross IDs'
    return f'{form} {where} (gain over IDs {listed} of the training interactions).'


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
