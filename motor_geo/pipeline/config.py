r"""The configuration of a run: one frozen object with every option. Each
hyper-parameter is declared once, in the constructor that takes it. Its name,
type, default and description are read from there.
"""

from __future__ import annotations

import copy
import inspect
import os
import os.path as osp
import re
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

import yaml
from torch import nn

from motor_geo.data import DATASETS, InteractionSVD, ItemKNN, OPQTokenizer, TableDataset
from motor_geo.data import RecommendationDataset as Dataset
from motor_geo.engine.evaluator import Evaluator
from motor_geo.engine.trainer import Trainer
from motor_geo.nn import FeatureProjection, IDEmbedding, TokenCrossEncoder
from motor_geo.nn.models import FITTED, MODELS, FittedRecommender, Recommender
from motor_geo.nn.objective import LOSSES, RankingLoss
from motor_geo.nn.token_cross import MODES
from motor_geo.nn.unseen import UnseenItems
from motor_geo.parallel import Mesh
from motor_geo.pipeline.flags import (
    CHOICES,
    GENERAL,
    PRESETS,
    SECTIONS,
    SHORT,
    Config,
    General,
    entry,
    expand,
    flatten,
    merge,
    parse_flags,
    read_yaml,
    shown,
)
from motor_geo.utils.errors import ConfigError, one_line, suggest
from motor_geo.utils.files import atomic_write
from motor_geo.utils.plugin import import_class, names, plugins

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

__all__ = [
    'CHOICES',
    'FIXED',
    'GENERAL',
    'ITEMS',
    'NO_ITEMS',
    'Config',
    'RunConfig',
    'flatten',
    'merge',
    'parse_flags',
    'read_yaml',
    'resolve',
    'write_yaml',
]


#: The mode of the token network for each value of ``--items``.
MODE_OF = {'recommended': 'mean', **{mode: mode for mode in MODES}}
ITEMS: dict[str, type] = {
    'id': IDEmbedding,
    **dict.fromkeys(MODE_OF, TokenCrossEncoder),
    'features': FeatureProjection,
}
#: The value of ``--items`` for models that take no item encoder.
NO_ITEMS = 'none'
#: Sections with one class.
FIXED: dict[str, type] = {
    'tokenizer': OPQTokenizer,
    'svd': InteractionSVD,
    'graph': ItemKNN,
    'unseen': UnseenItems,
    'trainer': Trainer,
    'evaluator': Evaluator,
    'parallel': Mesh,
}
#: For each section, the classes by name, the base classes of a class from another package, the
#: entry-point group in which packages register their classes, and the word used in messages.
KINDS: dict[str, tuple[Mapping[str, type], tuple[type, ...], str, str]] = {
    'data': (DATASETS, (Dataset,), 'motor_geo.datasets', 'data set'),
    'model': (
        {**MODELS, **FITTED},
        (Recommender, FittedRecommender),
        'motor_geo.models',
        'model',
    ),
    'items': (ITEMS, (nn.Module,), 'motor_geo.items', 'item encoder'),
    'loss': (LOSSES, (RankingLoss,), 'motor_geo.losses', 'loss'),
}
#: Constructor arguments that are not options because the assembly sets them.
DERIVED = {
    'model': {'data', 'item_encoder', 'edge_type'},
    'items': {
        *('num_tokens', 'codebook_size', 'num_near'),
        *('out_channels', 'num_items', 'in_channels'),
    },
    'data': {'transform', 'pre_transform', 'on_disk'},
    'tokenizer': {'verbose', 'node_type', 'edge_type'},
    'svd': {'modality', 'modalities', 'cache', 'edge_type'},
    'graph': {'weighting', 'node_type'},
    'trainer': {
        *('model', 'data', 'evaluator', 'seed', 'out', 'fingerprint', 'callbacks'),
        *('user_names', 'edge_type'),
    },
    'evaluator': {'targets', 'train_edge_index', 'num_items', 'exclude', 'seed', 'shard'},
}
#: OpenMP crashes with more threads.
MOST_THREADS = 1024
#: Arguments of named item encoders that are not options because the name determines them.
NAMED = {'id': {'xavier'}, **dict.fromkeys(MODE_OF, {'mode'})}

Section = Mapping[str, Any]


class NoItems(nn.Module):
    r"""A placeholder for models that take no item encoder."""


@dataclass(frozen=True, kw_only=True)
class RunConfig(General):
    r"""Every option of a run. A section maps the arguments of a constructor to
    their values. The sections :obj:`data`, :obj:`model`, :obj:`items` and
    :obj:`loss` also have the :obj:`name` of the class.

    Args:
        data: The data set.
        model: The backbone.
        items: The item encoder.
        loss: The training loss.
        tokenizer: Options of :class:`~motor_geo.data.OPQTokenizer`.
        svd: Options of :class:`~motor_geo.data.InteractionSVD`.
        graph: Options of :class:`~motor_geo.data.ItemKNN`.
        unseen: Options of :class:`~motor_geo.nn.UnseenItems`.
        trainer: Options of :class:`~motor_geo.engine.trainer.Trainer`.
        evaluator: Options of :class:`~motor_geo.engine.evaluator.Evaluator`.
        parallel: Options of :class:`~motor_geo.parallel.Mesh`.
        **options: Options outside the sections.
    """

    data: Section
    model: Section
    items: Section
    loss: Section
    tokenizer: Section
    svd: Section
    graph: Section
    unseen: Section
    trainer: Section
    evaluator: Section
    parallel: Section

    def __post_init__(self) -> None:
        for key in (*CHOICES, *SECTIONS):
            object.__setattr__(self, key, MappingProxyType(dict(getattr(self, key))))

    @classmethod
    def of(cls, config: RunConfig | Config) -> RunConfig:
        r"""Checks a configuration against the constructors that it names, and
        fills in all defaults.

        Raises:
            ConfigError: If a key is unknown (the message suggests a known one)
                or a value has the wrong type.
        """
        if isinstance(config, RunConfig):
            return config
        config = with_preset(expand(config))
        known = [*CHOICES, *FIXED, *GENERAL]
        for key in config:
            if key not in known:
                names = [*known, *SHORT, 'config']
                raise ConfigError(f"Unknown option '{key}'{suggest(key, names)}")
        sections: Config = {}
        for section, default in CHOICES.items():
            options = dict(config.get(section, {}))
            if section == 'items':
                default = _check_items(sections['model']['name'], options)
            name = str(options.pop('name', default))
            if section == 'data' and osp.exists(osp.expanduser(name)) and name not in DATASETS:
                # `recommend` may run from another working directory.
                name = osp.abspath(osp.expanduser(name))
                options['path'] = name
            target = find_class(section, name)
            checked = check(section, target, options, name)
            if is_folder(section, name):
                del checked['path']  # The name already holds it.
            sections[section] = {'name': name, **checked}
        for section, target in FIXED.items():
            sections[section] = check(section, target, config.get(section, {}), section)
        given = {key: config[key] for key in GENERAL if config.get(key) is not None}
        return cls(**sections, **_check_general(given))

    def to_dict(self) -> Config:
        r"""Returns the configuration as written to :obj:`config.yaml`."""
        sections = {key: dict(getattr(self, key)) for key in (*CHOICES, *SECTIONS)}
        return copy.deepcopy({**sections, **{key: getattr(self, key) for key in GENERAL}})

    def options(self, section: str) -> Config:
        r"""Returns the constructor arguments of a section."""
        out = dict(getattr(self, section))
        name = out.pop('name', '')
        return {'path': name, **out} if is_folder(section, name) else out

    def target(self, section: str) -> Any:
        r"""Returns the class of a section."""
        if section in FIXED:
            return FIXED[section]
        return find_class(section, getattr(self, section)['name'])

    def reads(self, *arguments: str) -> bool:
        r"""Whether the item encoder takes any of the given arguments."""
        return not arguments_of(self.target('items')).keys().isdisjoint(arguments)

    @property
    def reads_tokens(self) -> bool:
        r"""Whether the item encoder reads tokens."""
        return reads_tokens(self.items['name'])

    def __reduce__(self) -> tuple[Any, ...]:
        return RunConfig._load, (self.to_dict(),)

    @classmethod
    def _load(cls, config: Config) -> RunConfig:
        return cls(**config)


def with_preset(config: Config) -> Config:
    r"""Adds the preset options of the item representation and of the loss.
    Options that are given take precedence. With ``--items recommended`` and no
    loss, this also selects the loss that the backbone recommends.
    """

    def name(section: str) -> str:
        return str(config.get(section, {}).get('name', CHOICES[section]))

    model = find_class('model', name('model'))
    if not takes_items(model):
        return config
    if name('items') == 'recommended' and 'name' not in config.get('loss', {}):
        loss = getattr(model, 'recommended_loss', CHOICES['loss'])
        config = merge({'loss': {'name': loss}}, config)
    for section in PRESETS:
        preset = PRESETS[section].get(name(section), {})
        if 'behavior' in preset and not _convert('behavior', bool, config.get('behavior', True)):
            tokens = preset['tokenizer']['num_tokens']['*']  # No modality differs.
            preset = merge(preset, {'tokenizer': {'num_tokens': tokens}})
        config = merge(preset, config)
    return config


def is_folder(section: str, name: str) -> bool:
    r"""Whether the name of a data set is the path to its files."""
    return section == 'data' and osp.isabs(name)


def resolve(config: RunConfig | Config) -> Config:
    r"""Returns the configuration of :meth:`RunConfig.of` as a dictionary."""
    return RunConfig.of(config).to_dict()


def takes_items(target: type) -> bool:
    r"""Whether a model takes an item encoder."""
    return 'item_encoder' in arguments_of(target)


def _check_items(model: str, options: Section) -> str:
    r"""Returns the default item encoder of a model.

    Raises:
        ConfigError: If the options name an item encoder that the model does
            not take.
    """
    takes, name = takes_items(find_class('model', model)), options.get('name')
    if not takes and name not in (None, NO_ITEMS):
        raise ConfigError(f'--items {name}: {model} takes no item encoder; remove --items')
    if takes and name == NO_ITEMS:
        raise ConfigError(f'--items {name}: {model} takes an item encoder, such as --items id')
    return CHOICES['items'] if takes else NO_ITEMS


def find_class(section: str, name: str) -> type:
    r"""Returns the class that a section names by a registered name, an entry
    point, or an import path.

    Args:
        section: The section, such as :obj:`'model'`.
        name: The name.

    Raises:
        ConfigError: If the class does not exist or has the wrong base class.
    """
    classes, base, group, word = KINDS[section]
    if name in classes:
        return classes[name]
    if section == 'items' and name == NO_ITEMS:
        return NoItems
    if section == 'data' and osp.exists(osp.expanduser(name)):
        return TableDataset
    if section == 'data' and os.sep in name:
        raise ConfigError(f"--data: '{name}' does not exist; expected a folder with NAME.inter")
    found = plugins(group)
    dotted = '.' in name and all(part.isidentifier() for part in name.split('.'))
    if name in found or dotted:
        try:
            target = import_class(found.get(name, name), base)
        except ValueError as error:
            also = 'is not a folder, and ' if section == 'data' else ''
            raise ConfigError(f"--{section}: '{name}' {also}{error}") from error
        needed = ['data', 'item_encoder', 'channels'] if issubclass(target, Recommender) else []
        missing = [key for key in needed if key not in arguments_of(target)]
        if missing:
            raise ConfigError(
                f"--{section}: '{name}' takes no argument '{missing[0]}'; expected a constructor "
                'with the arguments data, item_encoder and channels'
            )
        return target
    known = [*classes, *found]
    if section == 'data':
        raise ConfigError(
            f"--data: '{name}' is neither a folder nor a registered name{suggest(name, known)}"
        )
    hint = suggest(name, known)
    if name.isidentifier():
        own = f'an import path such as my_package.{name}'
        hint += f' Or give {own}' if hint.endswith('?') else f', or {own}'
    raise ConfigError(f"--{section}: unknown {word} '{name}'{hint}")


def reads_tokens(items: str) -> bool:
    r"""Whether an item encoder reads tokens."""
    return (
        not arguments_of(find_class('items', items))
        .keys()
        .isdisjoint(('num_tokens', 'codebook_size'))
    )


def arguments_of(target: type) -> dict[str, inspect.Parameter]:
    r"""Returns the arguments of a constructor, including those that it passes
    to its base class as :obj:`**kwargs`.
    """
    out: dict[str, inspect.Parameter] = {}
    for cls in target.__mro__:
        if '__init__' in vars(cls) and cls is not object:
            own = inspect.signature(vars(cls)['__init__']).parameters
            kinds = {parameter.kind for parameter in own.values()}
            for key, parameter in list(own.items())[1:]:
                if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
                    out.setdefault(key, parameter)
            if inspect.Parameter.VAR_KEYWORD not in kinds:
                break
    return out


@cache
def schema(section: str, target: type, hidden: frozenset[str]) -> ArgumentParser:
    r"""Builds a parser for the options of a class."""
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False, add_help=False)
    skip = {key for key in hidden if key in arguments_of(target)}
    parser.add_class_arguments(target, None, skip=skip, fail_untyped=False)
    return parser


def derived(section: str, name: str) -> frozenset[str]:
    r"""Returns the arguments of a class that are not options."""
    own = NAMED.get(name, set()) if section == 'items' else set()
    return frozenset(DERIVED.get(section, set()) | own)


def check(section: str, target: type, options: Section, name: str) -> Config:
    r"""Checks options against the signature of :obj:`target`.

    Args:
        section: The section of the options.
        target: The class.
        options: The options, by argument.
        name: The name of the class in messages.

    Returns:
        The converted options, with all defaults.

    Raises:
        ConfigError: If an option is unknown, missing or has the wrong type.
    """
    hidden = derived(section, name)
    arguments = {k: v for k, v in arguments_of(target).items() if k not in hidden}
    for key in options:
        if key not in arguments:
            known = suggest(key, arguments) if arguments else '; it has no options'
            raise ConfigError(f"Unknown option '{section}.{key}' of {name}{known}")
    hints = hints_of(target)
    for key, parameter in arguments.items():
        if parameter.default is parameter.empty and key not in options:
            kind = spell(hints[key]) if key in hints else 'a value'
            raise ConfigError(f'{section}.{key}: expected {kind}; {name} requires this option')
    try:
        return schema(section, target, hidden).parse_object(dict(options)).as_dict()
    except Exception as error:
        for key, value in options.items():
            _convert(f'{section}.{key}', hints.get(key, Any), value)
        raise ConfigError(f"In section '{section}' of {name}: {one_line(error)}") from error


def hints_of(target: type) -> dict[str, Any]:
    r"""Returns the types of the arguments of a constructor."""
    out: dict[str, Any] = {}
    for cls in reversed(target.__mro__):
        if '__init__' in vars(cls) and cls is not object:
            try:
                out.update(get_type_hints(vars(cls)['__init__']))
            except NameError:  # A type that another package imports for type checkers only.
                continue
    return out


def _check_general(options: Config) -> Config:
    kinds = {key: get_args(kind) or (kind,) for key, kind in get_type_hints(General).items()}
    if isinstance(options.get('logger'), str) and not options['logger'].startswith('['):
        options['logger'] = [options['logger']]
    for key, value in options.items():
        options[key] = _convert(key, kinds[key][0], value)
    out = {**GENERAL, **options}
    if out['out'] is not None:
        out['out'] = osp.expanduser(out['out'])
    if not 0 <= out['seed'] < 2**63:
        raise ConfigError(f'seed: expected 0 or more, below 2^63, got {out["seed"]}')
    for key, allowed in (('cold_candidates', ('unseen', 'all')), ('users', ('table', 'items'))):
        if out[key] not in allowed:
            raise ConfigError(f"{key}: expected {' or '.join(allowed)}, got '{out[key]}'")
    if out['threads'] is not None and out['threads'] < 1:
        raise ConfigError(f'threads: expected at least 1, got {out["threads"]}')
    if out['threads'] is not None and out['threads'] > MOST_THREADS:
        raise ConfigError(f'threads: expected at most {MOST_THREADS}, got {out["threads"]}')
    return out


def _convert(key: str, kind: Any, value: Any) -> Any:
    r"""Converts a single value to the expected type."""
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument('--value', type=kind)
    try:
        return parser.parse_object({'value': value}).value
    except Exception as error:
        raise ConfigError(f'{key}: expected {spell(kind)}, got {shown(value)}') from error


def spell(kind: Any) -> str:
    r"""Describes a type in words."""
    if kind is type(None):
        return 'null'
    if kind is bool:
        return 'true or false'
    if get_origin(kind) is Callable:
        return 'function'
    inner = [spell(entry) for entry in get_args(kind)]
    if not inner:
        return getattr(kind, '__name__', str(kind))
    origin = get_origin(kind)
    if not inspect.isclass(origin) or origin.__module__ == 'types':  # A union.
        return ' or '.join(inner)
    return f'{"a mapping" if len(inner) == 2 else "a list"} of {" to ".join(inner)}'


def write_yaml(config: RunConfig | Config, path: str) -> None:
    r"""Writes a resolved configuration. Reading the file restores it."""
    with atomic_write(path) as temporary, open(temporary, 'w') as file:
        file.write(dump(config))


def dump(config: RunConfig | Config) -> str:
    r"""Returns a configuration as YAML."""
    if isinstance(config, RunConfig):
        config = config.to_dict()
    return yaml.safe_dump(config, sort_keys=False)


def describe(section: str, name: str | None = None) -> str:
    r"""Returns the text of :obj:`--model.help FREEDOM`: every option with its
    type, default and description. Without a name, lists the available classes.

    Args:
        section: The section, such as :obj:`'model'`.
        name: The name of the class. (default: :obj:`None`)

    Raises:
        ConfigError: If the class does not exist.
    """
    if section in CHOICES and name is None:
        classes, base, group, word = KINDS[section]
        lines = [f'Names for --{section} (default: {CHOICES[section]}):', '']
        lines += [entry(key, first_sentence(target)) for key, target in classes.items()]
        lines += [entry(key, path) for key, path in plugins(group).items() if key not in classes]
        if section == 'data':
            lines.append(entry('FOLDER', first_sentence(TableDataset)))
        lines += [
            entry('package.Class', f'any {word} derived from {names(base)}, by its import path'),
            '',
            f'--{section}.help NAME lists the options of NAME.',
        ]
        return '\n'.join(lines)
    target = FIXED[section] if section in FIXED else find_class(section, str(name))
    hidden = derived(section, str(name))
    arguments, hints = arguments_of(target), hints_of(target)
    lines = [*textwrap.wrap(f'{first_sentence(target)}.', 100), '']
    options = [a for a in schema(section, target, hidden)._actions if a.dest in arguments]
    for action in options:
        default = arguments[action.dest].default
        lines.append(
            entry(
                f'--{section}.{action.dest}',
                plain_text(action.help or ''),
                MISSING if default is inspect.Parameter.empty else default,
                spell(hints.get(action.dest, Any)),
            )
        )
    return '\n'.join(lines if options else [*lines, '  no options'])


def first_sentence(target: type) -> str:
    r"""Returns the first sentence of the docstring of a class."""
    text = plain_text((inspect.getdoc(target) or target.__name__).split('\n\n')[0])
    return text.split('. ')[0].rstrip('.,;:')


def plain_text(text: str) -> str:
    r"""Removes the markup of reStructuredText and of formulas from a text."""
    text = ' '.join(text.split())
    for word, spelled in (('None', 'null'), ('True', 'true'), ('False', 'false')):
        text = text.replace(f':obj:`{word}`', spelled)
    text = re.sub(r':(?:class|meth|func|mod):`~?(?:[\w.]*\.)?([^`]*)`', r'\1', text)
    text = re.sub(r':\w+:`([^`]*)`', r'\1', text)
    text = re.sub(r'`"?([^`<"]*)"?\s*<([^>`]*)>`_', r'"\1" (\2)', text)
    text = re.sub(r'\\(?:math\w+|boldsymbol|text\w*)\{([^}]*)\}', r'\1', text)
    return re.sub(r'``|\\(?=\w)', '', text)
