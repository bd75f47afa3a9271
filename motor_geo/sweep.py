r"""Searches hyper-parameters on validation: :obj:`python -m motor_geo.sweep`."""

from __future__ import annotations

import os.path as osp
import sys
from collections.abc import Sequence
from typing import Any

from motor_geo.pipeline.flags import find_config, parse_flags
from motor_geo.utils.errors import ConfigError, run_command
from motor_geo.utils.memory import tune_process

USAGE = """usage: python -m motor_geo.sweep [--config FILE.yaml|NAME] [--option value ...]

Searches hyper-parameters on validation. A file holds options of motor_geo.run and a mapping
'search' from options to lists of choices or to ranges {low: 0.1, high: 0.9, log: false}. If all
entries are lists, the search is a grid search. With ranges, Optuna's TPE proposes the trials.
Run the same command again to resume a sweep. Several processes may share a sweep,
also on several machines that share the folder.

  --config FILE   A file, or the name of one that comes with the package
  --space FILE    A second file. Its options and choices override those of the first
  --trials N      Number of trials: random combinations of a grid (default: all), or samples from
                  ranges (default: 20)
  --out FOLDER    Folder of the sweep (default: sweeps/DATA-MODEL-ITEMS-seedSEED)
  --retry         Try failed trials again
  --storage URL   Storage of Optuna that gets a copy of all trials, for its dashboard, such as
                  sqlite:///trials.db
  --option VALUE  Any option of motor_geo.run, applied to all trials, such as --data FOLDER"""


def table(summary: dict[str, Any]) -> str:
    r"""Formats the final table of all trials."""
    metric = summary['metric']
    rows = [[*summary['trials'][0]['options'], f'val {metric}', 'best epoch', 'seconds']]
    for row in summary['trials']:
        value = row['state'] if row[metric] is None else f'{row[metric]:.4f}'
        cells = [*row['options'].values(), value, row['best_epoch'] or '-', row['seconds'] or '-']
        rows.append([f'{x:.4g}' if isinstance(x, float) else str(x) for x in cells])
    widths = [max(len(cell) for cell in column) for column in zip(*rows)]
    return '\n'.join('  '.join(c.rjust(w) for c, w in zip(row, widths)) for row in rows)


def main(arguments: Sequence[str] | None = None) -> int:
    tune_process()
    arguments = sys.argv[1:] if arguments is None else arguments
    if '-h' in arguments or '--help' in arguments:
        print(USAGE)
        return 0
    return run_command(lambda: command(arguments), 'interrupted; run the same command to resume')


def command(arguments: Sequence[str]) -> int:
    r"""Parses the arguments, searches, and prints all trials."""
    flags = parse_flags(arguments)
    trials = flags.pop('trials', None)
    if trials is not None and not (trials.isdecimal() and int(trials) > 0):
        raise ConfigError(f"--trials: expected a positive integer, got '{trials}'")
    paths = [
        find_config(flags.pop(key), first='sweep') for key in ('config', 'space') if key in flags
    ]
    out, retry = flags.pop('out', None), flags.pop('retry', 'false')
    storage = flags.pop('storage', None)
    if retry not in ('true', 'false'):
        raise ConfigError(f"--retry: expected no value, got '{retry}'")

    from motor_geo.experiments.search import read_space
    from motor_geo.experiments.sweep import Sweep
    from motor_geo.pipeline.train import default_folder

    space = read_space(paths, flags)
    out = (
        osp.expanduser(out) if out else osp.join('sweeps', osp.basename(default_folder(space.base)))
    )
    sweep = Sweep(space, out, None if trials is None else int(trials), storage)
    if retry == 'true':
        sweep.retry()
    summary = sweep.fit()
    states = [row['state'] for row in summary['trials']]
    print(f'\n{table(summary)}')
    if 'open' in states:
        print(f'{states.count("open")} of them are still running in other processes')
    if 'finished' not in states:
        raise ConfigError('no trial has finished')
    print(f"best options: '{osp.join(out, 'best.yaml')}', for python -m motor_geo.run --config")
    return 0


if __name__ == '__main__':
    sys.exit(main())
