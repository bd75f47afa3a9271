import numpy as np
import pytest

from motor_geo.experiments.results import VariantResults
from motor_geo.experiments.views.stopping import around_best, stopping
from tests.experiments.test_results import make

LABELS = [('shop', 'BPR', 'id'), ('shop', 'BPR', 'mean')]


def test_epochs_around_the_best_one():
    found = around_best([0.1, 0.2, 0.4, 0.3], width=3)
    np.testing.assert_allclose(found, [np.nan, -0.75, -0.5, 0, -0.25, np.nan, np.nan])
    np.testing.assert_allclose(around_best([0.5, 0.5], width=1), [np.nan, 0, 0])  # The first one.


@pytest.fixture
def curves(monkeypatch):
    found = {}
    monkeypatch.setattr(
        VariantResults, 'epochs', lambda self, metric: found.get(self.variant.label, [])
    )
    return found


def test_noise_of_every_variant(curves):
    curves[LABELS[0]] = [[0.1, 0.2, 0.4, 0.3], [0.2, 0.2, 0.1]]
    table, figure = stopping(make('table2', {label: [0.1] for label in LABELS}))
    (row,) = table.rows  # Nothing is known of the second variant.
    assert row.label == list(LABELS[0])
    assert row.cells[0].mean == pytest.approx(0.3)
    assert row.cells[1].mean == pytest.approx(np.mean([-0.75, -0.5, -0.25, 0, -0.5]))
    assert row.cells[2].mean == pytest.approx(np.mean([0.25, 0.5, 0.25, 0, 0.5]))
    (series,) = figure.series
    assert (series.label, series.x) == ('id', [-2, -1, 0, 1, 2])
    assert series.y == pytest.approx([-75, -50, 0, -12.5, -50])


def test_without_epochs_there_is_nothing_to_show(curves):
    curves[LABELS[0]] = [[0.3], [0.0, 0.0, 0.0]]
    assert list(stopping(make('table2', {label: [0.1] for label in LABELS}))) == []
