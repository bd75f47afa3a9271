r"""Texts and pictures of items as feature matrices, in the order of their file."""

from __future__ import annotations

import csv
import json
import os
import os.path as osp
import shutil
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from motor_geo.data.datasets.item_index import find_items
from motor_geo.data.datasets.names import untyped
from motor_geo.data.datasets.reader import read_header
from motor_geo.data.describe import is_import_path, split_revision
from motor_geo.data.encoders import hashed_ngrams, image_statistics
from motor_geo.utils.cache import fingerprint
from motor_geo.utils.files import atomic_write, writing
from motor_geo.utils.plugin import import_function

#: Encoders without weights.
HASHED, STATISTICS = 'hashed', 'statistics'
#: Endings of pictures, and the side that they are scaled to for statistics.
PICTURES, SIDE = ('.jpg', '.jpeg', '.png', '.webp', '.bmp', '.gif'), 64
#: Items that are encoded and kept at a time.
PART = 1024
#: How the vectors of words become that of a text.
POOLINGS = ('mean', 'cls', 'max', 'lasttoken')

Encode = Callable[[Sequence[Any]], np.ndarray]


class Encoder(NamedTuple):
    r"""What turns texts or pictures into vectors.

    Args:
        encode: From a list to a matrix with a row for each.
        source: Where the numbers come from: name, versions, revision.
        opens: Whether it takes pictures of Pillow rather than arrays.
    """

    encode: Encode
    source: dict[str, Any]
    opens: bool = True


def text_encoder(
    name: str = HASHED,
    dim: int = 256,
    precision: str | None = None,
    pooling: str | None = None,
    option: str = '--text-encoder',
) -> Encoder:
    r"""An encoder of texts.

    Args:
        name: :obj:`'hashed'` for
            :func:`~motor_geo.data.encoders.hashed_ngrams`, the import path of
            a function from texts to a matrix, or a model of
            sentence-transformers, by its name, :obj:`NAME@REVISION` or its
            folder.
        dim: Width of hashed features.
        precision: Type of the weights of a model, such as :obj:`'bfloat16'`.
            (default: as it is stored)
        pooling: How a model sums up the vectors of words, one of
            :obj:`POOLINGS`. (default: as it was trained)
        option: What messages call the name.

    Raises:
        ValueError: If there is no such encoder.
    """
    if name == HASHED or is_import_path(name):
        if precision is not None or pooling is not None:
            raise ValueError(f"{option} '{name}' is no model that has a precision or a pooling")
    if name == HASHED:
        return Encoder(lambda texts: hashed_ngrams(texts, dim), {'encoder': name, 'dim': dim})
    return _other(name, option, HASHED, precision, pooling)


def image_encoder(name: str = STATISTICS, precision: str | None = None) -> Encoder:
    r"""An encoder of pictures.

    Args:
        name: :obj:`'statistics'` for
            :func:`~motor_geo.data.encoders.image_statistics`, the import path
            of a function from pictures (of Pillow) to a matrix, or a model of
            sentence-transformers, such as CLIP, by its name,
            :obj:`NAME@REVISION` or its folder.
        precision: Type of the weights of a model. (default: as it is stored)

    Raises:
        ValueError: If there is no such encoder.
    """
    if name == STATISTICS:
        source = {'encoder': name, 'side': SIDE}
        return Encoder(lambda pictures: image_statistics(np.stack(pictures)), source, False)
    return _other(name, '--image-encoder', STATISTICS, precision)


def _other(
    name: str, option: str, own: str, precision: str | None = None, pooling: str | None = None
) -> Encoder:
    if is_import_path(name):
        try:
            function = import_function(name)
        except ValueError as error:
            raise ValueError(f"{option}: '{name}' {error}") from error
        return Encoder(function, {'encoder': name})
    if find_spec('sentence_transformers') is None:
        raise ValueError(
            f"{option} '{name}' needs 'pip install sentence-transformers'; without it "
            f"there is '{own}', and any function by its import path"
        )
    from sentence_transformers import SentenceTransformer

    place, revision = split_revision(name)
    try:
        model = SentenceTransformer(place, **({} if revision is None else {'revision': revision}))
    except Exception as error:
        raise ValueError(
            f"{option}: the model '{name}' cannot be loaded ({type(error).__name__}); "
            'expected the name of one of sentence-transformers, or a folder with one'
        ) from error
    config = getattr(getattr(model[0], 'auto_model', None), 'config', None)
    source = {
        'encoder': name,
        'sentence-transformers': version('sentence-transformers'),
        'revision': getattr(config, '_commit_hash', None),
    }
    if pooling is not None:
        _set_pooling(model, pooling, name, option)
        source['pooling'] = pooling
    if precision is not None:
        import torch

        model = model.to(getattr(torch, precision))
        source['precision'] = precision
    return Encoder(lambda batch: model.encode(list(batch), show_progress_bar=False), source)


def _set_pooling(model: Any, pooling: str, name: str, option: str) -> None:
    r"""Puts another layer in the place of the one that sums up vectors of words."""
    for key, layer in model.named_children():
        if type(layer).__name__ == 'Pooling':
            width = getattr(layer, 'embedding_dimension', None) or layer.word_embedding_dimension
            setattr(model, key, type(layer)(width, pooling_mode=pooling))
            return
    raise ValueError(f"{option} '{name}' has no layer that pools; expected no --pooling")


def text_key(name: str) -> str:
    r"""Tells encoders of texts apart without loading them: by name, and models
    in a folder by the sizes and times of their files.
    """
    folder, files = osp.expanduser(name), []
    for place, _, names in os.walk(folder) if osp.isdir(folder) else ():
        for file in names:
            found = os.stat(osp.join(place, file))
            path = osp.relpath(osp.join(place, file), folder)
            files.append((path, found.st_size, found.st_mtime_ns))
    return fingerprint('text encoder', '' if files else name, sorted(files))


def encode_texts(encoder: Encoder, texts: Sequence[str], batch_size: int = 64) -> np.ndarray:
    r"""Features of texts, float32 **[N, d]**.

    Raises:
        ValueError: If the encoder returns something else than a row of finite
            numbers for each.
    """
    rows = []
    with tqdm(total=len(texts), desc='text', unit='item', disable=None) as bar:
        for start in range(0, len(texts), batch_size):
            batch = list(texts[start : start + batch_size])
            rows.append(_checked(encoder, batch, 'text').astype(np.float32))
            bar.update(len(batch))
    return np.concatenate(rows)


def read_texts(folder: str, columns: Sequence[str]) -> list[str]:
    r"""Texts of items, the given columns of their file joined.

    Raises:
        ValueError: If there is no file of items, or no such column.
    """
    rows = _rows(folder, columns)
    return ['. '.join(text for text in map(str.strip, row) if text) for row in rows]


def read_paths(folder: str, images: str, column: str) -> list[str | None]:
    r"""Files of pictures of items, by their id or the name in a column;
    :obj:`None` where there is none.

    Args:
        folder: The folder with the file of items.
        images: The folder of pictures.
        column: The column of ids, or of names of files.

    Raises:
        ValueError: If the folder does not exist, or no item has a picture.
    """
    if not osp.isdir(images):
        raise ValueError(f"--images: the folder '{images}' does not exist")
    files: dict[str, str] = {}
    for name in sorted(os.listdir(images)):
        stem, ending = osp.splitext(name)
        if ending.lower() in PICTURES:
            files.setdefault(stem, name)
            files[name] = name
    out: list[str | None] = []
    for (key,) in _rows(folder, [column]):
        found = files.get(key.strip())
        out.append(None if found is None else osp.join(images, found))
    if not any(out):
        raise ValueError(
            f"--images: '{images}' has no picture of an item; expected files named by the column "
            f"'{column}', such as '{next(iter(_rows(folder, [column])), ['id'])[0]}.jpg'"
        )
    return out


def _rows(folder: str, columns: Sequence[str]) -> Iterator[list[str]]:
    path = find_items(folder)
    if path is None:
        raise ValueError(f"'{folder}' has no file of items: expected items.tsv, .csv or .parquet")
    header = read_header(path)
    known = {untyped(name): i for i, name in enumerate(header)} | {
        name: i for i, name in enumerate(header)
    }
    for column in columns:
        if column not in known:
            raise ValueError(f"'{path}' has no column '{column}'; found {', '.join(header)}")
    places = [known[column] for column in columns]
    if path.endswith('.parquet'):
        import pyarrow.parquet

        table = pyarrow.parquet.read_table(path, columns=[header[i] for i in places])
        parts = [table[header[i]].to_pylist() for i in places]
        return iter([['' if x is None else str(x) for x in row] for row in zip(*parts)])
    return _text_rows(path, places)


def _text_rows(path: str, places: list[int]) -> Iterator[list[str]]:
    with open(path, encoding='utf-8-sig', newline='') as file:
        tabs = '\t' in file.readline()
        lines = (line.rstrip('\r\n').split('\t') for line in file) if tabs else csv.reader(file)
        for row in lines:
            if row and any(row):
                yield [row[i] if i < len(row) else '' for i in places]


def open_picture(path: str, whole: bool) -> Any:
    r"""A picture of Pillow, or as uint8 **[64, 64, 3]**.

    Raises:
        ValueError: If the file is no picture.
    """
    if find_spec('PIL') is None:
        raise ValueError("Pictures need 'pip install pillow'")
    from PIL import Image

    try:
        with Image.open(path) as file:
            picture = file.convert('RGB')
    except Exception as error:
        raise ValueError(f"'{path}' cannot be read as a picture") from error
    return picture if whole else np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def write_features(
    folder: str,
    modality: str,
    inputs: Sequence[Any],
    encoder: Encoder,
    load: Callable[[Any], Any] | None = None,
    batch_size: int = 64,
    dtype: str = 'float16',
    progress: Callable[[int], None] = lambda count: None,
) -> tuple[int, int]:
    r"""Writes :obj:`<modality>_feat.npy`, :obj:`<modality>_mask.npy` if items
    lack the modality, and :obj:`<modality>_feat.json`, which says where the
    numbers come from. What was encoded when it was interrupted is not encoded
    again.

    Args:
        folder: Where to write.
        modality: Name of the modality.
        inputs: Texts or paths by item; empty where there is none.
        encoder: The encoder.
        load: From an input to what the encoder takes.
        batch_size: Items that are encoded at once.
        dtype: Type of the numbers, :obj:`'float16'` or :obj:`'float32'`.
        progress: Called with the number of items that are done.

    Returns:
        The number of items that have the modality, and the width.

    Raises:
        ValueError: If no item has it, or the encoder returns something else
            than a row of finite numbers for each.
    """
    mask = np.array([bool(value) for value in inputs])
    if not mask.any():
        raise ValueError(f"No item has '{modality}'; expected some that is not empty")
    present = [value for value in inputs if value]
    stamps = [] if load is None else [osp.getmtime(path) for path in present]
    key = fingerprint(present, stamps, encoder.source, dtype)
    parts = osp.join(folder, f'.{modality}-{key}')
    os.makedirs(parts, exist_ok=True)
    for start in range(0, len(present), PART):
        path = osp.join(parts, f'{start:09d}.npy')
        chunk = present[start : start + PART]
        if not osp.exists(path):
            rows = []
            for first in range(0, len(chunk), batch_size):
                batch = list(chunk[first : first + batch_size])
                batch = batch if load is None else [load(value) for value in batch]
                rows.append(_checked(encoder, batch, modality))
                progress(start + first + len(batch))
            with atomic_write(path) as temporary, open(temporary, 'wb') as file:
                np.save(file, np.concatenate(rows).astype(dtype))
        progress(start + len(chunk))
    found = [np.load(osp.join(parts, name)) for name in sorted(os.listdir(parts))]
    x = np.zeros((len(mask), found[0].shape[1]), dtype)
    x[mask] = np.concatenate(found)
    content = {
        **encoder.source,
        'modality': modality,
        'items': len(mask),
        'with': int(mask.sum()),
        'dtype': dtype,
        'inputs': fingerprint(present),
        'hash': fingerprint(x, mask),
    }
    _save(x, osp.join(folder, f'{modality}_feat.npy'))
    path = osp.join(folder, f'{modality}_mask.npy')
    if not mask.all():
        _save(mask, path)
    elif osp.exists(path):
        os.remove(path)
    path = osp.join(folder, f'{modality}_feat.json')
    with writing(path), atomic_write(path) as temporary, open(temporary, 'w') as text:
        json.dump(content, text, indent=1)
    shutil.rmtree(parts)
    return int(mask.sum()), x.shape[1]


def _checked(encoder: Encoder, batch: list[Any], modality: str) -> np.ndarray:
    x = np.asarray(encoder.encode(batch))
    if x.ndim != 2 or len(x) != len(batch) or x.dtype.kind not in 'fiu' or not np.isfinite(x).all():
        raise ValueError(
            f"The encoder '{encoder.source['encoder']}' of '{modality}': expected a row of finite "
            f'numbers for each of {len(batch)} inputs, got {x.dtype} {list(x.shape)}'
        )
    return x


def _save(x: np.ndarray, path: str) -> None:
    with writing(path), atomic_write(path) as temporary, open(temporary, 'wb') as file:
        np.save(file, x)
