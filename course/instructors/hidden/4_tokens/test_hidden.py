r"""Hidden tests of assignment 4."""

import torch
from torch.nn.functional import linear

from course.grading import check
from course.grading.check import points

PAIRS = 'Every pair counts twice.'
ITSELF = 'Slots are paired with themselves.'
WEIGHTS = 'Both slots of a pair bring their weight.'


def case(num_items=20, num_tokens=5, codebook_size=7, channels=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    sizes = (num_tokens, codebook_size, channels)
    table = torch.randn(sizes, generator=generator, dtype=torch.float64)
    token_id = torch.randint(codebook_size, (num_items, num_tokens), generator=generator)
    w = torch.randn(num_tokens, generator=generator, dtype=torch.float64)
    wide = (channels, num_tokens * channels)
    weight = torch.randn(wide, generator=generator, dtype=torch.float64)
    bias = torch.randn(channels, generator=generator, dtype=torch.float64)
    return table, token_id, w, weight, bias


def rows(table, token_id):
    return table[torch.arange(len(table)), token_id]


def pairs(e, w):
    x = e * w.view(-1, 1)
    return (x.sum(1).square() - x.square().sum(1)) / 2


def typical_pairs(e, w):
    x = e * w.view(-1, 1)
    total, own = x.sum(1).square(), x.square().sum(1)
    once = torch.zeros_like(total)
    for s in range(e.size(1)):
        for t in range(s + 1, e.size(1)):
            once += w[s] * e[:, s] * e[:, t]
    return {
        PAIRS: total - own,
        PAIRS + ' ' + ITSELF: total,
        ITSELF: total / 2,
        ITSELF + ' ': (total + own) / 2,
        WEIGHTS: once,
        'The weights are missing.': pairs(e, torch.ones_like(w)),
    }


@points(2)
def test_look_up(student):
    r"""look_up: many items and slots."""
    table, token_id, *_ = case()
    shared = 'All slots read the same table. Token 3 of slot 1 is not token 3 of slot 2.'
    hint = 'The row of an item has nothing to do with its index.'
    out = student.look_up(table, token_id)
    check.close('look_up', out, rows(table, token_id), hint, {shared: table[0][token_id]})


@points(1)
def test_first_order(student):
    r"""first_order: negative weights."""
    table, token_id, w, *_ = case(seed=1)
    e = rows(table, token_id)
    expected = (e * w.view(-1, 1)).sum(1)
    typical = {'This is a mean.': expected / e.size(1), 'The weights are missing.': e.sum(1)}
    check.close('first_order', student.first_order(e, w), expected, 'One weight a slot.', typical)


@points(2)
def test_second_order_loop(student):
    r"""second_order_loop: five slots."""
    table, token_id, w, *_ = case(seed=2)
    e = rows(table, token_id)
    out = student.second_order_loop(e, w)
    typical = typical_pairs(e, w)
    check.close('second_order_loop', out, pairs(e, w), 'Ten pairs of five slots.', typical)


@points(2)
def test_second_order(student):
    r"""second_order: five slots."""
    table, token_id, w, *_ = case(seed=3)
    e = rows(table, token_id)
    out = student.second_order(e, w)
    hint = 'Write the square of a sum of three terms out.'
    check.close('second_order', out, pairs(e, w), hint, typical_pairs(e, w))


@points(1)
def test_second_order_of_one(student):
    r"""second_order: a single slot."""
    table, token_id, w, *_ = case(num_tokens=1, seed=4)
    e = rows(table, token_id)
    hint = 'A single slot has no pair. ' + ITSELF
    check.close('second_order', student.second_order(e, w), torch.zeros_like(e[:, 0]), hint)


@points(1)
def test_second_order_is_fast(student):
    r"""second_order: 4,096 slots."""
    table, token_id, w, *_ = case(8, 4096, 2, 2, seed=5)
    e = rows(table, token_id)
    hint = 'It is right for few slots.'
    out = student.second_order(e, w)
    check.close('second_order', out, pairs(e, w), hint, typical_pairs(e[:, :2], w[:2]), rtol=1e-3)


@points(2)
def test_high_order(student):
    r"""high_order: five slots."""
    table, token_id, _, weight, bias = case(seed=6)
    e = rows(table, token_id)
    lin = linear(e.flatten(1), weight, bias)
    mixed = linear(e.transpose(1, 2).flatten(1), weight, bias).relu()
    typical = {
        'The order of the concatenation is wrong: all features of slot 1 come first.': mixed,
        'The ReLU is missing.': lin,
        'The bias is missing.': (lin - bias).relu(),
        'The bias is added after the ReLU.': (lin - bias).relu() + bias,
    }
    out = student.high_order(e, weight, bias)
    check.close('high_order', out, lin.relu(), 'Compare one item by hand.', typical)


@points(1)
def test_count_parameters(student):
    r"""count_parameters: the catalog grows."""
    small = check.number('count_parameters', student.count_parameters(100, 8, 256, 64))
    large = check.number('count_parameters', student.count_parameters(100_000, 8, 256, 64))
    check.that(
        small == large,
        'The number of parameters depends on the number of items: a table with a row per item '
        'is an ID embedding.',
    )
    expected = 8 * 256 * 64 + 8 + 64 * 8 * 64 + 64
    check.close('count_parameters', small, expected, 'Count every slot.')


@points(2)
def test_gradients(student):
    r"""encode: values and gradients of all orders."""
    inputs = case(seed=7)
    table, token_id, w, weight, bias = inputs
    leaves = [x.clone().requires_grad_() for x in (table, w, weight, bias)]
    e = rows(leaves[0], token_id)
    high = linear(e.flatten(1), leaves[2], leaves[3]).relu()
    out = (e * leaves[1].view(-1, 1)).sum(1) + pairs(e, leaves[1]) + high
    hint = 'Check the functions one by one.'
    check.close('encode', student.encode(*inputs), out.detach(), hint)
    expected = torch.autograd.grad(out.square().sum(), leaves)
    found = student.gradients(*inputs)
    check.that(isinstance(found, list) and len(found) == 4, 'Keep `gradients` as it was.')
    for name, a, b in zip(('table', 'w', 'weight', 'bias'), found, expected):
        check.close(f'gradient of {name}', a, b, 'Do not detach, and do not copy to NumPy.')
