r"""Parses the options of :obj:`python -m motor_geo.reproduce`."""

from __future__ import annotations

import argparse
import math
import os.path as osp
from collections.abc import Sequence
from typing import TYPE_CHECKING

from motor_geo.experiments.registry import ALIASES, EXPERIMENTS
from motor_geo.pipeline.flags import Config, flatten, parse_flags
from motor_geo.utils.errors import ConfigError, suggest

if TYPE_CHECKING:
    from motor_geo.experiments.options import ExperimentOptions
    from motor_geo.experiments.runner import Reproduction


def parser() -> argparse.ArgumentParser:
    r"""Builds the parser of the command. All other options are options of runs."""
    names = '\n'.join(f'  {name:18s}{entry.title}' for name, entry in EXPERIMENTS.items())
    out = argparse.ArgumentParser(
        prog='python -m motor_geo.reproduce',
        description='Runs an experiment of a paper and writes a report.',
        epilog=f'experiments:\n{names}\n\nFurther options (--trainer.patience 50) are those of '
        'motor_geo.run and apply to all runs.\nRun the same command again to resume. Processes may '
        'share --out.',
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    out.add_argument('name', metavar='NAME', nargs='?', help='the experiment (see below)')
    out.add_argument(
        '--data',
        nargs='+',
        metavar='FOLDER',
        default=['synthetic'],
        help='folders or names of data sets (default: synthetic)',
    )
    out.add_argument(
        '--models',
        nargs='+',
        metavar='MODEL',
        help='backbones and baselines, by name or import path (default: those of the paper)',
    )
    out.add_argument(
        '--seeds',
        nargs='+',
        metavar='SEED',
        type=int,
        default=[0, 1, 2],
        help='seeds for the chosen settings (default: 0 1 2)',
    )
    out.add_argument(
        '--effort',
        metavar='N',
        type=int,
        default=3,
        help='maximum number of settings to try on validation for each variant (default: 3)',
    )
    out.add_argument(
        '--grid',
        metavar='OPTION=VALUE,VALUE',
        help='settings to try for each backbone (default: `reproduce` in configs/sweep/NAME.yaml)',
    )
    out.add_argument(
        '--budget',
        metavar='HOURS',
        type=float,
        default=math.inf,
        help='start no run after this many hours (default: no limit)',
    )
    out.add_argument('--retry', action='store_true', help='retry failed runs')
    out.add_argument(
        '--jobs', metavar='N', type=int, default=1, help='number of parallel runs (default: 1)'
    )
    out.add_argument('--threads', metavar='N', type=int, help='number of threads per run')
    out.add_argument('--device', default='auto', help='auto, cpu or cuda (default: auto)')
    out.add_argument(
        '--out',
        metavar='FOLDER',
        type=osp.expanduser,
        help='folder of the runs and the report (default: reproduction)',
    )
    out.add_argument(
        '--report', metavar='NAME', help='name of the report files (default: the experiment)'
    )
    out.add_argument(
        '--render',
        type=osp.expanduser,
        metavar='FOLDER',
        help='only write the pages of the reports in FOLDER (NAME.jsonl), to --out if given',
    )
    return out


def prepare(arguments: Sequence[str]) -> tuple[argparse.Namespace, Reproduction]:
    r"""Checks the arguments of the command, and builds the reproduction.

    Raises:
        ConfigError: If an argument is invalid.
    """
    from motor_geo.experiments.runner import Reproduction
    from motor_geo.report.document import NAMING, valid_name

    options, rest = parser().parse_known_args(arguments)
    options.out = options.out or 'reproduction'
    if options.name is None:
        raise ConfigError('Expected the NAME of an experiment, or --render FOLDER')
    name = ALIASES.get(options.name, options.name)
    if name not in EXPERIMENTS:
        raise ConfigError(f"Unknown experiment '{options.name}'{suggest(name, EXPERIMENTS)}")
    for key in ('jobs', 'effort'):
        if getattr(options, key) < 1:
            raise ConfigError(f'--{key}: expected at least 1, got {getattr(options, key)}')
    if min(options.seeds) < 0 or len(set(options.seeds)) < len(options.seeds):
        raise ConfigError(f'--seeds: expected distinct non-negative integers, got {options.seeds}')
    options.name = name
    options.report = options.report or name
    if not valid_name(options.report):
        raise ConfigError(f'--report: {NAMING}, got {options.report!r}')
    flags = flatten(parse_flags(rest))
    for key in ('seed', 'out', 'config'):
        if key in flags:
            raise ConfigError(f'--{key} cannot be set for all runs')
    general: Config = {'device': options.device}
    if options.threads is not None:
        general['threads'] = options.threads
    experiment = read_options(options, flags)
    out = Reproduction(EXPERIMENTS[name], experiment, options.out, options.seeds, general)
    return options, out


def read_options(options: argparse.Namespace, flags: Config) -> ExperimentOptions:
    r"""Returns the data sets, backbones and settings of an experiment.

    Raises:
        ConfigError: If a data set or a backbone is unknown, or occurs twice.
    """
    from motor_geo.experiments.baselines import BASELINES
    from motor_geo.experiments.options import ExperimentOptions, backbone, short
    from motor_geo.experiments.search import override
    from motor_geo.pipeline.assemble import build_dataset, check_splits
    from motor_geo.pipeline.config import resolve

    data, modalities, sizes = {}, {}, {}
    own = {key: value for key, value in flags.items() if key.startswith('data.')}
    for folder in options.data:
        dataset = build_dataset(resolve(override({}, {'data': folder, **own})))
        check_splits(dataset, 'val', 'test')
        if dataset.name in data:
            raise ConfigError(f"--data: '{dataset.name}' occurs twice")
        data[dataset.name], modalities[dataset.name] = folder, dataset.modalities
        sizes[dataset.name] = dataset.num_users, dataset.num_items
    models = tuple(options.models) if options.models else None
    names = [short(model) for model in models or ()]
    for model, name in zip(models or (), names):
        if model not in BASELINES:
            backbone(model)
        if names.count(name) > 1:
            raise ConfigError(f"--models: '{name}' occurs twice")
    grid = read_grid(options.grid, flags) if options.grid else ()
    if len(grid) > options.effort:
        raise ConfigError(f'--grid: {len(grid)} values, but --effort tries only {options.effort}')
    return ExperimentOptions(data, modalities, models, options.effort, flags, sizes, grid)


def read_grid(text: str, flags: Config) -> tuple[Config, ...]:
    r"""Parses settings of the form :obj:`OPTION=VALUE,VALUE`.

    Raises:
        ConfigError: If the text has another form, or the option is set for all
            runs.
    """
    name, _, values = text.partition('=')
    entries = values.split(',')
    if not all([name, *entries]):
        raise ConfigError(f'--grid: expected OPTION=VALUE,VALUE, got {text!r}')
    if name in flags:
        raise ConfigError(f'--grid: --{name} is already set for all runs')
    return tuple(flatten(parse_flags([f'--{name}', value])) for value in entries)
