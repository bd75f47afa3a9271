r"""Unseen items among all items: what the options of :class:`~motor_geo.nn.UnseenItems` give:

    python -m benchmarks.unseen --data FOLDER [FOLDER ...] [--model TokenALS]

One run with a fifth of the items held out (:obj:`--data.cold_share 0.2`), then every option on
the same weights, with its factor chosen on validation. Every option of :obj:`motor_geo.run`
may follow. :obj:`hits` are shares of held-out interactions of unseen items that lists find;
:obj:`warm, alike` is the same for items with training interactions, weighted so that they have
as many interactions in all as the unseen ones.
"""

from __future__ import annotations

import argparse
import os.path as osp
import sys
import tempfile
from collections.abc import Sequence

import torch
from torch import Tensor

from motor_geo import run as command
from motor_geo.data.datasets.base import RecommendationDataset
from motor_geo.engine.evaluator import EvalResult, Evaluator
from motor_geo.nn import UnseenItems
from motor_geo.nn.unseen import readout_of
from motor_geo.pipeline.folder import load_run
from motor_geo.pipeline.train import FACTORS
from motor_geo.typing import RATES

NOTHING = 1e-6
OPTIONS: dict[str, dict[str, float | bool | int]] = {
    'published': {},
    'length': {'length': True},
    'neighbors 0.5': {'neighbors': 0.5},
    'neighbors 1': {'neighbors': 1.0},
    'neighbors 1, k 50': {'neighbors': 1.0, 'k': 50},
    'length, neighbors 1': {'length': True, 'neighbors': 1.0},
    'virtual_edges 10': {'virtual_edges': 10},
}


def hits(result: EvalResult, total: Tensor, k: int) -> tuple[float, float]:
    r"""Hits of unseen items, and of seen ones with as many interactions in all."""
    _, item = result.targets.index
    found, seen = (result.rank < k).double(), result.count[item] > 0
    group = total[item].clamp(min=1).log2().round().long()
    size = int(group.max()) + 1
    weight = group[~seen].bincount(minlength=size).double()
    rate = group[seen].bincount(found[seen], size) / group[seen].bincount(minlength=size).clamp(1)
    known = group[seen].bincount(minlength=size) > 0
    weight = weight * known
    return float(found[~seen].mean()), float((weight * rate).sum() / weight.sum())


def totals(dataset: RecommendationDataset) -> Tensor:
    r"""Interactions of every item in all splits."""
    parts = [dataset.data[RATES].edge_index[1], *(dataset.targets(s).item for s in ('val', 'test'))]
    return torch.cat(parts).bincount(minlength=dataset.num_items)


@torch.no_grad()
def measure(folder: str, k: int) -> list[list[str]]:
    r"""A row for every option."""
    run = load_run(folder)
    dataset, data, model = run.dataset, run.data, run.model
    edges, total = data[RATES].edge_index, totals(dataset)
    val, test = (
        Evaluator(dataset.targets(split), edges, dataset.num_items, ks=k)
        for split in ('val', 'test')
    )
    readout = readout_of(model)
    if readout is None:
        readout = UnseenItems()
        readout.attach(model)
    rows = []
    for name, options in OPTIONS.items():
        for key, value in vars(UnseenItems(**options)).items():
            if key in ('length', 'neighbors', 'virtual_edges', 'k'):
                setattr(readout, key, value)
        readout.factor = NOTHING
        best = val.evaluate(model(data)).metrics[f'warm_recall@{k}']
        tried = {}
        for factor in FACTORS:
            readout.factor = factor
            tried[factor] = val.evaluate(model(data)).metrics
        for cost in (0.02, 0.05, None):
            score = 'unseen_recall' if cost is not None else 'harmonic'
            least = 0.0 if cost is None else best * (1 - cost)
            fits = [f for f in FACTORS if tried[f][f'warm_recall@{k}'] >= least] or [FACTORS[0]]
            readout.factor = max(fits, key=lambda f: tried[f][f'{score}@{k}'])
            result = test.evaluate(model(data))
            own, alike = hits(result, total, k)
            means = [result.metrics[f'{key}_recall@{k}'] for key in ('warm', 'unseen')]
            kind = 'harmonic' if cost is None else f'cost {cost:.0%}'
            values = [f'{value:.4f}' for value in (*means, own, alike)]
            rows.append([name, kind, f'{readout.factor:g}', *values])
            if name == 'published' and cost is None:
                readout.factor = 1.0
                result = test.evaluate(model(data))
                means = [result.metrics[f'{key}_recall@{k}'] for key in ('warm', 'unseen')]
                values = [f'{value:.4f}' for value in (*means, *hits(result, total, k))]
                rows.append([name, 'as it is', '1', *values])
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog='python -m benchmarks.unseen')
    parser.add_argument('--data', nargs='+', required=True, metavar='FOLDER')
    parser.add_argument('--k', default=20, type=int)
    given, options = parser.parse_known_args(arguments)
    for source in given.data:
        with tempfile.TemporaryDirectory() as folder:
            out = osp.join(folder, 'run')
            flags = ['--data', source, '--data.cold_share', '0.2', '--out', out, *options]
            stdout, sys.stdout = sys.stdout, sys.stderr
            try:
                code = command.main([*flags, '--report', 'false', '--trainer.progress', 'false'])
            finally:
                sys.stdout = stdout
            if code != 0:
                return code
            print(osp.basename(osp.normpath(source)))
            head = ['option', 'chosen by', 'factor', 'warm', 'unseen', 'hits', 'warm, alike']
            for row in [head, *measure(out, given.k)]:
                print(
                    '  '.join(f'{cell:>11s}' if i else f'{cell:20s}' for i, cell in enumerate(row))
                )
            sys.stdout.flush()
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
