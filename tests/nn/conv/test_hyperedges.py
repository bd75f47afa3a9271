import math

import pytest
import torch

from motor_geo.nn.conv.hyperedges import Hyperedges


def test_draw():
    logits = torch.zeros(20_000, 4)
    layer = Hyperedges(1, keep_rate=0.2, temperature=0.2)
    assert layer.draw(logits, 'image', 'item', training=False) == (None, None)
    torch.manual_seed(0)
    noise, factor = layer.draw(logits, 'image', 'item', training=True)
    # Mean and deviation of the Gumbel distribution.
    assert float(noise.mean()) == pytest.approx(0.5772, abs=0.02)
    assert float(noise.std()) == pytest.approx(math.pi / math.sqrt(6), abs=0.02)
    assert noise.isfinite().all()
    assert factor.unique().tolist() == [0.0, pytest.approx(5.0)]
    assert float(factor.mean()) == pytest.approx(1.0, abs=0.03)
    assert Hyperedges(1, 1.0, 0.2).draw(logits, 'image', 'item', training=True)[1] is None
    layer = Hyperedges(1, 0.5, 0.2, deterministic=False)
    noise, factor = layer.draw(logits, 'image', 'item', training=False)
    assert noise is not None and factor is None


@pytest.mark.parametrize('num_layers', [1, 2, 3])
def test_rounds(num_layers):
    torch.manual_seed(0)
    layer = Hyperedges(num_layers, 0.5, temperature=0.7)
    user, item, x = (torch.randn(*size, dtype=torch.float64) for size in ((6, 3), (8, 3), (8, 5)))
    (g_user, g_item), lat = layer(user, item, x, 'image', training=False)
    torch.testing.assert_close(g_user, (user / 0.7).softmax(dim=1))
    torch.testing.assert_close(g_item, (item / 0.7).softmax(dim=1))
    for _ in range(num_layers):
        x = g_item @ g_item.t() @ x
    torch.testing.assert_close(g_item @ lat, x)
    assert str(layer) == f'Hyperedges({num_layers}, temperature=0.7)'


def test_noise_and_factors_act_on_memberships(monkeypatch):
    layer = Hyperedges(1, 0.5, temperature=0.5)
    noise, factor = torch.tensor([[1.0, 0.0]]), torch.tensor([[2.0, 0.0]])
    monkeypatch.setattr(layer, 'draw', lambda *args: (noise, factor))
    share = layer.membership(torch.zeros(1, 2), 'image', 'item', training=True)
    torch.testing.assert_close(share, torch.tensor([[2 / (1 + math.exp(-2)), 0.0]]))


def test_rejects_bad_arguments():
    with pytest.raises(ValueError, match=r"'num_layers' must be positive \(got 0\)"):
        Hyperedges(0, 0.5, 0.2)
    with pytest.raises(ValueError, match=r"'keep_rate' must lie in \(0, 1\] \(got 0.0\)"):
        Hyperedges(1, 0.0, 0.2)
    with pytest.raises(ValueError, match=r"'temperature' must be positive and finite \(got 0\)"):
        Hyperedges(1, 0.5, 0)
