r"""Nearest-neighbor indices of item vectors, with their ids."""

from __future__ import annotations

import json
import os.path as osp
import zlib
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from motor_geo.typing import Embeddings
from motor_geo.utils.files import atomic_write, crc_of, read_json, writing
from motor_geo.utils.ranking import top_k

KINDS = ('flat', 'hnsw', 'ivf')
#: Items up to which every one is compared, and up to which a graph of neighbors is built.
FLAT, HNSW = 50_000, 1_000_000
#: Edges of a node, and the breadths of the search that are tried until enough is found again.
EDGES, BREADTHS = 32, (64, 128, 256, 512)
CELLS_TRIED = (8, 16, 32, 64, 128)
#: What is said of the pair of files rather than of the index.
ABOUT = ('checksum', 'before')
#: Users whose lists are compared, and the recall that is enough.
SAMPLE, ENOUGH = 1000, 0.98


class ItemIndex(NamedTuple):
    r"""An index of FAISS by inner product, and the raw ids of its rows."""

    index: Any
    ids: np.ndarray  # [n]
    kind: str
    recall: float  # Share of exact lists that it finds.
    run: str = ''  # Hash of the run that it belongs to.

    def search(self, user: Tensor, k: int) -> tuple[np.ndarray, np.ndarray]:
        r"""Scores and rows of the nearest items, **[B, k]**; row :obj:`-1` is
        empty.
        """
        x = np.ascontiguousarray(user.detach().cpu().float().numpy())
        score, row = self.index.search(x, min(k, len(self.ids)))
        return score, row


def build_index(
    user: Tensor, item: Tensor, ids: np.ndarray, kind: str | None = None, k: int = 20, run: str = ''
) -> ItemIndex:
    r"""An index of item vectors, and how much of exact search it keeps.

    Args:
        user: User vectors to search with, **[M, d]**.
        item: Item vectors, **[n, d]**.
        ids: Raw ids of the items, **[n]**.
        kind: :obj:`'flat'` (exact), :obj:`'hnsw'` (a graph of neighbors) or
            :obj:`'ivf'` (cells), by default by the number of items.
        k: Length of the lists that are compared.
        run: Hash of the run.

    Raises:
        ValueError: If the kind is unknown, or vectors are not finite.
    """
    import faiss

    if kind is None:
        kind = 'flat' if len(item) <= FLAT else 'hnsw' if len(item) <= HNSW else 'ivf'
    if kind not in KINDS:
        raise ValueError(f"--kind: expected {', '.join(KINDS)}, got '{kind}'")
    if not bool(item.isfinite().all()):
        raise ValueError('The vectors of items hold NaN; the model has diverged')
    x = np.ascontiguousarray(item.detach().cpu().float().numpy())
    width, breadths = x.shape[1], [0]
    index: Any
    if kind == 'flat':
        index = faiss.IndexFlatIP(width)
    elif kind == 'hnsw':
        index = faiss.IndexHNSWFlat(width, EDGES, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = 200
        breadths = list(BREADTHS)
    else:
        cells = max(1, min(int(4 * len(x) ** 0.5), len(x) // 39))
        quantizer = faiss.IndexFlatIP(width)
        index = faiss.IndexIVFFlat(quantizer, width, cells, faiss.METRIC_INNER_PRODUCT)
        index.train(x)
        breadths = [n for n in CELLS_TRIED if n < cells] + [cells]
    index.add(x)
    found = ItemIndex(index, ids, kind, 1.0, run)
    for breadth in breadths:
        if kind == 'hnsw':
            index.hnsw.efSearch = breadth
        elif kind == 'ivf':
            index.nprobe = breadth
        found = found._replace(recall=kept(found, user, item, k))
        if found.recall >= ENOUGH:
            break
    return found


def kept(index: ItemIndex, user: Tensor, item: Tensor, k: int = 20) -> float:
    r"""The share of the exact lists of some users that an index finds."""
    drawn = np.sort(np.random.default_rng(0).permutation(len(user))[:SAMPLE])
    if len(drawn) == 0:
        return 1.0
    rows = torch.from_numpy(drawn)
    k = min(k, len(item))
    exact = top_k(Embeddings(user.cpu(), item.cpu()), rows, k)[1]
    _, found = index.search(user.cpu()[rows], k)
    # Equal scores may stand in any order: what is as good as the last one counts.
    score = (user.cpu()[rows].unsqueeze(1) * item.cpu()[exact[:, -1:]]).sum(-1)
    mine = torch.from_numpy(found)
    value = (user.cpu()[rows].unsqueeze(1) * item.cpu()[mine.clamp(min=0)]).sum(-1)
    good = (value >= score - 1e-6 * score.abs() - 1e-12) & (mine >= 0)
    return float(good.double().mean())


def append(index: ItemIndex, item: Tensor, ids: np.ndarray) -> ItemIndex:
    r"""The index with further items.

    Raises:
        ValueError: If an id is there already.
    """
    again = np.isin(ids.astype(str), index.ids.astype(str))
    if again.any():
        raise ValueError(f"the item '{ids[again][0]}' is in the index already")
    index.index.add(np.ascontiguousarray(item.detach().cpu().float().numpy()))
    return index._replace(ids=np.concatenate([index.ids.astype(str), ids.astype(str)]))


def write_index(index: ItemIndex, path: str) -> None:
    r"""Writes an index, and beside it :obj:`FILE.json` with its ids and its
    checksum. Until both are there, :obj:`FILE.json` knows the index of before,
    too, so that an interruption leaves the old or the new one.
    """
    import faiss

    content: dict[str, Any] = {
        'kind': index.kind,
        'recall': index.recall,
        'run': index.run,
        'channels': int(index.index.d),
        'ids': [str(raw) for raw in index.ids.tolist()],
    }
    with writing(path), atomic_write(path) as temporary:
        faiss.write_index(index.index, temporary)
        content['checksum'] = checksum(temporary, content)
        before = None
        with suppress(OSError, ValueError):
            before = _names(path)
        _write_names(content if before is None else {**content, 'before': before}, path)
    _write_names(content, path)


def settle(path: str) -> None:
    r"""Ends what an interrupted :meth:`write_index` left to do."""
    _write_names(_names(path), path)


def _write_names(content: dict[str, Any], path: str) -> None:
    with writing(f'{path}.json') as name, atomic_write(name) as temporary:
        with open(temporary, 'w', encoding='utf-8') as file:
            json.dump(content, file)


def _names(path: str) -> dict[str, Any]:
    r"""What :obj:`FILE.json` says of the index that is there.

    Raises:
        ValueError: If it says nothing of it, or is damaged.
    """
    content = read_json(f'{path}.json')
    try:
        for entry in (content, content.get('before')):
            if entry is not None:
                own = {key: value for key, value in entry.items() if key not in ABOUT}
                found = checksum(path, own)
                if entry.get('checksum', found) == found:  # An older version has none.
                    return {**own, 'checksum': found}
    except AttributeError as error:
        raise ValueError('it is no description of an index') from error
    raise ValueError('it is of another index')


def checksum(path: str, content: dict[str, Any]) -> str:
    r"""The CRC-32 of an index and of what is said of it."""
    said = json.dumps(content, sort_keys=True).encode()
    return f'{zlib.crc32(said, crc_of(path)):08x}'


def read_index(path: str) -> ItemIndex:
    r"""Reads an index and its ids.

    Raises:
        ValueError: If one of both files is missing or damaged, or they do not
            belong together.
    """
    import faiss

    for file in (path, f'{path}.json'):
        if not osp.isfile(file):
            raise ValueError(
                f"'{file}' does not exist; expected what motor-geo export --index wrote"
            )
    try:
        content = _names(path)
        ids = np.array([str(raw) for raw in content['ids']])
        index = faiss.read_index(path)
        found = ItemIndex(
            index, ids, str(content['kind']), float(content['recall']), str(content['run'])
        )
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"'{path}' and '{path}.json' are no index and its ids, or one of them has changed "
            'since; export it anew'
        ) from error
    if index.ntotal != len(ids):
        raise ValueError(
            f"'{path}' has {index.ntotal} items and '{path}.json' {len(ids)} ids: they do not "
            'belong together; export it anew'
        )
    return found
