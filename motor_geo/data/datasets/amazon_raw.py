r"""Readers for the raw files of the Amazon product data: reviews, metadata and
image features.
"""

from __future__ import annotations

import ast
import gzip
import json
import os.path as osp
import re
import zlib
from array import array
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import numpy as np
from tqdm import tqdm

from motor_geo.data.datasets.messages import clipped
from motor_geo.utils.files import check_file

#: Keys of user, product and time of a review. First those of 2014 and 2018, then those of 2023.
KEYS = (('reviewerID', 'asin', 'unixReviewTime'), ('user_id', 'parent_asin', 'timestamp'))
PATTERNS = {
    key: re.compile(rb"""['"]%s['"]\s*:\s*(['"])(.*?)\1""" % key.encode())
    for key in ('asin', 'parent_asin')
}
MOST_BYTES = 2**26  # Maximum length of a line.
IMAGE = np.dtype([('asin', 'S10'), ('x', '<f4', (4096,))])


def _read_lines(path: str) -> Iterator[tuple[int, bytes]]:
    r"""Yields the lines of a text or gzip file with their numbers (from 1), and
    shows a progress bar.
    """
    check_file(path, 'reviews or products')
    with (
        open(path, 'rb') as raw,
        tqdm(total=osp.getsize(path), unit='B', unit_scale=True, desc=osp.basename(path)) as bar,
    ):
        file: Any = gzip.GzipFile(fileobj=raw) if path.endswith('.gz') else raw
        number = 0
        try:
            for number, line in enumerate(iter(lambda: file.readline(MOST_BYTES), b''), start=1):
                if len(line) == MOST_BYTES:
                    raise ValueError(
                        f"'{path}', line {number}: longer than {MOST_BYTES >> 20} MB; expected one "
                        'review or product per line'
                    )
                if number % 10_000 == 0:
                    bar.update(raw.tell() - bar.n)
                if not line.isspace():
                    yield number, line
            bar.update(raw.tell() - bar.n)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(
                f"'{path}' is truncated or damaged after line {number} ({error}); expected a "
                f'complete gzip file. Remove it to download it again.'
            ) from error


def _parse(path: str, number: int, line: bytes, keys: tuple[str, ...]) -> dict[str, Any]:
    r"""Parses a line with a JSON object or a Python dictionary."""
    entry = None
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        with suppress(Exception):  # Invalid literals raise many kinds of errors.
            entry = ast.literal_eval(line.decode().strip())
    missing = [key for key in keys if not isinstance(entry, dict) or key not in entry]
    if missing:
        shown = line.decode(errors='replace').strip()[:60]
        raise ValueError(
            f"'{path}', line {number}: expected a JSON object with {list(keys)}, got '{shown}'."
        )
    return entry  # type: ignore[return-value]


def _rows(path: str) -> Iterator[tuple[str, str, int]]:
    is_csv = path.removesuffix('.gz').endswith('.csv')
    width, place = 4, [0, 1, 3]
    for number, line in _read_lines(path):
        keys = KEYS[b'"user_id"' in line and b'"parent_asin"' in line]
        try:
            if is_csv:
                fields = line.decode().strip('\r\n').split(',')
                if number == 1 and {*KEYS[1]} <= {*fields}:  # The 2023 release has a header.
                    width, place = len(fields), [fields.index(key) for key in KEYS[1]]
                    continue
                if len(fields) != width:
                    raise ValueError
                user, item, time = (fields[position] for position in place)
            else:
                entry = _parse(path, number, line, keys)
                user, item, time = (entry[key] for key in keys)
            if not user or not item or user.split() != [user] or item.split() != [item]:
                raise ValueError
            when = int(time)
            if not -(2**63) <= when < 2**63:
                raise ValueError
            yield user, item, when
        except (ValueError, TypeError, AttributeError, OverflowError) as error:
            if str(error).startswith(f"'{path}'"):
                raise
            shown = line.decode(errors='replace').strip()[:60]
            expected = 'user,item,rating,timestamp' if is_csv else f'two texts and a time in {keys}'
            raise ValueError(
                f"'{path}', line {number}: expected {expected}, got '{shown}'."
            ) from error


def read_interactions(
    path: str,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    r"""Reads ratings (CSV) or reviews (JSON lines).

    Args:
        path: The file, packed with gzip or not.

    Returns:
        Raw user ids **[M]**, raw item ids **[N]**, and the user index, item
        index and time of each row **[E]**.

    Raises:
        ValueError: If the file is empty, truncated or malformed.
    """
    users: dict[str, int] = {}
    items: dict[str, int] = {}
    columns = array('q'), array('q'), array('q')
    for user, item, time in _rows(path):
        columns[0].append(users.setdefault(user, len(users)))
        columns[1].append(items.setdefault(item, len(items)))
        columns[2].append(time)
    if not users:
        raise ValueError(f"'{path}' is empty; expected at least one interaction.")
    rows = [np.frombuffer(column, np.int64) for column in columns]
    return np.array(list(users)), np.array(list(items)), rows[0], rows[1], rows[2]


def distinct_rows(user: np.ndarray, item: np.ndarray, time: np.ndarray) -> np.ndarray:
    r"""Returns the positions of the distinct rows, sorted by user, item and
    time.
    """
    order = np.lexsort((time, item, user))
    rows = np.stack([user[order], item[order], time[order]])
    new = np.ones(len(order), bool)
    new[1:] = (rows[:, 1:] != rows[:, :-1]).any(axis=0)
    return order[new]


def read_metadata(path: str, asins: np.ndarray) -> dict[str, dict[str, Any]]:
    r"""Reads the entries of the given products. Lines of other products are
    not parsed.

    Args:
        path: The file, packed with gzip or not.
        asins: Product numbers, **[N]**.

    Returns:
        The entry of each product that was found.

    Raises:
        ValueError: If the file is truncated or malformed.
    """
    wanted = set(asins.tolist())
    found: dict[str, dict[str, Any]] = {}
    for number, line in _read_lines(path):
        key = 'parent_asin' if b'"parent_asin"' in line else 'asin'
        pattern = PATTERNS[key]
        match = pattern.search(line)
        if match and match[2].decode(errors='replace') not in wanted:
            continue
        entry = _parse(path, number, line, (key,))
        if not isinstance(entry[key], str):
            raise ValueError(
                f"'{path}', line {number}: expected text as '{key}', got '{clipped(entry[key])}'."
            )
        if entry[key] in wanted:
            found.setdefault(entry[key], entry)
    return found


def clean(value: Any) -> str:
    r"""Returns a text, or the texts of a list, as one line. Any other value
    gives an empty string.
    """
    if isinstance(value, (list, tuple)):
        value = ' '.join(entry for entry in value if isinstance(entry, str))
    if not isinstance(value, str):
        return ''
    value = value.encode('utf-8', 'replace').decode()  # Replaces lone surrogates.
    return ' '.join(value.replace('\0', ' ').split())


def sentence(entry: dict[str, Any]) -> str:
    r"""Joins title, brand, first category path and description of a product in
    one line, with a blank for each missing part. The bullet points of the 2018
    and 2023 releases (:obj:`feature` or :obj:`features`) follow.
    """
    path = entry.get('categories') or entry.get('category')
    if path and isinstance(path, (list, tuple)) and not isinstance(path[0], str):
        path = path[0]  # The 2014 release has several paths per product.
    path = ' '.join(map(str, path)) if isinstance(path, (list, tuple)) else path
    brand = entry.get('brand') or entry.get('store')
    parts = [entry.get('title'), brand, path, entry.get('description')]
    parts += [entry[key] for key in ('feature', 'features') if entry.get(key)]
    return ' '.join(clean(part) or ' ' for part in parts)


def write_images(path: str, asins: np.ndarray, folder: str, block: int = 256) -> None:
    r"""Writes the image features of products to :obj:`image_feat.npy` and
    :obj:`image_mask.npy` without loading all of them into memory.

    Args:
        path: The file of image features.
        asins: Product numbers in ascending order, **[N]**.
        folder: Folder of the output files.
        block: Number of records to read at a time.

    Raises:
        ValueError: If the file is truncated, contains NaN or infinite values,
            or has none of the products.
    """
    check_file(path, 'image features')
    size = osp.getsize(path)
    if size == 0 or size % IMAGE.itemsize:
        raise ValueError(
            f"'{path}' is truncated: expected a multiple of {IMAGE.itemsize} bytes (an ASIN of 10 "
            f'bytes and 4096 float32 per record), got {size}. Remove it to download it again.'
        )
    names = np.char.encode(asins, 'utf-8')
    mask, total = np.zeros(len(names), bool), np.zeros(4096)
    x = np.lib.format.open_memmap(
        osp.join(folder, 'image_feat.npy'), 'w+', np.float32, (len(names), 4096)
    )
    with (
        open(path, 'rb') as file,
        tqdm(total=size, unit='B', unit_scale=True, desc=osp.basename(path)) as bar,
    ):
        while len(records := np.fromfile(file, IMAGE, block)):
            bar.update(records.nbytes)
            row = np.minimum(np.searchsorted(names, records['asin']), len(names) - 1)
            known = np.flatnonzero((names[row] == records['asin']) & ~mask[row])
            known = known[np.unique(row[known], return_index=True)[1]]  # First of each product.
            row, values = row[known], records['x'][known]
            finite = np.isfinite(values).all(axis=1)
            if not finite.all():
                asin = asins[row[int((~finite).argmax())]]
                raise ValueError(f"'{path}': the image of '{asin}' holds NaN or infinite values.")
            x[row], mask[row] = values, True
            total += values.sum(axis=0, dtype=np.float64)
    if not mask.any():
        raise ValueError(f"'{path}': expected an image of at least one of {len(names)} items.")
    missing = np.flatnonzero(~mask)
    for start in range(0, len(missing), 4096):
        x[missing[start : start + 4096]] = total / mask.sum()
    x.flush()
    np.save(osp.join(folder, 'image_mask.npy'), mask)
