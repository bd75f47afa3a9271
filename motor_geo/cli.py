r"""The command :obj:`motor-geo`, with a subcommand for every command."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Sequence

from motor_geo import __version__

#: Modules with a function :obj:`main`, and what they do.
COMMANDS = {
    'run': 'train a recommender and evaluate it',
    'recommend': 'write top-k lists from a finished run',
    'sweep': 'search hyper-parameters on validation',
    'reproduce': 'run the experiments of the papers and report them',
}


def usage() -> str:
    lines = ['usage: motor-geo COMMAND [OPTIONS]', '', 'commands:']
    lines += [f'  {name:11s}{text}' for name, text in COMMANDS.items()]
    lines += [
        '',
        'options:',
        '  --version  the version',
        '  --help     this text; also of a command',
    ]
    return '\n'.join(lines)


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
        close = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"; did you mean '{close[0]}'?" if close else ''
        expected = ', '.join(COMMANDS)
        print(f"error: unknown command '{name}'; expected {expected}{hint}", file=sys.stderr)
        return 2
    try:
        return int(importlib.import_module(f'motor_geo.{name}').main(rest))
    except KeyboardInterrupt:
        print('\ninterrupted', file=sys.stderr)
        return 130
