import pytest

from motor_geo.experiments.queue import Outcome
from motor_geo.experiments.registry import EXPERIMENTS
from motor_geo.experiments.results import Scene, published, summary
from motor_geo.experiments.variants import Contender, Setup


def make(name, values, data='shop', sizes=(10, 20)):
    r"""A scene of outcomes with Recall@20 by label, and no files."""
    outcomes = [
        Outcome(
            Contender(label, {}, [{}]),
            {},
            [],
            [],
            [{'test': {'recall@20': value, 'ndcg@20': value / 2}} for value in own],
        )
        for label, own in values.items()
    ]
    setup = Setup({data: data}, {data: ['text']}, sizes={data: sizes})
    return Scene(EXPERIMENTS[name], setup, outcomes)


def test_values_over_seeds():
    scene = make('table2', {('shop', 'BPR', 'id'): [0.1, 0.3], ('shop', 'BPR', 'specific'): [0.3]})
    value = scene.value(('shop', 'BPR', 'id'), 'recall@20')
    assert (value.mean, value.std) == (pytest.approx(0.2), pytest.approx(0.02**0.5))
    value = scene.value(('shop', 'BPR', 'specific'), 'ndcg@20')
    assert (value.mean, value.std) == (pytest.approx(0.15), None)
    assert scene.gain(('shop', 'BPR', 'specific')).mean == pytest.approx(0.5)
    assert scene.gain(('shop', 'BPR', 'id')) == ''
    assert summary([], scene.outcomes['shop', 'BPR', 'id']).mean is None


@pytest.mark.parametrize(
    'name, data, sizes, label, expected',
    [
        ('lirdrec-table2', 'baby', (19445, 7050), ('LightGCN', 'id'), 0.0754),
        ('lirdrec-table2', 'baby', (19445, 7051), ('LightGCN', 'id'), 0.0698),  # The split's own.
        ('lirdrec-table2', 'toys', (19445, 7050), ('LightGCN', 'id'), None),
        ('table2', 'baby', (19445, 7050), ('LightGCN', 'id'), 0.0698),
        ('table2', 'baby', (19445, 7050), ('LightGCN', 'specific'), None),
        ('table2', 'Music', (57202, 25717), ('LightGCN', 'specific'), 0.0897),
        ('table2', 'Music', (57202, 25717), ('LightGCN', 'id'), 0.0588),
        ('table4', 'Music', (57202, 25717), ('LightGCN', 'mean'), 0.0818),
        ('lirdrec-table3', 'Baby', (19445, 7050), ('LIRDRec', 'no_pwc'), 0.0893),
        ('lirdrec-table4', 'Baby', (19445, 7050), ('LIRDRec', 'text'), 0.1033),
    ],
)
def test_published(name, data, sizes, label, expected):
    scene = make(name, {}, data, sizes)
    assert published(scene, (data, *label), 'recall@20') == expected
    assert published(scene, (data, *label), 'recall@7') is None
