r"""The sections about tokens and users on the page of a run."""

from __future__ import annotations

import copy
import re
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from motor_geo.engine.metrics import cutoffs
from motor_geo.pipeline.assemble import build_behavior
from motor_geo.pipeline.catalog import Catalog
from motor_geo.pipeline.folder import LoadedRun
from motor_geo.pipeline.recommend import excluded_pairs
from motor_geo.pipeline.tokens import COLUMNS
from motor_geo.report.document import Column, Row, Table, Text, Value
from motor_geo.report.page import Card, Cards, Item, ItemList, Section
from motor_geo.typing import ITEM, RATES, EvalTargets
from motor_geo.utils.ranking import Ranker

#: Number of recommended items and of training items to show.
LENGTH, BEFORE = 10, 8
#: Number of users, items and codes (per modality) to draw.
USERS, QUERIES, CODES = 4, 4, 4


def tokens(run: LoadedRun, catalog: Catalog) -> Section | None:
    r"""Shows how well tokens separate items, which items share tokens, and what
    single tokens stand for.
    """
    if run.tokenizer is None:
        return None
    data = copy.copy(run.data).cpu()
    token_id = data[ITEM].token_id
    if run.config.behavior:
        data = build_behavior(run.config, data)(data)
    report = run.tokenizer.report(data)
    size = run.tokenizer.codebook_size
    rows, books = [], []
    for m, row in report['modalities'].items():
        counts = [Value(row[key]) for key in ('num_tokens', 'collisions', 'duplicates')]
        shares = [f'{row[key]:.3f}' for key in ('error', 'kept_variance', 'neighbors')]
        rows.append(Row([m], [*counts, *shares]))
        for position, (used, perplexity) in enumerate(zip(row['used'], row['perplexity'])):
            cells = [f'{used:,} of {size:,}', f'{perplexity:.1f}']
            books.append(Row([m, str(position + 1)], cells))
    names = ('tokens', 'collisions', 'duplicates', 'error', 'kept', 'neighbors')
    columns = [Column(name, 'count') for name in names]
    count, total = report['collisions'], report['num_items']
    blocks: list[Text | Table | Cards] = [
        Text(
            'Tokens',
            f'{count:,} of {total:,} items ({count / total:.1%}) share all tokens with another '
            'item.',
        ),
        Table('tokens', 'By modality', ['modality'], columns, rows, _meanings(*names)),
        Table(
            'codebooks',
            'Use of the codebooks',
            ['modality', 'token'],
            [Column('used', 'count'), Column('perplexity', 'count')],
            books,
            _meanings('used', 'perplexity'),
        ),
    ]
    if catalog.has_names:
        count_of = _popularity(run)
        positions = [
            (m, i) for m, n in sorted(run.tokenizer.num_tokens_dict.items()) for i in range(n)
        ]
        blocks += _neighbors(token_id, catalog)
        blocks += _codes(token_id, positions, catalog, count_of)
    return Section('Tokens', blocks)


def _meanings(*names: str) -> list[str]:
    return ['; '.join(f'{name}: {COLUMNS[name]}' for name in names) + '.']


def _popularity(run: LoadedRun) -> Tensor:
    return run.data[RATES].edge_index[1].cpu().bincount(minlength=run.dataset.num_items)


def _neighbors(token_id: Tensor, catalog: Catalog, k: int = 3) -> list[Text | Cards]:
    r"""Shows random items, and the items that share the most tokens with each."""
    named = np.flatnonzero(catalog.titled) if catalog.pictures is None else len(token_id)
    drawn = np.random.default_rng(0).permutation(named)[:QUERIES].tolist()
    cards = []
    for query in drawn:
        shared = (token_id == token_id[query]).sum(dim=1)
        shared[query] = -1
        near = shared.sort(descending=True, stable=True).indices[:k].tolist()
        items = [catalog.item(i, f'{int(shared[i])} of {token_id.size(1)}') for i in near]
        cards.append(Card(catalog.item(query), [ItemList('shares tokens with', items)]))
    text = f'Random items, and the {k} items that share the most tokens with each:'
    return [Text('Neighbors', text), Cards(cards)]


def _codes(
    token_id: Tensor,
    positions: Sequence[tuple[str, int]],
    catalog: Catalog,
    count: Tensor,
    k: int = 5,
) -> list[Text | Cards]:
    r"""Shows random codes among those of several items, with their items."""
    rng, cards = np.random.default_rng(0), []
    words = [
        _words(title) if known else set() for title, known in zip(catalog.titles, catalog.titled)
    ]
    frequency = Counter(word for own in words for word in own)
    for modality in dict.fromkeys(m for m, _ in positions):
        choices = [
            (column, code)
            for column, (m, _) in enumerate(positions)
            if m == modality
            for code in (token_id[:, column].long().bincount() >= k).nonzero().view(-1).tolist()
        ]
        for column, code in (choices[i] for i in rng.permutation(len(choices))[:CODES]):
            own = (token_id[:, column] == code).nonzero().view(-1)
            best = own[count[own].argsort(descending=True, stable=True)][:k].tolist()
            common = _common([words[i] for i in own.tolist()], frequency, len(words))
            name = f'{modality}, token {positions[column][1] + 1}, code {code}'
            note = f'{own.numel():,} items{f"; {common}" if common else ""}'
            items = ItemList('most popular items', [catalog.item(i) for i in best])
            cards.append(Card(Item(name, note), [items]))
    if not cards:
        return []
    text = (
        f'What tokens stand for: random codes that {k} or more items have, with their most '
        'popular items and the words that stand out in the titles.'
    )
    return [Text('Codes', text), Cards(cards)]


def _words(title: str) -> set[str]:
    return {word for word in re.findall(r"[^\W\d_][\w'-]+", title.lower()) if len(word) > 2}


def _common(own: Sequence[set[str]], frequency: Mapping[str, int], total: int) -> str:
    r"""Returns words that are frequent in the given titles but rare in others:
    those that contribute most to the divergence from all titles.
    """
    found = Counter(word for words in own for word in words)
    gain = {
        word: n * np.log(n * total / (len(own) * frequency[word]))
        for word, n in found.items()
        if n > 1
    }
    best = sorted((word for word in gain if gain[word] > 0), key=lambda w: (-gain[w], w))[:4]
    return ', '.join(f'"{word}"' for word in best)


@torch.no_grad()
def users(run: LoadedRun, catalog: Catalog, values: Mapping[str, np.ndarray]) -> Section:
    r"""Shows the training items, recommended items and test items of a few
    users.

    Args:
        run: The run.
        catalog: Titles and pictures of the items.
        values: The content of :obj:`per_user.npz`.
    """
    dataset, edge_index = run.dataset, run.data[RATES].edge_index
    targets = dataset.targets('test').distinct()
    depth = max(cutoffs(run.config.evaluator['ks']))
    length = min(LENGTH, depth)
    if len(targets):
        groups = _groups(targets, values, length)
    else:
        groups = {'users, drawn at random': edge_index[0].unique().cpu()}
    rng = np.random.default_rng(0)
    size = USERS // len(groups)
    drawn = {
        name: group[torch.from_numpy(rng.permutation(group.numel())[:size])]
        for name, group in groups.items()
        if group.numel()
    }
    # These lists match the evaluation, which breaks ties at random.
    exclude = excluded_pairs(run, 'train')
    if run.config.mask_validation:
        row, item = dataset.targets('val').index
        pairs = torch.stack([dataset.targets('val').user[row], item])
        exclude = torch.cat([exclude, pairs.to(exclude.device)], dim=1)
    candidates = None if targets.candidates is None else targets.candidates.to(exclude.device)
    chosen = torch.cat(list(drawn.values())).to(exclude.device)
    ranker = Ranker(chosen, dataset.num_items, depth, exclude, candidates, seed=0)
    lists = torch.cat([item for *_, item in ranker(run.model(run.data))]).cpu()

    def card(user: int, ranked: Tensor) -> Card:
        r"""Builds the lists of a user."""
        had = edge_index[1][edge_index[0] == user].cpu().numpy()
        took = _held_out(targets, user)
        rank = {item: i + 1 for i, item in enumerate(ranked.tolist()) if item >= 0}
        shown = sorted(rng.permutation(had)[:BEFORE].tolist())
        get = [item for item, place in rank.items() if place <= length]
        best = sorted(took, key=lambda item: rank.get(item, depth + 1))[:LENGTH]
        notes = {item: f'rank {rank[item]}' for item in took if item in rank}
        notes |= {item: f'✓ {notes[item]}' for item in took if item in get}
        rest = f'not among the first {depth}'
        parts = [
            ItemList(f'Had in training{_some(shown, had)}', [catalog.item(i) for i in shown]),
            ItemList(
                'Would get',
                [catalog.item(i, '✓ in test' if i in took else '', i in took) for i in get],
                ranked=True,
            ),
            ItemList(
                f'Took in test{_some(best, took)}',
                [catalog.item(i, notes.get(i, rest), i in get) for i in best],
            ),
        ]
        return Card(Item(f'User {dataset.user_ids[user]}'), parts if len(targets) else parts[:2])

    blocks: list[Text | Cards] = []
    rows = iter(lists)
    for name, group in drawn.items():
        cards = [card(user, next(rows)) for user in group.tolist()]
        blocks += [Text('Users', f'{len(cards)} {name}:'), Cards(cards, wide=True)]
    return Section('Lists of a few users', blocks)


def _groups(
    targets: EvalTargets, values: Mapping[str, np.ndarray], length: int
) -> dict[str, Tensor]:
    r"""Groups users by whether their list contains a held-out item."""
    rank, total = values.get('rank'), f'{len(targets):,}'
    if rank is None or len(rank) != targets.item.numel():
        return {f'drawn at random from {total} users': targets.user}
    row, _ = targets.index
    hit = torch.zeros(len(targets), dtype=torch.bool)
    hit[row[torch.from_numpy(rank < length)]] = True
    return {
        f'drawn from the {int(mask.sum()):,} of {total} users {word} a held-out item among the '
        f'first {length}': targets.user[mask]
        for word, mask in (('with', hit), ('without', ~hit))
    }


def _held_out(targets: EvalTargets, user: int) -> list[int]:
    place = (targets.user == user).nonzero().view(-1).tolist()
    return [i for p in place for i in targets.item[targets.ptr[p] : targets.ptr[p + 1]].tolist()]


def _some(shown: Sequence[int], of: Sequence[int] | np.ndarray) -> str:
    return f', {len(shown)} of {len(of):,}' if len(shown) < len(of) else ''
