r"""Trains a recommender and evaluates it: :obj:`python -m motor_geo.run`."""

from __future__ import annotations

import os
import sys
import textwrap
import time
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from motor_geo.pipeline.flags import (
    CHOICES,
    Config,
    parse_flags,
    read_config,
    usage,
)
from motor_geo.utils.errors import ConfigError, run_command
from motor_geo.utils.memory import tune_process

if TYPE_CHECKING:
    from motor_geo.pipeline.config import RunConfig
    from motor_geo.pipeline.controls import Comparison


def table(result: dict[str, Any]) -> str:
    r"""Formats the final table of a run."""
    measured = result['test'] or result['val']
    ks = sorted({int(key.split('@')[1]) for key in measured if '@' in key})
    names: list[str] = []
    for key in result['test']:
        name = key.split('@')[0]
        if name not in names:
            names.append(name)
    rows = [(f'test {name}', 'test', name) for name in names]
    rows += [('val recall', 'val', 'recall'), ('popularity recall', 'popularity', 'recall')]
    lines = [f'{"":18s}' + ''.join(f'{f"@{k}":>10s}' for k in ks)] if ks else []
    for title, source, name in rows:
        values = [result[source].get(f'{name}@{k}', float('nan')) for k in ks]
        if result[source]:
            lines.append(f'{title:18s}' + ''.join(f'{value:10.4f}' for value in values))
    share = result['num_item_parameters']
    items = '' if result['items'] == 'none' else f' with {result["items"]} items'
    lines.append(
        f'{result["model"]}{items} on {result["data"]}, seed '
        f'{result["seed"]}: best epoch {result["best_epoch"]} of {result["epochs"]}, '
        f'{result["seconds"]:.1f} s ({result["seconds_per_epoch"]:.2f} s per epoch)'
    )
    lines.append(
        f'{result["num_parameters"]:,} parameters, '
        + (
            f'{share:,} of them in tables with one row per item'
            if share
            else 'none of them per item'
        )
    )
    return '\n'.join(lines)


def load_config(arguments: Sequence[str]) -> RunConfig:
    r"""Returns the configuration of command-line arguments."""
    from motor_geo.pipeline.config import RunConfig

    return RunConfig.of(read_config(parse_flags(arguments)))


#: The options of a run without any arguments.
MAIN_JOB = ('--control', 'id', 'features')
NEXT = """Next:
  python -m motor_geo.recommend {out} --k 10
  python -m motor_geo.run --data FOLDER --control id   # your own data
  python -m motor_geo.run --model TokenALS             # tokens in closed form
  python -m motor_geo.run --help"""


def show(found: Comparison) -> None:
    r"""Prints the table of a run and its controls, and the conclusion."""
    from motor_geo.pipeline.controls import conclusion
    from motor_geo.report.terminal import print_table

    has_new = found.chance is not None
    rows = [['popularity', found.popularity, found.chance]]
    rows += [
        [score.name, score.all.mean(), score.new.mean() if has_new else None]
        for score in found.scores
    ]
    columns = [f'test {found.metric}', 'all items', *(['new items'] if has_new else [])]
    cells = [[str(row[0]), *(f'{x:.4f}' for x in row[1:] if x is not None)] for row in rows]
    print()
    print_table(columns, cells)
    print(f'\n{textwrap.fill(conclusion(found), 96)}')


def show_users(folder: str, device: str) -> None:
    r"""Prints the history and the lists of a few users."""
    from motor_geo.pipeline.examples import examples

    print('\nThree random users (* marks items of their test set):')
    for user in examples(folder, device):
        print(user.user)
        for name, titles in (
            ('history', user.had),
            ('best items', user.gets),
            ('new items', user.new),
        ):
            print(f'  {name:13s}{"; ".join(titles)}')


def help_text(flags: Config) -> str | None:
    r"""Returns the text of :obj:`--model.help`, :obj:`--model.help FREEDOM` or
    :obj:`--model FREEDOM --model.help`, or :obj:`None` without such a flag.
    """
    for section, options in flags.items():
        if isinstance(options, dict) and 'help' in options:
            from motor_geo.pipeline.config import describe

            name = options['help'] if options['help'] != 'true' else options.get('name')
            return describe(section, name if section in CHOICES else None)
    return None


def main(arguments: Sequence[str] | None = None) -> int:
    tune_process()
    arguments = sys.argv[1:] if arguments is None else arguments

    def command() -> int:
        if '-h' in arguments or '--help' in arguments:
            print(usage())
            return 0
        flags = parse_flags(arguments or MAIN_JOB)
        controls = flags.pop('control', None)
        printed, seeds = flags.pop('print_config', None), flags.pop('seeds', None)
        tuned = flags.pop('tune', None)
        text = help_text(flags)
        if text is not None:
            print(text)
            return 0
        if tuned not in (None, 'true'):
            raise ConfigError(f"--tune: expected no value, got '{tuned}'")
        several = {'--control': controls, '--seeds': seeds, '--tune': tuned}
        for option, value in several.items():
            if value is not None and os.environ.get('WORLD_SIZE', '1') != '1':
                raise ConfigError(f'{option}: expected one process, without torchrun')
        if None not in (tuned, seeds):
            raise ConfigError('expected --tune or --seeds, got both')
        options = read_config(flags)
        from motor_geo.pipeline.config import RunConfig, dump
        from motor_geo.pipeline.train import default_folder, run

        config = RunConfig.of(options)
        if printed is not None:
            print(dump(config), end='')
            return 0
        if seeds is not None:
            from motor_geo.pipeline.seeds import read_seeds, run_seeds, seeds_table

            if 'seed' in flags:
                raise ConfigError('expected --seed or --seeds, got both')
            if controls is not None:
                raise ConfigError('expected --control or --seeds, got both')
            print(f'\n{seeds_table(run_seeds(config, read_seeds(seeds)))}')
            return 0
        out = config.out or default_folder(config)
        if tuned is not None:
            if controls is not None:
                raise ConfigError('expected --control or --tune, got both')
            from motor_geo.pipeline.tune import sentence, tune, tuned_folder

            result, out = tune(options), config.out or tuned_folder(config)
            print(f'\n{table(result)}')
            print(sentence(result['tuned']))
            print(f"written to '{out}'")
        elif controls is None:
            from motor_geo.parallel import World

            with World.start(os.environ) as world:
                if not world.is_first:
                    warnings.simplefilter('ignore')
                result = run(config, world=world)
            if not world.is_first:
                return 0
            print(f'\n{table(result)}')
            print(f"written to '{out}'")
        else:
            from motor_geo.pipeline.controls import control_configs, read_controls, run_controls

            found = run_controls(control_configs(options, read_controls(controls)))
            show(found)
            if not arguments:
                show_users(out, config.device)
            print(f'\nwritten to {", ".join(map(repr, found.folders))}')
        if config.report:
            from motor_geo.pipeline.page import write_last

            path = write_last(out, config.device)
            if path is not None:
                print(f"page: '{path}'")
        if not arguments:
            print(f'\n{NEXT.format(out=out)}')
        return 0

    def patient() -> int:
        try:
            return command()
        except Exception as error:
            # An error of all processes is printed once: torchrun ends the others.
            if int(os.environ.get('RANK', 0)) > 0:
                time.sleep(60 if isinstance(error, ConfigError) else 3)
            raise

    return run_command(
        patient, 'interrupted; run the same command to resume from the last finished epoch'
    )


if __name__ == '__main__':
    sys.exit(main())
