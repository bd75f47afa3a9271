import pytest
import torch

from motor_geo.nn.conv import Hops
from motor_geo.nn.graph import sorted_edge_index


@pytest.mark.parametrize('readout', ['last', 'mean'])
@pytest.mark.parametrize('num_layers', [0, 1, 3])
def test_hops(num_layers, readout):
    torch.manual_seed(0)
    adj = torch.rand(6, 6, dtype=torch.float64) * (torch.rand(6, 6) < 0.4)  # Row: target.
    target, source = adj.nonzero().t()
    edge_index, perm = sorted_edge_index(torch.stack([source, target]), 6, 6)
    weight = adj[target, source]
    weight = weight if perm is None else weight[perm]
    x = torch.randn(6, 2, dtype=torch.float64, requires_grad=True)
    layers = [torch.linalg.matrix_power(adj, hop) @ x for hop in range(num_layers + 1)]
    expected = layers[-1] if readout == 'last' else torch.stack(layers).mean(dim=0)
    hops, index = Hops(num_layers, readout), torch.tensor([4, 0, 4])
    torch.testing.assert_close(hops(x, edge_index, weight), expected)
    rows = hops(x, edge_index, weight, index)
    torch.testing.assert_close(rows, expected[index])
    gradient, other = (
        torch.autograd.grad(value.square().sum(), x)[0] for value in (rows, expected[index])
    )
    torch.testing.assert_close(gradient, other)
    assert str(hops) == f"Hops({num_layers}, readout='{readout}')"


def test_hops_rejects_bad_arguments():
    with pytest.raises(ValueError, match=r"'num_layers' must not be negative \(got -1\)"):
        Hops(-1)
    with pytest.raises(ValueError, match=r"'readout' must be 'last' or 'mean' \(got 'sum'\)"):
        Hops(1, 'sum')
