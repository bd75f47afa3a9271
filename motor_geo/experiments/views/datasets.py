r"""Views of data sets and their tokens, which need no training."""

from __future__ import annotations

import csv
import os.path as osp
from collections.abc import Iterator

import numpy as np
import torch

from motor_geo.data import OPQTokenizer, RecommendationDataset
from motor_geo.experiments.options import BASE
from motor_geo.experiments.results import Results, numbers
from motor_geo.experiments.search import override
from motor_geo.pipeline.assemble import build_dataset
from motor_geo.pipeline.config import resolve
from motor_geo.report.document import Block, Column, Figure, Row, Series, Table, Value
from motor_geo.typing import ITEM


def statistics(results: Results) -> Iterator[Block]:
    r"""Shows the sizes of the data sets, here and in the papers."""
    rows = []
    for data, folder in results.options.data.items():
        own = {key: v for key, v in results.options.options.items() if key.startswith('data.')}
        sizes = build_dataset(resolve(override({}, {'data': folder, **own}))).summary()
        total = sizes['train'] + sizes['val'] + sizes['test']
        names = ', '.join(f'{m} {width}' for m, width in sizes['modalities'].items())
        rows.append(
            Row(
                [data, 'here'],
                [
                    *(Value(float(n)) for n in (sizes['users'], sizes['items'], total)),
                    f'{100 * (1 - sizes["density"]):.4f} %',
                    f'{total / sizes["users"]:.1f}',
                    names or 'none',
                ],
            )
        )
    for paper in ('motor', 'lirdrec'):
        for data, entry in numbers()[paper]['table1']['datasets'].items():
            total = entry['interactions']
            rows.append(
                Row(
                    [data, paper],
                    [
                        *(Value(float(entry[key])) for key in ('users', 'items', 'interactions')),
                        f'{entry["sparsity"]} %',
                        f'{total / entry["users"]:.1f}',
                        'image 4096, text 384',
                    ],
                )
            )
    columns = [Column(name, 'count') for name in ('users', 'items', 'interactions')]
    columns += [Column(name, 'text') for name in ('sparsity', 'per user', 'features')]
    yield Table('table1', 'Statistics', ['data', 'source'], columns, rows, [])


def _tokens(results: Results, data: str) -> tuple[RecommendationDataset, OPQTokenizer]:
    options = {**BASE, 'tokenizer.num_tokens': 8, **results.options.options}
    config = resolve(override({}, {'data': results.options.data[data], **options}))
    dataset = build_dataset(config)
    tokenizer = OPQTokenizer(**config['tokenizer'], verbose=False)
    dataset.data = tokenizer(dataset.data)
    return dataset, tokenizer


def neighbors(results: Results, num_queries: int = 5) -> Iterator[Block]:
    r"""Shows random items, and the two items that share the most tokens with
    each.
    """
    for data in results.options.content:
        dataset, tokenizer = _tokens(results, data)
        token_id = dataset.data[ITEM].token_id
        titles = read_titles(results.options.data[data], dataset)
        rows = []
        for query in np.random.default_rng(0).permutation(dataset.num_items)[:num_queries]:
            shared = (token_id == token_id[query]).sum(dim=1)
            shared[query] = -1
            near = shared.sort(descending=True, stable=True).indices[:2].tolist()
            cells: list[Value | str] = [
                text
                for item in near
                for text in (titles[item], f'{int(shared[item])} of {token_id.size(1)}')
            ]
            rows.append(Row([titles[query]], cells))
        heads = ('nearest', 'shared tokens', 'second', 'shared tokens')
        columns = [Column(head, 'text') for head in heads]
        title = f'Items that share the most tokens: {data}'
        names = ', '.join(f'{m} {n}' for m, n in tokenizer.num_tokens_dict.items())
        note = f'Tokens per modality: {names}.'
        yield Table(f'figure5-{data}', title, ['item'], columns, rows, [note])


def read_titles(folder: str, dataset: RecommendationDataset) -> list[str]:
    r"""Reads the titles of items from the item file, or returns ids without one."""
    path, titles = osp.join(folder, 'items.tsv'), dict[str, str]()
    if osp.exists(path):
        with open(path, encoding='utf-8-sig', newline='') as file:
            rows = list(csv.DictReader(file, delimiter='\t', quoting=csv.QUOTE_NONE))
        for name in ('title', 'text', 'name'):
            if rows and name in rows[0]:
                titles = {row['itemID']: row[name] for row in rows}
                break
    return [titles.get(str(item)) or f'item {item}' for item in dataset.item_ids.tolist()]


def tokens(results: Results) -> Iterator[Block]:
    r"""Shows the number of items per token, from the most to the least frequent."""
    rows = []
    for data in results.options.content:
        dataset, tokenizer = _tokens(results, data)
        columns = dataset.data[ITEM].token_id.unbind(dim=1)
        for modality, count in tokenizer.num_tokens_dict.items():
            own, columns = columns[:count], columns[count:]
            series, perplexity = [], []
            for position, column in enumerate(own):
                size = column.long().bincount(minlength=tokenizer.codebook_size)
                y = size.sort(descending=True).values.tolist()
                x = [float(i + 1) for i in range(len(y))]
                series.append(Series(f'slot {position + 1}', x, y, None))
                share = size.double() / size.sum()
                perplexity.append(float(torch.special.entr(share).sum().exp()))
            mean = sum(perplexity) / len(perplexity)
            most = max(float(one.y[0] or 0) for one in series)
            cells = [float(tokenizer.codebook_size), mean, most]
            rows.append(Row([data, modality], [Value(cell) for cell in cells]))
            yield Figure(
                f'figure6-{data}-{modality}',
                f'{modality} of {data}',
                'line',
                'token, most frequent first',
                'items',
                series,
                panels=f'figure6-{data}',
            )
    names = ('tokens per slot', 'perplexity', 'items of the most frequent token')
    columns = [Column(name, 'number') for name in names]
    note = 'Perplexity: the mean over slots of the exponential of the entropy of tokens.'
    yield Table('figure6', 'Use of tokens', ['data', 'modality'], columns, rows, [note])
