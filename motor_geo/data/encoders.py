r"""Encoders of texts and images without weights: two formulas that give the same
result on every machine. They need no download, but understand neither language
nor objects.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence

import numpy as np

WORD = re.compile(r'\w+')
SIZES = (3, 4, 5)  # Characters of an n-gram.
SCALE = 1 << 12  # Word vectors are integers, so that their sums are exact.
LEVELS, CELLS, DIRECTIONS = 4, 4, 4
#: Width of :func:`image_statistics`.
IMAGE_CHANNELS = LEVELS**3 + CELLS**2 * DIRECTIONS


def hashed_ngrams(texts: Sequence[str] | np.ndarray, dim: int = 64) -> np.ndarray:
    r"""Bags of hashed character :math:`n`-grams, as in `"Enriching Word Vectors
    with Subword Information" <https://arxiv.org/abs/1607.04606>`_ but without
    weights.

    The :math:`n`-grams :math:`G_w` of a word :math:`w` are all substrings of
    :obj:`"<word>"` with 3 to 5 characters, and this string itself. A hash
    assigns a coordinate :math:`h(g)` and a sign :math:`s(g)` to each of them,

    .. math::
        \mathbf{v}_w = \frac{\sum_{g \in G_w} s(g) \, \mathbf{e}_{h(g)}}
        {\lVert \sum_{g \in G_w} s(g) \, \mathbf{e}_{h(g)} \rVert}, \quad
        \mathbf{x} = \frac{\sum_w \mathbf{v}_w}{\lVert \sum_w \mathbf{v}_w
        \rVert},

    so texts that share words are close, and texts that share word stems are
    somewhat close. Word order and case do not matter. A text without words
    gives zeros.

    Args:
        texts: The texts, **[N]**.
        dim: Width of the features.

    Returns:
        Rows of length one (or zeros), float32 **[N, dim]**.

    Raises:
        ValueError: If :obj:`dim` is not positive, or :obj:`texts` is a single
            text.
    """
    if isinstance(texts, str):
        raise ValueError('Expected a list of texts, got a single text.')
    if dim < 1:
        raise ValueError(f"Expected 'dim' to be at least 1, got {dim}.")
    known: dict[str, np.ndarray] = {}
    total = np.zeros((len(texts), dim), np.int64)
    for row, text in zip(total, texts):
        for word in WORD.findall(str(text).lower()):
            if word not in known:
                known[word] = _hashed_word(f'<{word}>', dim)
            row += known[word]
    return _unit_rows(total)


def _hashed_word(word: str, dim: int) -> np.ndarray:
    found = {word[i : i + n] for n in SIZES for i in range(len(word) - n + 1)} | {word}
    code = np.array([zlib.crc32(gram.encode()) for gram in sorted(found)], np.int64)
    # The lowest bit determines the sign, the others determine the coordinate.
    vector = np.bincount((code >> 1) % dim, 2 * (code & 1) - 1, dim)
    return np.rint(SCALE * _unit_rows(vector[None].astype(np.int64))[0]).astype(np.int64)


def _unit_rows(x: np.ndarray) -> np.ndarray:
    r"""Divides integers by the exact length of their row. Zero rows stay zero."""
    length = np.sqrt((x * x).sum(axis=1, keepdims=True))
    return (x / np.where(length > 0, length, 1)).astype(np.float32)


def image_statistics(images: np.ndarray) -> np.ndarray:
    r"""Describes images by their colors and edges: a color histogram, and
    histograms of oriented gradients in the style of `"Histograms of Oriented
    Gradients for Human Detection" <https://doi.org/10.1109/CVPR.2005.177>`_.

    The first 64 numbers are the shares of pixels by color, with four levels for
    each of red, green and blue. The other 64 are the shares of the total edge
    strength by position (a grid of :math:`4 \times 4` cells) and by direction
    of the gradient (horizontal, vertical, and two diagonals). A pixel whose
    neighbors differ in brightness by :math:`\Delta_x, \Delta_y` has the edge
    strength :math:`\lvert \Delta_x \rvert + \lvert \Delta_y \rvert`. Each half
    contains the square roots of these shares and has length one, so inner
    products compare distributions (the Bhattacharyya coefficient).

    Args:
        images: Images of equal size with at least two pixels on each side,
            uint8 **[N, height, width, 3]**.

    Returns:
        The features, float32 **[N, 128]**. The second half is zero if an image
        has no edge.

    Raises:
        ValueError: If the type or the shape of :obj:`images` is wrong.
    """
    images = np.asarray(images)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
        raise ValueError(
            f'Expected images as uint8 [N, height, width, 3], got {images.dtype} '
            f'{list(images.shape)}.'
        )
    num, height, width = images.shape[:3]
    if min(height, width) < 2:
        raise ValueError(f'Expected images of at least 2 x 2 pixels, got {height} x {width}.')
    level = (images.astype(np.int64) * LEVELS) >> 8
    color = (level[..., 0] * LEVELS + level[..., 1]) * LEVELS + level[..., 2]
    colors = _shares(color.reshape(num, -1), np.ones((num, height * width), np.int64), LEVELS**3)

    red, green, blue = np.moveaxis(images.astype(np.int64), 3, 0)
    light = np.pad(2 * red + 5 * green + blue, ((0, 0), (1, 1), (1, 1)), mode='edge')
    dx = light[:, 1:-1, 2:] - light[:, 1:-1, :-2]
    dy = light[:, 2:, 1:-1] - light[:, :-2, 1:-1]
    row, column = np.arange(height) * CELLS // height, np.arange(width) * CELLS // width
    cell = row[:, None] * CELLS + column
    place = (cell * DIRECTIONS + _direction(dx, dy)).reshape(num, -1)
    edges = _shares(place, (abs(dx) + abs(dy)).reshape(num, -1), CELLS**2 * DIRECTIONS)
    return np.concatenate([colors, edges], axis=1)


def _direction(dx: np.ndarray, dy: np.ndarray) -> np.ndarray:
    r"""Classifies gradients by their angle: horizontal, vertical, falling or
    rising. The slope 2 / 5 is about the tangent of a sixteenth of a turn.
    """
    diagonal = np.where((dx > 0) == (dy > 0), 2, 3)
    vertical = np.where(5 * abs(dx) < 2 * abs(dy), 1, diagonal)
    return np.where(5 * abs(dy) < 2 * abs(dx), 0, vertical)


def _shares(place: np.ndarray, weight: np.ndarray, size: int) -> np.ndarray:
    r"""Returns the square roots of the shares of the weight of each row by
    place.
    """
    num = len(place)
    index = np.arange(num)[:, None] * size + place
    total = np.bincount(index.ravel(), weight.ravel(), num * size).reshape(num, size)
    return np.sqrt(total / np.maximum(total.sum(axis=1, keepdims=True), 1)).astype(np.float32)
