r"""Renders the collected results as a page of Markdown."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from motor_geo.nn.models import MODELS

Row = dict[str, Any]

#: Recall@20 / NDCG@20 of others on the same splits: the rows published with
#: the splits, and single runs of the reference framework.
REFERENCE = {
    ('tiktok', 'LightGCN'): 'published .0653 / .0282, framework .0922 / .0419',
    ('tiktok', 'FREEDOM'): 'framework .0885 / .0385',
    ('tiktok', 'BPR'): 'framework .0480 / .0213',
    ('tiktok', 'VBPR'): 'published .0380 / .0134, framework .0214 / .0084',
    ('tiktok', 'MMGCN'): 'published .0730 / .0307',
    ('tiktok', 'GRCN'): 'published .0804 / .0350',
    ('tiktok', 'LATTICE'): 'published .0843 / .0367',
    ('tiktok', 'SLMRec'): 'published .0845 / .0353, framework .0947 / .0383',
    ('tiktok', 'BM3'): 'published .0957 / .0404, framework .0620 / .0249',
    ('tiktok', 'MGCN'): 'framework .1074 / .0453',
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
Recall@20 (patience 20), test evaluated once at the best epoch; Adam, learning rate 1e-3
unless the setting names another, batch 2048, d = 64. Tokens: OPQ with K = 256 on centred,
length-normalised features.

Settings are chosen on validation by seed 0. Planned are as many for every item encoder of
a backbone: six for LightGCN and FREEDOM on lastfm and tiktok, three for BPR and VBPR; the
other backbones have three on lastfm and their defaults alone on tiktok (where MICRO, 11 s
per epoch, would take more than a quarter of an hour and was not run); on sports there are
three, on ml1m and baby two. "(of 3)" after a setting says among how many it was
chosen. Encoders with tokens are tried with numbers of tokens and IDs with regularisers;
a regulariser that suits tokens lifts them far above what stands here (tokens.rst and
reproduction/README.md). A seed changes initialisation, sampling and tokenisation. Mean
and sample standard deviation are over seeds. One seed of small held-out sets has a
standard error of about .005 on tiktok and lastfm; rows with one seed have no spread to
quote.

Popularity ranks items by their number of training interactions. ItemKNN learns nothing
either: it adds up the cosine similarities of an item to the training items of the user,
among the k nearest items by centred features of each modality, with k = 5, 10, 20, 50 or
100 chosen on validation; both break ties at random.

"Elsewhere" are Recall@20 / NDCG@20 of others on the same split: the rows published with
the splits (some with richer features), and single runs of the reference framework in one
untuned setting.
"""


def render(rows: Sequence[Row]) -> str:
    r"""The page for the rows that :mod:`benchmarks.results` collects."""
    rows = current(rows)
    stages = group(rows, lambda row: row['stage'])
    parts = [INTRO]
    if stages['time']:
        threads = ' or '.join(str(number) for number in unique(stages['time'], 'threads'))
        parts.append(
            f'Seconds per epoch (training and validation) are medians of three epochs after a '
            f'first one, on {threads} CPU threads with nothing else running; only lastfm and '
            'tiktok were timed.\n',
        )
    for data in unique([*stages['final'], *stages['baseline']], 'data'):
        mine = group([row for row in rows if row['data'] == data], lambda row: row['stage'])
        parts.append(f'## {data}\n\n{final_table(mine)}')
        parts.append(slice_table([row for row in mine['final'] if row['model'] == 'LightGCN']))
    if stages['parts']:
        parts.append(part_table(stages['parts']))
    if stages['cold']:
        parts.append(cold_table(stages['cold']))
    return '\n'.join(part for part in parts if part).rstrip() + '\n'


def chosen(rows: Iterable[Row]) -> dict[tuple, Row]:
    r"""The best setting of each contender on validation."""
    best: dict[tuple, Row] = {}
    for row in rows:
        if row['stage'] == 'tune' and row['val'] > best.get(key(row), {'val': -1})['val']:
            best[key(row)] = row
    return {name: row['setting'] for name, row in best.items()}


def current(rows: Sequence[Row]) -> list[Row]:
    r"""Leaves out what was trained in a setting that is no longer the best."""
    best = chosen(rows)
    return [
        row
        for row in rows
        if row['stage'] not in ('final', 'parts', 'cold')
        or row['setting'] == best.get(key(row), row['setting'])
    ]


def key(row: Row) -> tuple:
    return row['data'], row['model'], row['items']


def unique(rows: Sequence[Row], name: str) -> list[Any]:
    r"""Values in the order of their first occurrence."""
    return list(dict.fromkeys(row[name] for row in rows))


def group(rows: Sequence[Row], by: Callable[[Row], Any]) -> dict[Any, list[Row]]:
    out: dict[Any, list[Row]] = defaultdict(list)
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
    return ', '.join(f'{name.split(".")[-1]} {value}' for name, value in setting.items())


def final_table(stages: dict[str, list[Row]]) -> str:
    r"""The results on a data set, baselines first."""
    lines: list[list[Any]] = []
    for row in stages['baseline']:
        numbers = [f'{row[name]:.4f}' for name in ('recall@20', 'ndcg@20', 'val')]
        lines.append([row['model'], '', '', *numbers, '', '', '', words(row['setting']), ''])
    seconds = {key(row): f'{row["seconds_per_epoch"]:.2f}' for row in stages['time']}
    tried = group(stages['tune'], key)
    contenders = group(stages['final'], key)
    order = list(MODELS)
    for name in sorted(contenders, key=lambda name: order.index(name[1])):
        (data, model, items), seeds = name, contenders[name]
        setting = words(seeds[0]['setting']) or 'default'
        lines.append(
            [
                model,
                items,
                len(seeds),
                spread([row['recall@20'] for row in seeds]),
                spread([row['ndcg@20'] for row in seeds]),
                spread([row['val'] for row in seeds]),
                f'{np.median([row["best_epoch"] for row in seeds]):.0f}',
                seconds.get(name, ''),
                f'{seeds[0]["num_parameters"]:,}',
                f'{setting} (of {len(tried[name])})' if tried[name] else setting,
                REFERENCE.get((data, model), '') if items == 'id' else '',
            ]
        )
    header = ['backbone', 'items', 'seeds', 'Recall@20', 'NDCG@20', 'validation Recall@20']
    header += ['best epoch', 's / epoch', 'parameters', 'setting chosen', 'elsewhere']
    if not any(line[-1] for line in lines):
        header, lines = header[:-1], [line[:-1] for line in lines]
    return markdown(header, lines) + remark(stages['baseline'], contenders)


def remark(baselines: Sequence[Row], contenders: dict[tuple, list[Row]]) -> str:
    r"""Which models are not worth their training."""
    if not baselines:
        return ''
    best = max(baselines, key=lambda row: row['recall@20'])
    worse: dict[str, list[str]] = defaultdict(list)
    for (_, model, items), seeds in contenders.items():
        if np.mean([row['recall@20'] for row in seeds]) < best['recall@20']:
            worse[model].append(f'`{items}`')
    if not worse:
        return ''
    names = [f'{name} with {", ".join(worse[name])}' for name in MODELS if name in worse]
    return f'\nBelow {best["model"]} in Recall@20: {"; ".join(names)}.\n'


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
        cells: list[Any] = [part]
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
