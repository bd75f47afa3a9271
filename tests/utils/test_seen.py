import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from motor_geo.utils.seen import SeenItems, pairs_of


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 6), st.integers(0, 9)), max_size=30),
    st.lists(st.integers(0, 9), max_size=8),
)
def test_items_of_some_users(pairs, users):
    edges = torch.tensor(pairs, dtype=torch.long).view(-1, 2).t()
    row, item = SeenItems(edges).of(torch.tensor(users, dtype=torch.long))
    expected = [(k, i) for k, user in enumerate(users) for u, i in pairs if u == user]
    assert list(zip(row.tolist(), item.tolist())) == expected


@pytest.mark.parametrize('dtype', [torch.int32, torch.int64])
def test_types(dtype):
    seen = SeenItems(torch.tensor([[2, 0], [1, 3]], dtype=dtype))
    row, item = seen.of(torch.tensor([0, 5, 2]))
    assert row.tolist() == [0, 2] and item.tolist() == [3, 1]
    assert len(seen) == 2 and repr(seen) == 'SeenItems(2 pairs)'


def test_pairs_of_some_users():
    edges = torch.tensor([[3, -1, 0, 9, 3, 2], [5, 1, 2, 0, 1, 7]])
    for users in ([3, 0, 3], [2, 3, 0, 9], [], [11]):
        found = pairs_of(edges, torch.tensor(users, dtype=torch.long)).T.tolist()
        assert found == [[u, i] for u, i in edges.T.tolist() if u in users]
    assert pairs_of(edges[:, :0], torch.tensor([1])).shape == (2, 0)
