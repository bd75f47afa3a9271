import pytest

from motor_geo.experiments import EXPERIMENTS
from motor_geo.views import VIEWS, improvements
from tests.test_scene import make


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
    scene = make(name, {tuple(label): []})
    table, *_ = VIEWS['comparison'](scene)
    assert [cell.mean for cell in table.rows[0].cells[:4]] == [None] * 4
