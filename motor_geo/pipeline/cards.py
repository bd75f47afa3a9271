r"""Shows the cards of public data sets: :obj:`motor-geo data`."""

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
        description='Shows where public data sets come from, checks whether a folder holds one of '
        'them, and downloads raw files.',
    )
    parser.add_argument('name', metavar='NAME', nargs='?', help='a data set (default: list all)')
    parser.add_argument('--check', metavar='FOLDER', help='compare a folder with the card')
    parser.add_argument(
        '--download',
        metavar='FOLDER',
        type=osp.expanduser,
        help='download the raw files with known addresses',
    )
    options = parser.parse_args(arguments)
    return run_command(lambda: command(options), 'interrupted; run the same command to resume')


def command(options: argparse.Namespace) -> int:
    r"""Prints one card or all of them, downloads its files, and compares a folder
    with it.

    Raises:
        OSError: If a download fails.
        ValueError: If an option is invalid.
    """
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
        raise ValueError(f"there is no card for '{options.name}'{suggest(options.name, CARDS)}")
    print(card)
    if options.download is not None:
        fetch(card, options.download)
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


def fetch(card: Card, folder: str) -> None:
    r"""Downloads the raw files of a card.

    Args:
        card: The card.
        folder: The folder to save the files to.

    Raises:
        OSError: If a download fails, or the SHA-256 of a file is not the
            expected one.
        ValueError: If the card has no files.
    """
    from motor_geo.utils.download import download, sha256_of

    if not card.files:
        raise ValueError(
            f"--download: the card of '{card.name}' has no addresses of files; see {card.url}"
        )
    for file in card.files:
        path = osp.join(folder, file.path)
        if osp.exists(path):
            if file.sha256 and sha256_of(path) != file.sha256:
                raise OSError(f"'{path}' differs from '{file.url}' by its SHA-256")
            print(f"'{path}' exists")
            continue
        try:
            download(file.url, path, file.sha256 or None)
        except (OSError, HTTPException) as error:
            raise OSError(
                f"'{file.url}' cannot be downloaded ({one_line(error)}); run the same command to "
                f"resume, or save the file as '{path}'"
            ) from error
        print(f"'{path}' written" + ('' if file.sha256 else ' (SHA-256 not checked)'))
    print(f'how to read it: {card.read}')


if __name__ == '__main__':
    sys.exit(main())
