r"""Public tests of assignment 6: the contract of all backbones, by groups."""

import pytest

from course.grading import check
from course.grading.check import points

EPOCHS = 40


@pytest.fixture(scope='module')
def outcomes(student):
    r"""A function that returns the outcomes of a group of tests. The contract runs once."""
    done = []

    def find(*names):
        if not done:
            done.append(student.call('course.grading.contract:contract', EPOCHS))
        return [test for test in done[0] if test['name'].split('[')[0] in names]

    return find


def passes(tests, hint):
    failed = [test for test in tests if test['outcome'] == 'failed']
    check.that(tests, 'The contract did not run.')
    if failed:
        one = failed[0]
        names = ', '.join(dict.fromkeys(test['name'] for test in failed))
        said = f' The first says: {one["message"]}' if one['message'] else ''
        check.fail(f'{hint} Failed: {names}.{said}')


@points(2)
def test_item_encoders(outcomes):
    r"""Training with every item encoder."""
    hint = 'Do all item vectors come from `self.encode_items(data)`?'
    passes(outcomes('test_every_item_encoder'), hint)


@points(2)
def test_learns(outcomes):
    r"""Learning a small graph."""
    hint = 'The model does not learn its training interactions. Check the sign of the loss.'
    passes(outcomes('test_learns'), hint)


@points(2)
def test_items(outcomes):
    r"""No parameters per item, and new items."""
    hint = 'The model has a row per item somewhere, or cannot run on a graph with more items.'
    passes(outcomes('test_no_parameter_per_item', 'test_new_items'), hint)


@points(2)
def test_state(outcomes):
    r"""The same numbers, copies, saved weights."""
    names = ('test_same_seed_same_numbers', 'test_ranking_is_deterministic', 'test_copies')
    names += ('test_state_dict_round_trip', 'test_reset_parameters', 'test_users_of_items')
    hint = 'The model is not deterministic, or keeps state that is not saved. Is there dropout '
    hint += 'in evaluation mode, or a plain attribute that changes?'
    passes(outcomes(*names), hint)


@points(2)
def test_precision(outcomes):
    r"""precisions, inference mode, devices."""
    names = ('test_autocast', 'test_double', 'test_meta_device', 'test_inference_mode')
    hint = 'Use the type and device of the vectors for every tensor that you create.'
    passes(outcomes(*names), hint)


@points(3)
def test_graphs(outcomes):
    r"""Unusual graphs and batches, another graph."""
    names = ('test_graph_of_inference_mode', 'test_another_graph_after_training')
    names += ('test_batch_of_one', 'test_empty_batch', 'test_duplicate_rows', 'test_few_edges')
    names += ('test_modality_names', 'test_names_of_nodes_and_edges', 'test_missing_edges')
    hint = 'Read the graph from `data` on every call. A graph that the constructor keeps is the '
    hint += 'wrong one on another graph.'
    passes(outcomes(*names), hint)


@points(1)
def test_quality(outcomes):
    r"""No waiting, documentation."""
    hint = 'A step must not wait for the GPU, and the docstring needs every argument.'
    passes(outcomes('test_nothing_waits_inside_a_step', 'test_documented'), hint)
