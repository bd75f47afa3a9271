r"""Measures the speed and memory of motor_geo, prints and writes the results:

    python -m benchmarks --data FOLDER

:obj:`FOLDER` holds one folder per data set in the common layout. Without it,
only generated data are used. Rows are written to :obj:`docs/performance.jsonl`
with the machine and the versions, and replace older rows of the same name. The
page :obj:`docs/performance.md` is generated from these rows.
"""

from __future__ import annotations

import argparse
import json
import os
import os.path as osp
import platform
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from tqdm import tqdm

from benchmarks import features, gpu, growth, kernels, libraries, loading, speed
from benchmarks.performance_page import GROWTH, line, plot_growth, render
from motor_geo.nn.models import MODELS
from motor_geo.pipeline.train import versions
from motor_geo.utils.files import atomic_write

Row = dict[str, Any]
NEED_DATA = ('price', 'libraries', 'evaluation', 'quantizer')
PARTS = (
    'tokens',
    'products',
    'bf16',
    'price',
    'libraries',
    'evaluation',
    'baby',
    'electronics',
    'gpu',
    'growth',
    'loading',
    'features',
)


def machine(threads: int) -> Row:
    r"""Describes the machine and the versions of a measurement."""
    name = platform.processor() or platform.machine()
    if osp.exists('/proc/cpuinfo'):
        with open('/proc/cpuinfo') as file:
            models = [text.split(':')[1].strip() for text in file if text.startswith('model name')]
        name = models[0] if models else name
    out = {'cpu': name, 'cores': os.cpu_count(), 'threads': threads, **versions()}
    return {**out, 'gpu': torch.cuda.get_device_name()} if torch.cuda.is_available() else out


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog='python -m benchmarks')
    parser.add_argument('--data', help='folder of data set folders')
    parser.add_argument(
        '--only', nargs='+', choices=[*PARTS, 'quantizer'], help='parts to measure (default: all)'
    )
    parser.add_argument(
        '--models', nargs='+', default=list(MODELS), help='backbones to measure (default: all)'
    )
    parser.add_argument(
        '--out', default=osp.join('docs', 'performance.jsonl'), help='file of the measurements'
    )
    parser.add_argument(
        '--threads', type=int, default=max(1, torch.get_num_threads()), help='number of threads'
    )
    parser.add_argument(
        '--counts', type=int, nargs='+', default=growth.COUNTS, help='interactions of growth'
    )
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    parts: dict[str, Callable[[], Iterable[Row]]] = {
        'tokens': kernels.token_network,
        'products': kernels.products,
        'bf16': kernels.half_precision,
        'price': lambda: speed.prices(options.data),
        'libraries': lambda: libraries.libraries(options.data),
        'evaluation': lambda: speed.evaluation(options.data),
        'baby': lambda: speed.baby(options.models, options.threads),
        'electronics': lambda: speed.electronics(options.models, options.threads),
        'gpu': lambda: gpu.rows(options.models),
        'growth': lambda: growth.growth(options.counts, options.threads),
        'loading': loading.rows,
        'features': lambda: speed.wide_features(threads=options.threads),
        'quantizer': lambda: [
            {**row, 'ours': round(row.pop('seconds'), 3), 'plain': None, 'unit': 's'}
            for row in features.rows(options.data)
        ],
    }
    names = options.only or [*PARTS, 'quantizer']
    if not torch.cuda.is_available():
        if options.only and 'gpu' in names:
            parser.error("the part 'gpu' requires a GPU")
        names = [name for name in names if name != 'gpu']
    if options.data is None:
        if options.only and set(names) & set(NEED_DATA):
            parser.error(f'--data is required to measure {", ".join(set(names) & set(NEED_DATA))}')
        names = [name for name in names if name not in NEED_DATA]

    rows = load(options.out)
    about = machine(options.threads)
    for name in tqdm(names, desc='benchmarks', disable=not sys.stderr.isatty()):
        for row in parts[name]():
            row = {'part': name, **row, 'machine': about}
            tqdm.write(line(row))
            rows[identity(row)] = row
            save(options.out, rows)  # Keep the measurements so far.
    if 'growth' in names:
        grown = [row for row in rows.values() if row['part'] == 'growth']
        plot_growth(grown, osp.join(osp.dirname(options.out), GROWTH))
    page = osp.splitext(options.out)[0] + '.md'
    print(f"{len(rows)} rows in '{options.out}', the page is '{page}'")
    return 0


def identity(row: Row) -> str:
    keys = ('part', 'what', 'setting', 'interactions')
    return json.dumps([row.get(key) for key in keys], sort_keys=True)


def load(path: str) -> dict[str, Row]:
    if not osp.exists(path):
        return {}
    with open(path) as file:
        return {identity(row): row for row in map(json.loads, file)}


def save(path: str, rows: dict[str, Row]) -> None:
    order = [*PARTS, 'quantizer']
    ordered = sorted(rows.values(), key=lambda row: order.index(row['part']))
    with atomic_write(path) as temporary, open(temporary, 'w') as file:
        file.writelines(json.dumps(row) + '\n' for row in ordered)
    page = osp.splitext(path)[0] + '.md'
    with atomic_write(page) as temporary, open(temporary, 'w') as file:
        file.write(render(ordered))


if __name__ == '__main__':
    sys.exit(main())
