r"""How the report of an experiment shows what came of it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from motor_geo.experiments.queue import Outcome
from motor_geo.experiments.registry import Experiment
from motor_geo.experiments.results import (
    MAIN,
    METRICS,
    Label,
    Scene,
    numbers,
    of_group,
    spelled,
    summary,
)
from motor_geo.experiments.variants import Setup, in_words
from motor_geo.experiments.views.curves import epochs, heat, lines, shares
from motor_geo.experiments.views.datasets import neighbors, statistics, tokens
from motor_geo.report.document import Block, Column, Figure, Row, Series, Table, Value
from motor_geo.report.layout import format_value

#: Bounds of groups of items by training count.
BUCKETS = (5, 10, 20, 50)


def comparison(scene: Scene) -> Iterator[Block]:
    r"""A table for every data set, with tests against the reference."""
    reference = scene.experiment.reference
    for data in scene.setup.data:
        columns = [Column(spelled(metric), 'metric') for metric in METRICS]
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
                cells = [summary(of_group(groups, name, metric), outcome) for name in names]
                rows.append(Row(list(label[1:]), list(cells)))
            columns = [Column(name, 'metric') for name in names]
            yield Table(
                f'figure3-{data}-{metric[:-3]}',
                f'{spelled(metric)} by training interactions of the held-out item: {data}',
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
    scene: Scene,
    label: Label,
) -> Series:
    values = [summary(of_group(groups, name, metric), scene.outcomes[label]) for name in names]
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
    scene = Scene(experiment, setup, outcomes)
    return [*VIEWS[experiment.view](scene), *tried(scene)]


def tried(scene: Scene) -> Iterator[Block]:
    r"""What validation says of the settings among which one is chosen."""
    found = {label: out for label, out in scene.outcomes.items() if len(out.tried) > 1}
    values = {
        label: {in_words(setting): value for setting, value in out.tried}
        for label, out in found.items()
    }
    settings = list(dict.fromkeys(itertools.chain(*values.values())))
    if settings:
        rows = [
            Row(
                list(label),
                [format_value(own.get(name), None, 'metric') for name in settings],
            )
            for label, own in values.items()
        ]
        yield Table(
            f'{scene.experiment.name}-tried',
            'Recall@20 on validation of what was tried, first seed',
            list(scene.experiment.head),
            [Column(name, 'text') for name in settings],
            rows,
            [],
        )
