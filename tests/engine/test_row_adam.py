import pytest
import torch

from motor_geo.engine.row_adam import RowAdam
from motor_geo.nn.functional.rows import row_gradients, table_rows

NUM_ROWS, NUM_STEPS = 50, 100


def batches(seed=0):
    r"""Rows, some of them repeated, and what their sum is multiplied with. The gradient is
    cleared as a whole after large batches, and row by row after small ones.
    """
    generator = torch.Generator().manual_seed(seed)
    for step in range(NUM_STEPS):
        size = (4, 16)[step % 2]
        yield (
            torch.randint(NUM_ROWS, (size,), generator=generator),
            torch.randn(size, 3, generator=generator),
        )


def parameters(dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)
    return [
        torch.nn.Parameter(torch.randn(*size, generator=generator).to(dtype))
        for size in ((NUM_ROWS, 3), (3, 3))
    ]


def train(optimizer, table, weight, sparse=True):
    for index, factor in batches():
        with row_gradients(sparse):
            loss = ((table_rows(table, index) @ weight).square() * factor).sum()
        optimizer.zero_grad()
        loss.backward()
        assert table.grad.is_sparse == sparse
        optimizer.step()


@pytest.mark.parametrize('weight_decay', [0.0, 0.1])
def test_row_adam_has_the_bits_of_adam(weight_decay):
    found, expected = parameters(), parameters()
    optimizer = RowAdam(found, 0.01, weight_decay)
    reference = torch.optim.Adam(expected, 0.01, weight_decay=weight_decay, fused=True)
    train(reference, *expected, sparse=False)
    train(optimizer, *found)
    for a, b in zip(found, expected):
        assert torch.equal(a, b) and torch.equal(a.grad, b.grad)
        for key, value in reference.state[b].items():
            assert torch.equal(optimizer.state[a][key], value)


def test_row_adam_keeps_one_gradient():
    table, weight = parameters()
    optimizer = RowAdam([table, weight])
    seen = set()
    for index, _ in batches():
        with row_gradients():
            table_rows(table, index).sum().backward()
        optimizer.step()
        expected = index.bincount(minlength=NUM_ROWS).view(-1, 1).expand(-1, 3)
        assert torch.equal(table.grad, expected.float())
        seen.add(table.grad.data_ptr())
        optimizer.zero_grad()
    assert len(seen) == 1


@pytest.mark.parametrize('weight_decay', [0.0, 0.1])
def test_lazy_row_adam_against_a_loop(weight_decay):
    table, weight = parameters(torch.float64)
    expected, fixed = table.detach().clone(), weight.detach()
    mean, square = torch.zeros_like(expected), torch.zeros_like(expected)
    for step, (index, factor) in enumerate(batches(), start=1):
        grads = {}
        for row, scale in zip(index.tolist(), factor.double()):
            grad = fixed @ (2 * (expected[row] @ fixed) * scale)
            grads[row] = grads.get(row, 0) + grad
        for row, grad in grads.items():
            grad = grad + weight_decay * expected[row]
            mean[row] = 0.9 * mean[row] + 0.1 * grad
            square[row] = 0.999 * square[row] + 0.001 * grad**2
            size = 0.01 * (1 - 0.999**step) ** 0.5 / (1 - 0.9**step)
            expected[row] -= size * mean[row] / (square[row].sqrt() + 1e-8)

    weight.requires_grad_(False)
    optimizer = RowAdam([table, weight], 0.01, weight_decay, lazy=True)
    train(optimizer, table, weight)
    torch.testing.assert_close(table.detach(), expected)
    state = optimizer.state[table]
    torch.testing.assert_close((state['exp_avg'], state['exp_avg_sq']), (mean, square))
    assert state['step'] == NUM_STEPS and weight not in optimizer.state


def test_lazy_row_adam_is_sparse_adam_and_adam():
    (table, weight), (other, dense) = parameters(), parameters()
    optimizer = RowAdam([table, weight], 0.01, lazy=True)
    sparse, adam = torch.optim.SparseAdam([other], 0.01), torch.optim.Adam([dense], 0.01)
    for index, _ in batches():
        if index[0] > 25:
            continue  # Some rows are read rarely.
        for rows, matrix in ((table, weight), (other, dense)):
            rows.grad = matrix.grad = None
            with row_gradients():
                (table_rows(rows, index % 7) @ matrix).square().sum().backward()
        for part in (optimizer, sparse, adam):
            part.step()
    torch.testing.assert_close(table, other)
    torch.testing.assert_close(weight, dense)
    assert torch.equal(table[7:], parameters()[0][7:])


def test_row_adam_of_both_kinds_of_gradients():
    r"""A table that is also read as a whole has a dense gradient."""
    for lazy in (False, True):
        (table, weight), (other, _) = parameters(torch.float64), parameters(torch.float64)
        optimizer, adam = RowAdam([table], lazy=lazy), torch.optim.Adam([other])
        for index, _ in batches():
            for rows, part in ((table, optimizer), (other, adam)):
                part.zero_grad()
                with row_gradients(rows is table):
                    loss = table_rows(rows, index).square().sum() + (rows @ weight).square().sum()
                loss.backward()
                part.step()
        torch.testing.assert_close(table, other)
