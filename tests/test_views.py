import pytest

from motor_geo.experiments import EXPERIMENTS, in_words
from motor_geo.views import VIEWS, crossing, gains, improvements
from tests.test_scene import make


def shares(id, tokens):
    values = {('shop', 'LightGCN', 'id', share): [value] for share, value in id.items()}
    values |= {('shop', 'LightGCN', 'mean', share): [value] for share, value in tokens.items()}
    return make('sparsity', values)


def test_where_lines_cross():
    scene = shares({'0.25': 0.1, '1': 0.2}, {'0.25': 0.2, '1': 0.1})
    # Gains of 100 % and -50 % meet zero at two thirds of the way, on a log scale.
    assert crossing(scene, 'shop', 'mean') == (
        f'mean crosses IDs near {100 * 0.25 ** (1 / 3):.0f} % '
        '(gain over IDs +100 % at 25 %, -50 % at 100 % of the training interactions).'
    )
    scene = shares({'0.25': 0.1, '1': 0.2}, {'0.25': 0.2, '1': 0.3})
    assert crossing(scene, 'shop', 'mean').startswith('mean does not cross IDs')
    assert crossing(scene, 'shop', 'specific') == ''


def test_gains_by_share():
    scene = shares({'0.25': 0.1, '1': 0.2}, {'1': 0.1, '0.25': 0.2})
    assert gains(scene, 'shop', 'mean') == [(0.25, pytest.approx(1)), (1.0, pytest.approx(-0.5))]
    assert gains(scene, 'shop', 'id') == [(0.25, 0), (1.0, 0)]
    assert gains(scene, 'shop', 'specific') == []


def test_settings_in_words():
    setting = {'model.reg_weight': 0.1, 'items.init': 'xavier'}
    assert in_words(setting) == 'reg_weight 0.1, init xavier' and in_words({}) == ''


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
