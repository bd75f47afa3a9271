import subprocess
import sys

import pytest

from motor_geo.pipeline import flags as module
from motor_geo.pipeline.config import KINDS, resolve
from motor_geo.pipeline.flags import (
    CHOICES,
    GENERAL,
    SECTIONS,
    find_config,
    flatten,
    parse_flags,
    read_yaml,
    usage,
)
from motor_geo.utils.errors import ConfigError


def write(path, text):
    path.write_text(text)
    return str(path)


def test_flags():
    assert parse_flags(['--model', 'FREEDOM', '--model.rho=0.5', '--epochs', '3', '--lr=1e-3']) == {
        'model': {'name': 'FREEDOM', 'rho': '0.5'},
        'trainer': {'epochs': '3', 'lr': '1e-3'},
    }
    assert parse_flags(['--mask-validation', '--seed', '-1']) == {
        'mask_validation': 'true',
        'seed': '-1',
    }
    assert parse_flags(['--trainer.progress', '--out', 'a=b']) == {
        'trainer': {'progress': 'true'},
        'out': 'a=b',
    }


@pytest.mark.parametrize(
    'flags, message',
    [
        (['epochs', '3'], "'epochs' is not an option"),
        (['--'], "'--' is not an option"),
        (['--modl.x', '1'], "--modl.x: unknown section 'modl'; did you mean 'model'"),
        (['--trainer', '1'], 'expected trainer.<option>'),
        (['--seed.x', '1'], "'seed' is an option, not a section"),
        (['--out', '--epochs', '3'], '--out: expected a value'),
        (['--config'], '--config: expected a value'),
        (['--model'], '--model: expected a value'),
    ],
)
def test_bad_flags(flags, message):
    with pytest.raises(ConfigError, match=message):
        parse_flags(flags)


def test_yaml_forms_are_equal(tmp_path):
    long = 'model: {name: FREEDOM, rho: 0.5}\ntrainer: {epochs: 3, lr: 1e-3}\nitems: {name: id}'
    short = 'model: FREEDOM\nmodel.rho: 0.5\nepochs: 3\ntrainer.lr: 1e-3\nitems: id'
    mixed = 'model.rho: 0.5\nmodel: {name: FREEDOM}\nlr: 0.001\ntrainer: {epochs: 3}\nitems: id'
    found = [resolve(read_yaml(write(tmp_path / 'c.yaml', text))) for text in (long, short, mixed)]
    assert found[0] == found[1] == found[2]
    assert found[0]['model']['name'] == 'FREEDOM' and found[0]['model']['rho'] == 0.5
    assert found[0]['trainer']['lr'] == 1e-3 and found[0]['trainer']['epochs'] == 3


@pytest.mark.parametrize(
    'text, message',
    [
        ('a: [b', "c.yaml', line 1, column 6: not valid YAML"),
        ('a: b\n\tc: d', "c.yaml', line 2, column 1: not valid YAML"),
        ('- a', "c.yaml': expected a mapping of options, got"),
        ('', 'expected a mapping of options, got None'),
        ('trainer: 3', "'trainer' is a section|'trainer' must be a mapping"),
        ('foo.bar: 1', "c.yaml': unknown section 'foo'"),
    ],
)
def test_bad_yaml(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message) as error:
        read_yaml(write(tmp_path / 'c.yaml', text))
    assert '\n' not in str(error.value)


def test_yaml_that_is_no_text(tmp_path):
    (tmp_path / 'c.yaml').write_bytes(b'\xff\xfe\x00')
    with pytest.raises(ConfigError, match="c.yaml': not valid YAML"):
        read_yaml(str(tmp_path / 'c.yaml'))
    with pytest.raises(ConfigError, match="nope.yaml' cannot be read: No such file"):
        read_yaml(str(tmp_path / 'nope.yaml'))


def test_options_by_dotted_name():
    assert flatten({'seed': 1, 'model': {'name': 'BPR', 'channels': 8}}) == {
        'seed': 1,
        'model.name': 'BPR',
        'model.channels': 8,
    }


@pytest.fixture
def configs(tmp_path, monkeypatch):
    for name in ('model/A', 'model/B', 'items/B', 'sweep/A', 'sweep/C'):
        path = tmp_path / 'configs' / f'{name}.yaml'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, 'config_folder', lambda: str(tmp_path / 'configs'))
    return tmp_path / 'configs'


def test_files_of_the_package_have_names(configs, tmp_path):
    assert find_config('A') == str(configs / 'model' / 'A.yaml')
    assert find_config('items/B') == str(configs / 'items' / 'B.yaml')
    assert find_config('A', first='sweep') == str(configs / 'sweep' / 'A.yaml')
    assert find_config('items/B', first='sweep') == str(configs / 'items' / 'B.yaml')
    (tmp_path / 'A').write_text('')  # A file of the user comes first.
    assert find_config('A') == 'A'
    assert find_config('none.yaml') == 'none.yaml'  # Reading it says that there is none.
    with pytest.raises(ConfigError, match="^'B' is the name of several files: items/B, model/B$"):
        find_config('B')
    with pytest.raises(ConfigError, match="^'b' is neither a file nor .*; did you mean 'B'"):
        find_config('b')
    with pytest.raises(ConfigError, match="^'C' is neither .* expected one of A, B$"):
        find_config('C')


def test_recommended():
    config = read_yaml(find_config('recommended'))
    assert resolve(config)['behavior'] is True


def test_help():
    text = usage()
    assert max(len(line) for line in text.splitlines()) <= 100
    for key in (*CHOICES, *GENERAL, 'config', 'print_config', 'epochs'):
        assert f'\n  --{key} ' in text
    for key in (*CHOICES, *SECTIONS):
        assert f'  --{key}.help' in text
    assert 'Seed of the initial weights, the sampling and the losses (default: 0)' in text
    assert not any(word in text for word in ('None', 'True', 'False'))
    for section, default in CHOICES.items():
        assert default in KINDS[section][0]


@pytest.mark.parametrize('command', ['run', 'recommend', 'sweep'])
def test_help_takes_no_time(command):
    code = (
        f'import sys; from motor_geo.{command} import main\n'
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "print({'torch', 'numpy', 'optuna'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == 'set()', done.stderr
