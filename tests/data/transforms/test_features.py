import numpy as np

from motor_geo.data.transforms.features import unique_rows


def test_unique_rows():
    x = np.array([[1, 2], [0, 0], [1, 2], [2, 1], [0, 0]])
    first, inverse = unique_rows(x)
    assert first.tolist() == [0, 1, 3] and inverse.tolist() == [0, 1, 0, 2, 1]
