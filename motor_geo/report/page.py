r"""The page of a single run: tables, curves, and lists of items with titles and
images, in one file without scripts or external resources.
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

#: Maximum number of pixels on either side of an image.
PICTURE = 64


class Item(NamedTuple):
    r"""An item in a list.

    Args:
        title: Title of the item.
        note: A note about it, such as its rank.
        picture: The result of :func:`picture`. An empty text reserves the space
            of an image, and :obj:`None` does not.
        hit: If set to :obj:`True`, highlights the item.
    """

    title: str
    note: str = ''
    picture: str | None = None
    hit: bool = False


class ItemList(NamedTuple):
    r"""A list of items. If there are none, the page shows :obj:`empty`."""

    title: str
    items: Sequence[Item]
    ranked: bool = False
    empty: str = 'none'


class Card(NamedTuple):
    r"""Related lists, such as those of one user."""

    head: Item
    lists: Sequence[ItemList]


class Cards(NamedTuple):
    r"""A grid of cards. :obj:`wide` cards have their lists side by side."""

    cards: Sequence[Card]
    wide: bool = False


class Verbatim(NamedTuple):
    r"""Preformatted text, such as a file."""

    body: str


class Section(NamedTuple):
    r"""A section of a page. If :obj:`closed`, a click opens it."""

    title: str
    blocks: Sequence[Text | Table | Figure | Cards | Verbatim]
    closed: bool = False


class Page(NamedTuple):
    r"""A page. :obj:`answer` has the format of :class:`~.document.Text`."""

    title: str
    answer: str
    sections: Sequence[Section]


def render(page: Page) -> str:
    r"""Renders a page as HTML, and escapes all of its contents."""
    text = environment('html').get_template('page.html').render(page=page)
    return text.strip('\n') + '\n'


def picture(pixels: np.ndarray, most: int = PICTURE) -> str:
    r"""Encodes an image as a PNG in a data URL for an :obj:`<img>` element.

    Args:
        pixels: Red, green and blue from 0 to 255, uint8 **[H, W, 3]**.
        most: Maximum number of pixels on either side. Averaging shrinks larger
            images.

    Raises:
        ValueError: If the type or the shape of :obj:`pixels` is wrong.
    """
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or not pixels.size:
        raise ValueError(f'Expected uint8 [H, W, 3], got {pixels.dtype} {list(pixels.shape)}.')
    step = -(-max(pixels.shape[:2]) // most)
    height, width = (max(size // step, 1) for size in pixels.shape[:2])
    if step > 1:
        blocks = pixels[: height * step, : width * step]
        blocks = blocks.reshape(height, -1, width, blocks.shape[1] // width, 3)
        pixels = blocks.mean(axis=(1, 3)).round().astype(np.uint8)
    rows = np.zeros((height, 1 + 3 * width), np.uint8)  # Each row starts with filter type 0.
    rows[:, 1:] = pixels.reshape(height, -1)
    head = struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
    parts = [(b'IHDR', head), (b'IDAT', zlib.compress(rows.tobytes(), 9)), (b'IEND', b'')]
    png = b'\x89PNG\r\n\x1a\n' + b''.join(_chunk(*part) for part in parts)
    return f'data:image/png;base64,{b64encode(png).decode()}'


def _chunk(kind: bytes, content: bytes) -> bytes:
    check = zlib.crc32(kind + content)
    return struct.pack('>I', len(content)) + kind + content + struct.pack('>I', check)
