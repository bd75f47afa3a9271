r"""Cards of public data sets: :obj:`motor-geo data`."""

from __future__ import annotations

import argparse
import os.path as osp
import sys
from collections.abc import Sequence
from http.client import HTTPException
from typing import TYPE_CHECKING

from motor_geo.utils.errors import one_line, run_command, suggest
from motor_geo.utils.memory import tune_process

if TYPE_CHECKING:
    from motor_geo.data.datasets.cards import Card


def main(arguments: Sequence[str] | None = None) -> int:
    tune_process()
    parser = argparse.ArgumentParser(
        prog='motor-geo data',
        description='Says where public data sets come from, and whether a folder holds one.',
    )
    parser.add_argument('name', metavar='NAME', nargs='?', help='one of them; all without')
    parser.add_argument('--check', metavar='FOLDER', help='compare a folder with the card')
    parser.add_argument(
        '--download',
        metavar='FOLDER',
        type=osp.expanduser,
        help='download the raw files of a card whose addresses are known',
    )
    options = parser.parse_args(arguments)
    return run_command(lambda: command(options), 'interrupted; the same command goes on')


def command(options: argparse.Namespace) -> int:
    r"""Prints cards, and compares a folder with one."""
    from motor_geo.data.datasets.cards import CARDS

    if options.name is None:
        for name in ('check', 'download'):
            if getattr(options, name) is not None:
                raise ValueError(
                    f'--{name}: expected the name of a card, such as motor-geo data tiktok'
                )
        for one in CARDS.values():
            print(f'{one.name:12s}{one.source}')
        return 0
    card = CARDS.get(options.name.lower())
    if card is None:
        raise ValueError(f"there is no card of '{options.name}'{suggest(options.name, CARDS)}")
    print(card)
    if options.download is not None:
        fetch(card, options.download)
    if options.check is None:
        return 0

    from motor_geo.data import TableDataset

    found = card.differences(TableDataset(options.check))
    if found:
        print(f"'{options.check}' is another release: {', '.join(found)}")
        return 1
    what = 'is this release' if card.hash else 'has these sizes'
    print(f"'{options.check}' {what}")
    return 0


def fetch(card: Card, folder: str) -> None:
    r"""Downloads the raw files of a card.

    Raises:
        OSError: If a file cannot be had, or is another one.
        ValueError: If the card has no address of a file.
    """
    from motor_geo.utils.download import download, sha256_of

    if not card.files:
        raise ValueError(
            f"--download: no address of a file of '{card.name}' is known; its publishers are at "
            f'{card.url}'
        )
    for file in card.files:
        path = osp.join(folder, file.path)
        if osp.exists(path):
            if file.sha256 and sha256_of(path) != file.sha256:
                raise OSError(f"'{path}' is another file than '{file.url}', by its SHA-256")
            print(f"'{path}' is there")
            continue
        try:
            download(file.url, path, file.sha256 or None)
        except (OSError, HTTPException) as error:
            raise OSError(
                f"'{file.url}' cannot be downloaded ({one_line(error)}); the same command goes on, "
                f"or put the file there yourself: '{path}'"
            ) from error
        print(f"'{path}' written" + ('' if file.sha256 else ' (its SHA-256 is not known here)'))
    print(f'to read it: {card.read}')


if __name__ == '__main__':
    sys.exit(main())
