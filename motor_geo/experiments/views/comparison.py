r"""Tables that compare variants, with tests against a reference."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

from motor_geo.experiments.metrics import spelled, stem
from motor_geo.experiments.options import in_words
from motor_geo.experiments.results import Label, Results, numbers, summary
from motor_geo.report.document import Block, Column, Figure, Row, Series, Table, Value
from motor_geo.report.layout import format_value


def comparison(results: Results) -> Iterator[Block]:
    r"""Shows a table for every data set, with tests against the reference."""
    reference, shown = results.experiment.reference, results.metrics.shown
    main = spelled(results.metrics.main)
    for data in results.options.data:
        columns = [Column(spelled(metric), 'metric') for metric in shown]
        if reference is not None:
            columns.append(Column(f'gain in {main} over {reference[1]}', 'percent'))
        columns += [
            Column('best epoch', 'number'),
            Column('seconds per epoch', 'seconds'),
            Column('parameters', 'count'),
            Column('setting', 'text'),
        ]
        rows = []
        for label, own in results.of(data).items():
            cells: list[Value | str] = [results.value(label, metric) for metric in shown]
            if reference is not None:
                cells.append(results.gain(label))
            for key in ('best_epoch', 'seconds_per_epoch', 'num_parameters'):
                cells.append(Value(summary(own.values(key), own).mean))
            cells.append('–' if own.setting is None else in_words(own.setting))
            rows.append(Row(list(label[1:]), cells))
        notes = []
        if reference is not None:
            notes.append(
                f'Compared with {reference[1]} by the Wilcoxon signed-rank test on the values of '
                'users (means over seeds), corrected for all comparisons of this report '
                '(Benjamini and Hochberg).'
            )
        yield Table(
            f'{results.experiment.name}-{data}',
            f'{results.experiment.title}: {data}',
            list(results.experiment.head[1:]),
            columns,
            rows,
            notes,
        )
    yield from improvements(results)
    yield from tests(results)


def improvements(results: Results) -> Iterator[Block]:
    r"""Shows the gains in the main metric, here and in the paper."""
    if results.experiment.paper != 'motor' or results.experiment.reference is None:
        return
    key = 'table4' if results.experiment.name == 'table4' else 'table2'
    table = numbers()['motor'][key]
    if results.metrics.main not in table['columns']:
        return
    position = table['columns'].index(results.metrics.main)
    pairs = list(dict.fromkeys(label[1:] for label in results.variants if results.reference(label)))
    rows, published = [], []
    for model, form in pairs:
        cells: list[Value | str] = []
        for data in results.options.data:
            label = (data, model, form)
            cells.append(results.gain(label) if label in results.variants else Value(None))
        for name in table['results']:
            entry = table['results'][name].get(model, {})
            ok = isinstance(entry, dict) and entry.get(form) and entry.get('id')
            gain = entry[form][position] / entry['id'][position] - 1 if ok else None
            published.append(gain)
            cells.append(Value(gain))
        rows.append(Row([model, form], cells))
    if all(gain is None for gain in published):
        return  # The paper has none of these variants.
    columns = [Column(data, 'percent') for data in results.options.data]
    columns += [Column(f'{name}, published', 'percent') for name in table['results']]
    yield Table(
        f'{results.experiment.name}-gain',
        f'Gain in {spelled(results.metrics.main)} over IDs, measured and published',
        list(results.experiment.head[1:]),
        columns,
        rows,
        ['The published columns are for other data.'],
    )


def tests(results: Results) -> Iterator[Block]:
    r"""Shows the results of the tests per user."""
    rows = []
    for (label, metric), test in results.tests.items():
        if metric == results.metrics.main:
            cells: list[Value | str] = [
                Value(test.difference),
                Value(test.effect_size if math.isfinite(test.effect_size) else None),
                *(f'{p:.2g}' for p in (test.corrected_wilcoxon, test.corrected_t)),
                str(test.n),
            ]
            rows.append(Row(list(label), cells))
    if rows:
        columns = [Column('difference', 'number'), Column('effect size', 'number')]
        columns += [
            Column('p, Wilcoxon', 'text'),
            Column('p, paired t', 'text'),
            Column('users', 'text'),
        ]
        yield Table(
            f'{results.experiment.name}-tests',
            f'Differences in {spelled(results.metrics.main)} per user',
            list(results.experiment.head),
            columns,
            rows,
            [
                'The p-values are corrected for all comparisons of this report. The effect size is '
                "Cohen's d of the differences."
            ],
        )


def counts(results: Results) -> Iterator[Block]:
    r"""Shows parameters and the main metric by the number of tokens."""
    yield from comparison(results)
    main = results.metrics.main
    for data in results.options.data:
        variants = results.of(data)
        models = list(dict.fromkeys(label[1] for label in variants))
        forms = list(dict.fromkeys(label[2] for label in variants))
        for title, kind, path, scale in (
            ('trainable parameters, million', 'bar', ('num_parameters',), 1e-6),
            (spelled(main), 'line', ('test', main), 1.0),
        ):
            series = []
            for model in models:
                found = [variants[data, model, form] for form in forms]
                values = [summary([scale * v for v in out.values(*path)], out) for out in found]
                runs = tuple(job.name for out in found for job in out.jobs)
                y, std = [v.mean for v in values], [v.std for v in values]
                series.append(Series(model, list(range(len(forms))), y, std, runs))
            name = f'figure4-{data}-{stem(path[-1])}-plot'
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


def cold(results: Results) -> Iterator[Block]:
    r"""Shows the metrics of unseen items, ranked among themselves and, as in the
    papers, among all items.
    """
    yield from comparison(results)
    main = results.metrics.main
    name, _, k = main.partition('@')
    for data in results.options.data:
        variants = {label: out for label, out in results.of(data).items() if out.jobs}
        if not variants:
            continue
        names = [f'{label[1]}, {label[2]}' for label in variants]
        targets = results.dataset(next(iter(variants.values()))).targets('test')
        assert targets.candidates is not None
        values = [results.value(label, main) for label in variants]
        runs = tuple(run for value in values for run in value.runs)
        y, std = [value.mean for value in values], [value.std for value in values]
        x = list(range(len(names)))
        series = [Series(spelled(main), x, y, std, runs)]
        found = [among_all(results, label, main) for label in variants]
        among = [value for value in found if value is not None]
        if len(among) == len(found):
            means, spread = [value.mean for value in among], [value.std for value in among]
            series.insert(0, Series(f'{spelled(main)} among all items', x, means, spread, runs))
            yield Table(
                f'{results.experiment.name}-{data}-all',
                f'Items without interactions, ranked among all and among themselves: {data}',
                list(results.experiment.head[1:]),
                [Column(f'{spelled(main)} among {what}', 'metric') for what in ('all', 'unseen')],
                [Row(list(label[1:]), [a, b]) for label, a, b in zip(variants, among, values)],
                [],
            )
        if name == 'recall':
            chance = min(1.0, int(k) / targets.candidates.numel())
            series.append(Series('random order', x, [chance] * len(names), None))
        yield Figure(
            f'{results.experiment.name}-{data}-plot',
            f'{targets.candidates.numel()} unseen items of {data}',
            'bar',
            'backbone and items',
            spelled(main),
            series,
            categories=names,
        )


def among_all(results: Results, label: Label, metric: str) -> Value | None:
    r"""Returns a test metric of unseen items, ranked among all items. Returns
    :obj:`None` for runs of older versions, which lack it.
    """
    own = results.variants[label]
    try:
        return summary(own.values('unseen', 'all', metric), own)
    except KeyError:
        return None


def validation(results: Results) -> Iterator[Block]:
    r"""Shows the validation metrics of all settings."""
    found = {label: out for label, out in results.variants.items() if len(out.validation) > 1}
    values = {
        label: {in_words(setting): value for setting, value in out.validation}
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
            f'{results.experiment.name}-validation',
            f'{spelled(results.metrics.main)} of the settings on validation, first seed',
            list(results.experiment.head),
            [Column(name, 'text') for name in settings],
            rows,
            [],
        )
