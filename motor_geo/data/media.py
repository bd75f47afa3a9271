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

from motor_geo.data.datasets.item_index import find_items
from motor_geo.data.datasets.names import untyped
from motor_geo.data.datasets.reader import read_header
from motor_geo.data.encoders import hashed_ngrams, image_statistics
from motor_geo.utils.arrays import load_npy
from motor_geo.utils.cache import fingerprint
from motor_geo.utils.files import atomic_write, check_file, writing
from motor_geo.utils.plugin import import_function

#: Encoders without weights.
HASHED, STATISTICS = 'hashed', 'statistics'
#: Endings of pictures, and the side that they are scaled to for statistics.
PICTURES, SIDE = ('.jpg', '.jpeg', '.png', '.webp', '.bmp', '.gif'), 64
#: Items that are encoded and kept at a time.
PART = 1024
#: Characters of a text.
LONGEST = 2**31 - 1

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


def text_encoder(name: str = HASHED, dim: int = 256) -> Encoder:
    r"""An encoder of texts.

    Args:
        name: :obj:`'hashed'` for
            :func:`~motor_geo.data.encoders.hashed_ngrams`, the import path of
            a function from texts to a matrix, or a model of
            sentence-transformers, by its name or its folder.
        dim: Width of hashed features.

    Raises:
        ValueError: If there is no such encoder.
    """
    if name == HASHED:
        return Encoder(lambda texts: hashed_ngrams(texts, dim), {'encoder': name, 'dim': dim})
    return _other(name, 'text')


def image_encoder(name: str = STATISTICS) -> Encoder:
    r"""An encoder of pictures.

    Args:
        name: :obj:`'statistics'` for
            :func:`~motor_geo.data.encoders.image_statistics`, the import path
            of a function from pictures (of Pillow) to a matrix, or a model of
            sentence-transformers, such as CLIP.

    Raises:
        ValueError: If there is no such encoder.
    """
    if name == STATISTICS:
        source = {'encoder': name, 'side': SIDE}
        return Encoder(lambda pictures: image_statistics(np.stack(pictures)), source, False)
    return _other(name, 'image')


def _other(name: str, what: str) -> Encoder:
    here = osp.isdir(osp.expanduser(name))
    if not here and '.' in name and all(part.isidentifier() for part in name.split('.')):
        try:
            function = import_function(name)
        except ValueError as error:
            raise ValueError(f"--{what}-encoder: '{name}' {error}") from error
        return Encoder(function, {'encoder': name})
    if find_spec('sentence_transformers') is None:
        own = HASHED if what == 'text' else STATISTICS
        raise ValueError(
            f"--{what}-encoder '{name}' needs 'pip install sentence-transformers'; without it "
            f"there is '{own}', and any function by its import path"
        )
    from sentence_transformers import SentenceTransformer

    try:
        model = SentenceTransformer(osp.expanduser(name))
    except Exception as error:
        raise ValueError(
            f"--{what}-encoder: the model '{name}' cannot be loaded ({type(error).__name__}); "
            'expected the name of one of sentence-transformers, or a folder with one'
        ) from error
    config = getattr(getattr(model[0], 'auto_model', None), 'config', None)
    source = {
        'encoder': name,
        'sentence-transformers': version('sentence-transformers'),
        'revision': getattr(config, '_commit_hash', None),
    }
    return Encoder(lambda batch: model.encode(list(batch), show_progress_bar=False), source)


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
    r"""A picture of Pillow, or as uint8 **[64, 64, 3]**.

    Raises:
        FileNotFoundError: If it is no file.
        ValueError: If the file is no picture.
    """
    check_file(path, 'a picture')
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
    if not _is_mask(path, mask):  # No features rather than those of other items.
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
    r"""Whether a file says that of items, and no file that all are there."""
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
