import pytest
import torch
import torch.nn.functional as F

from motor_geo.nn.functional.distinct import distinct
from motor_geo.nn.models.feature_alignment import FeatureAlignment


def contrast(anchor, positive, temperature):
    logit = anchor @ positive.t() / temperature
    return F.cross_entropy(logit, torch.arange(len(logit)))


@pytest.mark.parametrize('n', [1, 2, 3])
def test_against_the_formula(n):
    torch.manual_seed(0)
    names, index = ['image', 'audio', 'text'][:n], torch.tensor([4, 1, 4, 0])
    fac = FeatureAlignment(names, 6, temperature=0.5).double()
    item, items = torch.randn(5, n + 1, 6).double(), distinct(index)
    losses = fac(item[items.node], items)
    assert list(losses) == names
    x = item[index]
    anchor = fac.head_id(x[:, 0])
    for k, name in enumerate(names):
        if k > 0:
            anchor = fac.chain[k - 1](fac.stage['map'](anchor) if n == 2 else anchor)
        positive = fac.heads[name](x[:, k + 1])
        assert positive.size(1) == (3 if n > 1 and k == n - 1 else 6)
        torch.testing.assert_close(losses[name], contrast(anchor, positive, 0.5))
