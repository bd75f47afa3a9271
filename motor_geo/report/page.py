r"""The page of a single run: tables, curves, and lists of items with titles and
pictures, as one file without scripts and external resources.
"""

from __future__ import annotations

import struct
import zlib
from base64 import b64encode
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from motor_geo.report.document import Figure, Table, Text
from motor_geo.report.write import environment

#: Pixels that a picture has at the most on either side.
PICTURE = 64


class Item(NamedTuple):
    r"""An item in a list.

    Args:
        title: What it is called.
        note: What is said of it, such as its rank.
        picture: The value of :func:`picture`; an empty text where others have
            one.
        hit: Whether it is marked.
    """

    title: str
    note: str = ''
    picture: str | None = None
    hit: bool = False


class ItemList(NamedTuple):
    r"""A list of items; :obj:`empty` stands there if there is none."""

    title: str
    items: Sequence[Item]
    ranked: bool = False
    empty: str = 'none'


class Card(NamedTuple):
    r"""Lists that belong together, such as those of a user."""

    head: Item
    lists: Sequence[ItemList]


class Cards(NamedTuple):
    r"""Cards in a row; :obj:`wide` ones have their lists side by side."""

    cards: Sequence[Card]
    wide: bool = False


class Verbatim(NamedTuple):
    r"""Text as it is, such as a file."""

    body: str


class Section(NamedTuple):
    r"""A part of a page; one that is :obj:`closed` opens on a click."""

    title: str
    blocks: Sequence[Text | Table | Figure | Cards | Verbatim]
    closed: bool = False


class Page(NamedTuple):
    r"""A page; :obj:`answer` is written like :class:`~.document.Text`."""

    title: str
    answer: str
    sections: Sequence[Section]


def render(page: Page) -> str:
    r"""A page as HTML. All that it holds is escaped."""
    text = environment('html').get_template('page.html').render(page=page)
    return text.strip('\n') + '\n'


def picture(pixels: np.ndarray, most: int = PICTURE) -> str:
    r"""A picture as the address of an :obj:`<img>`, which holds it as a PNG.

    Args:
        pixels: Red, green and blue from 0 to 255, **[H, W, 3]**.
        most: Pixels on either side, to which larger ones are averaged.
    """
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or not pixels.size:
        raise ValueError(f'Expected uint8 [H, W, 3], got {pixels.dtype} {list(pixels.shape)}.')
    step = -(-max(pixels.shape[:2]) // most)
    height, width = (max(size // step, 1) for size in pixels.shape[:2])
    if step > 1:
        blocks = pixels[: height * step, : width * step]
        blocks = blocks.reshape(height, -1, width, blocks.shape[1] // width, 3)
        pixels = blocks.mean(axis=(1, 3)).round().astype(np.uint8)
    rows = np.zeros((height, 1 + 3 * width), np.uint8)  # Each begins with its filter: none.
    rows[:, 1:] = pixels.reshape(height, -1)
    head = struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
    parts = [(b'IHDR', head), (b'IDAT', zlib.compress(rows.tobytes(), 9)), (b'IEND', b'')]
    png = b'\x89PNG\r\n\x1a\n' + b''.join(_chunk(*part) for part in parts)
    return f'data:image/png;base64,{b64encode(png).decode()}'


def _chunk(kind: bytes, content: bytes) -> bytes:
    check = zlib.crc32(kind + content)
    return struct.pack('>I', len(content)) + kind + content + struct.pack('>I', check)
