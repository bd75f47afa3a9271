import json
import os

import pytest

from motor_geo.engine.loggers import TensorBoardLogger
from motor_geo.pipeline import loggers as module
from motor_geo.pipeline.assemble import run_fingerprint
from motor_geo.pipeline.config import RunConfig
from motor_geo.pipeline.loggers import build_loggers, find_logger
from motor_geo.utils.errors import ConfigError
from tests.test_run import read, start


class Lines:
    r"""A logger of another package."""

    def __init__(self, folder, options):
        self.path = os.path.join(folder, 'lines.json')
        self.content = {'options': dict(options), 'epochs': [], 'closed': 0}

    def log(self, entry):
        self.content['epochs'].append(entry['epoch'])

    def close(self):
        self.content['closed'] += 1
        with open(self.path, 'w') as file:
            json.dump(self.content, file)


def test_a_run_with_loggers(tmp_path):
    pytest.importorskip('tensorboard')
    plain, logged = tmp_path / 'plain', tmp_path / 'logged'
    flags = ['--items', 'id', '--epochs', '2']
    assert start(plain, *flags) == 0
    assert start(logged, *flags, '--logger', 'tensorboard', f'{__name__}.Lines') == 0
    content = json.loads((logged / 'lines.json').read_text())
    assert content['epochs'] == [1, 2] and content['closed'] == 1
    assert content['options']['model.channels'] == 16 and content['options']['seed'] == 0
    assert any(name.startswith('events.out') for name in os.listdir(logged))
    assert read(plain)['hashes'] == read(logged)['hashes']
    assert read(plain)['test'] == read(logged)['test']
    assert start(plain, *flags, '--logger', f'{__name__}.Lines') == 0  # The same run.


def test_loggers_are_closed_after_an_error(tmp_path):
    flags = ['--epochs', '2', '--items', 'id', '--logger', f'{__name__}.Lines', '--lr', '1e38']
    assert start(tmp_path, *flags) == 2
    assert json.loads((tmp_path / 'lines.json').read_text())['closed'] == 1


def test_short_form():
    config = RunConfig.of({'tensorboard': True, 'logger': ['tensorboard']})
    pytest.importorskip('tensorboard')
    (logger,) = build_loggers(config, 'folder')
    assert isinstance(logger, TensorBoardLogger) and logger.folder == 'folder'
    assert logger.options['trainer.metric'] == 'recall@20'


@pytest.mark.parametrize('value', ['tensorboard', '[tensorboard]', '["tensorboard"]'])
def test_spellings(value):
    config = RunConfig.of({'logger': value})
    assert config.logger == ['tensorboard']
    assert run_fingerprint(config, 'data') == run_fingerprint(RunConfig.of({}), 'data')


@pytest.mark.parametrize(
    'name, message',
    [
        ('tensorbord', "--logger: unknown logger 'tensorbord'; did you mean 'tensorboard'"),
        ('no_such.Thing', "--logger: 'no_such.Thing' cannot be imported: there is no module"),
        ('json.JSONDecoder', 'is another class; expected a class derived from Logger'),
    ],
)
def test_errors(name, message):
    with pytest.raises(ConfigError) as error:
        find_logger(name)
    assert message in str(error.value)


def test_a_missing_package_is_found_before_training(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(module, 'find_spec', lambda name: None)
    assert start(tmp_path / 'out', '--logger', 'wandb') == 2
    assert (
        "--logger wandb needs wandb (extra 'wandb'): pip install wandb" in capsys.readouterr().err
    )
    assert not (tmp_path / 'out').exists()
