import pytest
import torch

from motor_geo.nn.functional.conjugate_gradient import conjugate_gradient


def systems(count, size, seed=0):
    r"""Symmetric positive definite matrices, and right-hand sides."""
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(count, size, size, generator=generator, dtype=torch.double)
    matrix = root @ root.mT + 0.1 * torch.eye(size, dtype=torch.double)
    return matrix, torch.randn(count, size, generator=generator, dtype=torch.double)


@pytest.mark.parametrize('size', [1, 2, 7])
@pytest.mark.parametrize('preconditioned', [True, False])
def test_as_many_steps_as_unknowns_are_exact(size, preconditioned):
    (matrix,), (target,) = systems(1, size)
    diagonal = matrix.diagonal() if preconditioned else torch.ones_like(target)
    start = torch.full_like(target, 3.0)
    expected = torch.linalg.solve(matrix, target)
    x = conjugate_gradient(matrix.mv, target, start, diagonal, size)
    torch.testing.assert_close(x, expected, rtol=1e-6, atol=1e-8)
    assert torch.equal(start, torch.full_like(target, 3.0))
    if size > 2:
        x = conjugate_gradient(matrix.mv, target, start, diagonal, size - 2)
        assert not torch.allclose(x, expected, rtol=1e-3)


def test_a_step_by_hand():
    # Residual (1, 2) - A (0, 0); length 5 / (1 * 2 + 4 * 4) along it.
    matrix = torch.tensor([[2.0, 0.0], [0.0, 4.0]])
    target = torch.tensor([1.0, 2.0])
    x = conjugate_gradient(matrix.mv, target, torch.zeros(2), torch.ones(2), 1)
    torch.testing.assert_close(x, 5 / 18 * target)
    # Divided by the diagonal, one step is enough.
    x = conjugate_gradient(matrix.mv, target, torch.zeros(2), matrix.diagonal(), 1)
    torch.testing.assert_close(x, torch.tensor([0.5, 0.5]))


def test_rows_are_systems_of_their_own():
    matrix, target = systems(5, 4)
    diagonal = matrix.diagonal(dim1=1, dim2=2)

    def solve(rows, steps):
        def matmul(x):
            return torch.einsum('bij,bj->bi', matrix[rows], x)

        start = torch.zeros_like(target[rows])
        return conjugate_gradient(matmul, target[rows], start, diagonal[rows], steps, 1)

    together = solve(range(5), 2)
    for row in range(5):
        torch.testing.assert_close(together[row : row + 1], solve([row], 2))
        alone = conjugate_gradient(
            matrix[row].mv, target[row], torch.zeros(4).double(), diagonal[row], 2
        )
        torch.testing.assert_close(together[row], alone)
    torch.testing.assert_close(solve(range(5), 4), torch.linalg.solve(matrix, target))


@pytest.mark.parametrize('dim', [None, 1])
def test_solved_systems_stay_as_they_are(dim):
    matrix, target = systems(3, 4)

    def matmul(x):
        return torch.einsum('bij,bj->bi', matrix, x)

    args = torch.ones_like(target), 50, dim
    zero = torch.zeros_like(target)
    assert torch.equal(conjugate_gradient(matmul, zero, zero, *args), zero)
    solution = torch.linalg.solve(matrix, target)
    x = conjugate_gradient(matmul, target, solution, *args)
    torch.testing.assert_close(x, solution)
    # One of the systems has nothing on its right-hand side: many steps do not spoil it.
    target[1] = 0
    x = conjugate_gradient(matmul, target, zero, *args)
    torch.testing.assert_close(x, torch.linalg.solve(matrix, target), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize('dtype', [torch.float, torch.double])
def test_steps_after_the_solution_do_no_harm(dtype):
    matrix, target = (x.to(dtype) for x in systems(64, 3))
    diagonal = matrix.diagonal(dim1=1, dim2=2)

    def matmul(x):
        return torch.einsum('bij,bj->bi', matrix, x)

    def error(steps):
        x = conjugate_gradient(matmul, target, torch.zeros_like(target), diagonal, steps, 1)
        return float((matmul(x) - target).norm())

    assert max(error(steps) for steps in (50, 300, 1000)) <= 10 * error(12)


def test_no_gradient_is_kept():
    x = conjugate_gradient(
        lambda x: 2 * x, torch.ones(2, requires_grad=True), torch.zeros(2), torch.ones(2), 3
    )
    assert not x.requires_grad and x.tolist() == [0.5, 0.5]


def test_a_direction_that_is_mapped_to_rounding_is_not_followed():
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(12, 5, generator=generator, dtype=torch.double)
    matrix = (root @ root.t()).float()  # Of rank 5, with rounding in place of zeros.
    solution, noise = torch.randn(2, 12, generator=generator)
    target = matrix @ solution + 1e-6 * noise
    for num_steps in (10, 50, 200):
        x = conjugate_gradient(matrix.mv, target, torch.zeros(12), matrix.diagonal(), num_steps)
        assert x.norm() < 2 * solution.norm()
        torch.testing.assert_close(matrix @ x, target, rtol=0, atol=1e-3)
