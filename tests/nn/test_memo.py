import copy
import gc
import pickle
import weakref

import pytest
import torch

from motor_geo.nn.memo import Memo


@pytest.fixture
def counted():
    calls = []

    def compute():
        calls.append(torch.ones(2))
        return calls[-1]

    compute.calls = calls
    return compute


def test_the_same_sources_give_the_same_object(counted):
    memo, x = Memo(), torch.zeros(3)
    value = memo(counted, x, 2, torch.float32)
    assert memo(counted, x, 2, torch.float32) is value
    assert len(counted.calls) == 1


def test_other_sources_are_computed(counted):
    memo, x = Memo(), torch.zeros(3)
    others = [(x, 1), (x, 1.0), (x, True), (x, None), ((x, 1),), ([x], 1), (x.clone(), 1), (x,)]
    for sources in others:
        memo(counted, *sources)
    assert len(counted.calls) == len(others)


def test_a_change_in_place_is_noticed(counted):
    memo, x = Memo(), torch.zeros(3)
    memo(counted, x)
    x.add_(1)
    memo(counted, x)
    assert len(counted.calls) == 2


def test_size(counted):
    x, y, z = torch.zeros(3), torch.zeros(3), torch.zeros(3)
    memo = Memo(size=2)
    for source in (x, y, x, y, z, y, x):
        memo(counted, source)
    assert len(counted.calls) == 4


def test_sources_are_not_kept_alive(counted):
    memo = Memo()
    for _ in range(3):  # A new tensor may get the place of the old one.
        memo(counted, torch.zeros(3))
        gc.collect()
    assert len(counted.calls) == 3


def test_inference_mode():
    memo, x = Memo(), torch.ones(2, requires_grad=True)
    source = torch.ones(2)
    with torch.inference_mode():
        value = memo(lambda: source * 2, source)
    assert not value.is_inference() and not value.requires_grad
    (memo(lambda: source * 2, source) * x).sum().backward()
    assert torch.equal(x.grad, torch.full((2,), 2.0))


def test_tensors_of_inference_mode_are_not_remembered(counted):
    memo = Memo()
    with torch.inference_mode():
        x = torch.zeros(3)
        memo(counted, x)
        memo(counted, x)
    memo(counted, x)
    assert len(counted.calls) == 3


def test_copies_are_empty(counted):
    memo, x = Memo(size=3), torch.zeros(3)
    value = memo(counted, x)
    for other in (copy.copy(memo), copy.deepcopy(memo), pickle.loads(pickle.dumps(memo))):
        assert other.size == 3
        assert other(counted, x) is not value


def test_a_gradient_is_not_kept():
    x = torch.ones(2, requires_grad=True)
    assert not Memo()(lambda: x * 2, x).requires_grad


def test_clear(counted):
    memo, x = Memo(), torch.zeros(3)
    memo(counted, x)
    memo.clear()
    memo(counted, x)
    assert len(counted.calls) == 2


def test_values_go_with_their_sources(counted):
    memo, x, y = Memo(size=2), torch.zeros(3), torch.zeros(3)
    memo(counted, x, 1), memo(counted, y)
    value = weakref.ref(counted.calls.pop(0))
    del x
    gc.collect()
    assert value() is None
    assert memo(counted, y) is counted.calls[0]


def test_get(counted):
    memo, x = Memo(), torch.zeros(3)
    assert memo.get(x) is None
    value = memo(counted, x)
    assert memo.get(x) is value and memo.get(x.clone()) is None
    x.add_(1)
    assert memo.get(x) is None
    with torch.inference_mode():
        y = torch.zeros(3)
    memo(counted, y)
    assert memo.get(y) is None
