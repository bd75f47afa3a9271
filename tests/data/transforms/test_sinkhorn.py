import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from motor_geo.data.transforms.sinkhorn import (
    assign_rows,
    balanced_codebook,
    balanced_kmeans,
    balancing_offset,
    sinkhorn,
)


def naive_sinkhorn(cost, epsilon, num_iters):
    r"""Potentials by sums of exponentials, one entry after the other."""
    n, K = len(cost), len(cost[0])
    f, g = [0.0] * n, [0.0] * K
    for _ in range(num_iters):
        for i in range(n):
            total = sum(math.exp((g[k] - cost[i][k]) / epsilon) for k in range(K))
            f[i] = -epsilon * math.log(n * total)
        for k in range(K):
            total = sum(math.exp((f[i] - cost[i][k]) / epsilon) for i in range(n))
            g[k] = -epsilon * math.log(K * total)
    return f, g


def test_potentials_equal_naive_sums():
    cost = torch.from_numpy(np.random.default_rng(0).random((7, 3)))
    f, g = sinkhorn(cost, 0.3, 50, tolerance=0)
    other_f, other_g = naive_sinkhorn(cost.tolist(), 0.3, 50)
    # A constant may move from one to the other.
    plan = ((f.view(-1, 1) + g - cost) / 0.3).exp()
    for i, a in enumerate(other_f):
        for k, b in enumerate(other_g):
            expected = math.exp((a + b - float(cost[i, k])) / 0.3)
            assert float(plan[i, k]) == pytest.approx(expected)
    torch.testing.assert_close(g - g[0], torch.tensor(other_g, dtype=torch.double) - other_g[0])


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 10_000),
    st.integers(1, 30),
    st.integers(1, 8),
    st.sampled_from([0.05, 0.3, 2.0]),
    st.sampled_from([1e-9, 1.0, 1e9]),
)
def test_marginals(seed, num_rows, num_columns, epsilon, scale):
    cost = torch.from_numpy(np.random.default_rng(seed).random((num_rows, num_columns))) * scale
    epsilon *= scale
    f, g = sinkhorn(cost, epsilon, 20_000, 1e-7)
    plan = ((f.view(-1, 1) + g - cost) / epsilon).exp()
    assert plan.isfinite().all()
    torch.testing.assert_close(
        plan.sum(0), torch.full((num_columns,), 1 / num_columns, dtype=torch.double)
    )
    rows = torch.full((num_rows,), 1 / num_rows, dtype=torch.double)
    torch.testing.assert_close(plan.sum(1), rows, atol=1e-6, rtol=1e-4)


def test_offsets_spread_rows():
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(400, 3, generator=generator)
    centroid = z[:8] * 0.3  # All in the middle.
    plain = assign_rows(z, centroid).bincount(minlength=8)
    offset = balancing_offset(z, centroid, 0.01)
    even = assign_rows(z, centroid, offset).bincount(minlength=8)
    assert plain.min() < 20 and plain.max() > 70
    assert even.min() >= 45 and even.max() <= 55
    assert float(offset.mean()) == pytest.approx(0, abs=1e-12)
    # The offset is what decides, row by row.
    distance = (z[:, None].double() - centroid.double()).square().sum(-1) - offset
    assert torch.equal(assign_rows(z, centroid, offset), distance.argmin(1))


def test_codebook_is_even_and_its_centroids_are_means():
    generator = torch.Generator().manual_seed(0)
    z = torch.cat([torch.randn(300, 2, generator=generator), torch.full((20, 2), 9.0)])
    centroid, offset = balanced_codebook(z, z[:16], 0.01, num_iters=10)
    code = assign_rows(z, centroid, offset)
    assert 15 <= code.bincount(minlength=16).min() and code.bincount().max() <= 25
    assert centroid.dtype == offset.dtype == torch.float
    # Nearly a fixed point: cells and means belong together.
    means = torch.stack([z[code == k].mean(0) for k in range(16)])
    assert float((means - centroid).square().sum(1).mean()) < 0.01


def test_rows_that_are_all_the_same():
    z = torch.ones(30, 2)
    centroid, offset = balanced_codebook(z, torch.ones(4, 2), 0.01)
    assert centroid.isfinite().all() and torch.equal(offset, torch.zeros(4))
    assert assign_rows(z, centroid, offset).unique().numel() == 1  # They share a code.
    assert assign_rows(z[:0], centroid, offset).shape == (0,)


def test_clusters_of_equal_size():
    generator = torch.Generator().manual_seed(0)
    cluster = balanced_kmeans(torch.randn(64, 4, generator=generator), 8)
    assert 6 <= cluster.bincount(minlength=8).min() and cluster.bincount().max() <= 10
    assert balanced_kmeans(torch.randn(3, 2, generator=generator), 10).max() < 3
