r"""Hidden tests of assignment 1."""

import torch

from course.grading import check
from course.grading.check import points


def graph(num_users, num_items, num_edges, seed, dtype=torch.float64):
    r"""A random graph without duplicate edges, and vectors."""
    generator = torch.Generator().manual_seed(seed)
    key = torch.randint(num_users * num_items, (num_edges,), generator=generator).unique()
    edges = torch.stack([key // num_items, key % num_items])
    edges = edges[:, torch.randperm(edges.size(1), generator=generator)]
    size = 5 if num_edges < 1000 else 4
    x_user = torch.randn(num_users, size, generator=generator, dtype=dtype)
    x_item = torch.randn(num_items, size, generator=generator, dtype=dtype)
    return edges, x_user, x_item


def degrees(edges, num_users, num_items):
    return edges[0].bincount(minlength=num_users), edges[1].bincount(minlength=num_items)


def dense(edges, weight, num_users, num_items):
    out = torch.zeros(num_users, num_items, dtype=weight.dtype)
    out[edges[0], edges[1]] = weight
    return out


def symmetric(edges, num_users, num_items, dtype=torch.float64):
    user, item = degrees(edges, num_users, num_items)
    return (user[edges[0]] * item[edges[1]]).to(dtype).rsqrt()


def layers(edges, x_user, x_item, num_layers):
    a = dense(edges, symmetric(edges, len(x_user), len(x_item)), len(x_user), len(x_item))
    out = [(x_user, x_item)]
    for _ in range(num_layers):
        out.append((a @ out[-1][1], a.t() @ out[-1][0]))
    return [torch.stack(side) for side in zip(*out)]


@points(3)
def test_normalize(student):
    r"""normalize: a random graph with nodes without edges."""
    edges, x_user, x_item = graph(30, 40, 60, seed=1)
    sizes = len(x_user), len(x_item)
    user, item = degrees(edges, *sizes)
    d_user, d_item = user[edges[0]].double(), item[edges[1]].double()
    one_side = 'Your weights divide by the degree of one end of the edge only. Is your matrix '
    one_side += 'symmetric?'
    check.close(
        'normalize',
        student.normalize(edges, *sizes),
        symmetric(edges, *sizes),
        'Compare the weight of an edge with the degrees of both of its ends.',
        {
            one_side: 1 / d_user,
            one_side + ' ': 1 / d_item,
            'Your weights lack the square root.': 1 / (d_user * d_item),
            'Your degrees count one edge too many. Are there self-loops?': (
                ((d_user + 1) * (d_item + 1)).rsqrt()
            ),
        },
    )


@points(2)
def test_propagate(student):
    r"""propagate: a random graph."""
    edges, x_user, x_item = graph(30, 40, 200, seed=2)
    weight = torch.rand(edges.size(1), generator=torch.Generator().manual_seed(0)).double()
    a = dense(edges, weight, 30, 40)
    user, item = check.pair('propagate', student.propagate(x_user, x_item, edges, weight))
    loop = 'Your output contains the own vector of the node. A layer sums over neighbors only.'
    late = 'Your items read users that this layer has already changed. Both sums use the '
    late += 'vectors before the layer.'
    hint = 'Compare with a dense matrix on a small graph.'
    check.close('propagate', user, a @ x_item, hint, {loop: a @ x_item + x_user})
    typical = {loop: a.t() @ x_user + x_item, late: a.t() @ (a @ x_item)}
    check.close('propagate', item, a.t() @ x_user, hint, typical)


@points(1)
def test_duplicates_in_targets(student):
    r"""propagate: an item that all users share."""
    edges = torch.stack([torch.arange(50), torch.zeros(50, dtype=torch.long)])
    ones = torch.ones(50, 2)
    user, item = check.pair('propagate', student.propagate(ones, ones[:1], edges, ones[:, 0]))
    hint = 'Indexed assignment keeps one of several values of the same row. Do you add them up?'
    check.close('propagate', item, torch.full((1, 2), 50.0), hint)
    check.close('propagate', user, ones, hint)


@points(3)
def test_light_gcn(student):
    r"""light_gcn: three layers."""
    edges, x_user, x_item = graph(30, 40, 200, seed=3)
    all_user, all_item = layers(edges, x_user, x_item, 3)
    user, item = check.pair('light_gcn', student.light_gcn(x_user, x_item, edges, 3))
    hint = 'Check `normalize` and `propagate` first, then what the average contains.'

    def typical(x):
        return {
            'The average lacks layer 0, the input.': x[1:].mean(dim=0),
            'You return the last layer, without the average.': x[-1],
            'You add the layers up, but do not average.': x.sum(dim=0),
            'Count the terms of the sum: you divide by another number.': x.sum(dim=0) / 3,
        }

    check.close('light_gcn', user, all_user.mean(dim=0), hint, typical(all_user))
    check.close('light_gcn', item, all_item.mean(dim=0), hint, typical(all_item))


@points(1)
def test_single_precision(student):
    r"""light_gcn: the type of numbers stays."""
    for dtype in (torch.float32, torch.float64):
        edges, x_user, x_item = graph(10, 12, 40, seed=4, dtype=dtype)
        for out in check.pair('light_gcn', student.light_gcn(x_user, x_item, edges, 1)):
            check.that(
                isinstance(out, torch.Tensor) and out.dtype == dtype,
                f'`light_gcn` got vectors of type {dtype}, and returned another type.',
            )


@points(1)
def test_large(student):
    r"""propagate: 200,000 users and items."""
    edges, x_user, x_item = graph(200_000, 200_000, 500_000, seed=5, dtype=torch.float32)
    weight = torch.ones(edges.size(1))
    user, item = check.pair('propagate', student.propagate(x_user, x_item, edges, weight))
    expected = torch.zeros_like(x_user).index_add_(0, edges[0], x_item[edges[1]])
    check.close('propagate', user, expected, 'It is right on small graphs.', atol=1e-3)


@points(1)
def test_score(student):
    r"""score: some of many users."""
    _, user, item = graph(30, 40, 200, seed=6)
    index = torch.tensor([7, 7, 29])
    hint = 'A row of the output belongs to an entry of `index`.'
    check.close('score', student.score(user, item, index), user[index] @ item.t(), hint)
