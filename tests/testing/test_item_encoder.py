r"""What the item encoders of the package keep, and what the contract finds."""

import pytest
import torch

from motor_geo.nn import FeatureProjection, IDEmbedding
from motor_geo.testing import ItemEncoderContract
from motor_geo.testing.graphs import ITEMS, NUM_ITEMS, item_encoder, small_graph


class Contract(ItemEncoderContract):
    items = None

    def build(self, data):
        return item_encoder(self.items, data, 24)


for items in ITEMS[1:]:
    members = {'items': items, '__module__': __name__}
    globals()[f'Test{items.title()}'] = type(f'Test{items.title()}', (Contract,), members)


class TestId(ItemEncoderContract):
    per_item = True

    def build(self, data):
        return IDEmbedding(NUM_ITEMS, 24)


class Broken(FeatureProjection):
    r"""Its vectors depend on which items are asked for."""

    def encode(self, store, index=None):
        out = super().encode(store, index)
        return out if index is None else out - out.mean(dim=0)


def test_broken_encoder_is_found():
    data = small_graph()
    encoder = Broken({'image': 128}, 24)
    with pytest.raises(AssertionError):
        Contract().test_rows(data, encoder, 5)
    with pytest.raises(AssertionError):
        Contract().test_gradients(data, encoder, 5)
    with pytest.raises(AssertionError):
        Contract().test_more_items(data, torch.nn.Embedding(NUM_ITEMS, 24))
