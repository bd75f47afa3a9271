r"""Renders the collected results as a page of Markdown."""

from __future__ import annotations

from collections import defaultdict
from typing import Any, Callable, Dict, List, Optional, Sequence

import numpy as np

Row = Dict[str, Any]

#: Recall@20 / NDCG@20 of others on the same splits: the rows published with
#: the splits (some with richer features), and single runs of the reference
#: framework in one untuned setting.
REFERENCE = {
    ('tiktok', 'LightGCN'): 'published .0653 / .0282, reference framework .0922 / .0419',
    ('tiktok', 'FREEDOM'): 'reference framework .0885 / .0385',
    ('tiktok', 'BPR'): 'reference framework .0480 / .0213',
    ('tiktok', 'VBPR'): 'published .0380 / .0134, reference framework .0214 / .0084',
    ('sports', 'LightGCN'): 'published .0782 / .0369',
    ('sports', 'BPR'): 'published .0430 / .0202',
    ('baby', 'LightGCN'): 'published .0698 / .0319',
    ('baby', 'BPR'): 'published .0440 / .0200',
}

INTRO = """# Results

Generated from `docs/results.json` by

```
python -m benchmarks.results --data FOLDER --runs runs/results --jobs 2
```

where `FOLDER` holds one folder per data set in the common layout. Protocol: the given
split, full ranking of all items with training items masked, early stopping on validation
Recall@20 (patience 20), test evaluated once at the best epoch; Adam, learning rate 1e-3,
batch 2048, d = 64. Tokens: OPQ with K = 256 on centred, length-normalised features.
Settings are chosen on validation by seed 0, with as many settings for every item encoder
of a backbone; a seed changes initialisation, sampling and tokenisation. Mean and sample
standard deviation are over seeds. One seed of small held-out sets has a standard error of
about .005 on tiktok and lastfm; rows with one seed have no spread to quote.
"""


def render(rows: Sequence[Row]) -> str:
    r"""The page for the rows that :mod:`benchmarks.results` collects."""
    parts = [INTRO]
    by_stage: Dict[str, List[Row]] = defaultdict(list)
    for row in rows:
        by_stage[row['stage']].append(row)
    times = {key(row): row['seconds_per_epoch'] for row in by_stage['time']}
    for data in unique(by_stage['final'], 'data'):
        mine = [row for row in by_stage['final'] if row['data'] == data]
        parts.append(f'## {data}\n\n{final_table(mine, times)}')
        parts.append(slice_table([row for row in mine if row['model'] == 'LightGCN']))
    if by_stage['time']:
        threads = by_stage['time'][0]['threads']
        parts.insert(
            1,
            f'Seconds per epoch (training and validation) are medians of three epochs after a '
            f'first one, on {threads} CPU threads with nothing else running; only lastfm and '
            'tiktok were timed.\n',
        )
    if by_stage['parts']:
        parts.append(part_table(by_stage['parts']))
    if by_stage['cold']:
        parts.append(cold_table(by_stage['cold']))
    return '\n'.join(part for part in parts if part).rstrip() + '\n'


def key(row: Row) -> tuple:
    return row['data'], row['model'], row['items']


def unique(rows: Sequence[Row], name: str) -> List[Any]:
    r"""Values in the order of their first occurrence."""
    return list(dict.fromkeys(row[name] for row in rows))


def group(rows: Sequence[Row], by: Callable[[Row], Any]) -> Dict[Any, List[Row]]:
    out: Dict[Any, List[Row]] = defaultdict(list)
    for row in rows:
        out[by(row)].append(row)
    return out


def spread(values: Sequence[float]) -> str:
    r"""Mean and sample standard deviation."""
    text = f'{np.mean(values):.4f}'
    return text if len(values) < 2 else f'{text} ± {np.std(values, ddof=1):.4f}'


def markdown(header: Sequence[str], lines: Sequence[Sequence[Any]]) -> str:
    out = ['| ' + ' | '.join(header) + ' |', '|' + '---|' * len(header)]
    out += ['| ' + ' | '.join(str(cell) for cell in line) + ' |' for line in lines]
    return '\n'.join(out) + '\n'


def words(setting: Row) -> str:
    return ', '.join(f'{name.split(".")[1]} {value}' for name, value in setting.items())


def short_table(rows: Sequence[Row]) -> str:
    r"""Recall@20 of LightGCN and FREEDOM, for the README."""
    final = [r for r in rows if r['stage'] == 'final' and r['model'] in ('LightGCN', 'FREEDOM')]
    names = ['id', 'specific', 'agnostic', 'mean']
    lines = []
    for (data, model), mine in group(final, lambda row: (row['data'], row['model'])).items():
        if unique(mine, 'items') == ['id']:
            continue
        by_items = group(mine, lambda row: row['items'])
        cells = [
            spread([row['recall@20'] for row in by_items[n]]) if by_items[n] else '' for n in names
        ]
        seeds = max(len(entry) for entry in by_items.values())
        popularity = f'{np.mean([row["popularity"] for row in mine]):.4f}'
        lines.append([data, model, seeds, popularity, *cells])
    return markdown(
        ['data', 'backbone', 'seeds, at most', 'popularity', *(f'`{n}`' for n in names)], lines
    )


def final_table(rows: Sequence[Row], times: Dict[tuple, float]) -> str:
    lines = []
    for (data, model, items), seeds in group(rows, key).items():
        seconds: Optional[float] = times.get((data, model, items))
        lines.append(
            [
                model,
                items,
                len(seeds),
                spread([row['recall@20'] for row in seeds]),
                spread([row['ndcg@20'] for row in seeds]),
                spread([row['val'] for row in seeds]),
                f'{np.median([row["best_epoch"] for row in seeds]):.0f}',
                '' if seconds is None else f'{seconds:.2f}',
                f'{seeds[0]["num_parameters"]:,}',
                words(seeds[0]['setting']),
            ]
        )
    header = ['backbone', 'items', 'seeds', 'Recall@20', 'NDCG@20', 'validation Recall@20']
    header += ['best epoch', 's / epoch', 'parameters', 'setting chosen']
    popularity = np.mean([row['popularity'] for row in rows])
    notes = [f'Popularity: Recall@20 {popularity:.4f}.']
    for model in unique(rows, 'model'):
        if (rows[0]['data'], model) in REFERENCE:
            notes.append(f'{model} elsewhere: {REFERENCE[rows[0]["data"], model]}.')
    return markdown(header, lines) + '\n' + ' '.join(notes) + '\n'


def slice_table(rows: Sequence[Row]) -> str:
    if not rows:
        return ''
    names = [n for n in ('cold', 'tail', 'middle', 'head') if any(n in r['slices'] for r in rows)]
    lines = []
    for items, seeds in group(rows, lambda row: row['items']).items():
        cells = [[r['slices'][n] for r in seeds if n in r['slices']] for n in names]
        lines.append([items, *(f'{np.mean(cell):.4f}' if cell else '' for cell in cells)])
    return 'LightGCN, Recall@20 by training count of the held-out item:\n\n' + markdown(
        ['items', *names], lines
    )


def part_table(rows: Sequence[Row]) -> str:
    r"""One change at a time to the token encoder."""
    by_data = group(rows, lambda row: row['data'])
    datasets = [data for data, mine in by_data.items() if len(unique(mine, 'part')) > 1]
    if not datasets:
        return ''
    lines = []
    for part, mine in group(rows, lambda row: row['part']).items():
        cells: List[Any] = [part]
        for data in datasets:
            seeds = [row for row in mine if row['data'] == data]
            cells += [
                spread([row['recall@20'] for row in seeds]) if seeds else '',
                spread([row['val'] for row in seeds]) if seeds else '',
            ]
        lines.append(cells)
    header = ['change']
    for data in datasets:
        header += [f'{data} Recall@20', f'{data} validation']
    count = max(len(g) for g in group(rows, lambda r: (r['part'], r['data'])).values())
    return (
        '## Which part of the token encoder costs what\n\n'
        f'LightGCN with `specific` items, one change at a time to the setting chosen above, '
        f'{count} seeds.\n\n' + markdown(header, lines)
    )


def cold_table(rows: Sequence[Row]) -> str:
    lines = [
        [
            row['data'],
            row['items'],
            f'{row["recall@20"]:.4f}',
            f'{row["ndcg@20"]:.4f}',
            f'{min(1.0, 20 / row["candidates"]):.4f}',
            f'{row["recall@20"] * row["candidates"] / 20:.1f} x',
        ]
        for row in rows
    ]
    return (
        '## Unseen items\n\n'
        'LightGCN on the `cold_item` split: a fifth of the items have no interaction in '
        'training, half of them are ranked against each other for validation, half for test; '
        'the tokenizer is fitted on training items. A random order, and popularity (no unseen '
        'item has a count), find 20 of all candidates.\n\n'
        + markdown(['data', 'items', 'Recall@20', 'NDCG@20', 'random', 'against random'], lines)
    )
