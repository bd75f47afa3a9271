import copy
import dataclasses
import importlib.metadata
import pickle
import re
import warnings

import pytest
import yaml

from motor_geo.data import DATASETS, SyntheticClusters, TableDataset
from motor_geo.nn import SoftTokenEncoder
from motor_geo.nn.models import FREEDOM, MODELS, Recommender
from motor_geo.nn.objective import LOSSES, BPRLoss
from motor_geo.nn.token_cross import MODES
from motor_geo.pipeline.assemble import run_fingerprint
from motor_geo.pipeline.config import (
    DERIVED,
    FIXED,
    ITEMS,
    NAMED,
    RunConfig,
    arguments_of,
    describe,
    find_class,
    merge,
    plain_text,
    resolve,
    spell,
    write_yaml,
)
from motor_geo.pipeline.flags import CHOICES, GENERAL, SECTIONS, parse_flags, read_yaml
from motor_geo.run import load_config
from motor_geo.utils.errors import ConfigError, plain_warnings, suggest
from motor_geo.utils.files import check_writable, writing


@pytest.fixture(scope='module')
def dataset():
    return SyntheticClusters(num_users=30, num_items=24, num_interactions=150)


def write(path, text):
    path.write_text(text)
    return str(path)


def test_precedence(tmp_path):
    path = write(
        tmp_path / 'c.yaml',
        'seed: 7\nmodel: {name: FREEDOM, rho: 0.5, num_layers: 3}\nepochs: 9\ntrainer.patience: 4',
    )
    config = load_config(['--config', path, '--epochs', '2', '--model.rho', '0.25']).to_dict()
    assert config['trainer']['epochs'] == 2 and config['model']['rho'] == 0.25  # A flag,
    assert config['seed'] == 7 and config['model']['num_layers'] == 3  # the file,
    assert config['trainer']['patience'] == 4
    assert (
        config['trainer']['batch_size'] == 2048 and config['model']['channels'] == 64
    )  # defaults.
    assert load_config(['--epochs', '2', '--config', path]).trainer['epochs'] == 2


def test_another_class_drops_the_options_of_the_first(tmp_path):
    path = write(tmp_path / 'c.yaml', 'model: {name: FREEDOM, rho: 0.5}')
    assert 'rho' not in load_config(['--config', path, '--model', 'LightGCN']).model
    assert load_config(['--config', path, '--model', 'FREEDOM']).model['rho'] == 0.5
    assert merge({'seed': 1, 'model': {'a': 1}}, {'seed': 2, 'model': {'b': 2}}) == {
        'seed': 2,
        'model': {'a': 1, 'b': 2},
    }


def test_resolve_fills_in_every_default():
    config = resolve({})
    assert {key: config[key]['name'] for key in CHOICES} == {**CHOICES, 'loss': 'whole'}
    assert set(config) >= {*CHOICES, *FIXED, 'seed', 'out', 'device'}
    assert config['trainer']['metric'] == 'recall@20' and config['trainer']['lr'] == 0.01
    assert config['tokenizer']['codebook_size'] == 256 and config['seed'] == 0
    for name in MODELS:
        assert resolve({'model': {'name': name}})['model']['channels'] == 64


def test_short_forms_are_those_of_yaml(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    short = {'data': str(tmp_path), 'model': 'BPR', 'items': 'id', 'epochs': 3, 'lr': 0.1}
    long = {
        'data': {'name': str(tmp_path)},
        'model': {'name': 'BPR'},
        'items': {'name': 'id'},
        'trainer': {'epochs': 3, 'lr': 0.1},
    }
    assert resolve(short) == resolve(long) == resolve({**short, 'data': '~'})
    assert resolve({'trainer.epochs': 3}) == resolve({'epochs': 3})
    assert resolve({'out': '~/runs/x'})['out'] == str(tmp_path / 'runs' / 'x')
    with pytest.raises(ConfigError, match="'trainer' must be a mapping of options"):
        resolve({'trainer': 3})


def test_the_path_of_the_data_is_their_name(tmp_path):
    config = RunConfig.of({'data': str(tmp_path)})
    assert config.data['name'] == str(tmp_path) and 'path' not in config.data
    assert config.options('data')['path'] == str(tmp_path)
    (tmp_path / 'moved').mkdir()
    moved = str(tmp_path / 'moved')
    for old in (str(tmp_path), '/gone'):  # As older versions wrote it.
        assert RunConfig.of({'data': {'name': moved, 'path': old}}).options('data')['path'] == moved


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
        (
            {'model': {'name': 'FREDOM'}},
            r"unknown model 'FREDOM'; did you mean 'FREEDOM'\? Or give an import path such as "
            r'my_package\.FREDOM$',
        ),
        (
            {'model': {'name': 'Xyz'}},
            r"unknown model 'Xyz'; expected one of AlignRec, .*, or an import path such as .*Xyz$",
        ),
        ({'model': {'name': 'freedom'}}, "did you mean 'FREEDOM'"),
        ({'items': {'name': 'specfic'}}, "item encoder 'specfic'; did you mean 'specific'"),
        ({'data': {'name': 'sintetic'}}, "registered name; did you mean 'synthetic'"),
        ({'data': {'name': 'no/such'}}, "'no/such' does not exist; expected a folder"),
        ({'data': {'name': 'amazon'}}, 'data.root: expected str; amazon requires'),
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


def test_a_configuration_is_frozen():
    config = RunConfig.of({'model': {'name': 'FREEDOM', 'rho': '0.5'}, 'seed': '3'})
    assert RunConfig.of(config) is config and RunConfig.of(config.to_dict()) == config
    assert config.model['rho'] == 0.5 and config.seed == 3
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.seed = 4
    with pytest.raises(TypeError):
        config.model['rho'] = 0.1
    config.to_dict()['model']['rho'] = 0.1
    assert config.model['rho'] == 0.5
    other = dataclasses.replace(config, out='x')
    assert other != config and other.model == config.model
    for clone in (copy.deepcopy(config), pickle.loads(pickle.dumps(config))):
        assert clone == config and clone.to_dict() == config.to_dict()


def test_the_dictionary_of_a_configuration():
    config = RunConfig.of({}).to_dict()
    assert list(config) == [*CHOICES, *SECTIONS, *GENERAL]
    assert list(config['items']) == [
        *('name', 'num_layers', 'activation', 'init', 'weight_init', 'mlp_gain', 'dropout'),
    ]
    graph = ['k', 'modalities', 'block_size', 'cache', 'method', 'num_probes']
    assert list(config['graph']) == graph
    assert all(type(config[key]) is dict for key in (*CHOICES, *SECTIONS))


def test_the_fingerprint_does_not_change():
    r"""Runs of older versions can be continued."""
    config = RunConfig.of({'model': {'name': 'FREEDOM'}, 'items': 'specific'})
    assert run_fingerprint(config, 'data') == run_fingerprint(config.to_dict(), 'data')
    assert run_fingerprint(config, 'data') == 'da732b0e7afbf597'


def test_derived_arguments_exist():
    classes = {**{key: [value] for key, value in FIXED.items()}, 'model': MODELS.values()}
    classes |= {'items': ITEMS.values(), 'data': [*DATASETS.values(), TableDataset]}
    for section, names in DERIVED.items():
        known = set().union(*(arguments_of(target) for target in classes[section]))
        known |= set(arguments_of(SoftTokenEncoder)) if section == 'items' else set()
        assert names <= known, section
    for name, names in NAMED.items():
        assert names <= arguments_of(ITEMS[name]).keys(), name


def test_what_an_item_encoder_reads():
    reads = {name: RunConfig.of({'items': {'name': name}}) for name in ITEMS}
    assert [name for name, config in reads.items() if config.reads_tokens] == [
        'recommended',
        *MODES,
    ]
    assert [name for name, config in reads.items() if config.reads('num_items')] == ['id']
    assert [name for name, config in reads.items() if config.reads('in_channels')] == ['features']


class Outside(FREEDOM):
    r"""A backbone of another package.

    Args:
        alpha: Weight of :math:`\mathbf{x}`.
        untyped: Anything.
    """

    def __init__(self, data, *args, alpha: float = 0.5, untyped=3, **kwargs):
        super().__init__(data, *args, **kwargs)


class Closed(Recommender):
    def __init__(self, data):
        super().__init__(data)


def test_a_class_by_import_path():
    path = f'{__name__}.Outside'
    model = {'name': path, 'alpha': '0.25', 'rho': '0.5', 'untyped': '[1, 2]'}
    config = RunConfig.of({'model': model})
    assert config.target('model') is Outside
    assert config.model['alpha'] == 0.25 and config.model['rho'] == 0.5
    assert config.model['untyped'] == [1, 2] and config.model['channels'] == 64
    assert 'data' not in config.model and 'item_encoder' not in config.model
    assert RunConfig.of(yaml.safe_load(yaml.safe_dump(config.to_dict()))) == config
    with pytest.raises(ConfigError, match="'model.alpa' of .*Outside; did you mean 'alpha'"):
        resolve({'model': {'name': path, 'alpa': 1}})
    with pytest.raises(ConfigError, match="^model.alpha: expected float, got 'x'$"):
        resolve({'model': {'name': path, 'alpha': 'x'}})
    text = describe('model', path)
    assert '--model.alpha           Weight of x (float, default: 0.5)' in text
    assert '--model.rho ' in text
    with pytest.raises(ConfigError, match="Closed' takes no argument 'item_encoder'; expected a"):
        find_class('model', f'{__name__}.Closed')
    target = find_class('items', 'motor_geo.nn.TokenCrossEncoder')
    assert target is ITEMS['specific']
    config = RunConfig.of({'items': {'name': 'motor_geo.nn.TokenCrossEncoder', 'mode': 'mean'}})
    assert config.reads_tokens and config.items['mode'] == 'mean'


@pytest.mark.parametrize(
    'section, name, message',
    [
        (
            'model',
            'no_such.Mine',
            "^--model: 'no_such.Mine' cannot be imported: there is no module",
        ),
        ('model', 'motor_geo.nn.models.FREDOM', "has no 'FREDOM'; did you mean 'FREEDOM'?"),
        ('model', 'motor_geo.nn.IDEmbedding', 'is another class; expected a class derived from Re'),
        ('model', 'motor_geo.nn.token_cross.MODES', 'is a tuple; expected a class derived from'),
        ('items', 'motor_geo.data.ItemKNN', "^--items: 'motor_geo.data.ItemKNN' is another class"),
        (
            'data',
            'no_such.Data',
            "'no_such.Data' is not a folder, and cannot be imported: there is no",
        ),
        ('model', 'a..b', "unknown model 'a..b'; expected one of"),
    ],
)
def test_classes_that_cannot_be(section, name, message):
    with pytest.raises(ConfigError, match=message):
        resolve({section: {'name': name}})


def test_names_of_entry_points(monkeypatch):
    point = importlib.metadata.EntryPoint('Ours', f'{__name__}:Outside', 'motor_geo.models')
    monkeypatch.setattr(
        'motor_geo.utils.plugin.entry_points',
        lambda group: [point] if group == 'motor_geo.models' else [],
    )
    assert RunConfig.of({'model': {'name': 'Ours'}}).target('model') is Outside
    assert 'Ours ' in describe('model')
    with pytest.raises(ConfigError, match="unknown model 'Our'; did you mean 'Ours'"):
        resolve({'model': {'name': 'Our'}})


def test_suggestions():
    assert suggest('epoch', ['epochs', 'seed']) == "; did you mean 'epochs'?"
    assert suggest('zzz', ['b', 'a']) == '; expected one of a, b'


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


@pytest.mark.parametrize('section', [*CHOICES, *SECTIONS])
def test_help_of_a_section(section):
    names = {'data': DATASETS, 'model': MODELS, 'items': ITEMS}.get(section)
    text = describe(section)
    if names is not None:
        for name in names:
            assert re.search(rf'^  {name} +\S', text, re.M)
    for name in names or [None]:
        page = describe(section, name)
        assert max(len(line) for line in f'{text}\n{page}'.splitlines()) <= 100
        found = set(re.findall(r'^  --(\S+)', page, re.M))
        config = {section: {'name': name}} if name else {'items': 'specific'}
        if name != 'amazon':  # Which needs a folder.
            options = RunConfig.of(config).options(section)
            assert found == {f'{section}.{key}' for key in options}
        for mark in (':obj:', ':math:', ':class:', '`', '\\', 'None', 'True', 'False'):
            assert mark not in page, (name, mark)


def test_help_says_type_default_and_meaning():
    text = describe('model', 'FREEDOM')
    assert text.startswith('FREEDOM from the "A Tale of Two Graphs')
    assert 'Number of hops on the user-item graph (int, default: 2)' in text
    assert 'a mapping of str to float or null, default: null' in ' '.join(text.split())
    assert 'str, required' in describe('data', 'amazon')
    assert 'no options' in describe('items', 'id')
    with pytest.raises(ConfigError, match="did you mean 'FREEDOM'"):
        describe('model', 'FREDOM')


def test_plain_text():
    text = r'`"A: B" <https://x.y>`_ of :class:`~a.b.C`, :math:`\mathbf{x}_i`,\n :obj:`None`, ``d``'
    assert plain_text(text.replace('\\n', '\n')) == '"A: B" (https://x.y) of C, x_i, null, d'


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


class MyLoss(BPRLoss):
    r"""A loss of one's own."""

    def __init__(self, weight: float = 2.0):
        super().__init__()
        self.weight = weight


def test_losses_are_named_like_models(tmp_path):
    plain = RunConfig.of({'items': 'specific'})
    assert plain.to_dict()['loss'] == {'name': 'published'}
    config = RunConfig.of(parse_flags(['--loss', 'softmax', '--loss.temperature', '0.1']))
    assert config.to_dict()['loss'] == {
        'name': 'softmax',
        'temperature': 0.1,
        'correction': 0.0,
        'shared': False,
        'cosine': True,
    }
    path = str(tmp_path / 'config.yaml')
    write_yaml(config, path)
    assert resolve(read_yaml(path)) == config.to_dict()
    # Another loss drops the options of the first.
    other = merge(read_yaml(path), parse_flags(['--loss', 'whole']))
    assert resolve(other)['loss'] == {'name': 'whole', 'unobserved': 3.0, 'reg_weight': None}

    own = RunConfig.of({'loss': {'name': f'{__name__}.MyLoss', 'weight': 3}})
    assert own.target('loss') is MyLoss and own.options('loss') == {'weight': 3.0}


@pytest.mark.parametrize(
    ('loss', 'message'),
    [
        ('softmx', "^--loss: unknown loss 'softmx'; did you mean 'softmax'"),
        ({'name': 'softmax', 'temprature': 1}, "^Unknown option 'loss.temprature' of softmax"),
        ({'name': 'published', 'reg_weight': 1}, "^Unknown option 'loss.reg_weight' of published"),
        ({'name': 'bpr', 'reg_weight': 'much'}, "^loss.reg_weight: expected float, got 'much'"),
        ('torch.nn.Linear', r"^--loss: 'torch.nn.Linear' .*RankingLoss"),
    ],
)
def test_losses_that_do_not_exist(loss, message):
    with pytest.raises(ConfigError, match=message):
        RunConfig.of({'loss': loss})


def test_help_on_losses():
    names = describe('loss')
    assert all(f'\n  {name} ' in names for name in LOSSES)
    assert 'derived from RankingLoss' in names
    assert '--loss.temperature' in describe('loss', 'softmax')
    assert 'no options' in describe('loss', 'published')


def test_recommended_items_bring_their_tokens():
    config = RunConfig.of({'items': 'recommended'})
    assert config.behavior and config.tokenizer['num_tokens'] == {'*': 8, 'behavior': 16}
    assert config.tokenizer['center'] and config.tokenizer['normalize']
    # What is given counts, and what is written down reads back.
    own = RunConfig.of({'items': 'recommended', 'behavior': False, 'tokenizer': {'num_tokens': 4}})
    assert not own.behavior and own.tokenizer['num_tokens'] == 4 and own.tokenizer['center']
    for entry in (config, own):
        assert RunConfig.of(entry.to_dict()) == entry
    assert not RunConfig.of({'items': 'mean'}).behavior
    without = RunConfig.of({'items': 'recommended', 'behavior': 'false'})
    assert not without.behavior and without.tokenizer['num_tokens'] == 8


def test_recommended_items_are_the_default():
    config = RunConfig.of({})
    assert config.items['name'] == 'recommended' and config.behavior
    assert RunConfig.of({'model': 'EASE'}).items['name'] == 'none'


def test_recommended_items_bring_the_loss_that_suits_the_backbone():
    config = RunConfig.of({'model': 'LightGCN'})
    assert config.loss['name'] == 'whole'
    assert config.trainer['lr'] == 0.01 and config.trainer['batch_size'] == 8192
    assert config.trainer['patience'] == 50
    assert RunConfig.of({'model': 'BPR'}).loss == config.loss
    named = RunConfig.of({'model': 'LightGCN', 'loss': 'published'})
    assert named.loss['name'] == 'published' and named.trainer['lr'] is None
    own = RunConfig.of({'model': 'LightGCN', 'loss': {'reg_weight': 0.1}, 'trainer': {'lr': 0.02}})
    assert own.loss == {'name': 'whole', 'unobserved': 3.0, 'reg_weight': 0.1}
    assert own.trainer['lr'] == 0.02 and own.trainer['batch_size'] == 8192
    for model, items in (('FREEDOM', 'recommended'), ('LightGCN', 'specific'), ('BPR', 'id')):
        plain = RunConfig.of({'model': model, 'items': items})
        assert plain.loss['name'] == 'published' and plain.trainer['lr'] is None
    assert RunConfig.of({'items': 'id', 'loss': 'whole'}).trainer['lr'] == 0.01
