r"""Encodes texts and images of items as feature matrices, in the order of the
file of items.
"""

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
from motor_geo.utils.arrays import load_npy
from motor_geo.utils.cache import fingerprint
from motor_geo.utils.extras import needs
from motor_geo.utils.files import atomic_write, check_file, writing
from motor_geo.utils.plugin import import_function

#: Encoders without weights.
HASHED, STATISTICS = 'hashed', 'statistics'
#: Extensions of image files, and the side length to which images are resized for statistics.
PICTURES, SIDE = ('.jpg', '.jpeg', '.png', '.webp', '.bmp', '.gif'), 64
#: Number of items that are encoded and saved at a time.
PART = 1024
#: Pooling methods, which reduce token vectors to the vector of a text.
POOLINGS = ('mean', 'cls', 'max', 'lasttoken')
#: Maximum number of characters per text.
LONGEST = 2**31 - 1

Encode = Callable[[Sequence[Any]], np.ndarray]


class Encoder(NamedTuple):
    r"""An encoder of texts or images.

    Args:
        encode: A function from a list of inputs to a matrix with one row per
            input.
        source: The origin of the numbers: name, versions, revision.
        opens: Whether :obj:`encode` takes Pillow images rather than arrays.
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
    r"""Returns a text encoder.

    Args:
        name: :obj:`'hashed'` for
            :func:`~motor_geo.data.encoders.hashed_ngrams`, the import path of
            a function from texts to a matrix, or a sentence-transformers model
            as :obj:`NAME`, :obj:`NAME@REVISION` or a folder.
        dim: Width of hashed features.
        precision: Data type of the weights of a model, such as
            :obj:`'bfloat16'`. (default: that of the stored weights)
        pooling: Pooling method of a model, one of :obj:`POOLINGS`.
            (default: that of the model)
        option: Name of the option in error messages.

    Raises:
        ValueError: If there is no such encoder, it cannot be loaded, or it does
            not support :obj:`precision` or :obj:`pooling`.
    """
    if name == HASHED or is_import_path(name):
        if precision is not None or pooling is not None:
            raise ValueError(f"{option} '{name}' does not support --precision or --pooling")
    if name == HASHED:
        return Encoder(lambda texts: hashed_ngrams(texts, dim), {'encoder': name, 'dim': dim})
    return _other(name, option, HASHED, precision, pooling)


def image_encoder(name: str = STATISTICS, precision: str | None = None) -> Encoder:
    r"""Returns an image encoder.

    Args:
        name: :obj:`'statistics'` for
            :func:`~motor_geo.data.encoders.image_statistics`, the import path
            of a function from Pillow images to a matrix, or a
            sentence-transformers model, such as CLIP, as :obj:`NAME`,
            :obj:`NAME@REVISION` or a folder.
        precision: Data type of the weights of a model. (default: that of the
            stored weights)

    Raises:
        ValueError: If there is no such encoder, or it cannot be loaded.
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
        message = needs(f"{option} '{name}'", 'sentence-transformers', extra='features')
        raise ValueError(
            f"{message}; without it, expected '{own}' or the import path of a function"
        )
    from sentence_transformers import SentenceTransformer

    place, revision = split_revision(name)
    try:
        model = SentenceTransformer(place, **({} if revision is None else {'revision': revision}))
    except Exception as error:
        raise ValueError(
            f"{option}: the model '{name}' cannot be loaded ({type(error).__name__}); "
            'expected the name or the folder of a sentence-transformers model'
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
    r"""Replaces the pooling layer of a sentence-transformers model."""
    for key, layer in model.named_children():
        if type(layer).__name__ == 'Pooling':
            width = getattr(layer, 'embedding_dimension', None) or layer.word_embedding_dimension
            setattr(model, key, type(layer)(width, pooling_mode=pooling))
            return
    raise ValueError(f"{option} '{name}' has no pooling layer; expected no --pooling")


def text_key(name: str) -> str:
    r"""Returns a key that identifies a text encoder without loading it. Models
    in a folder are identified by the sizes and modification times of their
    files, others by name.

    Args:
        name: Name of the encoder.
    """
    folder, files = osp.expanduser(name), []
    for place, _, names in os.walk(folder) if osp.isdir(folder) else ():
        for file in names:
            found = os.stat(osp.join(place, file))
            path = osp.relpath(osp.join(place, file), folder)
            files.append((path, found.st_size, found.st_mtime_ns))
    return fingerprint('text encoder', '' if files else name, sorted(files))


def encode_texts(encoder: Encoder, texts: Sequence[str], batch_size: int = 64) -> np.ndarray:
    r"""Encodes texts.

    Args:
        encoder: The encoder.
        texts: The texts.
        batch_size: Number of texts per batch.

    Returns:
        The features as float32, **[N, d]**.

    Raises:
        ValueError: If the encoder does not return one row of finite numbers per
            text.
    """
    rows = []
    with tqdm(total=len(texts), desc='text', unit='item', disable=None) as bar:
        for start in range(0, len(texts), batch_size):
            batch = list(texts[start : start + batch_size])
            rows.append(_checked(encoder, batch, 'text').astype(np.float32))
            bar.update(len(batch))
    return np.concatenate(rows)


def read_texts(folder: str, columns: Sequence[str]) -> list[str]:
    r"""Reads the texts of items by joining columns of their file.

    Args:
        folder: The folder with the file of items.
        columns: Names of the columns to join.

    Returns:
        The text of each item, **[N]**.

    Raises:
        ValueError: If there is no file of items, or it lacks a column.
    """
    rows = _rows(folder, columns)
    return ['. '.join(text for text in map(str.strip, row) if text) for row in rows]


def read_paths(folder: str, images: str, column: str) -> list[str | None]:
    r"""Finds the image files of items by their id or by the file name in a
    column.

    Args:
        folder: The folder with the file of items.
        images: The folder of images.
        column: The column of ids or file names.

    Returns:
        The path of each item's image, or :obj:`None` if it has none, **[N]**.

    Raises:
        ValueError: If the folder of images does not exist, or no item has an
            image.
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
            f"--images: '{images}' has no image of any item; expected files named by the column "
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
    limit, line = csv.field_size_limit(LONGEST), 1
    try:
        with open(path, encoding='utf-8-sig', newline='') as file:
            header = file.readline()
            tabs = '\t' in header
            lines = map(_split, file) if tabs else csv.reader(file, strict=True)
            width = len(_split(header) if tabs else next(csv.reader([header])))
            for row in lines:
                line += 1
                if not any(row):
                    continue
                if len(row) != width:
                    raise ValueError(
                        f"'{path}', row {line}: expected {width} fields as in the header, found "
                        f'{len(row)}'
                    )
                yield [row[i] for i in places]
    except UnicodeDecodeError as error:
        raise ValueError(
            f"'{path}': expected UTF-8 text, found {error.object[error.start]:#x}"
        ) from error
    except csv.Error as error:
        raise ValueError(f"'{path}', after row {line}: {error}") from error
    finally:
        csv.field_size_limit(limit)


def _split(line: str) -> list[str]:
    return line.rstrip('\r\n').split('\t')


def open_picture(path: str, whole: bool) -> Any:
    r"""Opens an image file.

    Args:
        path: The file.
        whole: If set to :obj:`True`, returns the Pillow image. Otherwise,
            returns its pixels at a reduced size, uint8 **[64, 64, 3]**.

    Raises:
        FileNotFoundError: If the file is missing or not a regular file.
        ValueError: If the file is not an image, or Pillow is not installed.
    """
    check_file(path, 'an image')
    if find_spec('PIL') is None:
        raise ValueError(needs('Reading images', 'pillow', extra='features'))
    from PIL import Image

    try:
        with Image.open(path) as file:
            picture = file.convert('RGB')
    except Exception as error:
        raise ValueError(f"'{path}' cannot be read as an image") from error
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
    r"""Encodes items and writes :obj:`<modality>_feat.npy`,
    :obj:`<modality>_mask.npy` if items lack the modality, and
    :obj:`<modality>_feat.json` with the origin of the numbers. After an
    interruption, the next call continues with the items that are not yet
    encoded.

    Args:
        folder: Folder of the output files.
        modality: Name of the modality.
        inputs: The text or path of each item, or an empty value if it lacks
            the modality, **[N]**.
        encoder: The encoder.
        load: A function from an input to what the encoder takes. (default: the
            input itself)
        batch_size: Number of items to encode at a time.
        dtype: Type of the numbers, :obj:`'float16'` or :obj:`'float32'`.
        progress: Called with the number of items encoded so far.

    Returns:
        The number of items that have the modality, and the feature width.

    Raises:
        OSError: If a file cannot be written.
        ValueError: If no item has the modality, or the encoder does not return
            one row of finite numbers per input.
    """
    mask = np.array([bool(value) for value in inputs])
    if not mask.any():
        raise ValueError(f"No item has '{modality}'; expected at least one that is not empty")
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
    starts = range(0, len(present), PART)
    found = [load_npy(osp.join(parts, f'{start:09d}.npy')) for start in starts]
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
    matrix = osp.join(folder, f'{modality}_feat.npy')
    path = osp.join(folder, f'{modality}_mask.npy')
    if not _is_mask(path, mask):  # Never leave features with another mask.
        for name in (matrix, path):
            if osp.lexists(name):
                os.remove(name)
        if not mask.all():
            _save(mask, path)
    _save(x, matrix)
    path = osp.join(folder, f'{modality}_feat.json')
    with writing(path), atomic_write(path) as temporary, open(temporary, 'w') as text:
        json.dump(content, text, indent=1)
    shutil.rmtree(parts)
    return int(mask.sum()), x.shape[1]


def _is_mask(path: str, mask: np.ndarray) -> bool:
    r"""Returns whether a mask file has this content. No file means that all
    items have the modality.
    """
    if not osp.lexists(path):
        return bool(mask.all())
    try:
        return np.array_equal(load_npy(path), mask) and not mask.all()
    except (OSError, ValueError):
        return False


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
