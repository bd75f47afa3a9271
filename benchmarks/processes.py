r"""Times training steps of LightGCN on one and on two processes of one thread each, which
share the users or the columns of vectors:

    python -m benchmarks.processes --interactions 1000000

It prints seconds and exchanged bytes per step, and is not part of the performance page.
"""

from __future__ import annotations

import argparse
import json
import os
import os.path as osp
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import islice
from typing import Any

import torch

from benchmarks.growth import TOKENS
from benchmarks.speed import generate
from motor_geo.data import BPRSampler
from motor_geo.engine.row_adam import RowAdam
from motor_geo.nn import TokenCrossEncoder
from motor_geo.nn.models import LightGCN
from motor_geo.parallel import Mesh, UserShard, World
from motor_geo.typing import ITEM, RATES, USER

#: Parts of the columns and of the users.
MESHES = (1, 1), (1, 2), (2, 1)
#: Mode of the token network for each value of ``--items``.
MODES = {'recommended': 'mean', 'specific': 'specific'}
WARMUP = 2


def measure(world: World, path: str, items: str, batch: int, steps: int) -> dict[str, Any]:
    r"""Median seconds of a step, and bytes that this process exchanges in it."""
    data = torch.load(path, weights_only=False)
    torch.manual_seed(0)
    model = LightGCN(data, TokenCrossEncoder(TOKENS, 256, mode=MODES[items]))
    sizes = data[USER].num_nodes, data[ITEM].num_nodes
    sampler = BPRSampler(data[RATES].edge_index, *sizes, batch_size=batch)
    batches = list(islice(sampler.epoch(0), steps + WARMUP))
    shard = None
    if world.size > 1:
        shard = UserShard(world, data)
        shard.cut_model(model, model.user_tables(), model.column_tables())
        data = shard.cut(data)
    optimizer = RowAdam(model.parameters(), lr=1e-3)
    seconds = []
    for triples in batches:
        world.barrier()
        world.sent.clear()
        start = time.perf_counter()
        losses = model.loss(data, triples if shard is None else shard.batch(triples))
        optimizer.zero_grad()
        (torch.stack(list(losses.values())).sum() / world.size).backward()
        if shard is not None:
            shard.sum_gradients(model, model.user_tables(), model.column_tables())
        optimizer.step()
        world.barrier()
        seconds.append(time.perf_counter() - start)
    found = statistics.median(seconds[WARMUP:])
    return {'seconds per step': round(found, 4), 'bytes per step': dict(world.sent)}


def launch(mesh: tuple[int, int], path: str, options: argparse.Namespace) -> None:
    r"""Starts the processes of a mesh, the first of which prints."""
    module = ['-m', 'benchmarks.processes', '--path', path, '--columns', str(mesh[0])]
    module += ['--items', options.items, '--batch', str(options.batch)]
    module += ['--steps', str(options.steps)]
    if mesh != (1, 1):
        count = f'--nproc-per-node={mesh[0] * mesh[1]}'
        module = ['-m', 'torch.distributed.run', '--standalone', count, *module]
    environment = {**os.environ, 'OMP_NUM_THREADS': '1'}
    subprocess.run([sys.executable, *module], check=True, timeout=options.timeout, env=environment)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog='python -m benchmarks.processes')
    add = parser.add_argument
    add('--interactions', type=int, default=1_000_000, help='a tenth is the number of users')
    add('--items', choices=MODES, default='specific', help='item representation')
    add('--batch', type=int, default=8192, help='interactions per step')
    add('--steps', type=int, default=9, help='steps to measure')
    add('--timeout', type=float, default=120.0, help='seconds per mesh')
    add('--path', help=argparse.SUPPRESS)
    add('--columns', type=int, default=1, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.path is None:
        count = options.interactions
        with tempfile.TemporaryDirectory() as folder:
            path = osp.join(folder, 'data.pt')
            data = generate((count // 10, count // 100, count, {}), None)
            shape = data[ITEM].num_nodes, sum(TOKENS.values())
            data[ITEM].token_id = torch.randint(256, shape, dtype=torch.uint8)
            torch.save(data, path)
            for mesh in MESHES:
                launch(mesh, path, options)
        return 0
    torch.set_num_threads(1)
    with World.start(os.environ) as world:
        world = Mesh(options.columns).start(world)
        found = measure(world, options.path, options.items, options.batch, options.steps)
        mesh = {'columns': world.columns.size, 'users': world.users.size}
        if world.is_first:
            print(json.dumps({**mesh, 'items': options.items, **found}), flush=True)
    return 0


if __name__ == '__main__':
    sys.exit(main())
