import pytest
import torch
import torch.nn.functional as F

from motor_geo.nn.models.item_confidence import ItemConfidence


def test_forms():
    torch.manual_seed(0)
    item = F.normalize(torch.randn(2000, 8))
    out = {}
    for form in ('token', 'free', 'none'):
        confidence = ItemConfidence(form, 2000, 8, 3, std=0.1)
        confidence.reset_parameters()
        out[form] = confidence(item).detach()
        assert out[form].shape == (2000, 3)
    assert torch.equal(out['none'], torch.ones(2000, 3))
    assert float(out['free'].std()) == pytest.approx(0.1, rel=0.05)
    # Unit vectors times normal weights, around two standard deviations.
    assert float(out['token'].mean()) == pytest.approx(0.2, abs=0.02)
    assert float((out['token'] > 0).float().mean()) > 0.9


def test_other_items():
    item = torch.ones(5, 8)
    assert ItemConfidence('token', 4, 8, 3, std=0.1)(item).shape == (5, 3)
    with pytest.raises(ValueError, match='free confidence for 4 items but the graph has 5'):
        ItemConfidence('free', 4, 8, 3, std=0.1)(item)
    with pytest.raises(ValueError, match="'item_confidence' must be 'token', 'free' or 'none'"):
        ItemConfidence('id', 4, 8, 3, std=0.1)
