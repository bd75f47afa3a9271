import pytest

from motor_geo.experiments.options import ExperimentOptions, Variant
from motor_geo.experiments.registry import EXPERIMENTS
from motor_geo.experiments.results import Results, VariantResults, published, summary


def make(name, values, data='shop', sizes=(10, 20)):
    r"""Results with Recall@20 by label, and no files."""
    found = [
        VariantResults(
            Variant(label, {}, [{}]),
            {},
            [],
            [],
            [{'test': {'recall@20': value, 'ndcg@20': value / 2}} for value in own],
        )
        for label, own in values.items()
    ]
    options = ExperimentOptions({data: data}, {data: ['text']}, sizes={data: sizes})
    return Results(EXPERIMENTS[name], options, found)


def test_values_over_seeds():
    results = make(
        'table2', {('shop', 'BPR', 'id'): [0.1, 0.3], ('shop', 'BPR', 'specific'): [0.3]}
    )
    value = results.value(('shop', 'BPR', 'id'), 'recall@20')
    assert (value.mean, value.std) == (pytest.approx(0.2), pytest.approx(0.02**0.5))
    value = results.value(('shop', 'BPR', 'specific'), 'ndcg@20')
    assert (value.mean, value.std) == (pytest.approx(0.15), None)
    assert results.gain(('shop', 'BPR', 'specific')).mean == pytest.approx(0.5)
    assert results.gain(('shop', 'BPR', 'id')) == ''
    assert summary([], results.variants['shop', 'BPR', 'id']).mean is None


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
    results = make(name, {}, data, sizes)
    assert published(results, (data, *label), 'recall@20') == expected
    assert published(results, (data, *label), 'recall@7') is None
