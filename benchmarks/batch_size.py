r"""Batch sizes and learning rates: accuracy, and time to the best epoch:

    python -m benchmarks.batch_size --data FOLDER [FOLDER ...] [--model LightGCN] [--items id]

Each run trains with a batch size of :obj:`--sizes` and with a learning rate that is constant, or
grows with the square root of the batch size or in proportion to it. The runs are kept in
:obj:`--out`, so that an interrupted command goes on. Every other option of :obj:`motor_geo.run`
may follow.
"""

from __future__ import annotations

import argparse
import json
import os
import os.path as osp
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout

from benchmarks.text import markdown
from motor_geo import run as command

#: The exponent of the batch size in the learning rate.
SCALES = {'constant': 0.0, 'square root': 0.5, 'linear': 1.0}
#: The published batch size, to which the learning rates refer.
USUAL = 2048


def settings(sizes: Sequence[int]) -> list[tuple[int, str, float]]:
    r"""Batch sizes, the names of scales, and factors of the learning rate."""
    out = []
    for size in sizes:
        for name, power in SCALES.items():
            if size != USUAL or name == 'constant':
                out.append((size, name, (size / USUAL) ** power))
    return out


def train(folder: str, options: Sequence[str]) -> dict[str, float]:
    r"""The result of a run, from its folder if it has ended before."""
    quiet = ['--trainer.progress', 'false', '--report', 'false']
    with open(os.devnull, 'w') as nowhere, redirect_stdout(nowhere):
        code = command.main([*options, '--out', folder, *quiet])
    if code != 0:
        raise SystemExit(code)
    with open(osp.join(folder, 'result.json')) as file:
        result = json.load(file)
    with open(osp.join(folder, 'metrics.jsonl')) as file:
        history = [json.loads(line) for line in file]
    best = history[: result['best_epoch']]
    return {
        'val': result['val']['recall@20'],
        'test': result['test']['recall@20'],
        'epoch': result['best_epoch'],
        'seconds': sum(entry['seconds'] for entry in best),
        'train': sum(entry['train_seconds'] for entry in best),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog='python -m benchmarks.batch_size')
    parser.add_argument('--data', nargs='+', required=True, metavar='FOLDER')
    parser.add_argument('--model', default='LightGCN')
    parser.add_argument('--items', default='id')
    parser.add_argument('--lr', type=float, default=0.001, help='learning rate at 2,048')
    parser.add_argument('--sizes', nargs='+', type=int, default=[USUAL, 8192, 32768])
    parser.add_argument('--out', default='batch_size', help='folder of the runs')
    options, rest = parser.parse_known_args(arguments)
    lines = []
    for data in options.data:
        for size, scale, factor in settings(options.sizes):
            lr = options.lr * factor
            name = osp.basename(osp.normpath(data))
            folder = osp.join(options.out, f'{name}-{options.model}-{options.items}-{size}-{lr:g}')
            flags = ['--data', data, '--model', options.model, '--items', options.items]
            flags += ['--loss', 'published', '--batch_size', str(size), '--lr', f'{lr:g}']
            found = train(folder, [*flags, *rest])
            lines.append(
                [
                    name,
                    f'{size:,}',
                    f'{lr:g}',
                    scale,
                    *(f'{found[key]:.4f}' for key in ('val', 'test')),
                    int(found['epoch']),
                    *(f'{found[key]:.1f}' for key in ('seconds', 'train')),
                ]
            )
    header = ['data', 'batch', 'lr', 'scale', 'validation', 'test', 'best epoch']
    print(markdown([*header, 's to the best', 'of them training'], lines))
    return 0


if __name__ == '__main__':
    sys.exit(main())
