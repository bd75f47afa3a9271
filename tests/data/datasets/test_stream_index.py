import numpy as np
import pytest

from motor_geo.data.datasets import stream_index
from motor_geo.data.datasets.columns import Ids
from motor_geo.data.datasets.stream_index import Distinct


@pytest.mark.parametrize('most', [1, 2**18])
def test_ids_of_two_files(most, monkeypatch):
    monkeypatch.setattr(stream_index, 'MERGE', most)
    found = Distinct()
    first, second = (np.array([2, 5]), np.array([1, 0, 1])), (np.array([5, 7]), np.array([0, 1]))
    found.add(Ids(*first), np.array([True, False, True]), np.array([2, 3, 4]), 0)
    found.add(Ids(*second), np.array([True, True]), np.array([2, 3]), 1)
    values, count, line, file = found.merge()
    assert values.tolist() == [2, 5, 7] and count.tolist() == [0, 3, 1]
    assert line.tolist() == [3, 2, 3] and file.tolist() == [0, 0, 1]


def test_numbers_become_text_beside_text():
    found = Distinct()
    for values in (np.array([10, 9]), np.array(['10', 'a'])):
        found.add(Ids(values, np.arange(2)), np.ones(2, bool), np.arange(2), 0)
    values, count, *_ = found.merge()
    assert values.tolist() == ['10', '9', 'a'] and count.tolist() == [2, 1, 1]
