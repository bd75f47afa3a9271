r"""The catalog of the synthetic shop: items with attributes, titles and images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

#: Kinds of items and their materials, the most frequent ones first.
KINDS = {
    'sneakers': ('canvas', 'leather', 'suede', 'nylon'),
    'boots': ('leather', 'suede', 'rubber', 'nylon'),
    'shirt': ('cotton', 'linen', 'silk', 'denim'),
    'sweater': ('wool', 'cotton', 'cashmere', 'linen'),
    'trousers': ('cotton', 'denim', 'linen', 'wool'),
    'dress': ('cotton', 'silk', 'linen', 'velvet'),
    'hat': ('wool', 'cotton', 'straw', 'leather'),
    'bag': ('canvas', 'leather', 'nylon', 'straw'),
    'umbrella': ('nylon', 'cotton', 'canvas', 'silk'),
    'mug': ('ceramic', 'glass', 'steel', 'bamboo'),
    'lamp': ('steel', 'glass', 'ceramic', 'bamboo'),
    'chair': ('oak', 'bamboo', 'steel', 'velvet'),
}
MATERIALS = tuple(sorted({material for some in KINDS.values() for material in some}))
#: Colors, the most frequent ones first.
COLORS = {
    'black': (32, 32, 36),
    'white': (244, 244, 240),
    'blue': (40, 72, 196),
    'red': (204, 36, 36),
    'green': (44, 140, 68),
    'brown': (120, 76, 40),
    'pink': (240, 150, 184),
    'yellow': (236, 208, 60),
    'purple': (128, 52, 160),
    'orange': (236, 128, 32),
}
PATTERNS = ('plain', 'striped', 'dotted', 'checked')
BRANDS = (
    *('Alder', 'Brisa', 'Corvo', 'Dunlin', 'Ember', 'Fjord', 'Galea', 'Harrow'),
    *('Isola', 'Jasper', 'Kestrel', 'Lumen', 'Marlow', 'Norda', 'Okapi', 'Piper'),
    *('Quill', 'Rowan', 'Sable', 'Tamar', 'Umbra', 'Vesper', 'Willow', 'Zephyr'),
)
ATTRIBUTES = {
    'kind': tuple(KINDS),
    'color': tuple(COLORS),
    'pattern': PATTERNS,
    'material': MATERIALS,
    'brand': BRANDS,
}
NAMED = 0.75  # Probability that a title names the color, and likewise pattern and material.

SIDE = 24  # Pixels.
BACKGROUND = (176, 184, 192)
#: Shapes to paint or (with a minus) to cut out in sequence, with center and half size in pixels.
#: The origin is the middle of the image, and y points downward.
DRAWINGS: dict[str, tuple[tuple[str, int, int, int, int], ...]] = {
    'sneakers': (('disc', 3, 4, 7, 4), ('box', -5, 2, 4, 5), ('box', 0, 6, 10, 2)),
    'boots': (('box', -4, -2, 4, 8), ('disc', 3, 5, 6, 4), ('box', 0, 7, 9, 2)),
    'shirt': (('box', 0, 1, 5, 9), ('box', 0, -5, 10, 3), ('-disc', 0, -9, 3, 3)),
    'sweater': (
        ('box', 0, 1, 4, 8),
        ('box', -9, 1, 1, 8),
        ('box', 9, 1, 1, 8),
        ('box', 0, -5, 9, 2),
    ),
    'trousers': (('box', -4, 1, 3, 9), ('box', 4, 1, 3, 9), ('box', 0, -7, 7, 2)),
    'dress': (('cone', 0, 2, 9, 8), ('box', 0, -5, 3, 4)),
    'hat': (('disc', 0, 2, 7, 8), ('-box', 0, 9, 12, 5), ('box', 0, 4, 11, 1)),
    'bag': (('disc', 0, -3, 6, 6), ('-disc', 0, -3, 4, 4), ('box', 0, 3, 9, 6)),
    'umbrella': (('disc', 0, 0, 11, 9), ('-box', 0, 6, 12, 6), ('box', 0, 4, 1, 6)),
    'mug': (('disc', 6, 1, 5, 6), ('-disc', 6, 1, 3, 4), ('box', -2, 1, 6, 8)),
    'lamp': (('cone', 0, -4, 9, 5), ('box', 0, 4, 1, 5), ('box', 0, 9, 6, 1)),
    'chair': (
        ('box', -6, 0, 1, 10),
        ('box', 6, 6, 1, 4),
        ('box', 0, 2, 7, 1),
        ('box', -4, -6, 2, 3),
    ),
}


@dataclass(frozen=True)
class Catalog:
    r"""The items of the shop.

    Args:
        attributes: A code for every attribute of every item, in the order of
            :obj:`ATTRIBUTES`, **[N, 5]**.
        titles: The titles of the items, **[N]**.
        images: The images of the items, uint8 **[N, 24, 24, 3]**.
    """

    attributes: np.ndarray
    titles: np.ndarray
    images: np.ndarray


def draw_catalog(rng: np.random.Generator, num_items: int) -> Catalog:
    r"""Draws attributes, writes titles and paints images.

    Args:
        rng: The random number generator.
        num_items: Number of items.
    """
    attributes = draw_attributes(rng, num_items)
    return Catalog(attributes, write_titles(rng, attributes), paint_images(rng, attributes))


def draw_attributes(rng: np.random.Generator, num_items: int) -> np.ndarray:
    r"""Draws the attributes of items. All kinds are equally likely. Half of the
    items are plain, and the other patterns are equally likely. The
    :math:`r`-th color, material of a kind, or brand has a probability
    proportional to :math:`1 / (r + 2)`.

    Args:
        rng: The random number generator.
        num_items: Number of items.

    Returns:
        The attributes, **[N, 5]**.
    """
    kind = rng.integers(len(KINDS), size=num_items)
    color = _draw(rng, len(COLORS), num_items)
    pattern = np.maximum(rng.integers(2 * len(PATTERNS) - 2, size=num_items) - 2, 0)
    choices = np.array([[MATERIALS.index(name) for name in some] for some in KINDS.values()])
    material = choices[kind, _draw(rng, choices.shape[1], num_items)]
    brand = _draw(rng, len(BRANDS), num_items)
    return np.stack([kind, color, pattern, material, brand], axis=1)


def _draw(rng: np.random.Generator, size: int, num: int) -> np.ndarray:
    weight = 1 / (np.arange(size) + 3)
    return rng.choice(size, num, p=weight / weight.sum())


def write_titles(rng: np.random.Generator, attributes: np.ndarray) -> np.ndarray:
    r"""Writes titles of brand, color, pattern, material and kind, as in *Norda
    red striped canvas sneakers*. A title omits the color with probability one
    in four, and likewise the pattern and the material.

    Args:
        rng: The random number generator.
        attributes: The attributes of each item, **[N, 5]**.

    Returns:
        The titles, **[N]**.
    """
    named = rng.random((len(attributes), 3)) < NAMED
    titles = []
    for (kind, color, pattern, material, brand), shown in zip(attributes.tolist(), named.tolist()):
        words = ATTRIBUTES['color'][color], PATTERNS[pattern], MATERIALS[material]
        used = [word for word, use in zip(words, shown) if use and word != 'plain']
        titles.append(' '.join([BRANDS[brand], *used, ATTRIBUTES['kind'][kind]]))
    return np.array(titles)


def paint_images(rng: np.random.Generator, attributes: np.ndarray) -> np.ndarray:
    r"""Paints the silhouette of each item's kind on gray, filled with its
    pattern in two shades of its color. Size, position, shade and pixels vary
    slightly from item to item.

    Args:
        rng: The random number generator.
        attributes: The attributes of each item, **[N, 5]**.

    Returns:
        The images, uint8 **[N, 24, 24, 3]**.
    """
    num = len(attributes)
    size = rng.integers(10, 13, size=num)
    shift = rng.integers(-1, 2, size=(num, 2))
    shade = rng.integers(-12, 13, size=(num, 3))
    grain = rng.integers(-6, 7, size=(num, SIDE, SIDE, 1))
    silhouettes = {size: [_silhouette(kind, size) for kind in KINDS] for size in range(10, 13)}
    y, x = np.mgrid[:SIDE, :SIDE]
    fills = [x < 0, y // 2 % 2 == 1, (y % 4 < 2) & (x % 4 < 2), (y // 3 + x // 3) % 2 == 1]
    palette = np.array(list(COLORS.values()))
    # The second shade is halfway to white, or to black for light colors.
    second = (palette + np.where(palette.sum(axis=1, keepdims=True) > 500, 0, 255)) // 2

    images = np.empty((num, SIDE, SIDE, 3), np.int64)
    images[:] = BACKGROUND
    for image, (kind, color, pattern, *_), s, move, tint in zip(
        images, attributes.tolist(), size.tolist(), shift.tolist(), shade
    ):
        shape = np.roll(silhouettes[s][kind], move, (0, 1))
        fill = np.where(fills[pattern][..., None], second[color], palette[color]) + tint
        image[shape] = fill[shape]
    return np.clip(images + grain, 0, 255).astype(np.uint8)


def _silhouette(kind: str, size: int) -> np.ndarray:
    r"""Returns the pixels of a drawing scaled by :obj:`size / 12`. All
    coordinates are integers in units of 1 / 24 pixel.
    """
    y, x = 12 * (2 * np.mgrid[:SIDE, :SIDE] - SIDE + 1)
    out = np.zeros((SIDE, SIDE), bool)
    for name, *numbers in DRAWINGS[kind]:
        cx, cy, rx, ry = (2 * size * number for number in numbers)
        dx, dy = abs(x - cx), abs(y - cy)
        inside = {
            'box': (dx <= rx) & (dy <= ry),
            'disc': (dx * ry) ** 2 + (dy * rx) ** 2 <= (rx * ry) ** 2,
            'cone': (2 * ry * dx <= rx * (y - cy + ry)) & (dy <= ry),
        }[name.removeprefix('-')]
        out = out & ~inside if name[0] == '-' else out | inside
    return out
