import numpy as np
import pytest

from motor_geo.data.datasets.synthetic_catalog import (
    ATTRIBUTES,
    BACKGROUND,
    DRAWINGS,
    KINDS,
    MATERIALS,
    draw_catalog,
)


@pytest.fixture(scope='module')
def catalog():
    return draw_catalog(np.random.default_rng(0), 2000)


def column(catalog, name):
    return catalog.attributes[:, list(ATTRIBUTES).index(name)]


def test_attributes_have_the_stated_frequencies(catalog):
    sizes = [len(values) for values in ATTRIBUTES.values()]
    assert sizes == [12, 10, 4, 18, 24]
    for code, size in zip(catalog.attributes.T, sizes):
        assert sorted(set(code.tolist())) == list(range(size))
    share = np.bincount(column(catalog, 'color')) / 2000
    expected = 1 / np.arange(3, 13)
    assert np.abs(share - expected / expected.sum()).max() < 0.03
    share = np.bincount(column(catalog, 'pattern')) / 2000
    assert np.abs(share - [1 / 2, 1 / 6, 1 / 6, 1 / 6]).max() < 0.03
    assert np.abs(np.bincount(column(catalog, 'kind')) / 2000 - 1 / 12).max() < 0.02


def test_materials_belong_to_the_kind(catalog):
    kinds = list(KINDS)
    for kind, material in zip(column(catalog, 'kind'), column(catalog, 'material')):
        assert MATERIALS[material] in KINDS[kinds[kind]]


def test_titles_name_attributes(catalog):
    words = [title.split() for title in catalog.titles]
    values = {
        name: [choice[c] for c in column(catalog, name)] for name, choice in ATTRIBUTES.items()
    }
    for title, brand, kind in zip(words, values['brand'], values['kind']):
        assert title[0] == brand and title[-1] == kind
    for name in ('color', 'material'):
        share = np.mean([value in title for title, value in zip(words, values[name])])
        assert share == pytest.approx(0.75, abs=0.03)
    patterned = [i for i, value in enumerate(values['pattern']) if value != 'plain']
    share = np.mean([values['pattern'][i] in words[i] for i in patterned])
    assert share == pytest.approx(0.75, abs=0.04)
    assert not any('plain' in title for title in words)


def test_pictures_show_kind_and_color(catalog):
    assert catalog.images.shape == (2000, 24, 24, 3) and catalog.images.dtype == np.uint8
    assert list(DRAWINGS) == list(KINDS)
    drawn = (abs(catalog.images.astype(int) - BACKGROUND) > 6).any(axis=3)
    assert drawn.mean(axis=(1, 2)).min() > 0.08 and drawn.mean(axis=(1, 2)).max() < 0.6
    # The most similar silhouette among the first half is of the same kind.
    kind = column(catalog, 'kind')
    x = drawn.reshape(2000, -1).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    near = (x[1000:] @ x[:1000].T).argmax(axis=1)
    assert (kind[near] == kind[1000:]).mean() > 0.95
    # A plain picture is one color, up to shade and grain.
    plain = column(catalog, 'pattern') == 0
    palette = np.array(list(ATTRIBUTES['color']))
    for i in np.flatnonzero(plain)[:200]:
        pixels = catalog.images[i][drawn[i]].astype(int)
        assert pixels.std(axis=0).max() < 8, palette[column(catalog, 'color')[i]]


def test_patterns_have_two_shades(catalog):
    white = column(catalog, 'color') == 0  # Black; its second shade is gray.
    for pattern, share in ((0, 0), (1, 1 / 2), (2, 1 / 4), (3, 1 / 2)):
        some = catalog.images[white & (column(catalog, 'pattern') == pattern)].astype(int)
        dark = (some.sum(axis=3) < 200).sum()
        gray = ((some.sum(axis=3) > 350) & (some.sum(axis=3) < 500)).sum()
        assert gray / (dark + gray) == pytest.approx(share, abs=0.12)


def test_deterministic(catalog):
    other = draw_catalog(np.random.default_rng(0), 2000)
    assert np.array_equal(other.images, catalog.images)
    assert np.array_equal(other.titles, catalog.titles)
