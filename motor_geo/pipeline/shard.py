r"""Cuts a data set by users: :obj:`motor-geo shard`."""

from __future__ import annotations

import argparse
import os.path as osp
import sys
from collections.abc import Sequence

from motor_geo.utils.errors import run_command
from motor_geo.utils.memory import tune_process

#: Options that name columns, with what they hold.
COLUMNS = {
    'user': 'users',
    'item': 'items',
    'time': 'times',
    'label': 'labels',
    'rating': 'ratings',
    'event-column': 'events',
}


def main(arguments: Sequence[str] | None = None) -> int:
    tune_process()
    parser = argparse.ArgumentParser(
        prog='motor-geo shard',
        description='Writes a data set as files of consecutive users, without all interactions in '
        'memory. --data OUT then reads it like the original folder.',
    )
    parser.add_argument('data', metavar='DATA', type=osp.expanduser, help='folder of the data set')
    parser.add_argument('out', metavar='OUT', type=osp.expanduser, help='folder to create')
    parser.add_argument(
        '--shards',
        type=int,
        metavar='N',
        help='number of files (default: one per two million rows, and at least 8)',
    )
    parser.add_argument(
        '--split',
        metavar='RULE',
        help='random, temporal, leave_one_out, cold_item, global_time or column (default: column '
        'if there are labels, and random otherwise)',
    )
    parser.add_argument('--seed', type=int, default=0, help='seed of the split (default: 0)')
    parser.add_argument(
        '--core', type=int, metavar='K', help='keep users and items with at least K interactions'
    )
    parser.add_argument('--min-rating', type=float, metavar='R', help='lowest rating to keep')
    parser.add_argument('--event', nargs='+', help='events to keep, such as purchase')
    parser.add_argument(
        '--cold-share', type=float, default=0.0, metavar='S', help='share of items to hold out'
    )
    parser.add_argument('--reindex', action='store_true', help='renumber integer ids with gaps')
    for name, what in COLUMNS.items():
        parser.add_argument(f'--{name}', metavar='NAME', help=f'column of {what}')
    options = parser.parse_args(arguments)
    return run_command(lambda: command(options))


def command(options: argparse.Namespace) -> int:
    r"""Writes the shards and prints their sizes."""
    from motor_geo.data.datasets.write_shards import write_shards

    given = dict(vars(options))
    data, out, count = (given.pop(name) for name in ('data', 'out', 'shards'))
    found = write_shards(data, out, count, progress=True, **given)
    rows = [shard.rows for shard in found.shards]
    print(
        f"'{out}': {len(rows)} shards of {min(rows):,} to {max(rows):,} interactions, "
        f'{found.num_users:,} users, {found.num_items:,} items, {found.rows:,} interactions'
    )
    return 0


if __name__ == '__main__':
    sys.exit(main())
