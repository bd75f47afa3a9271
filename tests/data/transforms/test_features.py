import numpy as np
import pytest

from motor_geo.data.transforms import features
from motor_geo.data.transforms.features import hash_rows, unique_rows


def test_unique_rows():
    x = np.array([[1, 2], [0, 0], [1, 2], [2, 1], [0, 0]])
    first, inverse = unique_rows(x)
    assert first.tolist() == [0, 1, 3] and inverse.tolist() == [0, 1, 0, 2, 1]
    first, inverse = unique_rows(x[:0])
    assert first.size == inverse.size == 0


@pytest.mark.parametrize('dtype', [np.float16, np.float32, np.float64, np.int8])
@pytest.mark.parametrize('width', [1, 3, 8, 17])
def test_unique_rows_of_a_matrix_in_blocks(monkeypatch, dtype, width):
    monkeypatch.setattr(features, 'BLOCK_BYTES', 64)
    rng = np.random.default_rng(width)
    x = rng.integers(-1, 2, (300, width)).astype(dtype)
    x = np.asfortranarray(x[rng.integers(0, 100, 300)])
    known: dict[bytes, int] = {}
    expected = [known.setdefault(row.tobytes(), len(known)) for row in x]
    first, inverse = unique_rows(x)
    assert inverse.tolist() == expected
    assert first.tolist() == [expected.index(number) for number in range(len(known))]


def test_different_rows_with_the_same_hash(monkeypatch):
    seeds = []

    def weak(x, seed):
        seeds.append(seed)
        return hash_rows(x, seed) if seed > 1 else np.zeros(len(x), np.uint64)

    monkeypatch.setattr(features, 'hash_rows', weak)
    first, inverse = unique_rows(np.array([[1.0], [2.0], [1.0]]))
    assert first.tolist() == [0, 1] and inverse.tolist() == [0, 1, 0] and seeds == [0, 1, 2]


def test_hashes_of_sparse_rows_differ():
    # Differences in the highest bits of several words must not cancel out.
    x = np.zeros((2**12, 12), np.int64)
    x[:] = (np.arange(2**12)[:, None] >> np.arange(12) & 1) << 63
    for seed in range(3):
        assert len(np.unique(hash_rows(x, seed))) == len(x)
