r"""What going on rests on, in training and in fitting."""

import copy

import pytest
import torch

import motor_geo.engine.epoch_loop as module
from motor_geo.nn.models import BPR
from tests.engine.test_fitter import dataset as small  # noqa: F401
from tests.engine.test_fitter import make as make_fitter
from tests.engine.test_trainer import dataset, make, scripted  # noqa: F401


class Noisy(BPR):
    r"""Notes the first random number of every epoch."""

    def begin_epoch(self, data, epoch, generator):
        own = float(torch.rand(1, generator=generator))
        self.drawn = [*getattr(self, 'drawn', []), own, float(torch.rand(1))]


def test_every_epoch_has_random_numbers_of_its_own(dataset, tmp_path):  # noqa: F811
    whole = make(dataset, Noisy, epochs=4, seed=3)
    whole.fit()
    drawn = whole.model.drawn
    assert len(set(drawn)) == 8
    make(dataset, Noisy, epochs=2, seed=3, out=tmp_path).fit()
    rest = make(dataset, Noisy, epochs=4, seed=3, out=tmp_path)
    rest.fit()
    assert rest.model.drawn == drawn[4:]
    other = make(dataset, Noisy, epochs=1, seed=4)
    other.fit()
    assert not set(other.model.drawn) & set(drawn)


def test_the_best_weights_are_written_before_the_epoch_counts(
    dataset,  # noqa: F811
    tmp_path,
    monkeypatch,
):
    r"""Killed in between, the epoch is repeated; the other way round, it would
    count, and its weights would be lost.
    """
    written, save = [], module.save_checkpoint

    def note(path, *args, **kwargs):
        written.append(path.rpartition('/')[2])
        save(path, *args, **kwargs)

    monkeypatch.setattr(module, 'save_checkpoint', note)
    scripted(dataset, [0.1, 0.0, 0.2, 0.1], out=tmp_path, patience=0).fit()
    assert written == ['best.pt', 'last.pt', 'last.pt']
    written.clear()
    trainer = scripted(dataset, [0.1, 0.2], out=tmp_path / 'b')
    trainer.epochs = 2
    trainer.fit()
    assert written == ['best.pt', 'last.pt', 'best.pt', 'last.pt']


@pytest.mark.parametrize('key', ['model', 'optimizer', 'history'])
def test_states_of_another_kind_are_one_sentence(dataset, tmp_path, key):  # noqa: F811
    make(dataset, BPR, epochs=1, out=tmp_path).fit()
    content = torch.load(tmp_path / 'last.pt', weights_only=True)
    for value in (None, {}, [], 'x', 7, torch.ones(2), '[{}]', '{}'):
        content['state'][key] = value
        torch.save(content, tmp_path / 'last.pt')
        with pytest.raises(ValueError, match=r"last.pt'"):
            make(dataset, BPR, epochs=2, out=tmp_path).fit()
    del content['state'][key]
    torch.save(content, tmp_path / 'last.pt')
    with pytest.raises(ValueError, match=r"last.pt' does not fit the model"):
        make(dataset, BPR, epochs=2, out=tmp_path).fit()


@pytest.mark.parametrize('key', ['model', 'history'])
def test_states_of_a_solver_of_another_kind_are_one_sentence(small, tmp_path, key):  # noqa: F811
    make_fitter(small, epochs=1, out=tmp_path).fit()
    content = torch.load(tmp_path / 'last.pt', weights_only=True)
    del content['state'][key]
    torch.save(content, tmp_path / 'last.pt')
    with pytest.raises(ValueError, match=r"last.pt' does not fit the model"):
        make_fitter(small, epochs=2, out=tmp_path).fit()


@pytest.mark.parametrize('kind', ['trainer', 'fitter'])
def test_other_tokens_are_refused(dataset, small, tmp_path, kind):  # noqa: F811
    def start(epochs, token):
        if kind == 'trainer':
            loop = make(dataset, BPR, epochs=epochs, out=tmp_path)
        else:
            loop = make_fitter(small, epochs=epochs, out=tmp_path)
        loop.data = copy.copy(loop.data)
        num_items = loop.data['item'].num_nodes
        loop.data['item'].token_id = torch.full((num_items, 4), token, dtype=torch.uint8)
        return loop

    start(1, 0).fit()
    with pytest.raises(ValueError, match=r"last.pt' was trained with other tokens"):
        start(2, 1).fit()
    start(2, 0).fit()
