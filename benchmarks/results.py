r"""Trains backbones with different item encoders on real data and writes
:obj:`docs/results.md`:

    python -m benchmarks.results --data FOLDER --runs runs/results --jobs 2

:obj:`FOLDER` holds one folder per data set in the common layout. Settings are
chosen on validation by one seed, with the same number of settings for every
contender; the chosen ones are then trained with several seeds. Finished runs
are not repeated, and interrupted ones go on.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import os.path as osp
import sys
import tempfile
from collections import defaultdict
from typing import Any, Dict, Iterable, List, Optional, Sequence, Tuple

import numpy as np
import torch
from tqdm import tqdm

from benchmarks.results_page import render
from motor_geo.build import build_dataset
from motor_geo.config import merge, resolve
from motor_geo.run import run

Options = Dict[str, Any]
Key = Tuple[str, str, str]
TOKENS = ('specific', 'agnostic', 'mean')


def product(**choices: Sequence[Any]) -> List[Options]:
    r"""All combinations of dotted options."""
    keys = [key.replace('__', '.') for key in choices]
    return [dict(zip(keys, values)) for values in itertools.product(*choices.values())]


def grid(data: str, model: str, items: str) -> List[Options]:
    r"""The settings that are tried on validation, as many for every contender
    of a backbone: six for LightGCN and FREEDOM on the small data sets, three
    for BPR and VBPR and on sports, two on ml1m and baby.
    """
    tokens = items in TOKENS
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


def plan(datasets: Iterable[str]) -> List[Tuple[str, str, str, int]]:
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
    return out


#: One change at a time to LightGCN with specific tokens.
PARTS: Dict[str, Options] = {
    'as chosen': {},
    'features raw': {'tokenizer.center': False, 'tokenizer.normalize': False},
    '16 tokens per modality': {'tokenizer.num_tokens': 16},
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


class Study:
    r"""A folder of runs over a folder of data sets."""

    def __init__(self, data: str, runs: str, device: str, threads: int, epochs: int):
        self.data, self.runs = data, runs
        self.base = {'device': device, 'threads': threads, 'trainer': {'epochs': epochs}}

    def config(
        self, data: str, model: str, items: str, seed: int, options: Options, split: str = 'column'
    ) -> Options:
        r"""The resolved configuration of a run, its folder included."""
        flat = {'tokenizer.center': True, 'tokenizer.normalize': True, 'tokenizer.seed': seed}
        nested: Options = defaultdict(dict)
        for key, value in {**flat, **options}.items():
            section, name = key.split('.')
            nested[section][name] = value
        words = [f'{key.split(".")[1]}={value}' for key, value in sorted(options.items())]
        folder = osp.join(data if split == 'column' else f'{data}-{split}', model, items)
        chosen = {
            'data': {'name': osp.join(self.data, data), 'split': split},
            'model': {'name': model},
            'items': {'name': items},
            'seed': seed,
            'out': osp.join(self.runs, folder, ','.join(words) or 'default', f'seed{seed}'),
        }
        return resolve(merge(self.base, chosen, dict(nested)))

    def result(self, config: Options) -> Optional[Options]:
        r"""The result of a run, if it is finished."""
        path = osp.join(config['out'], 'result.json')
        if not osp.exists(path):
            return None
        with open(path) as file:
            return json.load(file)


def execute(configs: Sequence[Options], jobs: int, title: str) -> None:
    r"""Carries out the runs that are not finished."""
    todo = [c for c in configs if not osp.exists(osp.join(c['out'], 'result.json'))]
    context = multiprocessing.get_context('spawn')
    with context.Pool(jobs) as pool:
        for message in tqdm(pool.imap_unordered(_run, todo), total=len(todo), desc=title):
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


def main(arguments: Optional[Sequence[str]] = None) -> int:
    parser = argparse.ArgumentParser(prog='python -m benchmarks.results')
    parser.add_argument('--data', required=True, help='folder of data set folders')
    parser.add_argument('--datasets', nargs='+', default=['lastfm', 'tiktok', 'sports', 'ml1m'])
    parser.add_argument('--runs', default='runs/results', help='folder of the runs')
    parser.add_argument('--out', default='docs/results.json', help='collected results')
    parser.add_argument('--models', nargs='+', default=['LightGCN', 'FREEDOM', 'BPR', 'VBPR'])
    parser.add_argument('--stages', nargs='+', default=['tune', 'final', 'parts', 'cold', 'time'])
    parser.add_argument('--jobs', type=int, default=1, help='runs at a time')
    parser.add_argument('--device', default='auto')
    parser.add_argument('--threads', type=int, default=max(1, torch.get_num_threads()))
    parser.add_argument('--epochs', type=int, default=1000)
    options = parser.parse_args(arguments)
    study = Study(options.data, options.runs, options.device, options.threads, options.epochs)
    contenders = [entry for entry in plan(options.datasets) if entry[1] in options.models]

    tuning = {
        (data, model, items): [
            study.config(data, model, items, 0, setting) for setting in grid(data, model, items)
        ]
        for data, model, items, _ in contenders
    }
    if 'tune' in options.stages:
        execute([c for configs in tuning.values() for c in configs], options.jobs, 'settings')
    chosen: Dict[Key, Options] = {}
    for key, configs in tuning.items():
        values = [(study.result(c) or {}).get('val', {}).get('recall@20', -1) for c in configs]
        if max(values) >= 0:
            chosen[key] = grid(*key)[int(np.argmax(values))]

    final = [
        ('final', key, '', study.config(*key, seed, chosen[key]))
        for data, model, items, seeds in contenders
        for key in [(data, model, items)]
        if key in chosen
        for seed in range(seeds)
    ]
    parts = [
        ('parts', (data, 'LightGCN', 'specific'), part, config)
        for data in ('lastfm', 'tiktok')
        if (key := (data, 'LightGCN', 'specific')) in chosen
        for part, change in PARTS.items()
        for seed in range(2)
        for config in [study.config(*key, seed, {**chosen[key], **change})]
    ]
    cold = [
        ('cold', (data, 'LightGCN', items), '', study.config(*key, 0, setting, 'cold_item'))
        for data in options.datasets
        for items in ('id', 'features', 'specific', 'mean')
        if (data, 'LightGCN', 'id') in chosen and data in ('sports', 'ml1m')
        for key in [(data, 'LightGCN', items)]
        for setting in [chosen.get(key, {})]
    ]
    stages = {'final': final, 'parts': parts, 'cold': cold}
    for stage, entries in stages.items():
        if stage in options.stages:
            execute([entry[-1] for entry in entries], options.jobs, stage)

    rows = []
    for stage, key, part, config in [*final, *parts, *cold]:
        result = study.result(config)
        if result is not None:
            row = summary(stage, key, part, chosen.get(key, {}), result)
            if stage == 'cold':
                row['candidates'] = build_dataset(config).targets('test').candidates.numel()
            rows.append(row)
    if 'time' in options.stages:
        rows += time_epochs(
            study, [key for key in chosen if key[0] in ('lastfm', 'tiktok')], chosen
        )
    for key, configs in tuning.items():
        for setting, config in zip(grid(*key), configs):
            result = study.result(config)
            if result is not None:
                rows.append(summary('tune', key, '', setting, result))
    with open(options.out, 'w') as file:
        file.write('[\n' + ',\n'.join(json.dumps(row) for row in rows) + '\n]\n')
    print(f"{len(rows)} results written to '{options.out}'")
    page = osp.splitext(options.out)[0] + '.md'
    with open(page, 'w') as file:
        file.write(render(rows))
    print(f"the page is '{page}'")
    return 0


def time_epochs(study: Study, keys: Sequence[Key], chosen: Dict[Key, Options]) -> List[Options]:
    r"""Median seconds of three epochs (training and validation) after a first
    one, per contender, with nothing else running.
    """
    seconds: Dict[Key, List[float]] = defaultdict(list)
    for key in tqdm(keys, desc='time'):
        with tempfile.TemporaryDirectory() as folder:
            config = study.config(*key, 0, chosen[key])
            config = {**config, 'out': osp.join(folder, 'run'), 'device': 'cpu'}
            config['trainer'] = {**config['trainer'], 'epochs': 4}
            run(config, progress=False)
            with open(osp.join(folder, 'run', 'metrics.jsonl')) as file:
                seconds[key] = [json.loads(line)['seconds'] for line in file][1:]
    return [
        {
            'stage': 'time',
            'data': data,
            'model': model,
            'items': items,
            'seconds_per_epoch': round(float(np.median(seconds[data, model, items])), 4),
            'threads': torch.get_num_threads(),
        }
        for data, model, items in keys
    ]


def summary(
    stage: str, key: Tuple[str, ...], part: str, setting: Options, result: Options
) -> Options:
    r"""What the tables need of a result."""
    short = {name: round(result['test'][name], 5) for name in ('recall@20', 'ndcg@20')}
    recall = {n: round(s['recall@20'], 5) for n, s in result['slices'].items() if 'recall@20' in s}
    return {
        'stage': stage,
        'data': key[0],
        'model': key[1],
        'items': key[2],
        'part': part,
        'setting': setting,
        'seed': result['seed'],
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
