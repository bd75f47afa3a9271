import numpy as np
import pytest

from motor_geo.data.datasets.choices import draw_counts, sample_interactions


def test_sampling_follows_the_distribution():
    # One user with two draws, compared with the exact successive probabilities.
    rng, repeats = np.random.default_rng(0), 40_000
    users = np.zeros((repeats, 1)) + 1.0
    items = np.log(np.array([[1.0], [2.0], [0.5], [1.0]]))
    weight = np.array([1.0, 1.0, 2.0, 0.0])
    user, item = sample_interactions(rng, users, items, weight, np.full(repeats, 2))
    assert user.tolist() == np.repeat(np.arange(repeats), 2).tolist()
    drawn = item.reshape(-1, 2)
    p = np.array([1.0, 2.0, 1.0, 0.0]) / 4
    expected = np.zeros((4, 4))
    for i in range(4):
        for j in range(4):
            if i != j:
                expected[i, j] = p[i] * p[j] / (1 - p[i])
    observed = np.zeros((4, 4))
    np.add.at(observed, (drawn[:, 0], drawn[:, 1]), 1 / repeats)
    assert np.abs(observed - expected).max() < 0.01
    assert observed[:, 3].sum() == 0


@pytest.mark.parametrize('block', [1, 70, 10_000])
def test_sampling_does_not_depend_on_blocks(block):
    users = np.random.default_rng(1).standard_normal((30, 4))
    items = np.random.default_rng(2).standard_normal((35, 4))
    weight, counts = np.ones(35), np.arange(30) % 5 + 1
    reference = sample_interactions(np.random.default_rng(3), users, items, weight, counts)
    result = sample_interactions(np.random.default_rng(3), users, items, weight, counts, block)
    assert np.array_equal(reference, result)
    assert np.array_equal(np.bincount(result[0]), counts)


def test_sampling_survives_strong_preferences():
    users, items = np.array([[9000.0], [-9000.0]]), np.array([[1.0], [0.5], [-1.0], [-0.5]])
    user, item = sample_interactions(
        np.random.default_rng(0), users, items, np.array([1.0, 1.0, 1.0, 0.0]), np.array([3, 2])
    )
    assert item.tolist() == [0, 1, 2, 2, 1]


@pytest.mark.parametrize('total', [30, 47, 99, 100])
def test_counts_has_the_given_sum(total):
    counts = draw_counts(np.random.default_rng(0), 10, total, limit=10)
    assert counts.sum() == total and counts.min() >= 3 and counts.max() <= 10


def test_taken_items_are_not_drawn_again():
    users, items = np.zeros((60, 1)), np.zeros((5, 1))
    taken = np.repeat(np.arange(60), 2), np.tile([1, 4], 60)
    counts = np.full(60, 2)
    draw = [
        sample_interactions(
            np.random.default_rng(0), users, items, np.ones(5), counts, block, taken
        )
        for block in (5, 10_000)
    ]
    assert np.array_equal(*draw)
    assert np.bincount(draw[0][1], minlength=5)[[1, 4]].tolist() == [0, 0]
    assert np.bincount(draw[0][1], minlength=5)[[0, 2, 3]].min() > 20
