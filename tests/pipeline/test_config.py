import warnings

import pytest
import torch
import yaml

from motor_geo.data import SyntheticMultimodal
from motor_geo.nn.models import MODELS
from motor_geo.pipeline.assemble import (
    build_device,
    build_item_encoder,
    build_model,
    build_tokenizer,
    run_fingerprint,
)
from motor_geo.pipeline.config import (
    CHOICES,
    FIXED,
    merge,
    parse_flags,
    read_yaml,
    resolve,
    spell,
    usage,
    write_yaml,
)
from motor_geo.run import load_config
from motor_geo.utils.errors import ConfigError, plain_warnings, suggest
from motor_geo.utils.files import check_writable, writing


@pytest.fixture(scope='module')
def dataset():
    return SyntheticMultimodal(num_users=30, num_items=24, num_interactions=150)


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


def test_precedence(tmp_path):
    path = write(
        tmp_path / 'c.yaml',
        'seed: 7\nmodel: {name: FREEDOM, rho: 0.5, num_layers: 3}\nepochs: 9\ntrainer.patience: 4',
    )
    config = load_config(['--config', path, '--epochs', '2', '--model.rho', '0.25'])
    assert config['trainer']['epochs'] == 2 and config['model']['rho'] == 0.25  # A flag,
    assert config['seed'] == 7 and config['model']['num_layers'] == 3  # the file,
    assert config['trainer']['patience'] == 4
    assert (
        config['trainer']['batch_size'] == 2048 and config['model']['channels'] == 64
    )  # defaults.
    assert load_config(['--epochs', '2', '--config', path])['trainer']['epochs'] == 2


def test_another_class_drops_the_options_of_the_first(tmp_path):
    path = write(tmp_path / 'c.yaml', 'model: {name: FREEDOM, rho: 0.5}')
    assert 'rho' not in load_config(['--config', path, '--model', 'LightGCN'])['model']
    assert load_config(['--config', path, '--model', 'FREEDOM'])['model']['rho'] == 0.5
    assert merge({'seed': 1, 'model': {'a': 1}}, {'seed': 2, 'model': {'b': 2}}) == {
        'seed': 2,
        'model': {'a': 1, 'b': 2},
    }


def test_resolve_fills_in_every_default():
    config = resolve({})
    assert {key: config[key]['name'] for key in CHOICES} == CHOICES
    assert set(config) >= {*CHOICES, *FIXED, 'seed', 'out', 'device'}
    assert config['trainer']['metric'] == 'recall@20' and config['trainer']['lr'] is None
    assert config['tokenizer']['codebook_size'] == 256 and config['seed'] == 0
    for name in MODELS:
        assert resolve({'model': {'name': name}})['model']['channels'] == 64


def test_strings_become_values():
    flags = ['--evaluator.ks', '[10, 20]', '--trainer.progress', 'false', '--tokenizer.max_dim']
    config = resolve(parse_flags([*flags, 'null', '--tokenizer.num_tokens', '{image: 2, text: 4}']))
    assert list(config['evaluator']['ks']) == [10, 20]
    assert config['trainer']['progress'] is False and config['tokenizer']['max_dim'] is None
    assert config['tokenizer']['num_tokens'] == {'image': 2, 'text': 4}


@pytest.mark.parametrize(
    'config, message',
    [
        ({'sed': 1}, "Unknown option 'sed'; did you mean 'seed'"),
        ({'model': {'name': 'FREDOM'}}, "unknown model 'FREDOM'; did you mean 'FREEDOM'"),
        ({'model': {'name': 'freedom'}}, "did you mean 'FREEDOM'"),
        ({'items': {'name': 'specfic'}}, "item encoder 'specfic'; did you mean 'specific'"),
        ({'data': {'name': 'sintetic'}}, "registered name; did you mean 'synthetic'"),
        ({'data': {'name': 'no/such'}}, "'no/such' does not exist; expected a folder"),
        ({'data': {'name': 'amazon'}}, 'data.root: expected str; amazon needs it'),
        ({'model': {'num_layer': 1}}, "'model.num_layer' of LightGCN; did you mean 'num_layers'"),
        ({'model': {'data': 1}}, "Unknown option 'model.data'"),
        ({'trainer': {'seed': 1}}, "Unknown option 'trainer.seed'"),
        ({'trainer': {'epochs': 'abc'}}, "^trainer.epochs: expected int, got 'abc'$"),
        ({'trainer': {'epochs': 1.5}}, '^trainer.epochs: expected int, got 1.5$'),
        ({'trainer': {'lr': 'x'}}, "^trainer.lr: expected float or null, got 'x'$"),
        ({'trainer': {'progress': 'maybe'}}, "^trainer.progress: expected true or false, got 'm"),
        ({'evaluator': {'ks': ['a']}}, '^evaluator.ks: expected int or a list of int, got'),
        ({'tokenizer': {'num_tokens': 'a'}}, 'expected int or a mapping of str to int, got'),
        ({'seed': 'x'}, "^seed: expected int, got 'x'$"),
        ({'seed': -1}, '^seed: expected 0 or more'),
        ({'threads': '0'}, '^threads: expected at least 1, got 0$'),
        ({'tensorboard': 'x'}, '^tensorboard: expected true or false'),
    ],
)
def test_bad_options(config, message):
    with pytest.raises(ConfigError, match=message):
        resolve(config)


def test_suggestions():
    assert suggest('epoch', ['epochs', 'seed']) == "; did you mean 'epochs'?"
    assert suggest('zzz', ['b', 'a']) == '; known are a, b'


def test_types_in_words():
    assert spell(int) == 'int' and spell(bool) == 'true or false'
    assert spell(dict[str, int] | None) == 'a mapping of str to int or null'


def test_written_configuration_reads_the_same(tmp_path, dataset):
    config = resolve(parse_flags(['--model', 'FREEDOM', '--evaluator.ks', '[3]', '--lr', '0.1']))
    path = str(tmp_path / 'new' / 'config.yaml')
    write_yaml(config, path)
    again = resolve(read_yaml(path))
    assert yaml.safe_dump(again) == yaml.safe_dump(config)
    assert run_fingerprint(again, dataset.fingerprint) == run_fingerprint(
        config, dataset.fingerprint
    )


def test_fingerprint_of_a_run(dataset):
    def hashed(*flags):
        return run_fingerprint(resolve(parse_flags(flags)), dataset.fingerprint)

    base = hashed()
    same = [('--epochs', '3'), ('--trainer.progress', 'false'), ('--out', 'x'), ('--threads', '1')]
    assert {hashed(*flags) for flags in [*same, ('--device', 'cpu')]} == {base}
    other = [('--seed', '1'), ('--lr', '0.1'), ('--model', 'BPR'), ('--trainer.patience', '3')]
    assert len({base, *(hashed(*flags) for flags in other)}) == 5


def test_device():
    assert build_device('cpu') == torch.device('cpu')
    assert build_device('auto').type == ('cuda' if torch.cuda.is_available() else 'cpu')
    for name in ('gpu', 'meta', 'mps'):
        with pytest.raises(ConfigError, match=f"unknown device '{name}'; use auto, cpu or cuda"):
            build_device(name)
    with pytest.raises(ConfigError, match="there is no 'cuda:99' here"):
        build_device('cuda:99')


def test_model_of_a_configuration(dataset):
    data = dataset[0]
    flags = ['--model.channels', '8', '--tokenizer.num_tokens', '2', '--items', 'agnostic']
    config = resolve(
        parse_flags([*flags, '--items.num_layers', '2', '--tokenizer.codebook_size=4'])
    )
    tokenizer = build_tokenizer(config, data)
    assert tokenizer.num_tokens_dict == {'image': 2, 'text': 2} and not tokenizer.is_fitted
    model = build_model(config, data, tokenizer)
    assert type(model).__name__ == 'LightGCN' and model.channels == 8
    assert model.item_encoder.mode == 'agnostic' and model.item_parameters(24) == []

    config = resolve(parse_flags(['--items', 'id', '--model', 'BPR']))
    assert build_tokenizer(config, data) is None
    assert build_item_encoder(config, data, None) is None
    assert build_model(config, data, None).item_parameters(24) == ['item_encoder.weight']

    config = resolve(parse_flags(['--items', 'features', '--items.normalize', 'false']))
    encoder = build_item_encoder(config, data, build_tokenizer(config, data))
    assert encoder.in_channels == {'image': 128, 'text': 64} and encoder.normalize is False


def test_errors_of_constructors_name_the_section(dataset):
    for flags, message in [
        (['--model.channels', '0'], '^model.channels: expected at least 1, got 0'),
        (['--model.num_layers', '-1'], "^model: 'num_layers'"),
        (['--items.num_layers', '-1'], "^items: 'num_layers'"),
        (['--tokenizer.codebook_size', '5'], '^tokenizer: codebook_size'),
    ]:
        config = resolve(parse_flags(flags))
        with pytest.raises(ConfigError, match=message):
            build_model(config, dataset[0], build_tokenizer(config, dataset[0]))


def test_help():
    text = usage()
    assert max(len(line) for line in text.splitlines()) <= 100
    for name in MODELS:
        assert f'  model ({name}): channels=64' in text
    assert 'ks=[5, 10, 20, 50]' in text and 'max_dim=512' in text and 'lr=null' in text
    assert 'None' not in text and 'True' not in text and 'False' not in text


def test_writable(tmp_path):
    check_writable(str(tmp_path / 'a' / 'b'))
    assert not (tmp_path / 'a').exists()
    (tmp_path / 'file').write_text('')
    with pytest.raises(ConfigError, match="file' is not a folder"):
        check_writable(str(tmp_path / 'file' / 'b'))
    with pytest.raises(OSError, match="'x' cannot be written: "), writing('x'):
        raise RuntimeError('iostream error\nmore')


def test_warnings_are_a_line(capsys):
    before = warnings.showwarning
    with plain_warnings():
        warnings.warn('two\n  lines', stacklevel=1)
        assert warnings.showwarning is not before
    assert warnings.showwarning is before
    assert capsys.readouterr().err == 'warning: two lines\n'
