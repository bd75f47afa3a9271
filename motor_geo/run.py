r"""Trains a recommender and evaluates it: :obj:`python -m motor_geo.run`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from motor_geo.pipeline.config import Config, merge, parse_flags, read_yaml, resolve, usage
from motor_geo.pipeline.train import default_folder, run
from motor_geo.utils.errors import one_line, plain_log, plain_warnings
from motor_geo.utils.memory import tune_process


def table(result: dict[str, Any]) -> str:
    r"""The closing table."""
    ks = sorted({int(key.split('@')[1]) for key in result['test'] if '@' in key})
    names: list[str] = []
    for key in result['test']:
        name = key.split('@')[0]
        if name not in names:
            names.append(name)
    lines = [f'{"":18s}' + ''.join(f'{f"@{k}":>10s}' for k in ks)]
    for name in names:
        cells = ''.join(f'{result["test"].get(f"{name}@{k}", float("nan")):10.4f}' for k in ks)
        lines.append(f'test {name:13s}{cells}')
    for title, source in (('val recall', 'val'), ('popularity recall', 'popularity')):
        cells = ''.join(f'{result[source].get(f"recall@{k}", float("nan")):10.4f}' for k in ks)
        lines.append(f'{title:18s}{cells}')
    share = result['num_item_parameters']
    lines.append(
        f'{result["model"]} with {result["items"]} items on {result["data"]}, seed '
        f'{result["seed"]}: best epoch {result["best_epoch"]} of {result["epochs"]}, '
        f'{result["seconds"]:.1f} s ({result["seconds_per_epoch"]:.2f} s per epoch)'
    )
    lines.append(
        f'{result["num_parameters"]:,} parameters, '
        + (f'{share:,} of them in tables with a row per item' if share else 'none of them per item')
    )
    return '\n'.join(lines)


def load_config(arguments: Sequence[str]) -> Config:
    r"""The resolved configuration of command-line arguments."""
    flags = parse_flags(arguments)
    path = flags.pop('config', None)
    return resolve(merge(read_yaml(path), flags) if path is not None else flags)


def main(arguments: Sequence[str] | None = None) -> int:
    tune_process()
    arguments = sys.argv[1:] if arguments is None else arguments
    if '-h' in arguments or '--help' in arguments:
        print(usage())
        return 0
    try:
        with plain_warnings(), plain_log():
            config = load_config(arguments)
            result = run(config)
    except (ValueError, OSError, FloatingPointError, ImportError) as error:
        print(f'error: {one_line(error)}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print('\ninterrupted; the same command goes on from the last finished epoch')
        return 130
    print()
    print(table(result))
    print(f"written to '{config['out'] or default_folder(config)}'")
    return 0


if __name__ == '__main__':
    sys.exit(main())
