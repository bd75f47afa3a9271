r"""Parsing of options: YAML files, dotted flags and their help. This module
does not import PyTorch, so :obj:`--help` and error messages appear at once.
"""

from __future__ import annotations

import os
import os.path as osp
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from glob import glob
from itertools import takewhile
from typing import Any

from motor_geo.utils.errors import ConfigError, suggest
from motor_geo.utils.safe_yaml import load_yaml

#: Sections with a choice of classes, and the default choice.
CHOICES = {'data': 'synthetic', 'model': 'LightGCN', 'items': 'recommended', 'loss': 'published'}
#: Sections with one class.
SECTIONS = ('tokenizer', 'svd', 'graph', 'unseen', 'trainer', 'evaluator', 'parallel')
#: Flags without a dot that stand for an option of a section.
SHORT = {'epochs': 'trainer.epochs', 'batch_size': 'trainer.batch_size', 'lr': 'trainer.lr'}

Config = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class General:
    r"""Options of a run outside the sections.

    Args:
        seed: Seed of the initial weights, the sampling and the losses.
        out: Folder of the run, by default runs/DATA-MODEL-ITEMS-seedSEED.
        device: auto, cpu or cuda.
        threads: Number of CPU threads.
        behavior: Add tokens of behavior (who interacted with an item in
            training) to the tokens of content.
        users: Where user vectors come from: table (a row per user) or items
            (the scaled sum of the items of a user, for new users, too).
        mask_validation: Exclude validation items from the test lists.
        cold_candidates: Which items to rank in val and test if the split holds
            out items: unseen (the held-out items) or all. result.json has the
            test metrics of both.
        tensorboard: Short for --logger tensorboard.
        logger: Where to log every epoch: tensorboard, wandb, mlflow, or the
            import path of a class. Separate several loggers by spaces.
        report: Write report.html, the page of the run.
    """

    seed: int = 0
    out: str | None = None
    device: str = 'auto'
    threads: int | None = None
    behavior: bool = False
    users: str = 'table'
    mask_validation: bool = False
    cold_candidates: str = 'unseen'
    tensorboard: bool = False
    logger: list[str] | None = None
    report: bool = True


#: General options and their defaults.
GENERAL = {field.name: field.default for field in fields(General)}
assert MISSING not in GENERAL.values()
#: Options that do not affect results. Hashes leave them out.
UNHASHED = (
    *('out', 'device', 'threads', 'tensorboard', 'logger', 'report'),
    *('parallel.columns', 'parallel.users'),
)
#: Default options for a value of ``--items`` or ``--loss``. Given options take precedence.
PRESETS: dict[str, dict[str, Config]] = {
    'items': {
        'recommended': {
            'behavior': True,
            'tokenizer': {
                'num_tokens': {'*': 8, 'behavior': 16},
                'center': True,
                'normalize': True,
            },
        },
    },
    'loss': {'whole': {'trainer': {'lr': 0.01, 'batch_size': 8192, 'patience': 50}}},
}
#: Flags that take several values.
LISTS = ('logger', 'seeds', 'control')


def parse_flags(arguments: Sequence[str]) -> Config:
    r"""Parses :obj:`--section.key value` and :obj:`--section.key=value` pairs
    into a nested dictionary. Values stay strings. Several values of a flag in
    :obj:`LISTS` become a list.

    Raises:
        ConfigError: If an argument is neither a flag nor the value of one.
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
            elif key in ('config', 'out', 'device', *LISTS, *CHOICES):
                raise ConfigError(f'{flag}: expected a value, got none')
        key = key.replace('-', '_')
        more: list[str] = []
        if key in LISTS:
            more += takewhile(lambda word: not word.startswith('--'), arguments[position:])
        position += len(more)
        if key == 'control':  # Repeated flags add up.
            more += config.get(key, [])
            config[key] = [value, *more]
            continue
        _insert(config, SHORT.get(key, key).split('.'), [value, *more] if more else value, flag)
    return config


def _insert(config: Config, keys: list[str], value: Any, where: str) -> None:
    section, *rest = keys
    if section in CHOICES and not rest:
        rest = ['name']
    if section in SECTIONS and not rest:
        raise ConfigError(f"{where}: '{section}' is a section; expected {section}.<option>")
    if section in GENERAL and rest:
        raise ConfigError(f"{where}: '{section}' is an option, not a section; expected {section}")
    if not rest:
        config[section] = value
    elif section not in CHOICES and section not in SECTIONS:
        known = [*CHOICES, *SECTIONS, *GENERAL, *SHORT]
        raise ConfigError(f"{where}: unknown section '{section}'{suggest(section, known)}")
    else:
        config.setdefault(section, {})['.'.join(rest)] = value


def read_yaml(path: str) -> Config:
    r"""Reads a configuration file with general options and sections.
    :obj:`model: FREEDOM` is short for :obj:`model: {name: FREEDOM}`.

    Raises:
        ConfigError: If the file is missing or not a mapping of options.
    """
    content = load_yaml(path)
    if not isinstance(content, dict):
        raise ConfigError(f"'{path}': expected a mapping of options, got {shown(content)}")
    return expand(content, f"'{path}'")


def shown(value: Any) -> str:
    r"""Shortens a value for an error message."""
    return textwrap.shorten(repr(value), 60)


def expand(content: Mapping[str, Any], where: str = 'configuration') -> Config:
    r"""Expands short forms of options: :obj:`model: FREEDOM` becomes
    :obj:`model: {name: FREEDOM}`, and :obj:`epochs: 5` becomes
    :obj:`trainer: {epochs: 5}`.

    Args:
        content: The options, in short or full form.
        where: The source of the options, for error messages.
            (default: :obj:`'configuration'`)

    Raises:
        ConfigError: If a section is not a mapping, or a section is unknown.
    """
    config: Config = {}
    for key, value in content.items():
        if key in (*CHOICES, *SECTIONS) and isinstance(value, Mapping):
            options = {str(option): entry for option, entry in value.items()}
            config.setdefault(key, {}).update(options)
        elif key in SECTIONS:
            raise ConfigError(f"{where}: '{key}' must be a mapping of options (got {shown(value)})")
        else:
            _insert(config, SHORT.get(str(key), str(key)).split('.'), value, where)
    return config


def read_config(flags: Config) -> Config:
    r"""Merges flags with the file that :obj:`--config` names. Flags take
    precedence.
    """
    flags = dict(flags)
    path = flags.pop('config', None)
    return flags if path is None else merge(read_yaml(find_config(path)), flags)


def merge(*configs: Config) -> Config:
    r"""Merges configurations. Later ones take precedence. If a section changes
    its name, the options of the previous class are dropped.
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


def flatten(config: Config) -> dict[str, Any]:
    r"""Flattens a configuration to options by dotted name."""
    out: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict):
            out.update({f'{key}.{inner}': entry for inner, entry in value.items()})
        else:
            out[key] = value
    return out


def find_config(name: str, first: str | None = None) -> str:
    r"""Finds a configuration file by its path or, for files of the package, by
    name (:obj:`"recommended"`) or folder and name (:obj:`"model/GRCN"`).

    Args:
        name: A path or a name.
        first: The folder to search first. Without it, the folder
            :obj:`sweep`, whose files do not configure a single run, is
            skipped. (default: :obj:`None`)

    Raises:
        ConfigError: If no file or several files have this name.
    """
    name = osp.expanduser(name)
    if osp.exists(name) or osp.splitext(name)[1] in ('.yaml', '.yml') or osp.isabs(name):
        return name
    found: dict[str, str] = {}
    for path in sorted(glob(osp.join(config_folder(), '*', '*.yaml'))):
        section, file = path.split(os.sep)[-2:]
        if first is not None or section != 'sweep':
            found[f'{section}/{file[: -len(".yaml")]}'] = path
    keys = [key for key in found if name in (key, key.split('/')[1])]
    keys = [key for key in keys if key.split('/')[0] == first] or keys
    if len(keys) > 1:
        raise ConfigError(f"'{name}' is the name of several files: {', '.join(keys)}")
    if not keys:
        known = {key.split('/')[1] for key in found}
        raise ConfigError(
            f"'{name}' is neither a file nor the name of one that comes with the package"
            f'{suggest(name, known)}'
        )
    return found[keys[0]]


def config_folder() -> str:
    r"""Returns the folder of the configuration files: inside an installed
    package, and next to the package in a checkout.
    """
    package = osp.dirname(osp.dirname(osp.abspath(__file__)))
    inside = osp.join(package, 'configs')
    return inside if osp.isdir(inside) else osp.join(osp.dirname(package), 'configs')


def usage() -> str:
    r"""Returns the text of :obj:`--help`."""
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False, add_help=False)
    parser.add_class_arguments(General, None)
    heads = {
        'data': 'A data set by name, or a folder with NAME.inter',
        'model': 'A backbone',
        'items': 'What item vectors are computed from',
        'loss': 'The training loss',
    }
    lines = [
        'usage: python -m motor_geo.run [--config FILE.yaml|NAME] [--option value ...]',
        '',
        entry('--config', 'A file with options, or the name of one that comes with the package'),
        entry('--seeds', 'Train with several seeds, one after another: --seeds 0 1 2'),
        entry('--tune', 'Choose among a few settings of the model on validation'),
        entry('--control', 'Also train other item representations: --control id features'),
        entry('--print_config', 'Print every option with its value and exit'),
        *(entry(f'--{key}', text, CHOICES[key]) for key, text in heads.items()),
        *(entry(f'--{a.dest}', a.help or '', a.default) for a in parser._actions),
        *(entry(f'--{short}', f'The same as --{full}') for short, full in SHORT.items()),
    ]
    halves = SECTIONS[:4], SECTIONS[4:]
    lines += [
        '',
        'Name your own class by its import path: --model my_package.MyGNN. Every constructor',
        'argument is an option of its section, such as --model.num_layers 3. Files use the same',
        'names, and flags override them. These flags list names and options:',
        '',
        *(f'  --{section}.help [NAME]' for section in CHOICES),
        *(f'  {"  ".join(f"--{section}.help" for section in part)}' for part in halves),
    ]
    return '\n'.join(lines)


def entry(flag: str, text: str, default: Any = None, kind: str = '') -> str:
    r"""Formats an option with its type and default for a help text."""
    notes = [kind] if kind else []
    if default is MISSING:
        notes.append('required')
    elif kind or default is not None:
        notes.append(f'default: {plain(default)}')
    words = ' '.join([text.rstrip('.'), f'({", ".join(notes)})' if notes else ''])
    lines = textwrap.wrap(words, width=74, break_long_words=False, break_on_hyphens=False)
    if len(flag) > 22:
        lines.insert(0, '')
    lines[0] = f'{flag:24s}{lines[0]}'.rstrip()
    return '\n'.join(f'  {line}' if i == 0 else f'{"":26s}{line}' for i, line in enumerate(lines))


def plain(value: Any) -> str:
    r"""Formats a default as in a configuration file."""
    if isinstance(value, (list, tuple)):
        return f'[{", ".join(map(plain, value))}]'
    if value is None or isinstance(value, bool):
        return {None: 'null', True: 'true', False: 'false'}[value]
    return str(value)
