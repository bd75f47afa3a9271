r"""Hidden tests of assignment 6: the backbone on synthetic shops."""

import pytest

from course.grading import check
from course.grading.check import points

MARGIN = 1.1


@pytest.fixture(scope='module')
def measure(student):
    r"""A function that returns metrics of the backbone and of popularity."""
    from course.grading.contract import shop
    from motor_geo.engine import Evaluator
    from motor_geo.engine.evaluator import popularity_embeddings
    from motor_geo.typing import Embeddings

    done = {}

    def metrics(items, seed):
        if (items, seed) not in done:
            vectors = student.call('course.grading.contract:train', items, seed)
            dataset, _, data = shop(seed)
            edge_index = data['user', 'rates', 'item'].edge_index
            test = Evaluator(dataset.targets('test'), edge_index, dataset.num_items, ks=20)
            sizes = dataset.num_users, dataset.num_items
            popular = test.evaluate(popularity_embeddings(edge_index, *sizes))
            shapes = [vectors[name].shape[0] for name in ('user', 'item')]
            check.that(tuple(shapes) == sizes, 'There is not one vector per user and item.')
            own = test.evaluate(Embeddings(vectors['user'], vectors['item']))
            done[items, seed] = own.metrics, popular.metrics
        return done[items, seed]

    return metrics


def beats(own, popular):
    ratio = own['recall@20'] / popular['recall@20']
    check.that(
        ratio > MARGIN,
        f'Recall@20 is {ratio:.2f} times that of popularity; expected more than {MARGIN}. Does '
        'the loss raise positive scores above negative ones, and is every user different?',
    )


@points(3)
def test_ids(measure):
    r"""Beats popularity with IDs."""
    beats(*measure('id', 0))


@points(3)
def test_tokens(measure):
    r"""Beats popularity with tokens, on another shop."""
    beats(*measure('tokens', 1))


@points(2)
def test_new_items(measure):
    r"""Finds new items with tokens."""
    own, _ = measure('tokens', 1)
    check.that(
        own['unseen_recall@20'] > 0.03,
        'Items without training interactions are never found. Does their vector survive the '
        'propagation, although they have no neighbors?',
    )
