r"""Shows the cards of public data sets: :obj:`motor-geo data`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from motor_geo.utils.errors import run_command, suggest
from motor_geo.utils.memory import tune_process


def main(arguments: Sequence[str] | None = None) -> int:
    tune_process()
    parser = argparse.ArgumentParser(
        prog='motor-geo data',
        description='Shows where public data sets come from, and checks whether a folder holds '
        'one of them.',
    )
    parser.add_argument('name', metavar='NAME', nargs='?', help='a data set (default: list all)')
    parser.add_argument('--check', metavar='FOLDER', help='compare a folder with the card')
    options = parser.parse_args(arguments)
    return run_command(lambda: command(options))


def command(options: argparse.Namespace) -> int:
    r"""Prints one card or all of them, and compares a folder with a card."""
    from motor_geo.data.datasets.cards import CARDS

    if options.name is None:
        if options.check is not None:
            raise ValueError('--check: expected the name of a card, such as motor-geo data tiktok')
        for one in CARDS.values():
            print(f'{one.name:12s}{one.source}')
        return 0
    card = CARDS.get(options.name.lower())
    if card is None:
        raise ValueError(f"there is no card for '{options.name}'{suggest(options.name, CARDS)}")
    print(card)
    if options.check is None:
        return 0

    from motor_geo.data import TableDataset

    found = card.differences(TableDataset(options.check))
    if found:
        print(f"'{options.check}' is a different release: {', '.join(found)}")
        return 1
    what = 'is this release' if card.hash else 'has these sizes'
    print(f"'{options.check}' {what}")
    return 0


if __name__ == '__main__':
    sys.exit(main())
