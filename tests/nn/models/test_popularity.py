from motor_geo.engine.evaluator import popularity_embeddings
from motor_geo.nn.models import Popularity
from motor_geo.testing.graphs import NUM_ITEMS, NUM_USERS, small_graph
from motor_geo.typing import RATES


def test_items_rank_by_their_users():
    data = small_graph()
    user, item = Popularity(data)(data)
    count = data[RATES].edge_index[1].bincount(minlength=NUM_ITEMS)
    assert user.shape == (NUM_USERS, 1) and item.shape == (NUM_ITEMS, 1)
    assert (item.view(-1) - count).min() >= 0 and (item.view(-1) - count).max() < 0.5
    order = item.view(-1).argsort(descending=True)
    assert (count[order].diff() <= 0).all()
    assert item.unique().numel() == NUM_ITEMS  # No ties.


def test_it_is_what_runs_are_compared_with():
    data = small_graph()
    expected = popularity_embeddings(data[RATES].edge_index, NUM_USERS, NUM_ITEMS)
    assert Popularity(data)(data).item.equal(expected.item)
