import importlib
import pkgutil
import re
from pathlib import Path

import pytest
import torch

import motor_geo.nn
from motor_geo.nn import functional
from motor_geo.nn.functional.contrast import log_sum_exp
from motor_geo.nn.functional.dct import cosine_transform
from motor_geo.nn.functional.distinct import distinct
from motor_geo.nn.functional.edges import edge_dot, edge_softmax
from motor_geo.nn.functional.feature_blocks import (
    block_linear,
    concat_linear,
    linear_twice,
    products,
    spectral_blocks,
)
from motor_geo.nn.functional.hyperedges import contrast_all, shares
from motor_geo.nn.functional.kernel import has_kernel
from motor_geo.nn.functional.layers import light_rows, light_sum, refined_sum, weighted_sum
from motor_geo.nn.functional.pairs import scores_and_norms
from motor_geo.nn.functional.rows import (
    frobenius_norm,
    normalize_rows,
    project,
    row_norm,
    second_moments,
)
from motor_geo.nn.functional.similarity import row_dot
from motor_geo.nn.functional.spmm import propagate, propagate_rows
from motor_geo.nn.functional.tokens import TokenGraph, token_cross, token_sum
from motor_geo.nn.graph import BipartiteGraph, NormalizedGraph, sorted_edge_index, sym_norm


def random(*size, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(size, generator=generator, dtype=torch.float64)


# User 4 and item 2 have no edges; edges are in no order.
PAIRS = torch.tensor([[3, 0, 2, 1, 0, 2, 3], [0, 1, 0, 3, 4, 4, 1]])
EDGES, _ = sorted_edge_index(PAIRS, 5, 5)
GRAPH = BipartiteGraph.from_edges(PAIRS, 5, 5, sym_norm(PAIRS, 5, 5, torch.float64))
NORMALIZED = NormalizedGraph.from_edges(PAIRS, 5, 5)
USER, ITEM, WEIGHT = random(5, 3), random(5, 3, seed=1), random(7, seed=2).exp()
INDEX = torch.tensor([4, 0, 2, 0]), torch.tensor([2, 1])
TOKENS = TokenGraph.from_tokens(
    torch.randint(4, (6, 5), generator=torch.Generator().manual_seed(0)), 4, [(0, 2), (2, 5)]
)
TABLE = random(20, 3)
LINS = [random(3, 6, seed=3), random(3, seed=4), random(3, 9, seed=5), random(3, seed=6)]
COUNTS = torch.tensor([1, 3, 2, 1, 1]), torch.tensor([2, 1, 1, 4, 1])
ROWS = torch.cat([USER, torch.zeros(1, 3, dtype=torch.float64), 1e-4 * ITEM])

WIDE = random(5, 4, seed=3), random(6, 7, seed=4)
LINEAR = random(3, 3, seed=3), random(3, seed=4)
TWICE = random(2, 3, seed=7), random(2, seed=8)
FACTORS = random(3, 2, seed=5), random(3, 1, seed=6)
NODES = distinct(torch.tensor([4, 0, 4, 2]))
NEIGHBORS = torch.tensor([[0, 3], [1, 0], [4, 1], [3, 0], [2, 4]])

#: A name, its kernel, and a function of it that is differentiable in the other arguments.
CASES = [
    ('propagate', propagate, lambda f, x: f(x, EDGES), USER),
    ('propagate-weighted', propagate, lambda f, x, w: f(x, EDGES, w), USER, WEIGHT),
    ('propagate_rows', propagate_rows, lambda f, x: f(x, EDGES, WEIGHT, INDEX[0]), USER),
    (
        'propagate_rows-learned',
        propagate_rows,
        lambda f, x, w: f(x, EDGES, w, INDEX[0]),
        USER,
        WEIGHT,
    ),
    ('edge_dot', edge_dot, lambda f, x, y: f(x, y, EDGES), USER, ITEM),
    ('edge_softmax', edge_softmax, lambda f, x: f(x, EDGES), WEIGHT),
    ('light_sum', light_sum, lambda f, u, i: torch.cat(f(u, i, GRAPH, 3, 0.25)), USER, ITEM),
    (
        'light_sum-learned',
        light_sum,
        # Dynamo of PyTorch 2.11 takes no `_replace`.
        lambda f, u, i, w: torch.cat(f(u, i, BipartiteGraph(*GRAPH[:3], w), 2)),
        USER,
        ITEM,
        WEIGHT,
    ),
    (
        'light_rows',
        light_rows,
        lambda f, u, i: torch.cat(f(u, i, GRAPH, 3, 0.25, *INDEX)),
        USER,
        ITEM,
    ),
    *(
        (
            f'{name}-normalized-{layers}',
            function,
            lambda f, u, i, layers=layers, index=index: torch.cat(
                f(u, i, NORMALIZED, layers, 0.25, *index)
            ),
            USER,
            ITEM,
        )
        for name, function, index in (
            ('light_sum', light_sum, ()),
            ('light_rows', light_rows, INDEX),
        )
        for layers in (0, 1, 3)
    ),
    (
        'weighted_sum',
        weighted_sum,
        lambda f, u, i, a, b: torch.cat(f(u, i, a, b, GRAPH, 2)),
        USER,
        ITEM,
        WEIGHT,
        WEIGHT.flip(0),
    ),
    ('refined_sum', refined_sum, lambda f, u, i: torch.cat(f(u, i, GRAPH, 3)), USER, ITEM),
    (
        'refined_sum-short',
        refined_sum,
        lambda f, u, i: torch.cat(f(u, i, GRAPH, 2)) * 1e9,
        1e-9 * USER,
        1e-9 * ITEM,
    ),
    ('token_sum', token_sum, lambda f, x: f(x, TOKENS.all), TABLE),
    ('token_cross', token_cross, lambda f, x, w: f(x, w, TOKENS), TABLE, random(5)),
    (
        'token_cross-high',
        token_cross,
        lambda f, x, w, *lins: f(x, w, TOKENS, *lins),
        TABLE,
        random(5),
        *LINS,
    ),
    ('normalize_rows', normalize_rows, lambda f, x: f(x, 1e-3), ROWS),
    ('row_norm', row_norm, lambda f, x: f(x), ROWS),
    ('frobenius_norm', frobenius_norm, lambda f, x: f(x), ROWS),
    ('frobenius_norm-zeros', frobenius_norm, lambda f, x: f(0 * x), USER),
    *(
        (
            f'scores_and_norms{name}',
            scores_and_norms,
            lambda f, u, x, zero=zero: torch.cat(f(zero * u, x)),
            USER,
            random(10, 3, seed=2),
        )
        for name, zero in (('', 1), ('-zeros', 0))
    ),
    (
        'second_moments',
        second_moments,
        lambda f, x: torch.cat([y.reshape(-1) for y in f(x)]),
        ROWS,
    ),
    ('project', project, lambda f, x, w, b: f(x, w, b), USER, ITEM, random(5)),
    (
        'project-half',
        project,
        lambda f, w: f(USER.half(), w),
        ITEM,
    ),
    (
        'concat_linear',
        concat_linear,
        lambda f, x, y, w, b: f([x, y], w, b),
        USER,
        WIDE[0],
        WIDE[1],
        random(6),
    ),
    ('linear_twice', linear_twice, lambda f, *args: f(*args), USER, *LINEAR, *TWICE),
    ('products', products, lambda f, x, a, b: torch.cat(f(x, [a, b]), dim=1), USER, *FACTORS),
    (
        'block_linear',
        block_linear,
        lambda f, x, a, b, c, d: f(x, [a, b], [c, d]),
        random(5, 7),
        ITEM,
        random(2, 4),
        random(5, seed=1),
        random(2, seed=1),
    ),
    *(
        (
            f'spectral_blocks-{kind}',
            spectral_blocks,
            lambda f, a, b, s, kind=kind: torch.cat(f([USER, WIDE[0]], [a, b], s, kind), dim=1),
            ITEM,
            random(6, 4, seed=2),
            WIDE[1],
        )
        for kind in (False, True)
    ),
    ('shares', shares, lambda f, x: f(x), random(5, 4)),
    *(
        (
            f'contrast_all-{k}',
            contrast_all,
            lambda f, a, share, lat: f(a, share, lat, NODES, 0.5),
            random(3, 3, seed=4),
            random(5, k, seed=5).exp(),
            random(k, 3, seed=6),
        )
        for k in (2, 4)  # Fewer hyperedges than channels, and more.
    ),
    ('log_sum_exp', log_sum_exp, lambda f, a, p: f(a, p), USER, ITEM),
    ('log_sum_exp-counts', log_sum_exp, lambda f, a, p: f(a, p, *COUNTS, 9.0), USER, ITEM),
    (
        'log_sum_exp-blocks',
        log_sum_exp,
        lambda f, a, p: f(a, p, skip_diagonal=True, entries=16),
        USER,
        torch.cat([USER, ITEM]),
    ),
    ('row_dot', row_dot, lambda f, x: f(x, NEIGHBORS), USER),
    ('cosine_transform', cosine_transform, lambda f, x: f(x), USER),
    ('cosine_transform-inverse', cosine_transform, lambda f, x: f(x, True), USER),
]
IDS = [case[0] for case in CASES]


def run(function, f, leaves):
    leaves = [leaf.clone().requires_grad_() for leaf in leaves]
    out = function(f, *leaves)
    upstream = random(*out.shape, seed=7)
    return out.detach(), torch.autograd.grad(out, leaves, upstream)


@pytest.mark.parametrize('case', CASES, ids=IDS)
def test_kernel_equals_its_reference(case):
    _, kernel, function, *leaves = case
    assert kernel.__doc__ and kernel.__name__ == kernel.reference.__name__
    expected = run(function, kernel.reference, leaves)
    torch.testing.assert_close(run(function, kernel, leaves), expected, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize('case', CASES, ids=IDS)
def test_kernel_compiles_as_its_reference(case):
    _, kernel, function, *leaves = case
    torch._dynamo.reset()
    compiled = torch.compile(lambda *leaves: function(kernel, *leaves), backend='eager')
    torch.testing.assert_close(compiled(*leaves), function(kernel.reference, *leaves))


@pytest.mark.parametrize('case', CASES, ids=IDS)
def test_kernel_in_inference_mode(case):
    _, kernel, function, *leaves = case
    with torch.inference_mode():
        out = function(kernel, *leaves)
    torch.testing.assert_close(out.clone(), function(kernel, *leaves))


def test_every_kernel_has_a_case():
    found = set()
    for module in pkgutil.iter_modules(functional.__path__):
        values = vars(importlib.import_module(f'{functional.__name__}.{module.name}')).values()
        found |= {value.__name__ for value in values if isinstance(value, has_kernel)}
    assert found == {case[1].__name__ for case in CASES}


def test_kernels_live_in_functional():
    root = Path(motor_geo.nn.__file__).parent
    for file in root.rglob('*.py'):
        if file.parent.name != 'functional':
            assert not re.search(
                r'\(Function\)|autograd\.Function|autograd\.function', file.read_text()
            ), file


def test_has_kernel():
    @has_kernel
    def double(x):
        r"""Twice a number."""
        return 2 * x

    assert double(3) == 6  # No kernel yet.

    @double.kernel
    def _(x):
        return 2 * x + 0.5

    assert (double(3), double.reference(3), double.__doc__) == (6.5, 6, 'Twice a number.')
    x = torch.ones(2)
    torch.testing.assert_close(torch.compile(lambda x: double(x), backend='eager')(x), 2 * x)
