import pytest

from motor_geo.curves import crossing, gains
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
