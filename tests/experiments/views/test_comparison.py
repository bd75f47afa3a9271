import pytest

from motor_geo.experiments.registry import EXPERIMENTS
from motor_geo.experiments.views import VIEWS
from motor_geo.experiments.views.comparison import improvements, validation
from tests.experiments.test_results import make


def test_gains_of_the_paper_stand_beside_ours():
    own = ('shop', 'LightGCN', 'specific')
    (table,) = improvements(make('table2', {('shop', 'LightGCN', 'id'): [0.1], own: [0.12]}))
    assert [c.name for c in table.columns[:2]] == ['shop', 'Music, published']
    assert [cell.mean for cell in table.rows[0].cells[:2]] == pytest.approx(
        [0.2, 0.0897 / 0.0588 - 1]
    )
    counts = {('shop', 'LightGCN', name): [0.1] for name in ('id', '4')}
    assert list(improvements(make('figure4', counts))) == []  # The paper has none to show.


def test_every_experiment_has_a_view():
    assert {experiment.view for experiment in EXPERIMENTS.values()} == set(VIEWS)


@pytest.mark.parametrize('name', [n for n, e in EXPERIMENTS.items() if e.view == 'comparison'])
def test_nothing_has_been_run(name):
    experiment = EXPERIMENTS[name]
    reference = experiment.reference
    label = ['shop', 'LIRDRec', 'id', 'opq'][: len(experiment.head)]
    label[reference[0]] = reference[1]
    results = make(name, {tuple(label): []})
    table, *_ = VIEWS['comparison'](results)
    assert [cell.mean for cell in table.rows[0].cells[:4]] == [None] * 4


def test_settings_on_validation():
    labels = [('shop', 'LightGCN', name) for name in ('id', 'mean', 'features')]
    results = make('table2', {label: [0.1] for label in labels})
    settings = [{'model.reg_weight': weight} for weight in (0.1, 1.0)]
    found = [(0.25, 0.12346), (0.125, None), (0.5, 0.25)]
    for label, values in zip(labels, found):
        pairs = [(s, value) for s, value in zip(settings, values) if value is not None]
        results.variants[label] = results.variants[label]._replace(validation=pairs)
    (table,) = validation(results)
    assert [column.name for column in table.columns] == ['reg_weight 0.1', 'reg_weight 1.0']
    # Where there is nothing to choose from, nothing is shown.
    assert [(row.label[2], row.cells) for row in table.rows] == [
        ('id', ['0.2500', '0.1235']),
        ('features', ['0.5000', '0.2500']),
    ]
    assert list(validation(make('table2', {labels[0]: [0.1]}))) == []
