r"""Titles and pictures of items, if a data set has them."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from motor_geo.data import RecommendationDataset
from motor_geo.data.datasets.item_index import find_items
from motor_geo.data.datasets.messages import clipped
from motor_geo.data.datasets.names import find_columns, untyped
from motor_geo.data.datasets.reader import read_header
from motor_geo.report.page import Item, picture

#: Columns of an item file to read titles from, the preferred one first.
TITLES = ('title', 'name', 'text')
#: Number of characters to show of a title.
LENGTH = 90


class Catalog(NamedTuple):
    r"""Titles and pictures of the items of a data set.

    Args:
        titles: The title of each item, or its raw id, **[N]**.
        titled: Whether an item has a title, **[N]**.
        pictures: RGB pictures, **[N, H, W, 3]**; zeros if an item has none.
            (default: :obj:`None`)
    """

    titles: Sequence[str]
    titled: np.ndarray
    pictures: np.ndarray | None = None

    @property
    def has_names(self) -> bool:
        r"""Whether a reader can tell items apart, by titles or pictures."""
        return self.pictures is not None or bool(self.titled.any())

    def item(self, index: int, note: str = '', hit: bool = False) -> Item:
        r"""Builds the entry of an item for a list on a page."""
        pixels = None if self.pictures is None else self.pictures[index]
        image = None if pixels is None else picture(pixels) if pixels.any() else ''
        return Item(clipped(self.titles[index], LENGTH), note, image, hit)


def read_catalog(dataset: RecommendationDataset, column: str | None = None) -> Catalog:
    r"""Reads the titles and pictures of the items of a data set. Titles come
    from the attribute :obj:`item_titles` (a text or :obj:`None` for each item),
    or else from the item file in the folder of the data set. Pictures come
    from the attribute :obj:`item_images` (uint8 **[N, H, W, 3]**).

    Args:
        dataset: The data set.
        column: Name of the item column in the item file.
            (default: :obj:`None`, which detects the column)

    Raises:
        ValueError: If :obj:`item_images` has a wrong type or shape.
    """
    ids = list(map(str, dataset.item_ids.tolist()))
    shards = getattr(dataset, 'shards', None)
    if column is None and shards is not None:
        column = shards.options['item']
    found = getattr(dataset, 'item_titles', None)
    if found is None:
        listed = dict(_listed_titles(getattr(dataset, 'folder', None), column))
        found = [listed.get(raw) for raw in ids]
    titles = [str(title) if title else _named(raw) for title, raw in zip(found, ids)]
    return Catalog(titles, np.array(list(map(bool, found))), _pictures(dataset))


def _named(raw: str) -> str:
    return f'item {raw}' if raw.isdecimal() else raw


def _pictures(dataset: RecommendationDataset) -> np.ndarray | None:
    images = getattr(dataset, 'item_images', None)
    if images is None:
        return None
    images = np.asarray(images)
    expected = dataset.num_items, 3
    if images.ndim != 4 or images.dtype != np.uint8 or images.shape[::3] != expected:
        raise ValueError(
            f"'item_images' of '{dataset.name}': expected uint8 [{dataset.num_items}, H, W, 3], "
            f'got {images.dtype} {list(images.shape)}'
        )
    return images


def _listed_titles(folder: str | None, column: str | None) -> Iterator[tuple[str, str]]:
    r"""Yields the raw ids and titles in the item file of a folder, if any."""
    path = None if folder is None else find_items(folder)
    if path is None:
        return
    header = read_header(path)
    title = next((h for name in TITLES for h in header if untyped(h).lower() == name), None)
    if title is None:
        return
    given = {'item': column if column in header else None}
    key = find_columns(path, header, given, ['item'], announce=False)['item']
    if path.endswith('.parquet'):
        import pyarrow.parquet

        table = pyarrow.parquet.read_table(path, columns=[key, title])
        rows = zip(table[key].to_pylist(), table[title].to_pylist())
        yield from ((str(raw), str(text or '').strip()) for raw, text in rows)
        return
    place = header.index(key), header.index(title)
    with open(path, encoding='utf-8-sig', newline='') as file:
        tabs = '\t' in file.readline()  # Double quotes are special only between commas.
        lines = (line.rstrip('\r\n').split('\t') for line in file) if tabs else csv.reader(file)
        for row in lines:
            if len(row) > max(place):
                yield row[place[0]], row[place[1]].strip()
