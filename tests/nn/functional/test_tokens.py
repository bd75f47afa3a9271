import pytest
import torch

from motor_geo.nn.functional.tokens import (
    Incidence,
    TokenGraph,
    project_slots,
    token_cross,
    token_sum,
)

K, D = 4, 3
GROUPS = [(0, 2), (2, 5)]
TOKENS = torch.randint(K, (9, 5), generator=torch.Generator().manual_seed(0))


def dense(token_id):
    r"""The incidence as a matrix **[N, T * K]**."""
    return torch.nn.functional.one_hot(token_id, K).flatten(1).double()


def random(*size, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*size, generator=generator, dtype=torch.float64)


def test_incidence_sums():
    graph, matrix = Incidence.from_tokens(TOKENS, K), dense(TOKENS)
    assert graph.num_slots == 5
    table, x = random(5 * K, D), random(9, D)
    torch.testing.assert_close(graph.gather(table), matrix @ table)
    torch.testing.assert_close(graph.gather(table.view(5, K, D)), matrix @ table)
    torch.testing.assert_close(graph.scatter(x), matrix.t() @ x)


@pytest.mark.parametrize('group', [(0, 2), (2, 5), (4, 5), (0, 5)])
def test_slots_are_the_incidence_of_some_columns(group):
    whole = Incidence.from_tokens(TOKENS, K)
    expected = Incidence.from_tokens(TOKENS[:, slice(*group)].contiguous(), K)
    for actual, wanted in zip(whole.slots(*group), expected):
        assert actual.dtype == wanted.dtype == torch.int
        assert torch.equal(actual, wanted)


def test_token_sum_gradient():
    graph = Incidence.from_tokens(TOKENS, K)
    table = random(5, K, D).requires_grad_()
    assert torch.autograd.gradcheck(lambda table: token_sum(table, graph), table)


def parameters(high):
    lins = [t for start, end in GROUPS for t in (random(D, (end - start) * D, seed=end), random(D))]
    return [p.requires_grad_() for p in (random(5 * K, D), random(5, seed=2), *lins[: 4 * high])]


@pytest.mark.parametrize('high', [False, True])
def test_token_cross_equals_its_formula(high):
    graph = TokenGraph.from_tokens(TOKENS, K, GROUPS)
    table, weight, *lins = parameters(high)
    expected = 0
    for i, (start, end) in enumerate(GROUPS):
        e = torch.stack([table[K * x + TOKENS[:, x]] for x in range(start, end)], dim=1)
        weighted = e * weight[start:end, None]
        expected = expected + weighted.sum(dim=1)
        for x in range(end - start):
            for y in range(x):
                expected = expected + weighted[:, x] * weighted[:, y]
        if high:
            expected = expected + torch.relu(e.flatten(1) @ lins[2 * i].t() + lins[2 * i + 1])
    inputs = [table, weight, *lins]
    torch.testing.assert_close(token_cross(*inputs[:2], graph, *inputs[2:]), expected)
    assert torch.autograd.gradcheck(
        lambda *inputs: token_cross(*inputs[:2], graph, *inputs[2:]), inputs
    )


def test_token_cross_goes_back_twice():
    # What is computed again in the backward pass must not spoil what is kept.
    graph, inputs = TokenGraph.from_tokens(TOKENS, K, GROUPS), parameters(True)
    out = token_cross(*inputs[:2], graph, *inputs[2:]).sum()
    first = torch.autograd.grad(out, inputs, retain_graph=True)
    assert all(map(torch.equal, first, torch.autograd.grad(out, inputs)))


def test_project_slots():
    slots, weight, bias = random(2, K, D), random(D, 2 * D, seed=2), random(D, seed=3)
    out = project_slots(slots, weight, bias)
    tokens = torch.tensor([3, 1])
    whole = torch.cat([slots[0, 3], slots[1, 1]]) @ weight.t() + bias
    torch.testing.assert_close(out[torch.arange(2), tokens].sum(dim=0), whole)
