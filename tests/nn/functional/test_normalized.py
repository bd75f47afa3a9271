import weakref

import pytest
import torch

from motor_geo.nn.functional import normalized
from motor_geo.nn.functional.layers import light_rows, light_sum
from motor_geo.nn.graph import NormalizedGraph


def random(*size, seed=0):
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def graph():
    generator = torch.Generator().manual_seed(0)
    key = torch.randperm(30 * 20, generator=generator)[:80].sort().values
    return NormalizedGraph.from_edges(torch.stack([key // 20, key % 20]), 30, 20)


def rows(graph, user_index, item_index):
    tables = random(30, 4).requires_grad_(), random(20, 4, seed=1).requires_grad_()
    out = light_rows(*tables, graph, 2, 1 / 3, user_index, item_index)
    loss = sum((x * random(*x.shape, seed=i)).sum() for i, x in enumerate(out))
    return *out, *torch.autograd.grad(loss, tables)


@pytest.mark.parametrize('count', [0, 2, 50])  # Few rows are computed alone.
def test_blocks_of_rows_change_no_bits(monkeypatch, graph, count):
    index = torch.arange(count) * 7 % 30, torch.arange(2 * count) * 3 % 20
    expected = rows(graph, *index)
    for module in 'spmm', 'normalized':
        monkeypatch.setattr(f'motor_geo.nn.functional.{module}.BLOCK', 3)
    for x, y in zip(rows(graph, *index), expected):
        assert torch.equal(x, y)


@pytest.mark.parametrize('num_layers', [1, 3])
def test_user_tables_are_freed_between_hops(monkeypatch, graph, num_layers):
    found, product = [], normalized.csr_matmul

    def spy(indptr, *args):
        out = product(indptr, *args)
        if indptr.numel() == 31:  # A table of users.
            assert all(x() is None for x in found)  # That of the hop before is not needed.
            found.append(weakref.ref(out))
        return out

    monkeypatch.setattr(normalized, 'csr_matmul', spy)
    light_sum(random(30, 4), random(20, 4, seed=1), graph, num_layers)
    assert len(found) == num_layers
    tables = random(30, 4).requires_grad_(), random(20, 4, seed=1).requires_grad_()
    index = torch.arange(30), torch.arange(20)
    loss = sum(x.sum() for x in light_rows(*tables, graph, num_layers, 1, *index))
    assert len(found) == 2 * num_layers - 1  # The last hop computes rows.
    loss.backward()
    assert len(found) == 3 * num_layers - 1
