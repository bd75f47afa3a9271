r"""From YAML files and dotted flags to objects. A hyper-parameter is declared
once, in the constructor that takes it: its name, type and default are read
from there.
"""

from __future__ import annotations

import inspect
import os
import os.path as osp
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import (
    Any,
    get_args,
    get_origin,
    get_type_hints,
)

import yaml

from motor_geo.data import DATASETS, InteractionSVD, ItemKNN, OPQTokenizer, TableDataset
from motor_geo.engine.evaluator import Evaluator
from motor_geo.engine.trainer import Trainer
from motor_geo.nn import FeatureProjection, IDEmbedding, TokenCrossEncoder
from motor_geo.nn.models import MODELS
from motor_geo.nn.token_cross import MODES
from motor_geo.utils.errors import ConfigError, one_line, suggest
from motor_geo.utils.files import atomic_write

ITEMS: dict[str, type] = {
    'id': IDEmbedding,
    **{mode: TokenCrossEncoder for mode in MODES},
    'features': FeatureProjection,
}
#: Sections with a choice of classes, and what is chosen by default.
CHOICES = {'data': 'synthetic', 'model': 'LightGCN', 'items': 'specific'}
#: Sections with one class.
FIXED: dict[str, Callable] = {
    'tokenizer': OPQTokenizer,
    'svd': InteractionSVD,
    'graph': ItemKNN,
    'trainer': Trainer,
    'evaluator': Evaluator,
}
#: Options of a run, with type, default and meaning.
GENERAL: dict[str, tuple[type, Any, str]] = {
    'seed': (int, 0, 'seed of initial weights, sampling and losses'),
    'out': (str, None, 'folder of the run, by default runs/DATA-MODEL-ITEMS-seedSEED'),
    'device': (str, 'auto', 'auto, cpu or cuda'),
    'threads': (int, None, 'number of threads'),
    'behavior': (bool, False, 'tokens of who used an item in training, beside those of content'),
    'mask_validation': (bool, False, 'keep validation items out of the test lists'),
    'tensorboard': (bool, False, 'write every epoch for TensorBoard'),
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
    'data': {'transform', 'pre_transform'},
    'tokenizer': {'verbose', 'node_type', 'edge_type'},
    'svd': {'modality', 'modalities', 'cache', 'edge_type'},
    'graph': {'weighting', 'node_type'},
    'trainer': {
        'model',
        'data',
        'evaluator',
        'seed',
        'out',
        'fingerprint',
        'callbacks',
        'user_names',
        'edge_type',
    },
    'evaluator': {'targets', 'train_edge_index', 'num_items', 'exclude', 'seed'},
}

Config = dict[str, Any]


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
            elif key in ('config', *CHOICES) or GENERAL.get(key, (bool,))[0] is str:
                raise ConfigError(f'{flag}: expected a value, got none')
        key = key.replace('-', '_')
        _insert(config, SHORT.get(key, key).split('.'), value, flag)
    return config


def _insert(config: Config, keys: list[str], value: Any, where: str) -> None:
    section, *rest = keys
    if section in CHOICES and not rest:
        rest = ['name']
    if section in FIXED and not rest:
        raise ConfigError(f"{where}: '{section}' is a section; expected {section}.<option>")
    if section in GENERAL and rest:
        raise ConfigError(f"{where}: '{section}' is an option, not a section; expected {section}")
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
        with open(path, encoding='utf-8') as file:
            content = yaml.safe_load(file)
    except OSError as error:
        raise ConfigError(f"'{path}' cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, 'problem_mark', None)
        place = '' if mark is None else f', line {mark.line + 1}, column {mark.column + 1}'
        problem = getattr(error, 'problem', None) or one_line(error)
        raise ConfigError(f"'{path}'{place}: not valid YAML ({problem})") from error
    if not isinstance(content, dict):
        raise ConfigError(
            f"'{path}': expected a mapping of options, got {textwrap.shorten(repr(content), 60)}"
        )
    config: Config = {}
    for key, value in content.items():
        if key in (*CHOICES, *FIXED) and isinstance(value, dict):
            options = {str(option): entry for option, entry in value.items()}
            config.setdefault(key, {}).update(options)
        elif key in FIXED:
            raise ConfigError(f"'{path}': '{key}' must be a mapping of options (got {value!r})")
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
        if 'path' in extra:  # `recommend` may be called from another folder.
            name = extra['path']
        out[section] = {'name': name, **check(section, target, {**extra, **options}, name)}
    for section, target in FIXED.items():
        out[section] = check(section, target, config.get(section, {}), section)
    general = {k: config[k] for k in GENERAL if config.get(k) is not None}
    out.update(_check_general(general))
    return out


def choose(section: str, name: str) -> tuple[Callable, dict[str, Any]]:
    r"""The class that a section names, and arguments that follow from it."""
    if section == 'data':
        if name in DATASETS:
            return DATASETS[name], {}
        if osp.exists(osp.expanduser(name)):
            return TableDataset, {'path': osp.abspath(osp.expanduser(name))}
        if os.sep in name:
            raise ConfigError(f"--data: '{name}' does not exist; expected a folder with NAME.inter")
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

    hints = get_type_hints(target.__init__ if inspect.isclass(target) else target)
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
    for key in valid:
        if parameters[key].default is inspect.Parameter.empty and key not in options:
            raise ConfigError(f'{section}.{key}: expected {spell(hints[key])}; {name} needs it')
    parser = ArgumentParser(exit_on_error=False)
    skip = {key for key in derived if key in parameters}
    parser.add_class_arguments(target, None, skip=skip)  # type: ignore
    try:
        return parser.parse_object(dict(options)).as_dict()
    except Exception as error:
        for key, value in options.items():
            _convert(f'{section}.{key}', hints[key], value)
        raise ConfigError(f"In section '{section}' of {name}: {one_line(error)}") from error


def _check_general(options: Config) -> Config:
    out = {key: default for key, (_, default, _) in GENERAL.items()}
    out.update({key: _convert(key, GENERAL[key][0], value) for key, value in options.items()})
    if not 0 <= out['seed'] < 2**63:
        raise ConfigError(f'seed: expected 0 or more, below 2^63, got {out["seed"]}')
    if out['threads'] is not None and out['threads'] < 1:
        raise ConfigError(f'threads: expected at least 1, got {out["threads"]}')
    return out


def _convert(key: str, kind: Any, value: Any) -> Any:
    r"""A single value as the type that is expected of it."""
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument('--value', type=kind)
    try:
        return parser.parse_object({'value': value}).value
    except Exception as error:
        raise ConfigError(f'{key}: expected {spell(kind)}, got {value!r}') from error


def spell(kind: Any) -> str:
    r"""A type in words."""
    if kind is type(None):
        return 'null'
    if kind is bool:
        return 'true or false'
    inner = [spell(entry) for entry in get_args(kind)]
    if not inner:
        return getattr(kind, '__name__', str(kind))
    origin = get_origin(kind)
    if not inspect.isclass(origin) or origin.__module__ == 'types':  # A union.
        return ' or '.join(inner)
    return f'{"a mapping" if len(inner) == 2 else "a list"} of {" to ".join(inner)}'


def write_yaml(config: Config, path: str) -> None:
    r"""Writes a resolved configuration; reading it again gives the same."""
    with atomic_write(path) as temporary, open(temporary, 'w') as file:
        yaml.safe_dump(config, file, sort_keys=False)


def usage() -> str:
    r"""The text of :obj:`--help`."""
    heads = [
        ('data NAME|FOLDER', f'{", ".join(DATASETS)}, or a folder with NAME.inter', 'data'),
        ('model NAME', ', '.join(MODELS), 'model'),
        ('items NAME', ', '.join(ITEMS), 'items'),
    ]
    lines = ['usage: python -m motor_geo.run [--config FILE.yaml] [--option value ...]', '']
    for flag, text, section in heads:
        lines.append(_wrap(f'  --{flag:22s}', f'{text} (default: {CHOICES[section]})', 26))
    for key, (kind, default, text) in GENERAL.items():
        flag = key if kind is bool else f'{key} {kind.__name__.upper()}'
        text = text if default is None else f'{text} (default: {_plain(default)})'
        lines.append(_wrap(f'  --{flag:22s}', text, 26))
    for short, full in SHORT.items():
        lines.append(_wrap(f'  --{short:22s}', f'the same as --{full}', 26))
    lines += [
        '',
        'Every argument of a constructor is an option, such as --model.num_layers 3. A file',
        '(--config) has the same names, and flags override it. Options and defaults:',
        '',
    ]
    targets: dict[str, Callable] = {f'data ({name})': kind for name, kind in DATASETS.items()}
    targets['data (FOLDER)'] = TableDataset
    targets.update({f'model ({name})': kind for name, kind in MODELS.items()})
    for kind in dict.fromkeys(ITEMS.values()):
        names = ', '.join(name for name, other in ITEMS.items() if other is kind)
        targets[f'items ({names})'] = kind
    targets.update(FIXED)
    for title, target in targets.items():
        skip = DERIVED.get(title.split(' ')[0], set()) | ({'path'} if 'FOLDER' in title else set())
        words = [
            key if p.default is p.empty else f'{key}={_plain(p.default)}'
            for key, p in inspect.signature(target).parameters.items()
            if key not in skip
        ]
        lines.append(_wrap(f'  {title}: ', ', '.join(words) or 'no options', 6))
    return '\n'.join(lines)


def _wrap(head: str, text: str, indent: int) -> str:
    return textwrap.fill(
        head + text,
        width=100,
        subsequent_indent=' ' * indent,
        break_long_words=False,
        break_on_hyphens=False,
        drop_whitespace=True,
        replace_whitespace=False,
    )


def _plain(value: Any) -> str:
    r"""A default as it is spelled in a configuration file."""
    if isinstance(value, (list, tuple)):
        return f'[{", ".join(map(_plain, value))}]'
    if value is None or isinstance(value, bool):
        return {None: 'null', True: 'true', False: 'false'}[value]
    return str(value)


def flatten(config: Config) -> dict[str, Any]:
    r"""Options by dotted name."""
    out: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict):
            out.update({f'{key}.{inner}': entry for inner, entry in value.items()})
        else:
            out[key] = value
    return out
