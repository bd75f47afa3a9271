import pytest

from motor_geo.experiments import EXPERIMENTS
from motor_geo.views import VIEWS, crossing, spell
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


def test_settings_in_words():
    assert spell({'model.reg_weight': 0.1, 'items.init': 'xavier'}) == 'reg_weight 0.1, init xavier'
    assert spell(None) == '–' and spell({}) == ''


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
