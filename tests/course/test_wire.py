import numpy as np
import pytest
import torch

from course.grading import wire


@pytest.mark.parametrize(
    'value',
    [None, True, 3, 0.1, 'a"b', [1, [2.5, None]], (1, 'x'), {'a': (1, [2])}, {'!': 1}],
)
def test_plain(value):
    out = wire.loads(wire.dumps(value))
    assert out == value and type(out) is type(value)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64, torch.int64, torch.bool])
def test_tensor(dtype):
    value = torch.arange(6).view(2, 3).to(dtype)
    out = wire.loads(wire.dumps([value, value.t(), value[:0]]))
    for a, b in zip(out, [value, value.t(), value[:0]]):
        assert a.dtype == dtype and torch.equal(a, b)


def test_array():
    value = np.array([[1.5, np.nan], [np.inf, 0]])
    assert np.array_equal(wire.loads(wire.dumps(value)), value, equal_nan=True)
    assert wire.loads(wire.dumps(np.float64(1.5))) == 1.5


@pytest.mark.parametrize('value', [object(), {1: 2}, np.array([object()]), {1}])
def test_others(value):
    with pytest.raises(TypeError, match='a value of type|a dictionary|an array of'):
        wire.dumps(value)
