r"""Trains backbones with different item encoders on real data and writes
:obj:`docs/results.md`:

    python -m benchmarks.results --data FOLDER --runs runs/results --jobs 2

:obj:`FOLDER` holds one folder per data set in the common layout. Settings are
chosen on validation by one seed, with the same number of settings for every
contender; the chosen ones are then trained with several seeds.

Results add up in :obj:`docs/results.json`: a run that has a row there is not
repeated (unless :obj:`--again` is given), and no row is lost when the folder of
its run is. Finished runs are not repeated, and interrupted ones go on.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import os.path as osp
import sys
import tempfile
from collections import ChainMap, defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from benchmarks.baselines import item_knn, popularity
from benchmarks.results_page import chosen, render
from motor_geo.data import TableDataset
from motor_geo.experiments.variants import Options, product
from motor_geo.nn.models import MODELS
from motor_geo.pipeline.assemble import build_dataset
from motor_geo.pipeline.config import merge, resolve
from motor_geo.pipeline.train import run
from motor_geo.utils.files import atomic_write

TOKENS = ('specific', 'agnostic', 'mean')
DATASETS = ('lastfm', 'tiktok', 'sports', 'ml1m', 'baby')
#: Of rows, in the order of the file.
STAGES = ('baseline', 'final', 'parts', 'cold', 'time', 'tune')


#: Backbones with a grid and seeds of their own, and what is tried of the others with
#: IDs: the grids behind docs/results.json.
MAIN = ('BPR', 'LightGCN', 'VBPR', 'FREEDOM')
OTHERS: dict[str, list[Options]] = {
    'LayerGCN': product(model__reg_weight=[1e-3, 1e-4, 1e-2]),
    'GRCN': product(model__reg_weight=[1e-3, 1e-4, 1e-5]),
    'SLMRec': product(model__ssl_weight=[0.1, 0.01, 1.0]),
    'BM3': product(model__reg_weight=[1e-1, 1e-2, 1e-3]),
    'MGCN': product(model__cl_weight=[1e-2, 1e-3, 1e-1]),
    'LIRDRec': product(model__reg_weight=[1e-3, 1e-2, 1e-4]),
    'LATTICE': product(model__reg_weight=[1e-4, 1e-3, 1e-5]),
    'MICRO': product(model__reg_weight=[1e-4, 1e-3, 1e-5]),
    'LGMRec': product(model__alpha=[0.3, 0.1, 0.6]),
    'MMGCN': product(trainer__lr=[1e-3, 1e-2, 1e-4]),
}


def grid(data: str, model: str, items: str) -> list[Options]:
    r"""The settings that are tried on validation, as many for every contender
    of a backbone: six for LightGCN and FREEDOM on the small data sets, three
    for BPR and VBPR and on sports, two on ml1m and baby. The other backbones
    have three on lastfm, and on tiktok their defaults alone.
    """
    tokens = items in TOKENS
    if model in OTHERS:
        if data == 'tiktok':
            return product(tokenizer__num_tokens=[4]) if tokens else [{}]
        return product(tokenizer__num_tokens=[2, 4, 8]) if tokens else OTHERS[model]
    if data not in ('lastfm', 'tiktok'):
        count = 3 if data == 'sports' else 2
        if tokens:
            return product(tokenizer__num_tokens=[4, 8, 16][:count])
        if model == 'LightGCN':
            return product(model__num_layers=[2, 3, 4][:count])
        if model == 'FREEDOM':
            return product(model__rho=[0.8, 0.9, 0.0][:count])
        return product(model__reg_weight=[1.0, 0.1])
    if model == 'LightGCN' and tokens:
        return product(model__num_layers=[2, 3], tokenizer__num_tokens=[2, 4, 8])
    if model == 'LightGCN':
        return product(model__num_layers=[2, 3], model__reg_weight=[1e-2, 1e-3, 1e-4])
    if model == 'FREEDOM' and tokens:
        return product(model__rho=[0.8, 0.9], tokenizer__num_tokens=[2, 4, 8])
    if model == 'FREEDOM':
        return product(model__rho=[0.8, 0.9], model__reg_weight=[0.0, 1e-4, 1e-3])
    if tokens:
        return product(model__reg_weight=[1e-1], tokenizer__num_tokens=[2, 4, 8])
    return product(model__reg_weight=[1.0, 1e-1, 1e-3])


def plan(datasets: Iterable[str]) -> list[tuple[str, str, str, int]]:
    r"""Contenders (data, model, items) and their number of seeds."""
    out = []
    for data in datasets:
        small = data in ('lastfm', 'tiktok')
        if data == 'baby':  # Interactions only.
            out += [(data, model, 'id', 1) for model in ('BPR', 'LightGCN')]
            continue
        for model in ('LightGCN', 'FREEDOM'):
            items = ('id', *TOKENS) if small else ('id', 'specific', 'mean')
            seeds = 1 if not small else 5 if model == 'LightGCN' else 3
            out += [(data, model, name, seeds) for name in items]
        if small:
            for model in ('BPR', 'VBPR'):
                out += [(data, model, name, 2) for name in ('id', *TOKENS)]
            for model in OTHERS:
                out += [(data, model, name, 1) for name in ('id', 'specific')]
    return out


#: One change at a time to LightGCN with specific tokens.
PARTS: dict[str, Options] = {
    'as chosen': {},
    'features raw': {'tokenizer.center': False, 'tokenizer.normalize': False},
    '16 tokens per modality': {'tokenizer.num_tokens': 16},
    'OPQ of 1 iteration': {'tokenizer.num_iters': 1},
    'OPQ of 50 iterations': {'tokenizer.num_iters': 50},
    'OPQ of 50 iterations, random start': {'tokenizer.num_iters': 50, 'tokenizer.init': 'random'},
    'features cut to 64 axes': {'tokenizer.max_dim': 64},
    'plain PQ': {'tokenizer.method': 'pq'},
    'residual quantisation': {'tokenizer.method': 'rq'},
    'w = 1': {'items.weight_init': 1.0},
    'tables at the scale of ID rows': {'items.init': 0.01},
    'tables at Xavier over all slots': {'items.init': 'xavier_fused'},
    'no activation': {'items.activation': None},
    'tanh': {'items.activation': 'tanh'},
    'two layers': {'items.num_layers': 2},
    'no high-order part': {'items.num_layers': 0},
}


class Entry(NamedTuple):
    r"""What a row of the results is about."""

    stage: str
    data: str
    model: str
    items: str
    part: str
    setting: Options
    seed: int


def identity(row: Options) -> str:
    r"""Rows of equal identity replace each other. A data set has one row for
    each baseline, and a contender one row of time.
    """
    count = {'baseline': 3, 'time': 4}.get(row['stage'])
    return json.dumps([row[name] for name in Entry._fields[:count]], sort_keys=True)


class Study:
    r"""A folder of runs over a folder of data sets."""

    def __init__(self, data: str, runs: str, device: str, threads: int, epochs: int):
        self.data, self.runs = data, runs
        self.base = {'device': device, 'threads': threads, 'trainer': {'epochs': epochs}}

    def folder(self, entry: Entry) -> str:
        r"""The folder of a run."""
        options = {**entry.setting, **PARTS.get(entry.part, {})}
        words = [f'{key.split(".")[1]}={value}' for key, value in sorted(options.items())]
        data = f'{entry.data}-cold_item' if entry.stage == 'cold' else entry.data
        name = ','.join(words) or 'default'
        return osp.join(self.runs, data, entry.model, entry.items, name, f'seed{entry.seed}')

    def config(self, entry: Entry) -> Options:
        r"""The resolved configuration of a run."""
        flat = {'tokenizer.center': True, 'tokenizer.normalize': True}
        options = {**flat, 'tokenizer.seed': entry.seed, **entry.setting}
        nested: Options = defaultdict(dict)
        for key, value in {**options, **PARTS.get(entry.part, {})}.items():
            section, name = key.split('.')
            nested[section][name] = value
        split = 'cold_item' if entry.stage == 'cold' else 'column'
        fixed = {
            'data': {'name': osp.join(self.data, entry.data), 'split': split},
            'model': {'name': entry.model},
            'items': {'name': entry.items},
            'seed': entry.seed,
            'out': self.folder(entry),
        }
        return resolve(merge(self.base, fixed, dict(nested)))

    def is_finished(self, entry: Entry) -> bool:
        return osp.exists(osp.join(self.folder(entry), 'result.json'))

    def rows(self, entries: Iterable[Entry]) -> dict[str, Options]:
        r"""The rows of the runs that are finished, by identity."""
        out = {}
        for entry in filter(self.is_finished, entries):
            with open(osp.join(self.folder(entry), 'result.json')) as file:
                row = summary(entry, json.load(file))
            if entry.stage == 'cold':
                dataset = build_dataset(self.config(entry))
                row['candidates'] = dataset.targets('test').candidates.numel()
            out[identity(row)] = row
        return out


def execute(study: Study, entries: Sequence[Entry], jobs: int) -> None:
    r"""Carries out the runs of a stage that are not finished."""
    todo = [study.config(entry) for entry in entries if not study.is_finished(entry)]
    if not todo:
        return
    context = multiprocessing.get_context('spawn')
    with context.Pool(jobs) as pool:
        messages = pool.imap_unordered(_run, todo)
        for message in tqdm(messages, total=len(todo), desc=entries[0].stage):
            if message:
                tqdm.write(message)


def _run(config: Options) -> str:
    import warnings

    warnings.simplefilter('ignore')
    try:
        run(config, progress=False)
        for name in ('last.pt', 'best.pt', 'tokenizer.pt'):  # Results are what counts here.
            if osp.exists(osp.join(config['out'], name)):
                os.remove(osp.join(config['out'], name))
    except Exception as error:  # One failure must not end the others.
        return f'{config["out"]}: {type(error).__name__}: {error}'
    return ''


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog='python -m benchmarks.results')
    parser.add_argument('--data', required=True, help='folder of data set folders')
    parser.add_argument('--datasets', nargs='+', default=DATASETS, help='data sets to work on')
    parser.add_argument('--models', nargs='+', default=list(MODELS), help='backbones to train')
    stages = ['baselines', 'tune', 'final', 'parts', 'cold', 'time']
    parser.add_argument('--stages', nargs='+', default=stages, help='what to carry out')
    parser.add_argument('--again', action='store_true', help='repeat what has a row in --out')
    parser.add_argument('--runs', default='runs/results', help='folder of the runs')
    parser.add_argument('--out', default='docs/results.json', help='collected results')
    parser.add_argument('--jobs', type=int, default=1, help='runs at a time')
    parser.add_argument('--device', default='auto')
    parser.add_argument('--threads', type=int, default=max(1, torch.get_num_threads()))
    parser.add_argument('--epochs', type=int, default=1000)
    options = parser.parse_args(arguments)
    study = Study(options.data, options.runs, options.device, options.threads, options.epochs)
    torch.set_num_threads(options.threads)
    # Rows of this call, in front of those of the file.
    rows: ChainMap[str, Options] = ChainMap({}, load(options.out))

    def wanted(entries: Iterable[Entry]) -> list[Entry]:
        return [
            entry
            for entry in entries
            if entry.stage in options.stages
            and entry.data in options.datasets
            and entry.model in options.models
            and (options.again or identity(entry._asdict()) not in rows)
        ]

    if 'baselines' in options.stages:
        for name in options.datasets:
            known = {'stage': 'baseline', 'data': name, 'model': 'Popularity'}
            if options.again or identity(known) not in rows:
                print(f'baselines on {name}')
                rows.update({identity(row): row for row in baselines(study, name)})

    contenders = plan(dict.fromkeys([*DATASETS, *options.datasets]))
    tune = [
        Entry('tune', data, model, items, '', setting, 0)
        for data, model, items, _ in contenders
        for setting in grid(data, model, items)
    ]
    execute(study, wanted(tune), options.jobs)
    rows.update(study.rows(tune))

    best = chosen(rows.values())
    final = [
        Entry('final', data, model, items, '', best[data, model, items], seed)
        for data, model, items, seeds in contenders
        if (data, model, items) in best
        for seed in range(seeds)
    ]
    for entry in final:  # The run of the chosen setting is known by its other name.
        same = rows.get(identity(entry._replace(stage='tune')._asdict()))
        if same is not None:
            rows.setdefault(identity(entry._asdict()), {**same, 'stage': 'final'})
    parts = [
        Entry('parts', *key, part, best[key], seed)
        for key in [(data, 'LightGCN', 'specific') for data in ('lastfm', 'tiktok')]
        if key in best
        for part in PARTS
        for seed in range(2)
    ]
    cold = [
        Entry('cold', data, 'LightGCN', items, '', best.get((data, 'LightGCN', items), {}), 0)
        for data in ('sports', 'ml1m')
        if (data, 'LightGCN', 'id') in best
        for items in ('id', 'features', 'specific', 'mean')
    ]
    for entries in (final, parts, cold):
        execute(study, wanted(entries), options.jobs)
    rows.update(study.rows([*tune, *final, *parts, *cold]))

    time = [
        Entry('time', data, model, items, '', setting, 0)
        for (data, model, items), setting in best.items()
        if data in ('lastfm', 'tiktok')
    ]
    for entry in wanted(time):
        row = time_epoch(study, entry)
        rows[identity(row)] = row

    save(options.out, {**load(options.out), **rows.maps[0]})
    return 0


def load(path: str) -> dict[str, Options]:
    r"""The rows of a file by identity; none if there is no file."""
    if not osp.exists(path):
        return {}
    with open(path) as file:
        return {identity(row): row for row in json.load(file)}


def save(path: str, rows: dict[str, Options]) -> None:
    r"""Writes the rows, and the page next to them."""
    ordered = sorted(rows.values(), key=lambda row: STAGES.index(row['stage']))
    page = osp.splitext(path)[0] + '.md'
    with atomic_write(path) as temporary, open(temporary, 'w') as file:
        file.write('[\n' + ',\n'.join(json.dumps(row) for row in ordered) + '\n]\n')
    with atomic_write(page) as temporary, open(temporary, 'w') as file:
        file.write(render(ordered))
    print(f"{len(ordered)} results written to '{path}', the page is '{page}'")


def baselines(study: Study, data: str) -> list[Options]:
    r"""The rows of popularity and, given features, of item-kNN."""
    dataset = TableDataset(osp.join(study.data, data), split='column')
    head = {'stage': 'baseline', 'data': data}
    out = [{**head, 'model': 'Popularity', **popularity(dataset)}]
    if dataset.modalities:
        out.append({**head, 'model': 'ItemKNN', **item_knn(dataset)})
    return out


def time_epoch(study: Study, entry: Entry) -> Options:
    r"""Median seconds of three epochs (training and validation) after a first
    one, with nothing else running.
    """
    with tempfile.TemporaryDirectory() as folder:
        config = {**study.config(entry), 'out': osp.join(folder, 'run'), 'device': 'cpu'}
        config['trainer'] = {**config['trainer'], 'epochs': 4}
        run(config, progress=False)
        with open(osp.join(folder, 'run', 'metrics.jsonl')) as file:
            seconds = [json.loads(line)['seconds'] for line in file][1:]
    return {
        'stage': 'time',
        'data': entry.data,
        'model': entry.model,
        'items': entry.items,
        'seconds_per_epoch': round(float(np.median(seconds)), 4),
        'threads': torch.get_num_threads(),
    }


def summary(entry: Entry, result: Options) -> Options:
    r"""What the tables need of a result."""
    short = {name: round(result['test'][name], 5) for name in ('recall@20', 'ndcg@20')}
    recall = {n: round(s['recall@20'], 5) for n, s in result['slices'].items() if 'recall@20' in s}
    return {
        **entry._asdict(),
        'val': round(result['val']['recall@20'], 5),
        **short,
        'popularity': round(result['popularity']['recall@20'], 5),
        'slices': recall,
        'epochs': result['epochs'],
        'best_epoch': result['best_epoch'],
        'seconds_per_epoch': result['seconds_per_epoch'],
        'num_parameters': result['num_parameters'],
        'machine': result['machine'],
    }


if __name__ == '__main__':
    sys.exit(main())
