r"""Hidden tests of assignment 3."""

import torch

from course.grading import check
from course.grading.check import points


def vectors(num_rows=300, size=6, seed=0, shift=0.0):
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(size, size, generator=generator, dtype=torch.float64)
    x = torch.randn(num_rows, size, generator=generator, dtype=torch.float64)
    return x @ mix + shift


def lloyd(x, centroids, num_steps):
    centroids = centroids.clone()
    for _ in range(num_steps):
        nearest = torch.cdist(x, centroids).argmin(dim=1)
        for k in range(len(centroids)):
            if (nearest == k).any():
                centroids[k] = x[nearest == k].mean(dim=0)
    return centroids


def reference(x, num_slots, num_centroids, num_steps):
    mean = x.mean(dim=0)
    parts = (x - mean).view(len(x), num_slots, -1)
    books = [lloyd(part, part[:num_centroids], num_steps) for part in parts.unbind(1)]
    return mean, torch.stack(books)


def nearest(x, mean, centroids):
    parts = (x - mean).view(len(x), len(centroids), -1)
    out = [torch.cdist(a, b).argmin(dim=1) for a, b in zip(parts.unbind(1), centroids)]
    return torch.stack(out, dim=1)


@points(1)
def test_split(student):
    r"""split: many slots."""
    x = vectors(7, 12)
    shuffled = 'Your slots take every T-th feature. They take neighboring features.'
    typical = {shuffled: x.view(7, 3, 4).transpose(1, 2)}
    check.close('split', student.split(x, 4), x.view(7, 4, 3), 'Compare by hand.', typical)


@points(2)
def test_kmeans(student):
    r"""kmeans: random vectors."""
    x = vectors()
    expected = lloyd(x, x[:8], 7)
    hint = 'Compare one step with a loop over rows, on a few rows.'
    check.close('kmeans', student.kmeans(x, x[:8], 7), expected, hint)


@points(2)
def test_kmeans_empty(student):
    r"""kmeans: a centroid without rows."""
    x = torch.tensor([[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]])
    start = torch.tensor([[0.0, 0.0], [90.0, 90.0], [1.6, 1.6]])
    expected = torch.tensor([[0.0, 0.0], [90.0, 90.0], [1.5, 1.5]])
    hint = 'The mean of no rows is undefined. A centroid without rows stays where it is.'
    out = student.kmeans(x, start, 3)
    moved = torch.tensor([[0.0, 0.0], [0.0, 0.0], [1.5, 1.5]])
    check.close('kmeans', out, expected, hint, {'A centroid without rows moved. ' + hint: moved})


@points(3)
def test_fit(student):
    r"""fit: vectors far from the origin."""
    x = vectors(shift=50.0)
    mean, centroids = reference(x, 3, 8, 6)
    out_mean, out = check.pair('fit', student.fit(x, 3, 8, 6))
    check.close('fit', out_mean, mean, 'Look at the mean.')
    shared = torch.stack([lloyd((x - mean).view(-1, 2), (x - mean)[:8, :2], 6)] * 3)
    typical = {
        'Your centroids lie around the mean of the vectors. Center before you cluster.': (
            centroids + mean.view(3, 1, 2)
        ),
        'All slots share a codebook.': shared,
    }
    check.close('fit', out, centroids, 'Look at the initial centroids of every slot.', typical)


@points(2)
def test_encode(student):
    r"""encode: random vectors that are not centered."""
    x = vectors(shift=5.0, seed=1)
    mean, centroids = reference(x, 3, 8, 6)
    centroids = centroids + 0.5 * torch.arange(8.0).view(1, 8, 1)
    parts = (x - mean).view(len(x), 3, -1)
    product = torch.stack([(a @ b.t()).argmax(1) for a, b in zip(parts.unbind(1), centroids)], 1)
    uncentered = nearest(x, torch.zeros_like(mean), centroids)
    hint = 'Compare the distances of one row by hand.'
    typical = {
        'The largest inner product is not the smallest distance: centroids differ in length.': (
            product
        ),
        'You compare vectors with centroids of centered vectors. Where is the mean?': uncentered,
    }
    out = student.encode(x, mean, centroids)
    check.close('encode', out, nearest(x, mean, centroids), hint, typical)


@points(1)
def test_decode(student):
    r"""decode: random tokens."""
    x = vectors(shift=5.0, seed=2)
    mean, centroids = reference(x, 2, 8, 3)
    token_id = nearest(x, mean, centroids)
    expected = mean + torch.cat([book[t] for book, t in zip(centroids, token_id.t())], dim=1)
    typical = {'The mean is missing.': expected - mean}
    hint = 'The token of slot s selects a row of the codebook of slot s.'
    check.close('decode', student.decode(token_id, mean, centroids), expected, hint, typical)


@points(2)
def test_error(student):
    r"""error: vectors far from the origin."""
    x = vectors(shift=20.0, seed=3)
    y = x + vectors(seed=4)
    lost = (x - y).square().sum()
    typical = {
        'The denominator contains the mean of the vectors: it is no variance.': (
            lost / x.square().sum()
        ),
        'This is the mean squared error. Which share of the variance is it?': (
            (x - y).square().mean()
        ),
        'Errors are squared, and no root is taken.': (
            lost / (x - x.mean(dim=0)).square().sum()
        ).sqrt(),
    }
    expected = lost / (x - x.mean(dim=0)).square().sum()
    check.close('error', student.error(x, y), expected, 'Compare both sums by hand.', typical)


@points(2)
def test_rotation(student):
    r"""rotation: reconstructions of random vectors."""
    x = vectors(seed=5)
    x = x - x.mean(dim=0)
    _, centroids = reference(x, 3, 4, 5)
    token_id = nearest(x, torch.zeros(6), centroids)
    y = torch.cat([book[t] for book, t in zip(centroids, token_id.t())], dim=1)
    turn = torch.linalg.qr(vectors(6, 6, seed=6)).Q
    y = y @ turn
    u, _, vt = torch.linalg.svd(x.t() @ y)
    transposed = 'Your matrix turns the wrong way: it is the transpose.'
    out = check.tensor('rotation', student.rotation(x, y), [6, 6])
    eye = torch.eye(6, dtype=torch.float64)
    check.that(torch.allclose(out.double().t() @ out.double(), eye, atol=1e-4), 'R^T R is not I.')
    hint = 'Look at the order of the factors. `torch.linalg.svd` returns V transposed.'
    check.close('rotation', out, u @ vt, hint, {transposed: (u @ vt).t()})
