import json
import logging

import pytest
import torch

from motor_geo.data import SyntheticClusters
from motor_geo.engine import Evaluator, Fitter
from motor_geo.engine.checkpoint import load_checkpoint
from motor_geo.nn.models import EASE, FittedRecommender
from motor_geo.typing import RATES, Embeddings


@pytest.fixture(scope='module')
def dataset():
    return SyntheticClusters(num_users=60, num_items=40, num_interactions=500, seed=0)


class Walk(FittedRecommender):
    r"""Vectors that take a random step in every iteration."""

    iterative = True

    def __init__(self, data):
        super().__init__(data)
        self.user = torch.nn.Parameter(torch.ones(self.num_users, 4))
        self.item = torch.nn.Parameter(torch.zeros(self.num_items, 4))

    @torch.no_grad()
    def fit(self, data):
        while True:
            self.item += torch.randn(self.item.shape)
            yield {'norm': float(self.item.norm()), 'one': 1.0}

    def forward(self, data):
        return Embeddings(self.user, self.item)


class Diverges(Walk):
    def fit(self, data):
        yield {'norm': float('nan')}


def make(dataset, cls=Walk, out=None, **kwargs):
    data = dataset.data
    evaluator = Evaluator(dataset.targets('val'), data[RATES].edge_index, 40, ks=(5, 20))
    kwargs = {'epochs': 6, 'progress': False, 'out': None if out is None else str(out), **kwargs}
    return Fitter(cls(data), data, **{'evaluator': evaluator, **kwargs})


def without_seconds(history):
    return [{k: v for k, v in entry.items() if 'seconds' not in k} for entry in history]


def test_the_best_iteration_is_kept(dataset, tmp_path):
    seen = []
    fitter = make(dataset, out=tmp_path, callbacks=[seen.append], fingerprint='x')
    result = fitter.fit()
    values = [round(entry['val']['recall@20'], 4) for entry in result.history]
    assert result.epochs == 6 and seen == result.history
    assert result.best_epoch == values.index(max(values)) + 1
    assert result.best == result.history[result.best_epoch - 1]['val']
    assert result.history[0]['loss'] == pytest.approx(result.history[0]['losses']['norm'] + 1)
    lines = (tmp_path / 'metrics.jsonl').read_text().splitlines()
    assert [json.loads(line) for line in lines] == result.history
    for name, epoch in (('best', result.best_epoch), ('last', 6)):
        state = load_checkpoint(str(tmp_path / f'{name}.pt'), model='Walk', fingerprint='x')
        other = make(dataset, epochs=epoch)
        other.fit()
        assert state['model']['item'].equal(other.model.item)


def test_patience(dataset):
    values = [0.1, 0.3, 0.2, 0.30004, 0.1, 0.5]

    class Scripted:
        scores = iter(values)

        def validate(self, out):
            return {'recall@20': next(self.scores)}

    fitter = make(dataset, patience=1)
    fitter.evaluator = Scripted()
    result = fitter.fit()
    assert (result.epochs, result.best_epoch) == (4, 2)  # A tie is no improvement.


def test_a_restart_ends_with_the_same_bits(dataset, tmp_path):
    whole = make(dataset, out=tmp_path / 'whole', seed=3)
    expected = whole.fit()
    make(dataset, out=tmp_path / 'parts', seed=3, epochs=2).fit()
    with open(tmp_path / 'parts' / 'metrics.jsonl', 'a') as file:
        file.write('{"epoch": 3}\n')  # Killed between line and checkpoint.
    state = torch.random.get_rng_state()
    rest = make(dataset, out=tmp_path / 'parts', seed=3)
    found = rest.fit()
    assert torch.random.get_rng_state().equal(state)
    assert without_seconds(found.history) == without_seconds(expected.history)
    assert rest.model.item.equal(whole.model.item)
    assert len((tmp_path / 'parts' / 'metrics.jsonl').read_text().splitlines()) == 6
    again = make(dataset, out=tmp_path / 'parts', seed=3)
    assert again.fit().history == found.history  # Nothing is left to do.
    other = make(dataset, out=tmp_path / 'parts', fingerprint='y')
    with pytest.raises(ValueError, match="belongs to data with the fingerprint ''"):
        other.fit()


def test_closed_forms_have_one_iteration(dataset, tmp_path):
    result = make(dataset, EASE, out=tmp_path, epochs=50).fit()
    assert result.epochs == result.best_epoch == 1 and result.history[0]['losses'] == {}
    assert make(dataset, EASE, out=tmp_path, epochs=50).fit().history == result.history
    assert (tmp_path / 'best.pt').stat().st_size < 10_000


def test_without_an_evaluator_the_last_iteration_counts(dataset):
    result = make(dataset, evaluator=None, epochs=3).fit()
    assert (result.epochs, result.best_epoch, result.best) == (3, 3, {})


def test_progress_is_a_line_per_iteration(dataset, caplog):
    with caplog.at_level(logging.INFO):
        make(dataset, epochs=2, progress=True).fit()
        make(dataset, EASE, progress=True).fit()
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 3 and lines[1].startswith('iteration    2  loss ')
    assert all('recall@20 0.' in line and 'best 0.' in line for line in lines)
    assert 'loss' not in lines[2]


def test_wrong_arguments(dataset):
    for arguments, message in [
        ({'epochs': 0}, r"'epochs' must be positive \(got 0\)"),
        ({'patience': -1}, r"'patience' must not be negative \(got -1\)"),
        ({'metric': 'recall@10'}, "'metric' must be one of recall, .* such as 'recall@20'"),
    ]:
        with pytest.raises(ValueError, match=message):
            make(dataset, **arguments)
    with pytest.raises(FloatingPointError, match='The loss is not finite in iteration 1'):
        make(dataset, Diverges).fit()
