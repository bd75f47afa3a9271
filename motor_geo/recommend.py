r"""Writes top-k lists of a finished run: :obj:`python -m motor_geo.recommend RUN`."""

from __future__ import annotations

import argparse
import os.path as osp
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from motor_geo.utils.errors import run_command
from motor_geo.utils.files import check_file
from motor_geo.utils.memory import tune_process

if TYPE_CHECKING:
    from motor_geo.data import RecommendationDataset


def main(arguments: Sequence[str] | None = None) -> int:
    tune_process()
    parser = argparse.ArgumentParser(
        prog='python -m motor_geo.recommend',
        description='Recommends the best items to every user with a finished run.',
    )
    parser.add_argument('run', metavar='RUN_DIR', type=osp.expanduser, help='run folder')
    parser.add_argument('--data', metavar='FOLDER', help='location of the data, if they have moved')
    parser.add_argument(
        '--users', metavar='FILE', type=osp.expanduser, help='raw user ids, one per line'
    )
    parser.add_argument('--k', type=int, default=20, help='length of the lists (default: 20)')
    parser.add_argument(
        '--out',
        type=osp.expanduser,
        help='.csv, .tsv or .parquet file (default: RUN_DIR/recs.csv, or RUN_DIR/recs-new.csv for '
        'new items or users)',
    )
    parser.add_argument(
        '--new-items',
        metavar='FOLDER',
        help='rank only the new items of this folder, from their features',
    )
    parser.add_argument(
        '--mix', action='store_true', help='rank new items together with all others'
    )
    parser.add_argument(
        '--new-users',
        metavar='FILE',
        type=osp.expanduser,
        help='recommend to the users of this file, from their interactions in it (columns userID '
        'and itemID)',
    )
    parser.add_argument(
        '--index',
        metavar='FILE',
        type=osp.expanduser,
        help='search an index of motor-geo export instead of scoring all items',
    )
    parser.add_argument(
        '--why',
        action='store_true',
        help='add a column with the items of the user that contribute most to the score, and the '
        'number of tokens they share',
    )
    parser.add_argument(
        '--exclude',
        choices=('all', 'train'),
        default='all',
        help='items to exclude from the list of a user: all known items, or only those of '
        'training (default: all)',
    )
    parser.add_argument(
        '--part',
        metavar='I/N',
        help='write the lists of the I-th of N parts of the users only, from 1/N to N/N, for '
        'several processes or machines',
    )
    parser.add_argument('--device', default='auto', help='auto, cpu or cuda (default: auto)')
    options = parser.parse_args(arguments)
    return run_command(lambda: command(options))


def command(options: argparse.Namespace) -> int:
    r"""Checks the options, writes the lists and prints the first three.

    Raises:
        ValueError: If an option is invalid.
    """
    if options.k < 1:
        raise ValueError(f'--k must be at least 1 (got {options.k})')
    part = None if options.part is None else read_part(options.part)
    if not osp.isfile(osp.join(options.run, 'config.yaml')):
        raise ValueError(f"'{options.run}' is not a run folder: it has no config.yaml")
    users = None if options.users is None else read_users(options.users)

    import numpy as np

    from motor_geo.pipeline.export import hash_of
    from motor_geo.pipeline.folder import load_run
    from motor_geo.pipeline.index import read_index
    from motor_geo.pipeline.recommend import prepare
    from motor_geo.pipeline.write_lists import check_ending, write
    from motor_geo.utils.files import check_writable

    if options.users is not None and options.new_users is not None:
        raise ValueError('expected --users or --new-users, got both')
    new = options.new_users is not None or (options.new_items is not None and not options.mix)
    name = 'recs-new.csv' if new else 'recs.csv'
    out = options.out or osp.join(options.run, name)
    check_ending(out)
    check_writable(osp.dirname(osp.abspath(out)))
    index = None if options.index is None else read_index(options.index)
    if index is not None and index.run != hash_of(options.run):
        raise ValueError(
            f"'{options.index}' is an index of another run, or of other weights; export it again"
        )
    run = load_run(options.run, options.device, options.data)
    if users is not None:
        check_users(users, run.dataset, options.users)
    names = None if users is None else list(users)
    request = prepare(
        run,
        names,
        options.k,
        options.new_items,
        options.exclude,
        options.mix,
        options.new_users,
        index,
        options.why,
    )
    request = request if part is None else request.part(*part)
    rows = write(request, out)
    for result in request.first(3).lists():
        for user, items, scores in zip(result.user, result.item, result.score):
            found = [(item, score) for item, score in zip(items, scores) if np.isfinite(score)]
            best = ', '.join(f'{item} ({score:.3f})' for item, score in found[:5])
            print(f'user {user}: {best}')
    users_total = sum(len(group.ids) for group in request.groups)
    print(f"{rows} rows for {users_total} users written to '{out}'")
    return 0


def read_part(text: str) -> tuple[int, int]:
    r"""Reads a part of the users, such as :obj:`3/8`.

    Raises:
        ValueError: If it is not a part.
    """
    number, _, count = text.partition('/')
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise ValueError(f"--part: expected a part such as 3/8, from 1/8 to 8/8 (got '{text}')")
    return int(number), int(count)


def read_users(path: str) -> dict[str, int]:
    r"""Reads the distinct raw user ids of a file with one id per line, and the
    number of the first line of each.

    Raises:
        ValueError: If the file is empty or cannot be read.
    """
    users: dict[str, int] = {}
    try:
        if osp.lexists(path):
            check_file(path, 'user ids, one per line')
        with open(path, encoding='utf-8-sig') as file:
            for line, text in enumerate(file, start=1):
                if text.strip():
                    users.setdefault(text.strip(), line)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, 'strerror', None) or 'it is not UTF-8 text'
        if isinstance(error, OSError) and error.strerror is None:
            raise ValueError(f'--users: {error}') from error
        raise ValueError(f"--users: '{path}' cannot be read: {reason}") from error
    if not users:
        raise ValueError(f"--users: '{path}' is empty; expected one user id per line")
    return users


def check_users(users: dict[str, int], dataset: RecommendationDataset, path: str) -> None:
    r"""Checks that all users are in the data set.

    Raises:
        ValueError: If a user is unknown. The message names the line.
    """
    known = dataset.user_ids[dataset.known_users.numpy()].astype(str).tolist()
    names = set(known)
    for user, line in users.items():
        if user not in names:
            raise ValueError(
                f"'{path}', line {line}: the user '{user}' is not in '{dataset.name}'; expected "
                f"raw ids such as '{known[0]}'"
            )


if __name__ == '__main__':
    sys.exit(main())
