import sys
import types

import pytest

from motor_geo.engine.loggers import (
    Logger,
    MLflowLogger,
    TensorBoardLogger,
    WandbLogger,
    scalars,
)

OPTIONS = {'seed': 3, 'model': {'name': 'LightGCN', 'num_layers': 2}, 'modalities': ['text']}
FLAT = {'seed': 3, 'model.name': 'LightGCN', 'model.num_layers': 2, 'modalities': ['text']}


def entry(epoch):
    return {
        'epoch': epoch,
        'loss': 0.75 / epoch,
        'losses': {'bpr': 0.5 / epoch, 'reg': 0.25 / epoch},
        'val': {'recall@20': 0.125 * epoch},
        'seconds': 2.0,
        'train_seconds': 1.5,
    }


def test_scalars():
    assert scalars(entry(1)) == {
        'loss/total': 0.75,
        'loss/bpr': 0.5,
        'loss/reg': 0.25,
        'val/recall@20': 0.125,
        'seconds/train': 1.5,
        'seconds/epoch': 2.0,
    }


def test_tensorboard(tmp_path):
    pytest.importorskip('tensorboard')
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    folder = tmp_path / 'run'
    with TensorBoardLogger(str(folder), OPTIONS) as logger:
        assert isinstance(logger, Logger) and not folder.exists()
        logger.log(entry(1))
        logger.log(entry(2))
    events = EventAccumulator(str(folder)).Reload()
    assert set(events.Tags()['scalars']) == set(scalars(entry(1)))
    for name, value in scalars(entry(2)).items():
        first, second = events.Scalars(name)
        assert (first.step, second.step) == (1, 2) and second.value == value
    content = events.SummaryMetadata('_hparams_/session_start_info').plugin_data.content
    start = HParamsPluginData.FromString(content).session_start_info
    found = {key: getattr(v, v.WhichOneof('kind')) for key, v in start.hparams.items()}
    assert found == {**FLAT, 'modalities': "['text']"}


def test_wandb(monkeypatch):
    calls = []

    class Run:
        def log(self, values, step):
            calls.append((step, values))

        def finish(self):
            calls.append('finish')

    wandb = types.ModuleType('wandb')
    wandb.init = lambda **kwargs: calls.append(kwargs) or Run()
    monkeypatch.setitem(sys.modules, 'wandb', wandb)
    logger = WandbLogger('runs/mine', OPTIONS, project='shop', mode='offline')
    assert isinstance(logger, Logger)
    logger.close()  # Nothing was opened.
    assert calls == []
    logger.log(entry(1))
    logger.log(entry(2))
    logger.close()
    start = {'project': 'shop', 'name': 'mine', 'dir': 'runs/mine', 'mode': 'offline'}
    steps = [(1, scalars(entry(1))), (2, scalars(entry(2)))]
    assert calls == [{**start, 'config': FLAT}, *steps, 'finish']


@pytest.mark.parametrize('exists', [True, False])
def test_mlflow(monkeypatch, exists):
    calls, Space = [], types.SimpleNamespace

    class MlflowClient:
        def __init__(self, tracking_uri):
            calls.append(tracking_uri)

        def get_experiment_by_name(self, name):
            return Space(experiment_id='7') if exists else None

        def create_experiment(self, name):
            assert not exists and name == 'motor_geo'
            return '8'

        def create_run(self, experiment_id, run_name):
            calls.append((experiment_id, run_name))
            return Space(info=Space(run_id='r'))

        def __getattr__(self, name):
            return lambda *args, **kwargs: calls.append((name, *args, *kwargs.values()))

    mlflow = types.ModuleType('mlflow')
    mlflow.MlflowClient = MlflowClient
    monkeypatch.setitem(sys.modules, 'mlflow', mlflow)
    with MLflowLogger('runs/mine', OPTIONS) as logger:
        assert isinstance(logger, Logger)
        logger.log(entry(3))
    assert calls == [
        None,
        ('7' if exists else '8', 'mine'),
        *(('log_param', 'r', name, value) for name, value in FLAT.items()),
        *(
            ('log_metric', 'r', name.replace('@', '_at_'), value, 3)
            for name, value in scalars(entry(3)).items()
        ),
        ('set_terminated', 'r'),
    ]


@pytest.mark.parametrize(
    'cls, module',
    [
        (WandbLogger, 'wandb'),
        (MLflowLogger, 'mlflow'),
        (TensorBoardLogger, 'torch.utils.tensorboard'),
    ],
)
def test_packages_are_imported_when_needed(monkeypatch, tmp_path, cls, module):
    monkeypatch.setitem(sys.modules, module, None)
    logger = cls(str(tmp_path))
    assert str(logger) == f"{cls.__name__}('{tmp_path}')"
    with pytest.raises(ImportError, match=f'{cls.__name__} needs .*: pip install '):
        logger.log(entry(1))
