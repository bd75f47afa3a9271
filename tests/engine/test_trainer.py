import copy
import json
import logging
import math
import os.path as osp
import warnings
from contextlib import nullcontext

import pytest
import torch
from torch_geometric.data import HeteroData

from motor_geo.data import ItemKNN, OPQTokenizer, SyntheticClusters
from motor_geo.engine.evaluator import Evaluator
from motor_geo.engine.trainer import Trainer, without_items
from motor_geo.nn import TokenCrossEncoder, UsedItems
from motor_geo.nn.models import (
    BM3,
    BPR,
    FREEDOM,
    LATTICE,
    VBPR,
    DeepStyle,
    LayerGCN,
    LightGCN,
    LIRDRec,
    SLMRec,
)
from motor_geo.nn.objective import WholeDataLoss
from motor_geo.typing import RATED_BY, RATES


@pytest.fixture(scope='module')
def dataset():
    return SyntheticClusters(num_users=150, num_items=90, num_interactions=900, seed=0)


def make(dataset, cls=LightGCN, out=None, weighting='binary', items='tokens', users=None, **kwargs):
    data = OPQTokenizer(2, codebook_size=16, cache=False, verbose=False)(dataset.data)
    data = ItemKNN(k=4, weighting=weighting, cache=False)(data)
    torch.manual_seed(0)
    encoder = TokenCrossEncoder({'image': 2, 'text': 2}, 16, 16)
    model = cls(data, item_encoder=None if items == 'id' else encoder, channels=16)
    if users is not None:
        model.set_user_encoder(users)
    evaluator = Evaluator(dataset.targets('val'), data[RATES].edge_index, 90, ks=(5, 20))
    out = None if out is None else str(out)
    kwargs = {'batch_size': 128, 'epochs': 4, 'progress': False, 'lr': 0.01, **kwargs}
    return Trainer(model, data, evaluator, out=out, **kwargs)


def with_a_crawler(dataset):
    r"""The data, where user 3 has every item."""
    data = copy.copy(dataset.data)
    crawler = torch.stack([torch.full((90,), 3), torch.arange(90)])
    rest = data[RATES].edge_index
    data[RATES].edge_index = torch.cat([rest[:, rest[0] != 3], crawler], dim=1)
    return data


def scripted(dataset, values, **kwargs):
    r"""A trainer whose validation recalls are given."""
    trainer = make(dataset, BPR, epochs=1000, **kwargs)
    values = iter(values)

    class Fixed:
        def validate(self, embeddings):
            return {'recall@20': next(values)}

    trainer.evaluator = Fixed()
    return trainer


def test_trainer_learns_and_records(dataset, tmp_path):
    trainer = make(dataset, out=tmp_path, epochs=15)
    result = trainer.fit()
    losses = [entry['loss'] for entry in result.history]
    assert losses[-1] < 0.9 * losses[0]
    assert result.epochs == 15 and 1 <= result.best_epoch <= 15
    recalls = [round(entry['val']['recall@20'], 4) for entry in result.history]
    assert recalls.index(max(recalls)) + 1 == result.best_epoch
    assert result.best == result.history[result.best_epoch - 1]['val']
    with open(tmp_path / 'metrics.jsonl') as file:
        assert [json.loads(line) for line in file] == result.history
    first = result.history[0]
    assert first['loss'] == pytest.approx(sum(first['losses'].values()))


def test_early_stopping(dataset):
    r"""A gain below four decimals is none; the 21st failure in a row ends it."""
    values = [0.10006, 0.10012] + [0.0] * 30
    result = scripted(dataset, values).fit()
    assert result.best_epoch == 1
    assert result.epochs == 1 + 21

    values = [0.1, 0.0, 0.10014, 0.1001] + [0.05] * 30
    result = scripted(dataset, values, patience=2).fit()
    assert result.best_epoch == 3 and result.epochs == 3 + 3


def test_min_epochs(dataset):
    r"""Validation that falls at first ends training without a minimum, and a warning names it."""
    values = [0.2] + [0.1] * 21 + [0.3] + [0.1] * 30
    with pytest.warns(UserWarning, match=r"'recall@20' was best after epoch 1 of 22.*min_epochs"):
        assert scripted(dataset, values).fit().epochs == 22
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        result = scripted(dataset, values, min_epochs=23).fit()
    assert (result.best_epoch, result.epochs) == (23, 23 + 21)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        result = scripted(dataset, [0.1, 0.2] + [0.0] * 9, patience=1, min_epochs=10).fit()
    assert (result.best_epoch, result.epochs) == (2, 10)


def test_learning_rate_schedule(dataset):
    trainer = make(dataset, LATTICE, weighting='cosine', epochs=3, lr=None)
    seen = []
    trainer.callbacks = [lambda entry: seen.append(trainer.optimizer.param_groups[0]['lr'])]
    trainer.fit()
    assert seen == pytest.approx([1e-3 * 0.96 ** (epoch / 50) for epoch in range(3)])
    assert make(dataset, LIRDRec, lr=None).optimizer.param_groups[0]['lr'] == 1e-4


def states(trainer):
    return trainer.model.state_dict(), trainer.optimizer.state_dict()['state']


@pytest.mark.parametrize('cls', [LightGCN, LayerGCN, FREEDOM, LIRDRec])
def test_interrupted_training_ends_with_the_same_bits(dataset, tmp_path, cls):
    whole = make(dataset, cls, tmp_path / 'whole', epochs=5)
    expected = whole.fit()

    broken = make(dataset, cls, tmp_path / 'broken', epochs=5)
    steps = 0
    loss = broken.model.loss

    def failing(data, batch):  # In the middle of the fourth epoch.
        nonlocal steps
        steps += 1
        if steps == 3 * len(broken.sampler) + 2:
            raise KeyboardInterrupt
        return loss(data, batch)

    broken.model.loss = failing
    with pytest.raises(KeyboardInterrupt):
        broken.fit()
    with open(tmp_path / 'broken' / 'metrics.jsonl', 'a') as file:
        file.write('half a li')  # What a kill may leave.

    torch.manual_seed(123)  # The state of the process does not matter.
    resumed = make(dataset, cls, tmp_path / 'broken', epochs=5)
    result = resumed.fit()
    assert [e['val'] for e in result.history] == [e['val'] for e in expected.history]
    assert [e['losses'] for e in result.history] == [e['losses'] for e in expected.history]
    for (weights, moments), (weights_, moments_) in [(states(resumed), states(whole))]:
        assert all(torch.equal(weights[key], weights_[key]) for key in weights_)
        for index, moment in moments_.items():
            assert all(torch.equal(moments[index][key], moment[key]) for key in moment)
    files = [tmp_path / name / 'best.pt' for name in ('whole', 'broken')]
    best, best_ = (torch.load(file, weights_only=True)['state'] for file in files)
    assert best['epoch'] == best_['epoch'] == expected.best_epoch
    assert all(torch.equal(best['model'][key], best_['model'][key]) for key in best['model'])
    with open(tmp_path / 'broken' / 'metrics.jsonl') as file:
        assert len(file.readlines()) == 5


def test_more_epochs_go_on(dataset, tmp_path):
    expected = make(dataset, epochs=4).fit()
    make(dataset, out=tmp_path, epochs=2).fit()
    result = make(dataset, out=tmp_path, epochs=4).fit()
    assert [e['losses'] for e in result.history] == [e['losses'] for e in expected.history]
    again = make(dataset, out=tmp_path, epochs=4).fit()  # Nothing is left to do.
    assert again.history == result.history


@pytest.mark.parametrize('cls', [LIRDRec, FREEDOM, LATTICE])
def test_bfloat16(dataset, tmp_path, cls):
    weighting = cls.transforms[0].options['weighting']
    exact = make(dataset, cls, weighting=weighting).fit()
    trainer = make(dataset, cls, tmp_path / 'half', weighting, bf16=True)
    seen = []
    loss = trainer.model.loss

    def spy(data, batch):
        seen.append((data['item'].x_image.dtype, torch.is_autocast_enabled('cpu')))
        return loss(data, batch)

    trainer.model.loss = spy
    half = trainer.fit()
    assert set(seen) == {(torch.bfloat16, True)}
    assert trainer.data['item'].x_image.dtype == torch.float32  # What is ranked with.
    assert all(p.dtype == torch.float32 for p in trainer.model.parameters())
    losses = [[entry['loss'] for entry in result.history] for result in (half, exact)]
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)
    for key, value in exact.history[0]['val'].items():
        assert half.history[0]['val'][key] == pytest.approx(value, rel=0.2, abs=0.05)


def test_seed_changes_training(dataset):
    first, again, other = (make(dataset, seed=seed).fit() for seed in (0, 0, 1))
    assert [e['losses'] for e in first.history] == [e['losses'] for e in again.history]
    assert first.history[0]['losses'] != other.history[0]['losses']


def test_global_random_state_is_left_alone(dataset):
    torch.manual_seed(7)
    expected = torch.rand(3)
    trainer = make(dataset)
    torch.manual_seed(7)
    trainer.fit()
    assert torch.equal(torch.rand(3), expected)


def test_foreign_checkpoints(dataset, tmp_path):
    make(dataset, out=tmp_path, epochs=1).fit()
    with pytest.raises(ValueError, match='last.pt.*LightGCN.*BPR|last.pt.*BPR.*LightGCN'):
        make(dataset, BPR, out=tmp_path).fit()
    with pytest.raises(ValueError, match='last.pt'):
        make(dataset, out=tmp_path, fingerprint='other').fit()
    path = tmp_path / 'last.pt'
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match='last.pt'):
        make(dataset, out=tmp_path).fit()


def test_loss_that_is_not_finite(dataset, tmp_path):
    trainer = make(dataset, out=tmp_path)
    loss = trainer.model.loss
    trainer.model.loss = lambda data, batch: {
        **loss(data, batch),
        'bad': trainer.model.user_embedding.sum() * math.nan,
    }
    with pytest.raises(FloatingPointError, match='not finite in epoch 1'):
        trainer.fit()
    assert not osp.exists(tmp_path / 'last.pt')


def test_bad_arguments(dataset):
    with pytest.raises(ValueError, match="'epochs' must be positive"):
        make(dataset, epochs=0)
    with pytest.raises(ValueError, match="'patience' must not be negative"):
        make(dataset, patience=-1)
    with pytest.raises(ValueError, match=r"'min_epochs' must not be negative \(got -1\)"):
        make(dataset, min_epochs=-1)


@pytest.mark.parametrize('cls', [LightGCN, BM3, SLMRec])
def test_one_user_with_every_item_stops_nobody(dataset, cls):
    data = with_a_crawler(dataset)
    torch.manual_seed(0)
    model = cls(data, channels=8)
    options = {'epochs': 2, 'progress': False, 'batch_size': 128}
    names = [f'name-{user}' for user in range(150)]
    if cls.needs_negatives:
        with pytest.warns(UserWarning, match='User name-3 interacted with all 90 items'):
            trainer = Trainer(model, data, user_names=names, **options)
    else:
        with warnings.catch_warnings():
            warnings.simplefilter('error')
            trainer = Trainer(model, data, user_names=names, **options)
    users = torch.cat([batch.user for batch in trainer.sampler.epoch(0)])
    assert (3 in users.tolist()) == (not cls.needs_negatives)
    assert len(trainer.fit().history) == 2


def test_negatives_nobody_reads_leave_results_as_they_are(dataset):
    r"""Models with and without negatives see the same order of pairs."""
    data = dataset.data
    samplers = [Trainer(cls(data), data, progress=False).sampler for cls in (LightGCN, BM3)]
    for first, second in zip(*(sampler.epoch(1) for sampler in samplers)):
        assert torch.equal(first.user, second.user) and torch.equal(first.pos, second.pos)


def test_training_without_validation(dataset, tmp_path):
    def fit(out, epochs):
        trainer = make(dataset, BPR, out=out, epochs=epochs, patience=0)
        trainer.evaluator = None
        return trainer, trainer.fit()

    trainer, result = fit(tmp_path / 'a', 6)
    assert result.epochs == result.best_epoch == 6 and result.best == {}
    assert all(entry['val'] == {} for entry in result.history)
    for name in ('best.pt', 'last.pt'):
        state = torch.load(tmp_path / 'a' / name, weights_only=True)['state']['model']
        assert all(
            torch.equal(value, state[key]) for key, value in trainer.model.state_dict().items()
        )
    fit(tmp_path / 'b', 2)
    resumed, _ = fit(tmp_path / 'b', 6)
    for key, value in trainer.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[key], value)
    # The metric to decide is not asked for.
    Trainer(trainer.model, trainer.data, metric='none', progress=False)


def test_interactions_of_any_name(dataset):
    r"""A backbone of one's own on a graph of one's own."""

    class Shop(BPR):
        def __init__(self):
            super().__init__(dataset.data, channels=8)

        def encode_items(self, data, index=None):
            weight = self.item_encoder.weight
            return weight if index is None else weight[index]

    data = HeteroData()
    data['customer'].num_nodes = 150
    data['product'].x_text = dataset.data['item'].x_text
    data['customer', 'buys', 'product'].edge_index = dataset.data[RATES].edge_index
    histories = []
    for graph, options in (
        (dataset.data, {}),
        (data, {'edge_type': ('customer', 'buys', 'product')}),
    ):
        torch.manual_seed(0)
        histories.append(Trainer(Shop(), graph, epochs=2, progress=False, **options).fit().history)
    assert [e['losses'] for e in histories[0]] == [e['losses'] for e in histories[1]]
    with pytest.raises(ValueError, match=r"it has \('customer', 'buys', 'product'\)"):
        Trainer(Shop(), data)


def test_epochs_are_logged(dataset, caplog, capsys):
    with caplog.at_level(logging.INFO, logger='motor_geo'):
        make(dataset, BPR, epochs=2, progress=True).fit()
    lines = [record.getMessage() for record in caplog.records]
    assert [line[:12] for line in lines] == ['epoch    1  ', 'epoch    2  ']
    assert all('recall@20' in line and 'best' in line for line in lines)
    assert capsys.readouterr().out == ''
    caplog.clear()
    make(dataset, BPR, epochs=1).fit()
    assert not caplog.records


def test_callbacks_are_functions_or_loggers(dataset):
    class Kept:
        def __init__(self):
            self.entries = []

        def log(self, entry):
            self.entries.append(entry)

        def close(self):
            raise AssertionError  # Its owner does.

    kept, seen = Kept(), []
    result = make(dataset, BPR, epochs=3, callbacks=[kept, seen.append]).fit()
    assert kept.entries == seen == result.history


class Broken(BPR):
    r"""The loss is finite, and its gradient is not."""

    def loss(self, data, batch):
        x = self(data).user[:1, :1].sum()
        return {'loss': (x - x.detach()).abs().sqrt()}


def test_gradients_that_are_not_finite_end_the_epoch(dataset, tmp_path):
    trainer = make(dataset, Broken, out=tmp_path, batch_size=10_000)
    with pytest.raises(FloatingPointError, match=r"weights '.*' are not finite after epoch 1"):
        trainer.fit()
    assert list(tmp_path.iterdir()) == []


def test_dropped_items_lose_all_of_their_edges(dataset):
    edge_index = dataset.data[RATES].edge_index
    data = without_items(dataset.data, 0.3, torch.Generator().manual_seed(1))
    left = data[RATES].edge_index
    assert torch.equal(data[RATED_BY].edge_index, left.flip(0))
    assert torch.equal(data[RATES].full_edge_index, edge_index)
    gone = torch.tensor([item for item in range(90) if item not in set(left[1].tolist())])
    assert torch.equal(left, edge_index[:, ~torch.isin(edge_index[1], gone)])
    assert 15 < len(gone) < 40 and 'full_edge_index' not in dataset.data[RATES]


@pytest.mark.parametrize('cls', [LightGCN, FREEDOM])
def test_training_without_the_edges_of_some_items(dataset, cls, tmp_path):
    whole = make(dataset, cls, out=tmp_path / 'a', drop_items=0.5).fit()
    make(dataset, cls, out=tmp_path / 'b', drop_items=0.5, epochs=2).fit()
    resumed = make(dataset, cls, out=tmp_path / 'b', drop_items=0.5).fit()
    losses = [[entry['loss'] for entry in result.history] for result in (whole, resumed)]
    assert losses[0] == losses[1]
    other = make(dataset, cls).fit()
    assert losses[0] != [entry['loss'] for entry in other.history]
    with pytest.raises(ValueError, match="'drop_items' must be at least 0 and below 1"):
        make(dataset, cls, drop_items=1.0)


def test_training_does_not_compute_opposite_edges(dataset):
    trainer = make(dataset, BPR, epochs=1, drop_items=0.3)
    trainer.fit()
    for data in (trainer.data, dataset.data):
        assert not isinstance(data[RATED_BY]._mapping.data['edge_index'], torch.Tensor)


@pytest.mark.parametrize('items', ['id', 'tokens'])
@pytest.mark.parametrize('cls', [BPR, VBPR, DeepStyle])
def test_gradients_of_rows_do_not_change_a_bit(dataset, cls, items, monkeypatch):
    def run():
        trainer = make(dataset, cls, items=items)
        assert len(trainer.sampler) * trainer.epochs >= 20
        losses = [entry['losses'] for entry in trainer.fit().history]
        return losses, trainer

    losses, trainer = run()
    table = trainer.model.user_embedding
    assert table.grad is trainer.optimizer._grads[table][0]
    monkeypatch.setattr('motor_geo.engine.trainer.row_gradients', lambda enabled: nullcontext())
    expected, reference = run()
    assert losses == expected and not reference.optimizer._grads
    for (name, a), b in zip(trainer.model.named_parameters(), reference.model.parameters()):
        assert torch.equal(a, b), name
        for key, value in reference.optimizer.state[b].items():
            assert torch.equal(trainer.optimizer.state[a][key], value)


def test_sparse_adam_resumes_with_the_same_bits(dataset, tmp_path):
    whole = make(dataset, BPR, tmp_path / 'whole', sparse_adam=True, items='id')
    make(dataset, BPR, tmp_path / 'broken', sparse_adam=True, items='id', epochs=2).fit()
    rest = make(dataset, BPR, tmp_path / 'broken', sparse_adam=True, items='id')
    losses = [[entry['loss'] for entry in part.fit().history] for part in (whole, rest)]
    assert losses[0] == losses[1]
    for a, b in zip(whole.model.parameters(), rest.model.parameters()):
        assert torch.equal(a, b)
        for key, value in whole.optimizer.state[a].items():
            assert torch.equal(rest.optimizer.state[b][key], value)
    other = make(dataset, BPR, items='id').fit()
    assert losses[0] != [entry['loss'] for entry in other.history]


@pytest.mark.parametrize('case', ['propagation', 'tables', 'users'])
def test_sparse_adam_without_rows(dataset, case):
    trainer = make(dataset, LightGCN if case == 'propagation' else BPR, epochs=1, sparse_adam=True)
    if case == 'tables':
        trainer.model.set_objective(WholeDataLoss())
    if case == 'users':
        trainer = make(dataset, BPR, epochs=1, sparse_adam=True, users=UsedItems())
    with pytest.warns(UserWarning, match="'sparse_adam' changes nothing: the loss of '[LB]"):
        trainer.fit()


def test_automatic_batch_size(dataset, monkeypatch):
    monkeypatch.setattr('motor_geo.engine.batch_size.STEPS', 0.25)  # A batch of four epochs.
    trainer = make(dataset, BPR, batch_size='auto', lr=None)
    count = dataset.data[RATES].edge_index.size(1)
    size = trainer.sampler.batch_size
    assert size >= 2048 and size & (size - 1) == 0 and 0.7 < size / (4 * count) < 1.5
    assert trainer.lr == pytest.approx(1e-3 * (size / 2048) ** 0.5)
    assert make(dataset, BPR, batch_size='auto', lr=0.5).lr == 0.5
