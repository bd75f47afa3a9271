import numpy as np
import pytest

from motor_geo.data.datasets.spill import cut


@pytest.mark.parametrize(
    'degree, num_parts, bounds',
    [
        ([4, 1, 1, 1, 1], 2, [0, 1, 5]),
        ([1, 1, 8, 1], 3, [0, 3, 3, 4]),  # One user has more than a share.
        ([2, 2, 2], 1, [0, 3]),
    ],
)
def test_parts_have_about_equal_rows(degree, num_parts, bounds):
    assert cut(np.array(degree), num_parts).tolist() == bounds
