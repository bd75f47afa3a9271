import pytest
import torch

from motor_geo.nn import UsedItems
from motor_geo.nn.fold_in import fold_in_functions
from motor_geo.nn.models import BPR, LightGCN
from motor_geo.testing.graphs import NUM_USERS, item_encoder, small_graph
from motor_geo.typing import RATES, Embeddings

EDGES = torch.tensor([[1, 0, 1, 3], [2, 0, 1, 2]])  # User 2 has used nothing.


@pytest.mark.parametrize('power', [0.0, 0.5, 1.0])
def test_by_hand(power):
    item = torch.tensor([[1.0, 2.0], [3.0, -1.0], [0.5, 4.0]], dtype=torch.float64)
    both = (item[1] + item[2]) / 2**power
    expected = torch.stack([item[0], both, torch.zeros(2), item[2]])
    encoder = UsedItems(power)
    torch.testing.assert_close(encoder(item, EDGES, 4), expected.double())
    index = torch.tensor([3, 1, 1])
    torch.testing.assert_close(encoder(item, EDGES, 4, index), expected[index])


def test_gradient():
    item = torch.rand(3, 2, dtype=torch.float64, requires_grad=True)
    encoder = UsedItems()
    assert torch.autograd.gradcheck(lambda x: encoder(x, EDGES, 4), item)
    rows = torch.tensor([1, 3, 1])
    assert torch.autograd.gradcheck(lambda x: encoder(x, EDGES, 4, rows), item)


def test_follows_the_graph():
    item, encoder = torch.rand(3, 2), UsedItems(0.0)
    before = encoder(item, EDGES, 4)
    after = encoder(item, EDGES[:, 1:], 4)
    torch.testing.assert_close(before - after, torch.stack([0 * item[0], item[2], *0 * item[:2]]))


@pytest.mark.parametrize('model', [BPR, LightGCN])
def test_new_user_has_the_vector_of_one_who_was_there(model):
    r"""There is one way to fold in a user; without propagation it gives what training had."""
    data = small_graph()
    torch.manual_seed(0)
    model = model(data, item_encoder('specific', data, 8), 8).eval()
    model.set_user_encoder(UsedItems())
    with torch.no_grad():
        emb = Embeddings(*model(data))
        functions = fold_in_functions(model, data, emb)
        assert list(functions) == ['graph']
        user, item = data[RATES].edge_index
        own = item[user == 3]
        out = functions['graph'](torch.zeros_like(own), own, 1)
    if isinstance(model, LightGCN):  # Her items have one more neighbor now.
        cosine = torch.cosine_similarity(out[0], emb.user[3], dim=0)
        assert cosine > 0.99
    else:
        torch.testing.assert_close(out[0], emb.user[3])
    assert model.user_embedding.shape == (NUM_USERS, 0)
