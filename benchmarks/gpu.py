r"""Measures training steps, evaluation and propagation on a GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch_geometric.data import HeteroData

from benchmarks.backbones import ITEMS, build
from benchmarks.speed import BABY, ELECTRONICS, generate, held_out, training_steps
from benchmarks.timing import Row, interleave, row
from motor_geo.data import BPRSampler
from motor_geo.engine.evaluator import Evaluator
from motor_geo.nn.functional.spmm import csr_matmul
from motor_geo.nn.models import MODELS, Recommender
from motor_geo.nn.models.recommender import build_graph
from motor_geo.typing import ITEM, RATES, USER, EvalTargets

Sizes = tuple[int, int, int, dict[str, int]]
SIZES: dict[str, Sizes] = {'Baby': BABY, 'Electronics': ELECTRONICS}
#: Number of steps to measure. The time of an epoch is extrapolated from them.
STEPS = 30


def rows(
    models: Sequence[str], device: str = 'cuda', sizes: dict[str, Sizes] | None = None
) -> Iterator[Row]:
    r"""Measures the seconds per epoch and per evaluation of every backbone,
    whether a step waits for the GPU, and which part of the memory bandwidth
    propagation reaches.

    Args:
        models: Names of the backbones.
        device: The device. (default: :obj:`'cuda'`)
        sizes: Numbers of users, items and interactions, and widths of features
            of generated graphs, by name. (default: those of Baby and
            Electronics)
    """
    for where, size in (SIZES if sizes is None else sizes).items():
        for weighting in (None, 'binary'):
            names = [m for m in models if (not MODELS[m].transforms) == (weighting is None)]
            if not names and weighting is not None:
                continue
            data, targets = generate(size, weighting).to(device), held_out(*size[:2])
            if weighting is None:
                yield propagation(data, where)
            for name in names:
                for items in ITEMS:
                    yield from backbone(data, targets.to(device), name, items, where)


def propagation(data: HeteroData, where: str, channels: int = 64) -> Row:
    r"""Compares one hop to users and one to items with a copy of as many bytes
    as they read and write.
    """
    edge_index = data[RATES].edge_index
    sizes = int(data[USER].num_nodes), int(data[ITEM].num_nodes)
    graph = build_graph(edge_index, *sizes, torch.float32)
    user_ptr, user_col, *_ = graph.to_user
    item_ptr, item_col, *_ = graph.to_item
    user, item = (torch.randn(size, channels, device=edge_index.device) for size in sizes)

    def hops() -> None:
        csr_matmul(user_ptr, user_col, graph.to_user_weight, item)
        csr_matmul(item_ptr, item_col, graph.to_item_weight, user)

    num_edges = edge_index.size(1)
    moved = 2 * num_edges * (8 + 4 + 4 * channels) + 4 * channels * sum(sizes)
    source = torch.randn(max(1, moved // 8), device=edge_index.device)
    target = torch.empty_like(source)
    ours, plain = interleave(
        [done(hops, source.device), done(lambda: target.copy_(source), source.device)], 20, 5
    )
    note = f'{moved / ours / 1e9:,.0f} GB/s; plain: a copy, {moved / plain / 1e9:,.0f} GB/s'
    return row(f'propagation at {where} sizes, both hops', ours, plain, note=note)


def backbone(
    data: HeteroData, targets: EvalTargets, name: str, items: str, where: str
) -> Iterator[Row]:
    r"""Measures an epoch, extrapolated from some of its steps, and the evaluation
    of one split.
    """
    edge_index, num_items = data[RATES].edge_index, int(data[ITEM].num_nodes)
    device = edge_index.device
    if device.type == 'cuda':
        torch.cuda.reset_peak_memory_stats(device)
    torch.manual_seed(0)
    model = build(name, data, items).to(device)
    sampler = BPRSampler(edge_index, int(data[USER].num_nodes), num_items)
    batches = [batch for batch, _ in zip(sampler.epoch(0), range(STEPS))]
    advance = training_steps(model, data, batches, len(batches))
    (seconds,) = interleave([done(advance, device)], repeats=3)
    more: dict[str, Any] = {}
    if device.type == 'cuda':
        more['peak_mb'] = round(torch.cuda.max_memory_allocated(device) / 1e6)
    note = f'{1e3 * seconds / len(batches):.2f} ms per step; {waits(model, data, batches[:1])}'
    what = f'{name} at {where} sizes, an epoch ({items})'
    yield row(what, seconds * len(sampler) / len(batches), None, note=note, **more)

    evaluator = Evaluator(targets, edge_index, num_items)

    def evaluate() -> None:
        with torch.no_grad():
            evaluator.evaluate(model.eval()(data))

    (seconds,) = interleave([done(evaluate, device)], repeats=3)
    yield row(f'{name} at {where} sizes, evaluation ({items})', seconds, None)


def waits(model: Recommender, data: HeteroData, batches: Sequence[Any]) -> str:
    r"""Describes whether a training step waits for the GPU."""
    if data[RATES].edge_index.device.type != 'cuda':
        return 'not on a GPU'
    advance = training_steps(model, data, batches, 1)
    advance()
    torch.cuda.set_sync_debug_mode('error')
    try:
        advance()
    except RuntimeError as error:
        return f'waits ({str(error).splitlines()[0]})'
    finally:
        torch.cuda.set_sync_debug_mode('default')
    return 'never waits'


def done(function: Callable[[], Any], device: torch.device) -> Callable[[], None]:
    r"""Returns a function that also waits until the GPU has finished."""

    def run() -> None:
        function()
        if device.type == 'cuda':
            torch.cuda.synchronize(device)

    return run
