import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from motor_geo.utils.topk import LONG, PARTS, topk


@given(
    rows=st.integers(1, 4),
    length=st.integers(1, 400),
    k=st.integers(1, 20),
    values=st.sampled_from([2, 5, 1000]),  # Few values: many of them equal.
    masked=st.booleans(),
    seed=st.integers(0, 1000),
)
@settings(max_examples=200, deadline=None)
def test_topk_finds_the_largest(rows, length, k, values, masked, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(values, (rows, length), generator=generator).float()
    if masked:
        x[torch.rand(x.shape, generator=generator) < 0.5] = -torch.inf
    k = min(k, length)
    value, index = topk(x, k)
    assert torch.equal(value, x.sort(dim=1, descending=True).values[:, :k])
    assert torch.equal(x.gather(1, index), value)
    assert all(row.unique().numel() == k for row in index)
    value, index = topk(x, k, sorted=False)
    assert torch.equal(x.gather(1, index), value)
    expected = x.sort(dim=1, descending=True).values[:, :k]
    assert torch.equal(value.sort(dim=1, descending=True).values, expected)


@pytest.mark.parametrize('length', [LONG * 3, LONG * 3 - 1, 5003, PARTS**4 * 3 + 5])
def test_topk_equals_that_of_torch(length):
    torch.manual_seed(0)
    x = torch.randn(7, 2 * length, dtype=torch.double)[:, ::2]  # Not contiguous.
    value, index = topk(x, 3)
    expected = x.topk(3)
    assert torch.equal(value, expected.values)
    assert torch.equal(index, expected.indices)


def test_topk_puts_nan_first():
    x = torch.randn(2, 1000)
    x[1, 777] = torch.nan
    value, index = topk(x, 4)
    assert index[1, 0] == 777
    assert value[:, 0].isnan().tolist() == [False, True]
    assert topk(x, 1000)[0].size(1) == 1000
    assert topk(x, 0)[0].size(1) == topk(x[:, :0], 0)[1].size(1) == 0
    with pytest.raises(RuntimeError):
        topk(x, 1001)
