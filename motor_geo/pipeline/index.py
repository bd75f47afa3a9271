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
#: Maximum number of items for exact search, and for a neighbor graph.
FLAT, HNSW = 50_000, 1_000_000
#: Edges per node of the neighbor graph, and search breadths to try until the recall is sufficient.
EDGES, BREADTHS = 32, (64, 128, 256, 512)
#: Numbers of cells to search, tried until the recall is sufficient.
CELLS_TRIED = (8, 16, 32, 64, 128)
#: Keys of the JSON file that describe the pair of files, not the index.
ABOUT = ('checksum', 'before')
#: Number of users whose lists are compared, and the sufficient recall.
SAMPLE, ENOUGH = 1000, 0.98


class ItemIndex(NamedTuple):
    r"""A FAISS index by inner product, and the raw ids of its rows."""

    index: Any
    ids: np.ndarray  # [n]
    kind: str
    recall: float  # Share of the exact lists that the index finds.
    run: str = ''  # Hash of the run.

    def search(self, user: Tensor, k: int) -> tuple[np.ndarray, np.ndarray]:
        r"""Returns the scores and rows of the nearest items, **[B, k]**. Row
        :obj:`-1` means that no item was found.
        """
        x = np.ascontiguousarray(user.detach().cpu().float().numpy())
        score, row = self.index.search(x, min(k, len(self.ids)))
        return score, row


def build_index(
    user: Tensor, item: Tensor, ids: np.ndarray, kind: str | None = None, k: int = 20, run: str = ''
) -> ItemIndex:
    r"""Builds an index of item vectors, and measures its recall of the lists of
    exact search.

    Args:
        user: User vectors to search with, **[M, d]**.
        item: Item vectors, **[n, d]**.
        ids: Raw ids of the items, **[n]**.
        kind: :obj:`'flat'` (exact), :obj:`'hnsw'` (a neighbor graph) or
            :obj:`'ivf'` (cells). (default: :obj:`None`, which chooses by the
            number of items)
        k: Length of the lists to compare. (default: :obj:`20`)
        run: Hash of the run. (default: :obj:`''`)

    Raises:
        ValueError: If the kind is unknown, or a vector is not finite.
    """
    import faiss

    if kind is None:
        kind = 'flat' if len(item) <= FLAT else 'hnsw' if len(item) <= HNSW else 'ivf'
    if kind not in KINDS:
        raise ValueError(f"--kind: expected {', '.join(KINDS)}, got '{kind}'")
    if not bool(item.isfinite().all()):
        raise ValueError('The item vectors are not finite; the model has diverged')
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
    r"""Returns the share of the exact lists of sampled users that an index
    finds.
    """
    drawn = np.sort(np.random.default_rng(0).permutation(len(user))[:SAMPLE])
    if len(drawn) == 0:
        return 1.0
    rows = torch.from_numpy(drawn)
    k = min(k, len(item))
    exact = top_k(Embeddings(user.cpu(), item.cpu()), rows, k)[1]
    _, found = index.search(user.cpu()[rows], k)
    # Ties may be in any order, so every item that scores at least as high as the last one counts.
    score = (user.cpu()[rows].unsqueeze(1) * item.cpu()[exact[:, -1:]]).sum(-1)
    mine = torch.from_numpy(found)
    value = (user.cpu()[rows].unsqueeze(1) * item.cpu()[mine.clamp(min=0)]).sum(-1)
    good = (value >= score - 1e-6 * score.abs() - 1e-12) & (mine >= 0)
    return float(good.double().mean())


def append(index: ItemIndex, item: Tensor, ids: np.ndarray) -> ItemIndex:
    r"""Appends items to an index.

    Args:
        index: The index.
        item: Vectors of the new items, **[n, d]**.
        ids: Raw ids of the new items, **[n]**.

    Raises:
        ValueError: If the index already contains one of the ids.
    """
    again = np.isin(ids.astype(str), index.ids.astype(str))
    if again.any():
        raise ValueError(f"the item '{ids[again][0]}' is already in the index")
    index.index.add(np.ascontiguousarray(item.detach().cpu().float().numpy()))
    return index._replace(ids=np.concatenate([index.ids.astype(str), ids.astype(str)]))


def write_index(index: ItemIndex, path: str) -> None:
    r"""Writes an index, and its ids and checksum as :obj:`FILE.json`. Until both
    files are complete, :obj:`FILE.json` also describes the previous index, so
    an interruption leaves either the old or the new index.
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
    r"""Completes an interrupted :meth:`write_index`."""
    _write_names(_names(path), path)


def _write_names(content: dict[str, Any], path: str) -> None:
    with writing(f'{path}.json') as name, atomic_write(name) as temporary:
        with open(temporary, 'w', encoding='utf-8') as file:
            json.dump(content, file)


def _names(path: str) -> dict[str, Any]:
    r"""Returns the entry of :obj:`FILE.json` that belongs to the index file.

    Raises:
        ValueError: If there is none, or :obj:`FILE.json` is damaged.
    """
    content = read_json(f'{path}.json')
    try:
        for entry in (content, content.get('before')):
            if entry is not None:
                own = {key: value for key, value in entry.items() if key not in ABOUT}
                found = checksum(path, own)
                if entry.get('checksum', found) == found:  # Older versions wrote none.
                    return {**own, 'checksum': found}
    except AttributeError as error:
        raise ValueError('it does not describe an index') from error
    raise ValueError('it describes another index')


def checksum(path: str, content: dict[str, Any]) -> str:
    r"""Returns the CRC-32 of an index file and its description."""
    text = json.dumps(content, sort_keys=True).encode()
    return f'{zlib.crc32(text, crc_of(path)):08x}'


def read_index(path: str) -> ItemIndex:
    r"""Reads an index and its ids.

    Raises:
        ValueError: If one of the two files is missing or damaged, or they do
            not belong together.
    """
    import faiss

    for file in (path, f'{path}.json'):
        if not osp.isfile(file):
            raise ValueError(
                f"'{file}' does not exist; expected a file from motor-geo export --index"
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
            f"'{path}' and '{path}.json' are damaged or do not belong together; export the index "
            'again'
        ) from error
    if index.ntotal != len(ids):
        raise ValueError(
            f"'{path}' has {index.ntotal} items, but '{path}.json' has {len(ids)} ids: they do not "
            'belong together; export the index again'
        )
    return found
