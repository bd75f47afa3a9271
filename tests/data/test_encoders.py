import zlib

import numpy as np
import pytest

from motor_geo.data.encoders import IMAGE_CHANNELS, SCALE, hashed_ngrams, image_statistics


def reference(text, dim):
    r"""The formula, a word and an n-gram at a time."""
    total = np.zeros(dim)
    for word in text.lower().split():
        word, vector = f'<{word}>', np.zeros(dim)
        found = {word}
        for n in (3, 4, 5):
            found |= {word[i : i + n] for i in range(len(word) - n + 1)}
        for gram in found:
            code = zlib.crc32(gram.encode())
            vector[code // 2 % dim] += 1 if code % 2 else -1
        total += vector / np.linalg.norm(vector)
    return total / np.linalg.norm(total)


def test_ngrams_follow_the_formula():
    texts = ['Red leather sneakers', 'a', 'größe XL']
    x = hashed_ngrams(texts, dim=48)
    assert x.shape == (3, 48) and x.dtype == np.float32
    expected = np.stack([reference(text, 48) for text in texts])
    assert np.abs(x - expected).max() < 4 / SCALE


def test_ngrams_of_similar_texts():
    texts = ['red shirt', 'Shirt, RED!', 'red shirts', 'blue lamp', '', ' - ']
    x = hashed_ngrams(texts, dim=256)
    assert np.array_equal(x[0], x[1])  # Neither order nor case matters.
    assert 0.7 < x[0] @ x[2] < 0.9 and abs(x[0] @ x[3]) < 0.3
    assert not x[4:].any()
    assert hashed_ngrams([], dim=8).shape == (0, 8)
    assert np.array_equal(hashed_ngrams(np.array(texts), dim=256), x)


def test_ngrams_are_the_same_everywhere():
    # '<a>' is the only n-gram. Its CRC-32 is 0x6fb782ab, odd, so that the sign is plus; half of
    # it modulo 16 is 5.
    assert zlib.crc32(b'<a>') == 0x6FB782AB
    x = hashed_ngrams(['a'], dim=16)[0]
    assert x.nonzero()[0].tolist() == [5] and x[5] == 1


def test_ngrams_refuse():
    with pytest.raises(ValueError, match='list of texts, got a single text'):
        hashed_ngrams('red shirt')
    with pytest.raises(ValueError, match="'dim' to be at least 1, got 0"):
        hashed_ngrams(['red shirt'], dim=0)


def test_colors():
    image = np.zeros((1, 2, 4, 3), np.uint8)
    image[0, 0, 0] = (255, 64, 128)  # Levels 3, 1, 2.
    colors = image_statistics(image)[0, :64]
    assert colors[3 * 16 + 4 + 2] == pytest.approx(np.sqrt(1 / 8))
    assert colors[0] == pytest.approx(np.sqrt(7 / 8)) and (colors > 0).sum() == 2


@pytest.mark.parametrize('direction', range(4))
def test_edges(direction):
    y, x = np.mgrid[:8, :8]
    inside = [x > 3, y > 3, x + y > 7, x > y][direction]
    image = np.repeat(np.where(inside, 200, 0).astype(np.uint8)[None, :, :, None], 3, axis=3)
    edges = image_statistics(image)[0, 64:].reshape(4, 4, 4)
    assert (edges**2).sum() == pytest.approx(1, abs=1e-6)
    share = (edges**2).sum(axis=(0, 1))
    assert share[direction] > 0.8
    if direction == 0:  # In the middle columns of cells, and the same from top to bottom.
        assert np.allclose(edges[:, 1:3, 0] ** 2, 1 / 8) and not edges[:, [0, 3]].any()


def test_edges_do_not_depend_on_contrast():
    image = np.zeros((1, 16, 16, 3), np.uint8)
    image[0, 5:11, 3:9] = 40
    x, y = image_statistics(image), image_statistics(4 * image)
    assert np.array_equal(x[:, 64:], y[:, 64:]) and not np.array_equal(x[:, :64], y[:, :64])


def test_pictures_without_edges():
    x = image_statistics(np.full((2, 5, 3, 3), 255, np.uint8))
    assert x.shape == (2, IMAGE_CHANNELS) and x.dtype == np.float32
    assert x[:, 63].tolist() == [1, 1] and not x[:, 64:].any()


@pytest.mark.parametrize(
    ('image', 'message'),
    [
        (np.zeros((2, 4, 4, 3), np.float32), r'as uint8 .*, got float32 \[2, 4, 4, 3\]'),
        (np.zeros((4, 4, 3), np.uint8), r'got uint8 \[4, 4, 3\]'),
        (np.zeros((1, 1, 4, 3), np.uint8), 'at least 2 x 2 pixels, got 1 x 4'),
    ],
)
def test_pictures_refuse(image, message):
    with pytest.raises(ValueError, match=message):
        image_statistics(image)
