r"""Trains on a data set in shards, and prints what each process holds when training starts.

python -m torch.distributed.run --standalone --nproc-per-node 2 -m tests.parallel.held FOLDER OUT
"""

import gc
import json
import os
import sys

import torch

from motor_geo.engine.trainer import Trainer
from motor_geo.parallel import World
from motor_geo.pipeline.train import run
from motor_geo.run import load_config
from motor_geo.typing import LazyEdges

SMALL = [
    *('--model.channels', '8', '--batch_size', '512', '--epochs', '1', '--threads', '1'),
    *('--device', 'cpu', '--report', 'false', '--trainer.progress', 'false', '--graph.k', '4'),
    *('--tokenizer.num_tokens', '2', '--tokenizer.codebook_size', '16', '--svd.channels', '8'),
]
#: Flags of each run.
RUNS = {
    'ids': ('--model', 'LightGCN', '--items', 'id'),
    'tokens': ('--model', 'FREEDOM', '--items', 'specific'),
    'behavior': ('--model', 'BPR', '--items', 'specific', '--behavior', 'true'),
    'users': ('--model', 'DualGNN', '--items', 'specific'),
    'columns': ('--model', 'LightGCN', '--items', 'id', '--parallel.columns', '2'),
}


def bytes_of_integers():
    r"""Bytes of all integer tensors in memory."""
    gc.collect()
    tensors = [x for x in gc.get_objects() if issubclass(type(x), torch.Tensor)]
    parts = [x.untyped_storage() for x in tensors if not (x.is_floating_point() or x.is_meta)]
    return sum({part.data_ptr(): part.nbytes() for part in parts}.values())


def main(folder, out):
    read, begin = LazyEdges.read, Trainer.begin
    found = {}

    def counted(self):
        found['reads'] = found.get('reads', 0) + 1
        return read(self)

    def measured(self):
        begin(self)
        found['bytes'] = bytes_of_integers()
        found['edges'], found['first'] = self.shard.edge_index.size(1), found.get('reads', 0)

    LazyEdges.read, Trainer.begin = counted, measured
    with World.start(os.environ) as world:
        for name, flags in RUNS.items():
            found.clear()
            flags = ['--data', folder, *SMALL, *flags, '--out', os.path.join(out, name)]
            result = run(load_config(flags), progress=False, world=world)
            total = world.all_reduce(torch.tensor([found['edges']]), '')
            line = {'name': name, 'rank': world.rank, 'total': int(total), **found}
            line |= {'test': result['test'], 'hashes': result['hashes']}
            print(json.dumps(line) + '\n', end='', flush=True)


if __name__ == '__main__':
    main(*sys.argv[1:])
