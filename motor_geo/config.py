r"""From YAML files and dotted flags to objects. A hyper-parameter is declared
once, in the constructor that takes it: its name, type and default are read
from there.
"""

from __future__ import annotations

import difflib
import inspect
import os
import os.path as osp
from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional, Sequence, Tuple

import torch
import yaml
from torch import nn
from torch_geometric.data import HeteroData

from motor_geo.data import DATASETS, ItemKNN, OPQTokenizer, RecommendationDataset, TableDataset
from motor_geo.evaluator import Evaluator
from motor_geo.files import atomic_write, fingerprint
from motor_geo.nn import FeatureProjection, IDEmbedding, TokenCrossEncoder
from motor_geo.nn.models import MODELS, Recommender
from motor_geo.nn.token_cross import MODES
from motor_geo.trainer import Trainer
from motor_geo.typing import ITEM

ITEMS: Dict[str, type] = {
    'id': IDEmbedding,
    **{mode: TokenCrossEncoder for mode in MODES},
    'features': FeatureProjection,
}
#: Sections with a choice of classes, and what is chosen by default.
CHOICES = {'data': 'synthetic', 'model': 'LightGCN', 'items': 'specific'}
#: Sections with one class.
FIXED: Dict[str, Callable] = {
    'tokenizer': OPQTokenizer,
    'graph': ItemKNN,
    'trainer': Trainer,
    'evaluator': Evaluator,
}
#: Options of a run, with type and default.
GENERAL: Dict[str, Tuple[type, Any]] = {
    'seed': (int, 0),
    'out': (str, None),
    'device': (str, 'auto'),
    'threads': (int, None),
    'mask_validation': (bool, False),
    'tensorboard': (bool, False),
}
#: Flags without a dot that stand for an option of a section.
SHORT = {'epochs': 'trainer.epochs', 'batch_size': 'trainer.batch_size', 'lr': 'trainer.lr'}
#: Arguments that are filled in from elsewhere.
DERIVED = {
    'model': {'data', 'item_encoder'},
    'items': {
        'num_tokens',
        'codebook_size',
        'out_channels',
        'mode',
        'num_items',
        'in_channels',
        'xavier',
    },
    'tokenizer': {'verbose'},
    'graph': {'weighting'},
    'trainer': {'model', 'data', 'evaluator', 'seed', 'out', 'fingerprint', 'callbacks'},
    'evaluator': {'targets', 'train_edge_index', 'num_items', 'exclude'},
}

Config = Dict[str, Any]


class ConfigError(ValueError):
    r"""A key or a value of a configuration is wrong."""


def suggest(name: str, known: Iterable[str]) -> str:
    r"""The end of an error message: the nearest known name, or all names."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    lower = [entry for entry in known if entry.lower() == name.lower()]
    if lower or close:
        return f"; did you mean '{(lower or close)[0]}'?"
    return f'; known are {", ".join(known)}'


def parse_flags(arguments: Sequence[str]) -> Config:
    r"""Reads :obj:`--section.key value` and :obj:`--section.key=value` pairs
    into a nested dictionary; values stay strings.

    Raises:
        ConfigError: If something is neither a flag nor its value.
    """
    config: Config = {}
    position = 0
    while position < len(arguments):
        flag = arguments[position]
        if not flag.startswith('--') or len(flag) == 2:
            raise ConfigError(f"'{flag}' is not an option; options look like --name value")
        key, has_value, value = flag[2:].partition('=')
        position += 1
        if not has_value:
            value = 'true'
            if position < len(arguments) and not arguments[position].startswith('--'):
                value = arguments[position]
                position += 1
        key = key.replace('-', '_')
        _insert(config, SHORT.get(key, key).split('.'), value, flag)
    return config


def _insert(config: Config, keys: List[str], value: Any, where: str) -> None:
    section, *rest = keys
    if section in CHOICES and not rest:
        rest = ['name']
    if not rest:
        config[section] = value
    elif section not in CHOICES and section not in FIXED:
        known = [*CHOICES, *FIXED, *GENERAL, *SHORT]
        raise ConfigError(f"{where}: unknown section '{section}'{suggest(section, known)}")
    else:
        config.setdefault(section, {})['.'.join(rest)] = value


def read_yaml(path: str) -> Config:
    r"""Reads a configuration file: general options and sections, where
    :obj:`model: FREEDOM` is short for :obj:`model: {name: FREEDOM}`.

    Raises:
        ConfigError: If the file is missing or not a mapping of options.
    """
    try:
        with open(path) as file:
            content = yaml.safe_load(file)
    except OSError as error:
        raise ConfigError(f"'{path}' cannot be read: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"'{path}' is not valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"'{path}': expected a mapping of options, got {content!r}")
    config: Config = {}
    for key, value in content.items():
        if key in CHOICES and isinstance(value, dict):
            config[key] = dict(value)
        elif key in FIXED:
            if not isinstance(value, dict):
                raise ConfigError(f"'{path}': '{key}' must be a mapping (got {value!r})")
            config[key] = dict(value)
        else:
            _insert(config, SHORT.get(str(key), str(key)).split('.'), value, f"'{path}'")
    return config


def merge(*configs: Config) -> Config:
    r"""Merges configurations, later ones first. A section whose name changes
    drops the options of the other class.
    """
    out: Config = {}
    for config in configs:
        for key, value in config.items():
            if isinstance(value, dict):
                old = out.get(key, {})
                renamed = 'name' in value and value['name'] != old.get('name', value['name'])
                out[key] = dict(value) if renamed else {**old, **value}
            else:
                out[key] = value
    return out


def resolve(config: Config) -> Config:
    r"""Checks a configuration against the constructors it names and fills in
    every default.

    Raises:
        ConfigError: If a key is unknown (with a suggestion) or a value has
            the wrong type.
    """
    known = [*CHOICES, *FIXED, *GENERAL]
    for key in config:
        if key not in known:
            raise ConfigError(f"Unknown option '{key}'{suggest(key, [*known, *SHORT, 'config'])}")
    out: Config = {}
    for section, default in CHOICES.items():
        options = dict(config.get(section, {}))
        name = str(options.pop('name', default))
        target, extra = choose(section, name)
        out[section] = {'name': name, **check(section, target, {**extra, **options}, name)}
    for section, target in FIXED.items():
        out[section] = check(section, target, config.get(section, {}), section)
    general = {k: config[k] for k in GENERAL if config.get(k) is not None}
    out.update(_check_general(general))
    return out


def choose(section: str, name: str) -> Tuple[Callable, Dict[str, Any]]:
    r"""The class that a section names, and arguments that follow from it."""
    if section == 'data':
        if name in DATASETS:
            return DATASETS[name], {}
        if osp.isdir(name):
            return TableDataset, {'path': name}
        if os.sep in name:
            raise ConfigError(f"--data: the folder '{name}' does not exist")
        raise ConfigError(
            f"--data: '{name}' is neither a folder nor a registered name{suggest(name, DATASETS)}"
        )
    classes: Mapping[str, type] = MODELS if section == 'model' else ITEMS
    if name not in classes:
        what = 'model' if section == 'model' else 'item encoder'
        raise ConfigError(f"--{section}: unknown {what} '{name}'{suggest(name, classes)}")
    return classes[name], {}


def check(section: str, target: Callable, options: Config, name: str) -> Config:
    r"""Checks options against the signature of :obj:`target`; returns them
    converted, with every default.
    """
    from jsonargparse import ArgumentParser

    derived = DERIVED.get(section, set())
    parameters = inspect.signature(target).parameters
    valid = [
        key
        for key, parameter in parameters.items()
        if key not in derived
        and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
    ]
    for key in options:
        if key not in valid:
            raise ConfigError(f"Unknown option '{section}.{key}' of {name}{suggest(key, valid)}")
    parser = ArgumentParser(exit_on_error=False)
    skip = {key for key in derived if key in parameters}
    parser.add_class_arguments(target, None, skip=skip)  # type: ignore
    try:
        return parser.parse_object(dict(options)).as_dict()
    except Exception as error:
        first = ' '.join(line.strip() for line in str(error).splitlines())
        raise ConfigError(f"In section '{section}' of {name}: {first}") from error


def _check_general(options: Config) -> Config:
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    for key, (kind, default) in GENERAL.items():
        parser.add_argument(f'--{key}', type=Optional[kind], default=default)  # type: ignore
    try:
        return parser.parse_object(options).as_dict()
    except Exception as error:
        first = ' '.join(line.strip() for line in str(error).splitlines())
        raise ConfigError(first) from error


def write_yaml(config: Config, path: str) -> None:
    r"""Writes a resolved configuration; reading it again gives the same."""
    with atomic_write(path) as temporary, open(temporary, 'w') as file:
        yaml.safe_dump(config, file, sort_keys=False)


def run_fingerprint(config: Config, dataset: RecommendationDataset) -> str:
    r"""Hash of the data and of every option that changes a result."""
    trainer = {k: v for k, v in config['trainer'].items() if k not in ('epochs', 'progress')}
    parts = {k: v for k, v in config.items() if k not in ('data', 'out', 'device', 'threads', 'tensorboard')}
    return fingerprint(dataset.fingerprint, {**parts, 'trainer': trainer})


def build_device(name: str) -> torch.device:
    r"""The device of a name, where :obj:`"auto"` is a GPU if there is one.

    Raises:
        ConfigError: If there is no such device.
    """
    if name == 'auto':
        return torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"--device: unknown device '{name}'; use auto, cpu or cuda") from error
    if device.type == 'cuda' and not torch.cuda.is_available():
        raise ConfigError(f"--device: there is no '{name}' here; use cpu or auto")
    return device


def build_dataset(config: Config) -> RecommendationDataset:
    r"""The data set of a resolved configuration."""
    options = {k: v for k, v in config['data'].items() if k != 'name'}
    return choose('data', config['data']['name'])[0](**options)


def build_tokenizer(config: Config, data: HeteroData) -> Optional[OPQTokenizer]:
    r"""A tokenizer if the item encoder reads tokens, else :obj:`None`."""
    if config['items']['name'] not in MODES:
        return None
    if not any(key.startswith('x_') for key in data[ITEM].keys()):
        raise ConfigError(
            f'--items {config["items"]["name"]}: the data has no item features to make tokens '
            'of (expected <modality>_feat.npy files); use --items id'
        )
    return OPQTokenizer(**config['tokenizer'])


def build_item_encoder(
    config: Config, data: HeteroData, tokenizer: Optional[OPQTokenizer]
) -> Optional[nn.Module]:
    r"""The module that stands where the item embedding stood; :obj:`None`
    leaves the backbone its own.
    """
    options = dict(config['items'])
    name, channels = options.pop('name'), config['model']['channels']
    if name == 'features':
        widths = {k[2:]: data[ITEM][k].size(1) for k in data[ITEM].keys() if k.startswith('x_')}
        if not widths:
            raise ConfigError('--items features: the data has no item features; use --items id')
        return FeatureProjection(widths, channels, **options)
    if tokenizer is not None:
        return TokenCrossEncoder(
            tokenizer.num_tokens_dict, tokenizer.codebook_size, channels, mode=name, **options
        )
    return None


def build_model(config: Config, data: HeteroData, tokenizer: Optional[OPQTokenizer]) -> Recommender:
    r"""The backbone, with its item encoder in place."""
    options = {k: v for k, v in config['model'].items() if k != 'name'}
    encoder = build_item_encoder(config, data, tokenizer)
    return MODELS[config['model']['name']](data, item_encoder=encoder, **options)


def build_item_graph(config: Config, data: HeteroData) -> HeteroData:
    r"""Adds the item graphs that the backbone reads."""
    weighting = MODELS[config['model']['name']].item_graph
    if weighting is None:
        return data
    return ItemKNN(weighting=weighting, **config['graph'])(data)


def usage() -> str:
    r"""The text of :obj:`--help`."""
    lines = [
        'usage: python -m motor_geo.run [--config FILE.yaml] [--option value ...]',
        '',
        f'  --data NAME|FOLDER   {", ".join(DATASETS)}, or a folder with NAME.inter (default: '
        f'{CHOICES["data"]})',
        f'  --model NAME         {", ".join(MODELS)} (default: {CHOICES["model"]})',
        f'  --items NAME         {", ".join(ITEMS)} (default: {CHOICES["items"]})',
    ]
    for key, (kind, default) in GENERAL.items():
        lines.append(f'  --{key + " " + kind.__name__.upper():19s}  (default: {default})')
    lines += ['  --epochs INT          same as --trainer.epochs', '']
    lines.append('Every argument of a constructor is an option too, such as --model.num_layers 3:')
    targets: Dict[str, Callable] = {'data (synthetic)': DATASETS['synthetic']}
    targets.update({f'model ({name})': target for name, target in MODELS.items()})
    targets.update({f'items ({name})': target for name, target in ITEMS.items()})
    targets.update(FIXED)
    for title, target in targets.items():
        section = title.split(' ')[0]
        words = []
        for key, parameter in inspect.signature(target).parameters.items():
            if key in DERIVED.get(section, set()):
                continue
            default = '' if parameter.default is parameter.empty else f'={parameter.default}'
            words.append(f'{key}{default}')
        lines.append(f'  {title}: {", ".join(words) or "(none)"}')
    return '\n'.join(lines)
