r"""Dispatches all commands: :obj:`motor-geo`, or :obj:`python -m motor_geo`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from motor_geo import __version__
from motor_geo.utils.errors import suggest

#: For each command, the module with its function :obj:`main`, and a description.
COMMANDS = {
    'run': ('motor_geo.run', 'train a recommender and evaluate it'),
    'recommend': ('motor_geo.recommend', 'write top-k lists from a finished run'),
    'explain': ('motor_geo.pipeline.explain', 'explain why an item is recommended to a user'),
    'export': ('motor_geo.pipeline.export', 'write an index or vectors of a finished run'),
    'bundle': ('motor_geo.pipeline.bundle', 'copy a run with everything needed to serve it'),
    'update': ('motor_geo.pipeline.update', 'continue a run with new interactions and items'),
    'data': ('motor_geo.pipeline.cards', 'show where public data sets come from'),
    'shard': ('motor_geo.pipeline.shard', 'write a data set as files of consecutive users'),
    'features': ('motor_geo.pipeline.features', 'compute features of titles and pictures'),
    'sweep': ('motor_geo.sweep', 'search hyper-parameters on validation'),
    'reproduce': ('motor_geo.reproduce', 'run the experiments of the papers and report them'),
    'report': ('motor_geo.pipeline.page', 'write an HTML page about a finished run'),
    'tokens': ('motor_geo.pipeline.tokens', 'fit the tokens of a data set and measure them'),
    'compare': ('motor_geo.experiments.compare', 'compare finished runs, with tests per user'),
    'doctor': ('motor_geo.pipeline.doctor', 'show versions, threads, kernels and the cache'),
}


def usage() -> str:
    r"""Returns the text of :obj:`--help`."""
    return '\n'.join(
        [
            'usage: motor-geo COMMAND [OPTIONS]',
            '',
            'commands:',
            *(f'  {name:11s}{text}' for name, (_, text) in COMMANDS.items()),
            '',
            'options:',
            '  --version  print the version',
            '  --help     print this text, or after a command its options',
        ]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    name, *rest = arguments or ['--help']
    if name in ('-h', '--help'):
        print(usage())
        return 0
    if name == '--version':
        print(f'motor-geo {__version__}')
        return 0
    if name not in COMMANDS:
        hint = suggest(name, COMMANDS)
        print(f"error: unknown command '{name}'{hint}", file=sys.stderr)
        return 2
    try:
        return int(importlib.import_module(COMMANDS[name][0]).main(rest))
    except KeyboardInterrupt:
        print('\ninterrupted', file=sys.stderr)
        return 130


if __name__ == '__main__':
    sys.exit(main())
