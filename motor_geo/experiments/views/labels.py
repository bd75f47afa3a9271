r"""A view of what items with common tokens have in common."""

from __future__ import annotations

import csv
import os.path as osp
from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from motor_geo.data import InteractionSVD, OPQTokenizer, RecommendationDataset
from motor_geo.experiments.options import BASE
from motor_geo.experiments.results import Results
from motor_geo.experiments.search import override
from motor_geo.pipeline.assemble import build_dataset
from motor_geo.pipeline.config import resolve
from motor_geo.report.document import Block, Column, Row, Table, Value
from motor_geo.typing import ITEM, modalities

#: Columns of the item file that hold labels, in order of preference.
COLUMNS = ('genres', 'categories', 'category', 'tags', 'text')
#: A label counts if at least so many items have it, and at most this share of all items.
FEWEST, MOST = 5, 0.5
#: Tokens per modality and tokens per codebook that are compared.
TOKENS = ((8, 256), (4, 256), (8, 64), (8, 16))
QUERIES, NEAREST = 2000, 10
#: From queries **[n]** to their similarity to all items **[n, N]**.
Similarity = Callable[[Tensor], Tensor]


def labels(results: Results) -> Iterator[Block]:
    r"""Shows how often the nearest items of an item share a label with it, by
    tokens, by raw features, by behavior and at random.
    """
    for data, folder in results.options.data.items():
        options = {**BASE, **results.options.options}
        config = resolve(override({}, {'data': folder, **options}))
        dataset = build_dataset(config)
        column, matrix = read_labels(folder, dataset)
        if matrix is None:
            continue
        tokenizer = {
            key: value
            for key, value in config['tokenizer'].items()
            if key not in ('num_tokens', 'codebook_size')
        }
        rows = [
            Row([data, name], [Value(value) for value in shared_labels(matrix, similarity)])
            for name, similarity in _similarities(dataset, tokenizer)
        ]
        columns = [Column('shares a label'), Column('Jaccard index')]
        note = (
            f'The {NEAREST} nearest items of up to {QUERIES:,} random items. Labels are the '
            f'{matrix.size(1)} values of the column {column} that at least {FEWEST} items and at '
            'most half of all items have. The Jaccard index divides the number of common labels '
            'by the number of labels of either item. Items with equally many common tokens are '
            'in random order.'
        )
        title = f'Labels of the nearest items: {data}'
        yield Table(f'labels-{data}', title, ['data', 'nearest by'], columns, rows, [note])


def _similarities(
    dataset: RecommendationDataset, tokenizer: dict[str, object]
) -> Iterator[tuple[str, Similarity]]:
    data, num_items = dataset.data, dataset.num_items
    yield 'random', lambda query: torch.zeros(query.numel(), num_items)
    features = {name: data[ITEM][f'x_{name}'].float() for name in modalities(data)}
    for name, x in features.items():
        yield f'raw features: {name}', _cosine(x - x.mean(dim=0))
    behavior = InteractionSVD(channels=min(64, *(n // 2 for n in data.num_nodes_dict.values())))
    yield 'behavior', _cosine(behavior(data)[ITEM].x_behavior)
    for num_tokens, size in TOKENS:
        transform = OPQTokenizer(num_tokens, size, **tokenizer, verbose=False)  # type: ignore[arg-type]
        token_id = transform(data)[ITEM].token_id
        yield f'{num_tokens} tokens per modality, {size} per codebook', _shared_tokens(token_id)


def _cosine(x: Tensor) -> Similarity:
    x = F.normalize(x.float(), dim=1)
    return lambda query: x[query] @ x.t()


def _shared_tokens(token_id: Tensor) -> Similarity:
    columns = token_id.t().contiguous()

    def similarity(query: Tensor) -> Tensor:
        out = torch.zeros(query.numel(), token_id.size(0))
        for column in columns:
            out += column[query].view(-1, 1) == column
        return out

    return similarity


def shared_labels(matrix: Tensor, similarity: Similarity, seed: int = 0) -> tuple[float, float]:
    r"""The share of nearest items with a common label, and the mean Jaccard index of
    the labels.

    Args:
        matrix: Which labels every item has, **[N, L]**. Items without labels are
            neither queries nor neighbors.
        similarity: From queries **[n]** to their similarity to all items **[n, N]**.
        seed: Seed of the queries and of the order of equally similar items.
    """
    known = matrix.any(dim=1)
    generator = torch.Generator().manual_seed(seed)
    some = known.nonzero().view(-1)
    some = some[torch.randperm(some.numel(), generator=generator)[:QUERIES]]
    x, size = matrix.float(), matrix.sum(dim=1).float()
    shares: list[Tensor] = []
    jaccard: list[Tensor] = []
    for query in some.split(256):
        score = similarity(query)
        score.masked_fill_(~known, -torch.inf)
        score[torch.arange(query.numel()), query] = -torch.inf
        order = torch.rand(score.shape, generator=generator).argsort(dim=1)
        place = score.gather(1, order).topk(min(NEAREST, score.size(1) - 1), dim=1).indices
        near = order.gather(1, place)
        common = torch.einsum('ql,qkl->qk', x[query], x[near])
        shares.append((common > 0).float().mean(dim=1))
        either = size[query].view(-1, 1) + size[near] - common
        jaccard.append((common / either).mean(dim=1))
    return float(torch.cat(shares).mean()), float(torch.cat(jaccard).mean())


def read_labels(folder: str, dataset: RecommendationDataset) -> tuple[str, Tensor | None]:
    r"""The column of labels in the item file, and which of them every item has
    **[N, L]**, or :obj:`None` without such a column.
    """
    path = osp.join(folder, 'items.tsv')
    if not osp.exists(path):
        return '', None
    with open(path, encoding='utf-8-sig', newline='') as file:
        rows = list(csv.DictReader(file, delimiter='\t', quoting=csv.QUOTE_NONE))
    column = next((name for name in COLUMNS if rows and name in rows[0]), '')
    if not column:
        return '', None
    mark = '|' if any('|' in (row[column] or '') for row in rows) else ','
    of_item = {
        row['itemID']: {part.strip() for part in (row[column] or '').split(mark)} for row in rows
    }
    sets = [of_item.get(str(item), set()) - {''} for item in dataset.item_ids.tolist()]
    names, count = np.unique([name for own in sets for name in sorted(own)], return_counts=True)
    names = names[(count >= FEWEST) & (count <= MOST * len(sets))]
    place = {name: i for i, name in enumerate(names.tolist())}
    out = torch.zeros(len(sets), len(place), dtype=torch.bool)
    for item, own in enumerate(sets):
        out[item, [place[name] for name in sorted(own) if name in place]] = True
    return column, out if place else None
