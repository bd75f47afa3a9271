r"""What going on with a training rests on."""

import pytest
import torch

import motor_geo.engine.trainer as module
from motor_geo.nn.models import BPR
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


class Broken(BPR):
    r"""The loss is finite, and its gradient is not."""

    def loss(self, data, batch):
        x = self(data).user[:1, :1].sum()
        return {'loss': (x - x.detach()).abs().sqrt()}


def test_gradients_that_are_not_finite_end_the_epoch(dataset, tmp_path):  # noqa: F811
    trainer = make(dataset, Broken, out=tmp_path, batch_size=10_000)
    with pytest.raises(FloatingPointError, match=r"weights '.*' are not finite after epoch 1"):
        trainer.fit()
    assert list(tmp_path.iterdir()) == []


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
