r"""The sections about metrics, training and settings on the page of a run."""

from __future__ import annotations

import os.path as osp
import shlex
from collections.abc import Sequence
from typing import Any

import numpy as np

from motor_geo.data import RecommendationDataset
from motor_geo.engine.evaluator import item_groups
from motor_geo.pipeline.finished import FinishedRun
from motor_geo.pipeline.flags import UNHASHED
from motor_geo.pipeline.folder import PLACES
from motor_geo.report.document import Column, Figure, Row, Series, Table, Text, Value
from motor_geo.report.page import Section, Verbatim
from motor_geo.report.write import read_rows
from motor_geo.typing import RATES

#: Metrics to show in tables, if a run has them.
SHOWN = ('recall@10', 'recall@20', 'ndcg@10', 'ndcg@20')
SPLITS = {'test': 'test', 'val': 'validation'}
#: Options whose differences between runs are not reported.
FREE = {*UNHASHED, 'trainer.progress', *(f'data.{key}' for key in ('name', *PLACES))}
NAMES = {'recall': 'Recall', 'ndcg': 'NDCG', 'map': 'MAP', 'mrr': 'MRR', 'hit': 'Hit'}


def label(run: FinishedRun) -> str:
    r"""Returns the name of a run: its model and items."""
    model, items = (str(run.result[key]).rpartition('.')[2] for key in ('model', 'items'))
    return model if items == 'none' else f'{model}, {items}'


def labels(run: FinishedRun, controls: Sequence[FinishedRun]) -> list[str]:
    r"""Returns distinct names for a run and its controls."""
    names = [label(control) for control in controls]
    return [
        'this run',
        *(
            f'{name} ({control.folder})' if [label(run), *names].count(name) > 1 else name
            for name, control in zip(names, controls)
        ),
    ]


def spelled(metric: str) -> str:
    r"""Formats the name of a metric."""
    name, _, k = metric.partition('@')
    name = NAMES.get(name, name)
    return f'{name}@{k}' if k else name


def main_metric(run: FinishedRun) -> str | None:
    r"""Returns the main metric: Recall@20, or else the metric of early
    stopping. Returns :obj:`None` without a test split.
    """
    found = run.result['test']
    first = ('recall@20', str(run.options.get('trainer.metric')), *found)
    return next((metric for metric in first if metric in found), None)


def answer(run: FinishedRun, controls: Sequence[FinishedRun], num_items: int) -> str:
    r"""Summarizes the result in two sentences."""
    result, metric = run.result, main_metric(run)
    total, own = result['num_parameters'], result['num_item_parameters']
    size = f'None of its {total:,} parameters belongs to an item.'
    if own:
        size = f'Of its {total:,} parameters, {own / num_items:,.4g} belong to each item.'
    if metric is None:
        return f'No interactions were held out for testing. {size}'
    value = result['test'][metric]
    others = [('popularity', '', result['popularity'].get(metric))]
    others += [
        ('the control', f'{name}: ', control.result['test'].get(metric))
        for name, control in zip(labels(run, controls)[1:], controls)
    ]
    phrases = [
        f'{_against(value, other)} {name} ({detail}{other:.4f})'
        for name, detail, other in others
        if other is not None
    ]
    tail = f': {", ".join(phrases)}' if phrases else ''
    return f'{spelled(metric)} on test is {value:.4f}{tail}. {size}'


def _against(value: float, other: float) -> str:
    if round(value, 4) == round(other, 4):
        return 'the same as'
    if other > 0 and value / other >= 2:
        return f'{value / other:.1f} times that of'
    share = f'{abs(value / other - 1):.1%} ' if other > 0 else ''
    return f'{share}{"above" if value > other else "below"}'


def results(
    run: FinishedRun, controls: Sequence[FinishedRun], dataset: RecommendationDataset
) -> Section:
    r"""Shows metrics, sizes and times of the run and its controls."""
    names = labels(run, controls)
    runs = [run, *controls]
    metrics = _columns(run)
    rows = []
    for split, word in SPLITS.items():
        entries = [(name, other.result[split]) for name, other in zip(names, runs)]
        if split == 'test':
            entries.append(('popularity', run.result['popularity']))
        if run.result[split]:
            rows += [Row([word, name], _cells(found, metrics)) for name, found in entries if found]
    blocks: list[Any] = []
    if run.result['test']:
        columns = [Column(spelled(metric)) for metric in metrics]
        notes = _notes(run, dataset)
        blocks.append(Table('metrics', 'Metrics', ['split', 'run'], columns, rows, notes))
    columns = [Column('parameters', 'count'), Column('per item', 'number')]
    columns += [Column('best epoch', 'count'), Column('epochs', 'count'), Column('time', 'seconds')]
    rows = [
        Row([name], [_size(other, key, dataset.num_items) for key in _SIZES])
        for name, other in zip(names, runs)
    ]
    notes = [_differences(run, other, name) for name, other in zip(names[1:], controls)]
    notes += [_users(run, other, name) for name, other in zip(names[1:], controls)]
    blocks.append(Table('sizes', 'Size and time', ['run'], columns, rows, [n for n in notes if n]))
    return Section('Results', blocks)


_SIZES = ('num_parameters', 'num_item_parameters', 'best_epoch', 'epochs', 'seconds')


def _size(run: FinishedRun, key: str, num_items: int) -> Value:
    value = run.result.get(key)
    scale = num_items if key == 'num_item_parameters' else 1
    return Value(None if value is None else value / scale)


def _columns(run: FinishedRun) -> list[str]:
    found = run.result['test']
    return [metric for metric in SHOWN if metric in found] or list(found)[:4]


def _cells(found: dict[str, float], metrics: Sequence[str]) -> list[Value | str]:
    return [Value(found.get(metric)) for metric in metrics]


def _notes(run: FinishedRun, dataset: RecommendationDataset) -> list[str]:
    r"""Describes how the metrics were computed."""
    targets = dataset.targets('test')
    candidates = targets.candidates
    ranked = 'all items' if candidates is None else f'{len(candidates):,} unseen items'
    masked = ' and validation' if run.options.get('mask_validation') else ''
    coverage = run.result['test'].get('coverage@20')
    shown = (
        ''
        if coverage is None
        else f' The top 20 lists together show {coverage:.1%} of these items.'
    )
    return [
        f'Means over {len(targets):,} users, with the weights of the best epoch. For each user, '
        f'{ranked} except those of training{masked} are ranked.{shown} This is a single seed, so '
        'small differences may be due to chance.'
    ]


def _differences(run: FinishedRun, control: FinishedRun, name: str) -> str:
    r"""Lists the options in which a control differs."""
    one, two = run.options, control.options
    keys = [key for key in two if key in one and one[key] != two[key] and key not in FREE]
    words = [f'`{key}` is {two[key]} instead of {one[key]}' for key in keys]
    more = f', and {len(words) - 5} more' if len(words) > 5 else ''
    return f'{name}: {", ".join(words[:5])}{more}.' if words else ''


def _users(run: FinishedRun, control: FinishedRun, name: str) -> str:
    r"""Counts the users for whom a run is better or worse than a control."""
    metric = main_metric(run)
    if metric not in run.values or metric not in control.values:
        return ''
    difference = run.values[metric].astype(np.float64) - control.values[metric]
    better, worse = int((difference > 0).sum()), int((difference < 0).sum())
    return (
        f'{spelled(metric)} is higher than with {name} for {better:,} users, lower for {worse:,}, '
        f'and equal for {len(difference) - better - worse:,}; `motor-geo compare` tests this.'
    )


def training(run: FinishedRun, controls: Sequence[FinishedRun]) -> Section | None:
    r"""Shows the loss and the validation metric by epoch."""
    epochs = _epochs(run.folder)
    if len(epochs) < 2:
        return None
    x = [float(entry['epoch']) for entry in epochs]
    best = run.result['best_epoch']
    terms = list(epochs[0]['losses'])
    series = [Series('loss', x, [entry['loss'] for entry in epochs])]
    for term in terms if len(terms) > 1 else ():
        series.append(Series(term, x, [entry['losses'].get(term) for entry in epochs]))
    marks = {entry['epoch']: entry for entry in epochs}
    if best in marks and run.result['val']:
        series.append(Series(f'best epoch, {best}', [best], [marks[best]['loss']]))
    figure = Figure('loss', 'Loss', 'line', 'epoch', 'loss', series, panels='training')
    blocks: list[Any] = [figure] if terms else []  # Some models have no loss.
    metric = str(run.options.get('trainer.metric'))
    if all(metric in entry['val'] for entry in epochs):
        series = [Series('this run', x, [entry['val'][metric] for entry in epochs])]
        for name, control in zip(labels(run, controls)[1:], controls):
            lines = [entry for entry in _epochs(control.folder) if metric in entry['val']]
            if len(lines) > 1:
                at = [float(entry['epoch']) for entry in lines]
                series.append(Series(name, at, [entry['val'][metric] for entry in lines]))
        if best in marks:
            value = marks[best]['val'][metric]
            series.append(Series(f'best epoch, {best}: {value:.4f}', [best], [value]))
        title = f'{spelled(metric)} on validation'
        figure = Figure('validation', title, 'line', 'epoch', title, series, panels='training')
        blocks.insert(0, figure)
    if run.result['val'] and best == run.options.get('trainer.epochs'):
        note = 'The best epoch is the last one; training for more epochs may improve the result.'
        blocks.append(Text('Best epoch', note))
    return Section('Training', blocks)


def _epochs(folder: str) -> list[dict[str, Any]]:
    r"""Reads the log entries of all epochs."""
    path = osp.join(folder, 'metrics.jsonl')
    if not osp.exists(path):
        return []
    keys = ('epoch', 'loss', 'losses', 'val')
    return [row for row in read_rows(path) if all(key in row for key in keys)]


def groups(
    run: FinishedRun, controls: Sequence[FinishedRun], dataset: RecommendationDataset
) -> Section | None:
    r"""Shows metrics of items by their number of training interactions."""
    found = run.result.get('slices', {})
    found = {name: entry for name, entry in found.items() if entry.get('interactions')}
    if not found:
        return None
    metrics = [m for m in ('recall@20', 'ndcg@20') if any(m in e for e in found.values())]
    metrics = metrics or [key for key in next(iter(found.values())) if '@' in key][:2]
    ranges = _ranges(dataset)
    names, runs = labels(run, controls), [run, *controls]
    rows = []
    for group, entry in found.items():
        head = f'{"unseen" if group == "cold" else group}{ranges.get(group, "")}'
        for name, other in zip(names, runs):
            values = other.result.get('slices', {}).get(group, {})
            sizes = [Value(entry[key]) for key in ('items', 'interactions')]
            more = [name] if controls else []
            rows.append(Row([head, *more], [*_cells(values, metrics), *sizes]))
    columns = [Column(spelled(metric)) for metric in metrics]
    columns += [Column('items', 'count'), Column('test interactions', 'count')]
    heads = ['items', 'run'] if controls else ['items']
    notes = [
        'In parentheses: training interactions per item. The lists are the same for all groups; '
        'only held-out items of the group count.'
    ]
    table = Table('groups', 'Groups of items', heads, columns, rows, notes)
    text = _unseen(runs, names, found.get('cold'), dataset)
    return Section('By popularity of the items', [*text, table, *_ages(runs, names, metrics)])


def _ages(runs: Sequence[FinishedRun], names: Sequence[str], metrics: Sequence[str]) -> list[Table]:
    r"""Metrics of items by the time of their first training interaction, where times are known."""
    rows = []
    for group, entry in runs[0].result.get('ages', {}).items():
        for name, other in zip(names, runs):
            values = other.result.get('ages', {}).get(group, {})
            sizes = [Value(entry[key]) for key in ('items', 'interactions')]
            more = [name] if len(runs) > 1 else []
            rows.append(Row([group, *more], [*_cells(values, metrics), *sizes]))
    if not rows:
        return []
    columns = [Column(spelled(metric)) for metric in metrics]
    columns += [Column('items', 'count'), Column('test interactions', 'count')]
    notes = [
        'By the first training interaction of an item: the newest fifth, the rest of the newer '
        'half, and the older half.'
    ]
    heads = ['items', 'run'] if len(runs) > 1 else ['items']
    return [Table('ages', 'Age of the items', heads, columns, rows, notes)]


def _ranges(dataset: RecommendationDataset) -> dict[str, str]:
    r"""Returns the range of training interactions in each group of items."""
    count = dataset.data[RATES].edge_index[1].bincount(minlength=dataset.num_items)
    names, group = item_groups(count)
    out = {}
    for i, name in enumerate(names):
        own = count[group == i]
        if own.numel():
            low, high = int(own.min()), int(own.max())
            out[name] = f' ({low:,})' if low == high else f' ({low:,} to {high:,})'
    return out


def _unseen(
    runs: Sequence[FinishedRun],
    names: Sequence[str],
    entry: dict[str, float] | None,
    dataset: RecommendationDataset,
) -> list[Text]:
    r"""Describes how well items without training interactions are found."""
    if entry is None:
        return []
    metric = 'recall@20' if 'recall@20' in entry else next((k for k in entry if '@' in k), None)
    if metric is None:
        return []
    values = [other.result.get('slices', {}).get('cold', {}).get(metric) for other in runs]
    words = [f'{name} {value:.4f}' for name, value in zip(names, values) if value is not None]
    candidates = dataset.targets('test').candidates
    k = int(metric.partition('@')[2])
    chance = min(1.0, k / (dataset.num_items if candidates is None else len(candidates)))
    body = (
        f'{spelled(metric)} of unseen items, which have no training interaction '
        f'({entry["items"]:,} items, {entry["interactions"]:,} test interactions): '
        f'{", ".join(words)}; random order about {chance:.4f}.'
    )
    return [Text('Unseen items', body)]


def settings(run: FinishedRun, controls: Sequence[FinishedRun]) -> Section:
    r"""Shows everything that is needed to repeat a run."""
    result = run.result
    config = osp.join(run.folder, 'config.yaml')
    command = shlex.join(['motor-geo', 'run', '--config', config, '--out', 'FOLDER'])
    blocks: list[Any] = [Text('Command', 'This command repeats the run:'), Verbatim(command)]
    with open(config, encoding='utf-8') as file:
        blocks += [Text('Options', 'All options (`config.yaml`):'), Verbatim(file.read().strip())]
    for key, title in (('versions', 'Versions'), ('machine', 'Machine'), ('hashes', 'Hashes')):
        rows = [Row([name], [str(value)]) for name, value in result.get(key, {}).items()]
        if rows:
            blocks.append(Table(key, title, ['name'], [Column('value', 'text')], rows))
    if controls:
        rows = [Row([name], [c.folder]) for name, c in zip(labels(run, controls)[1:], controls)]
        blocks.append(Table('controls', 'Controls', ['run'], [Column('folder', 'text')], rows))
    return Section('Settings, versions and hashes', blocks, closed=True)
