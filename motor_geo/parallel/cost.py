r"""What several processes exchange per step, and what each of them holds:
:obj:`python -m motor_geo.parallel.cost`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

#: Parameters of Adam: the value, the gradient and two moments.
COPIES = 4
#: Bytes of an interaction: an index and a weight in both directions, and those of the data.
GRAPH = 2 * (4 + 4) + 16


def exchange(
    num_items: int,
    channels: int,
    num_layers: int,
    batch_size: int,
    num_shared: int,
    element_size: int = 4,
    columns: int = 1,
    users: int | None = None,
    num_read: int | None = None,
) -> dict[str, int]:
    r"""Bytes that each process hands to collectives in a step of
    :class:`~motor_geo.nn.models.LightGCN`, by purpose as in
    :obj:`World.sent <motor_geo.parallel.World>`. Let :math:`s` be the size of a
    number. Both passes exchange the vectors of all items between hops, and of
    the :math:`2B` items of the batch after the last hop; and the vectors of the
    :math:`B` users of the batch before and after propagation. The last hop only
    reads the items of the batch and the neighbors of its users. If these
    :math:`R` items are fewer than half of all, only their vectors are exchanged
    before it. A byte per item says which ones they are,

    .. math::
        \textrm{items} = 2 s d \left( (L - 2) N + R + 2 B \right), \qquad
        \textrm{read} = N, \qquad
        \textrm{rows} = 2 s d \cdot 2 B, \qquad
        \textrm{gradients} = s |\theta| .

    If they are more, :math:`R = N`; with one hop, neither :math:`R` nor :math:`N`
    counts. If :math:`C` processes share the columns, items and rows are parts of
    :math:`C`, and exchanged by the processes with the same columns only. Those with
    the same users exchange the scores of the batch and the norms of three matrices,

    .. math::
        \textrm{columns} = 2 s \left( 2 B + 3 \right) .

    Without a hop (:math:`L = 0`), as in :class:`~motor_geo.nn.models.BPR`, there are
    no items, and the vectors before and after propagation are the same. The number
    of users does not matter, and that of interactions only for :math:`R`.

    Args:
        num_items: Number of items :math:`N`.
        channels: Size :math:`d` of vectors.
        num_layers: Number of hops :math:`L`.
        batch_size: Number of interactions :math:`B` per step.
        num_shared: Number of parameters :math:`|\theta|` that all processes hold.
        element_size: Bytes :math:`s` of a number.
        columns: Number :math:`C` of parts of the columns.
        users: Number of parts of the users. (default: more than one)
        num_read: Number :math:`R` of items that the last hop reads. (default: all)
    """
    num_read = num_items if num_read is None or 2 * num_read >= num_items else num_read
    hops = 2 * batch_size if num_layers > 0 else 0
    if num_layers > 1:
        hops += (num_layers - 2) * num_items + num_read
    width = 0 if users == 1 else channels // columns
    return {
        'items': 2 * element_size * width * hops,
        'read': num_items if num_layers > 1 and users != 1 else 0,
        'rows': 2 * element_size * width * (2 if num_layers > 0 else 1) * batch_size,
        'columns': 2 * element_size * (2 * batch_size + 3) if columns > 1 else 0,
        'gradients': element_size * num_shared,
    }


def seconds(num_bytes: int, processes: int, bandwidth: float) -> float:
    r"""Seconds of a ring of processes that sums so many bytes.

    Args:
        num_bytes: Number of bytes that each process hands to collectives.
        processes: Number of processes.
        bandwidth: Bytes per second between two of them.
    """
    return 2 * (processes - 1) / processes * num_bytes / bandwidth


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog='python -m motor_geo.parallel.cost',
        description='Prints what a step of LightGCN with token items costs on several processes.',
    )
    add = parser.add_argument
    add('--users', type=int, default=10_000_000, help='number of users')
    add('--items', type=int, default=1_000_000, help='number of items')
    add('--interactions', type=int, default=100_000_000, help='training interactions')
    add('--channels', type=int, default=64, help='size of vectors')
    add('--layers', type=int, default=2, help='number of hops')
    add('--batch', type=int, default=65_536, help='interactions per step, of all processes')
    add('--shared', type=int, default=300_000, help='parameters of the item encoder')
    add('--processes', type=int, default=8, help='number of processes')
    add('--columns', type=int, default=1, help='parts of the columns of vectors')
    add('--bandwidth', type=float, default=12.5, help='GB per second between two processes')
    add('--column-bandwidth', type=float, help='the same between processes with the same users')
    options = parser.parse_args(arguments)
    if options.column_bandwidth is None:
        options.column_bandwidth = options.bandwidth
    positive = ('processes', 'columns', 'bandwidth', 'column_bandwidth')
    if min(vars(options).values()) < 0 or min(getattr(options, key) for key in positive) <= 0:
        parser.error('expected no negative number, and at least one process and some bandwidth')
    columns, users = options.columns, options.processes // options.columns
    if columns * users != options.processes or options.channels % columns > 0:
        parser.error(f'expected a divisor of --processes and --channels, got --columns {columns}')
    sizes = options.items, options.channels, options.layers, options.batch, options.shared
    # If users of a batch have the mean number of interactions, and no item occurs twice.
    read = options.batch * (2 + options.interactions / max(options.users, 1))
    sent = exchange(*sizes, columns=columns, users=users, num_read=int(read))
    width = options.channels // columns
    table = COPIES * 4 * -(-options.users // users) * width
    print(f'user table with gradient and moments: {table / 1e9:8.2f} GB per process')
    vectors = 4 * options.items * width
    print(f'one table of item vectors:            {vectors / 1e9:8.2f} GB per process')
    graph = GRAPH * options.interactions / users
    print(f'interactions in the graph:            {graph / 1e9:8.2f} GB per process')
    if columns > 1:
        print(
            f'all columns of them, in the encoder:  {columns * vectors / 1e9:8.2f} GB per process'
        )
    slow = min(options.bandwidth, options.column_bandwidth) if columns > 1 else options.bandwidth
    ways = {
        'columns': (columns, options.column_bandwidth),
        'gradients': (options.processes, slow),
    }
    for name, size in sent.items():
        if name == 'columns' and columns == 1:
            continue
        processes, bandwidth = ways.get(name, (users, options.bandwidth))
        time = 1e3 * seconds(size, processes, bandwidth * 1e9)
        print(
            f'exchanged {name:10s}                  {size / 1e6:8.1f} MB per step, {time:8.1f} ms'
        )
    return 0


if __name__ == '__main__':
    sys.exit(main())
