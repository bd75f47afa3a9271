r"""Computes top-k lists from a finished run: :obj:`python -m motor_geo.recommend RUN`."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from motor_geo.data import RecommendationDataset
from motor_geo.data.datasets.messages import clipped
from motor_geo.pipeline.catalog import read_catalog
from motor_geo.pipeline.folder import LoadedRun
from motor_geo.pipeline.index import ItemIndex
from motor_geo.pipeline.new_items import with_new_items
from motor_geo.pipeline.new_users import fold_in, known_pairs, popular, read_users, with_known
from motor_geo.pipeline.reasons import Explainer
from motor_geo.typing import RATES, Embeddings, Scores
from motor_geo.utils.ranking import Ranker

#: Which known items of a user to exclude from the lists.
EXCLUDE = ('all', 'train')
#: Number of users per search in an index.
BLOCK = 1024
#: The source of the list of a user.
TRAINED, FOLDED, POPULAR = 'training', 'fold-in', 'popularity'


class Recommendations(NamedTuple):
    r"""Lists of raw ids, best first. If fewer than :obj:`k` items are left for
    a user, the remaining entries have the score :obj:`-inf`.
    """

    user: np.ndarray  # [U]
    item: np.ndarray  # [U, k]
    score: np.ndarray  # [U, k]
    source: np.ndarray | None = None  # Source of each list, [U]
    why: np.ndarray | None = None  # Reasons in words, [U, k]


class Group(NamedTuple):
    r"""Users whose lists have the same source."""

    source: str
    ids: np.ndarray  # Raw ids, [n]
    place: Tensor  # Their positions among the requested users, [n]
    emb: Embeddings | Scores
    rows: Tensor  # Their rows in the vectors, [n]
    exclude: Tensor  # Rows and items to exclude from the lists, [2, E]
    history: Tensor  # Rows and items from which their vectors are computed, [2, E]


@dataclass(frozen=True)
class Request:
    r"""A request for lists: the users, and the items to rank for them."""

    groups: list[Group]
    item_ids: np.ndarray
    candidates: Tensor | None
    k: int
    index: ItemIndex | None = None  # The index to search. Its ids are `item_ids`.
    explainer: Explainer | None = None  # Explains the lists, if requested.

    def first(self, size: int) -> Request:
        r"""Returns the request for the first users only."""
        groups = []
        for group in self.groups:
            part = group._replace(
                ids=group.ids[:size], place=group.place[:size], rows=group.rows[:size]
            )
            groups.append(part)
            size -= len(part.ids)
        return replace(self, groups=groups)

    def part(self, number: int, count: int) -> Request:
        r"""Returns the request for one of several parts of the users of every group.

        Args:
            number: Number of the part, from one.
            count: Number of parts.
        """
        groups = []
        for group in self.groups:
            first, last = (len(group.ids) * i // count for i in (number - 1, number))
            part = {key: getattr(group, key)[first:last] for key in ('ids', 'place', 'rows')}
            groups.append(group._replace(**part))
        return replace(self, groups=groups)

    def blocks(self) -> Iterator[tuple[Group, slice, Tensor, Tensor]]:
        r"""Yields a group, a slice of its users, and their items and scores
        **[n, k]**, block by block.
        """
        for group in self.groups:
            if self.index is not None:
                yield from searched(self.index, group, self.k)
                continue
            device = group.rows.device
            candidates = None if self.candidates is None else self.candidates.to(device)
            size = len(self.item_ids)
            ranker = Ranker(group.rows, size, self.k, group.exclude.to(device), candidates)
            for start, score, item in ranker(group.emb):
                yield group, slice(start, start + len(item)), item.cpu(), score.cpu()

    def lists(self) -> Iterator[Recommendations]:
        r"""Yields lists of raw ids, block by block."""
        for group, rows, item, score in self.blocks():
            source = np.full(len(item), group.source)
            why = None if self.explainer is None else self.reasons(group, rows, item)
            yield Recommendations(
                group.ids[rows], self.item_ids[item.numpy()], score.numpy(), source, why
            )

    def reasons(self, group: Group, rows: slice, item: Tensor) -> np.ndarray:
        r"""Describes the reasons for the lists of some users in words, **[n, k]**."""
        assert self.explainer is not None
        user, known = group.history.cpu()
        order = user.argsort(stable=True)
        user, known = user[order].contiguous(), known[order]
        wanted = group.rows[rows].cpu()
        first, last = torch.searchsorted(user, wanted), torch.searchsorted(user, wanted, right=True)
        words = [
            self.explainer.why(known[a:b], row)
            for a, b, row in zip(first.tolist(), last.tolist(), item)
        ]
        return np.array(words, dtype=object).reshape(item.shape)


@torch.no_grad()
def recommend(
    run: LoadedRun,
    users: Sequence[str | int] | str | int | None = None,
    k: int = 20,
    new_items: str | None = None,
    exclude: str = 'all',
    mix: bool = False,
    interactions: Any = None,
    index: ItemIndex | None = None,
    why: bool = False,
) -> Recommendations:
    r"""Recommends the best items to users. Users without a training interaction
    are folded in from their held-out interactions, or get popular items if
    none are known. Both cases cause a warning. If the numbering in the files
    has gaps, users and items that do not occur are left out.

    Args:
        run: The run, from :func:`~motor_geo.pipeline.folder.load_run`.
        users: Raw user ids, or a single one. (default: all users)
        k: Length of the lists. (default: :obj:`20`)
        new_items: A folder with :obj:`<modality>_feat.npy` files of items
            that were absent in training, and optionally an :obj:`items.tsv`
            with their ids in the column :obj:`itemID`. If given, only these
            items are ranked. :obj:`<modality>_mask.npy` marks the items that
            have a modality. (default: :obj:`None`)
        exclude: Which items to exclude from the list of a user:
            :obj:`'all'` known items of the user, or only those of
            :obj:`'train'`. (default: :obj:`'all'`)
        mix: Whether to rank new items among all others.
            (default: :obj:`False`)
        interactions: Interactions of users to fold in: a file with the columns
            :obj:`userID` and :obj:`itemID`, a mapping from users to items,
            pairs of a user and an item, or a data frame. For users of the
            training data, their known interactions are added. Only these
            users get a list. (default: :obj:`None`)
        index: An index to search instead of scoring all items, from
            :func:`~motor_geo.pipeline.index.read_index`. Lists include items
            that were appended to it. (default: :obj:`None`)
        why: Whether to report which items of the user contribute most to the
            score, and how many tokens they share with the recommended item.
            (default: :obj:`False`)

    Raises:
        ValueError: If a user is unknown, new items cannot be scored, or
            arguments contradict each other.
    """
    request = prepare(run, users, k, new_items, exclude, mix, interactions, index, why)
    blocks = list(request.blocks())
    num_users = sum(len(group.ids) for group in request.groups)
    width = min([k, *(item.size(1) for _, _, item, _ in blocks)])
    ids = np.concatenate([group.ids for group in request.groups])
    item = np.zeros((num_users, width), np.int64)
    score = np.zeros((num_users, width), np.float32)
    out_ids, source = ids.copy(), np.empty(num_users, 'U10')
    for group, rows, found, value in blocks:
        place = group.place[rows].numpy()
        out_ids[place], source[place] = group.ids[rows], group.source
        item[place], score[place] = found.numpy(), value.numpy()
    words = None
    if why:
        words = np.full(item.shape, '', dtype=object)
        for group, rows, found, _ in blocks:
            words[group.place[rows].numpy()] = request.reasons(group, rows, found)
    return Recommendations(out_ids, request.item_ids[item], score, source, words)


@torch.no_grad()
def prepare(
    run: LoadedRun,
    users: Sequence[str | int] | str | int | None = None,
    k: int = 20,
    new_items: str | None = None,
    exclude: str = 'all',
    mix: bool = False,
    interactions: Any = None,
    index: ItemIndex | None = None,
    why: bool = False,
) -> Request:
    r"""Prepares the request of :func:`recommend`, which has the same arguments."""
    if mix and new_items is None:
        raise ValueError(
            "'mix' ranks new items among all others; expected 'new_items' (--new-items)"
        )
    if interactions is not None and users is not None:
        raise ValueError("expected 'users' or 'interactions', got both")
    if index is not None and new_items is not None:
        raise ValueError(
            '--index: remove --new-items, and append new items to the index with motor-geo export '
            'RUN --index FILE --append FOLDER'
        )
    if index is not None and why:
        raise ValueError('--why: reasons are not available with --index; remove one of the two')
    dataset, data, item_ids = run.dataset, run.data, run.dataset.item_ids
    excluded = excluded_pairs(run, exclude)
    candidates = served_items(run)
    if new_items is not None:
        data, new_ids = with_new_items(run, new_items)
        added = torch.arange(len(item_ids), len(item_ids) + len(new_ids))
        candidates = torch.cat([candidates, added]) if mix else added
        item_ids = np.concatenate([item_ids.astype(str), new_ids])
    emb = run.model(data)
    if interactions is not None:
        groups = folded_group(run, emb, interactions, item_ids)
    else:
        groups = known_groups(run, emb, user_index(dataset, users), excluded, exclude)
    if index is not None:
        return Request(in_index(groups, index, item_ids), index.ids, None, k, index)
    explainer = None
    if why:
        titles = list(read_catalog(dataset, run.config.data.get('item')).titles)
        titles += item_ids[len(titles) :].tolist()
        explainer = Explainer(run, emb, data, titles, item_ids)
    some = None if len(candidates) == len(item_ids) else candidates
    return Request(groups, item_ids, some, k, explainer=explainer)


def in_index(groups: list[Group], index: ItemIndex, item_ids: np.ndarray) -> list[Group]:
    r"""Maps the items of groups to the rows of an index.

    Raises:
        ValueError: If the model scores without vectors, or has other vectors
            than the index.
    """
    row = {raw: i for i, raw in enumerate(index.ids.tolist())}
    place = torch.tensor([row.get(str(raw), -1) for raw in item_ids.tolist()])
    out = []
    for group in groups:
        if not isinstance(group.emb, Embeddings) or group.emb.user.size(1) != index.index.d:
            if group.source == POPULAR and isinstance(group.emb, Embeddings):
                count = group.emb.item.new_full((len(index.ids), 1), 0.0)
                count[place[place >= 0]] = group.emb.item[: len(place)][place >= 0].cpu()
                group = group._replace(emb=Embeddings(group.emb.user, count))
            else:
                raise ValueError('--index: expected an index of the vectors of this model')
        user, item = group.exclude.cpu()
        known = place[item] >= 0
        exclude = torch.stack([user[known], place[item[known]]])
        out.append(group._replace(exclude=exclude))
    return out


def searched(
    index: ItemIndex, group: Group, k: int
) -> Iterator[tuple[Group, slice, Tensor, Tensor]]:
    r"""Yields lists from an index, block by block. Each search is widened by the
    largest number of excluded items of a user in the block.
    """
    assert isinstance(group.emb, Embeddings)
    size, k = len(index.ids), min(k, len(index.ids))
    if group.source == POPULAR:
        for start, best, row in Ranker(group.rows, size, k, group.exclude)(group.emb):
            yield group, slice(start, start + len(row)), row, best
        return
    user, item = group.exclude.numpy()
    order = user.argsort(kind='stable')
    user, item = user[order], item[order]
    rows = group.rows.cpu().numpy()
    for start in range(0, len(rows), BLOCK):
        block = rows[start : start + BLOCK]
        first, last = user.searchsorted(block), user.searchsorted(block, side='right')
        more = int((last - first).max(initial=0))
        score, found = index.search(group.emb.user[torch.from_numpy(block)], k + more)
        bad = found < 0
        for i, (a, b) in enumerate(zip(first, last)):
            bad[i] |= np.isin(found[i], item[a:b])
        keep = bad.argsort(axis=1, kind='stable')[:, :k]  # Moves valid items to the front.
        score = np.take_along_axis(np.where(bad, -np.inf, score), keep, 1)
        found = np.where(np.isfinite(score), np.take_along_axis(found, keep, 1), -1)
        yield (
            group,
            slice(start, start + len(block)),
            torch.from_numpy(found),
            torch.from_numpy(score.astype(np.float32)),
        )


def served_users(run: LoadedRun) -> Tensor:
    r"""Returns the users with a trained vector."""
    user = run.data[RATES].edge_index[0].cpu()
    trained = user.bincount(minlength=run.dataset.num_users) > 0
    return (run.dataset.known_users & trained).nonzero().view(-1)


def served_items(run: LoadedRun) -> Tensor:
    r"""Returns the items to recommend. For a model with ID embeddings and no
    features, these are the items with a training interaction.
    """
    known = run.dataset.known_items
    if run.config.reads('num_items') and run.config.target('model').min_modalities == 0:
        item = run.data[RATES].edge_index[1].cpu()
        known = known & (item.bincount(minlength=run.dataset.num_items) > 0)
    return known.nonzero().view(-1)


def folded_group(
    run: LoadedRun, emb: Embeddings | Scores, interactions: Any, item_ids: np.ndarray
) -> list[Group]:
    r"""Returns the group of users with given interactions."""
    users = with_known(run, read_users(run, interactions, item_ids))
    size = len(users.ids)
    row = users.pairs[0].bincount(minlength=size) > 0
    folded = fold_in(run, emb, users.pairs, size)
    index = row.nonzero().view(-1)
    device = run.data[RATES].edge_index.device
    return [
        Group(
            FOLDED,
            users.ids[index.numpy()],
            index,
            folded,
            index.to(device),
            users.pairs,
            users.pairs,
        )
    ]


def known_groups(
    run: LoadedRun, emb: Embeddings | Scores, index: Tensor, excluded: Tensor, exclude: str
) -> list[Group]:
    r"""Groups the users of the data by the source of their lists."""
    dataset, edge_index = run.dataset, run.data[RATES].edge_index
    device, size = edge_index.device, dataset.num_users
    trained = (edge_index[0].cpu().bincount(minlength=size) > 0)[index]
    rest = dataset.dropped if exclude == 'all' else dataset.dropped[:, :0]
    some = (rest[0].bincount(minlength=size) > 0)[index]
    groups = []
    for source, mask in (
        (TRAINED, trained),
        (FOLDED, ~trained & some),
        (POPULAR, ~trained & ~some),
    ):
        place = mask.nonzero().view(-1)
        own = index[place]
        if source != TRAINED and len(own) == 0:
            continue
        vectors = emb
        if source == FOLDED:
            announce(dataset, own, 'get recommendations from their held-out interactions')
            vectors = fold_in(run, emb, rest, size)
        elif source == POPULAR:
            announce(dataset, own, 'get popular items')
            num_items = emb.item.size(0) if isinstance(emb, Embeddings) else emb.num_items
            vectors = popular(run, num_items, size)
        ids = dataset.user_ids[own.numpy()]
        history = edge_index if source == TRAINED else rest
        rows = own.to(device)
        groups.append(Group(source, ids, place, vectors, rows, excluded, history))
    return groups


def announce(dataset: RecommendationDataset, index: Tensor, what: str) -> None:
    r"""Warns about users without a training interaction."""
    missing = [str(dataset.user_ids[i]) for i in index.tolist()]
    names = ', '.join(f"'{clipped(name)}'" for name in missing[:3])
    what = what if len(missing) > 1 else what.replace('get ', 'gets ', 1)
    warnings.warn(
        f"'{dataset.name}': {len(missing)} user{'s' if len(missing) > 1 else ''} without training "
        f'interactions ({names}{", ..." if len(missing) > 3 else ""}) {what}',
        stacklevel=2,
    )


def excluded_pairs(run: LoadedRun, exclude: str) -> Tensor:
    r"""Returns the users and items to exclude from the lists, **[2, E]**.

    Raises:
        ValueError: If :obj:`exclude` is unknown.
    """
    if exclude not in EXCLUDE:
        raise ValueError(f"'exclude' must be {' or '.join(map(repr, EXCLUDE))} (got {exclude!r})")
    return known_pairs(run, exclude)


def user_index(
    dataset: RecommendationDataset, users: Sequence[str | int] | str | int | None
) -> Tensor:
    r"""Returns the indices of raw user ids, or of all users.

    Raises:
        ValueError: If a user is unknown.
    """
    exists = dataset.known_users.nonzero().view(-1)
    if users is None:
        return exists
    if isinstance(users, (str, int, np.integer)):
        users = [users]
    known = {str(dataset.user_ids[index]): index for index in exists.tolist()}
    names = [str(user.item() if isinstance(user, Tensor) else user) for user in users]
    for user in names:
        if user not in known:
            raise ValueError(
                f"The user '{user}' is not in '{dataset.name}'; expected one of its raw ids, such "
                f"as '{next(iter(known))}', or --new-users with the interactions of a new user"
            )
    return torch.tensor([known[user] for user in names], dtype=torch.long)
