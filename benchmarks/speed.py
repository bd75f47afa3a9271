r"""Measurements of models: whole epochs, evaluation, memory and growth."""

from __future__ import annotations

import itertools
import os
import os.path as osp
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import numpy as np
import torch
from torch_geometric.data import HeteroData

from benchmarks.backbones import ITEMS, TRAINED, build, configuration, measure, resident
from benchmarks.timing import Row, interleave, row
from motor_geo.data import BPRSampler, TableDataset
from motor_geo.data.transforms.fit_quantizer import fit_quantizer
from motor_geo.data.transforms.knn import knn_graph_cosine, knn_weights
from motor_geo.engine.evaluator import Evaluator
from motor_geo.engine.row_adam import RowAdam
from motor_geo.engine.trainer import half_features
from motor_geo.nn.functional.rows import row_gradients
from motor_geo.nn.models import MODELS, Recommender
from motor_geo.pipeline.assemble import assemble
from motor_geo.typing import ITEM, RATES, USER, Embeddings, EvalTargets, set_edges, similar

#: Number of users, items and training interactions, and widths of features.
BABY = 19445, 7050, 118551, {'image': 4096, 'text': 384}
ELECTRONICS = 192403, 63001, 1690000, {'image': 4096, 'text': 384}
#: Seconds of training per epoch in the reference framework at this size, on two cores.
REFERENCE_BABY = {'BPR': 0.5, 'LightGCN': 2.9, 'VBPR': 3.5, 'GRCN': 55.0, 'SLMRec': 18.0}
#: The same for backbones that train raw features in the reference framework.
REFERENCE_TRAINED = {'BM3': 26.0, 'FREEDOM': 15.0, 'MGCN': 23.0}


def generate(
    sizes: tuple[int, int, int, dict[str, int]],
    weighting: str | None,
    dtype: torch.dtype = torch.float16,
) -> HeteroData:
    r"""Generates a random graph with popular items, features, tokens and, if a
    model needs them, item graphs of random neighbors. These take as much time
    and memory as real item graphs.
    """
    num_users, num_items, num_edges, widths = sizes
    generator = torch.Generator().manual_seed(0)
    data = HeteroData()
    data[USER].num_nodes, data[ITEM].num_nodes = num_users, num_items
    key = torch.empty(0, dtype=torch.long)
    while key.numel() < num_edges:  # Distinct pairs.
        user = torch.randint(num_users, (num_edges,), generator=generator)
        item = (num_items * torch.rand(num_edges, generator=generator) ** 3).long()
        key = torch.cat([key, user * num_items + item]).unique()
    key = key[torch.randperm(key.numel(), generator=generator)[:num_edges]].sort().values
    set_edges(data, torch.stack([key // num_items, key % num_items]))
    for modality, width in widths.items():
        x = torch.empty(num_items, width, dtype=dtype)
        for rows in x.split(4096):
            rows.copy_(torch.randn(rows.shape, generator=generator))
        data[ITEM][f'x_{modality}'] = x
        if weighting is not None:
            own = torch.arange(num_items).view(-1, 1)
            index = torch.randint(num_items, (num_items, 9), generator=generator)
            near = torch.cat([own, index], dim=1)
            weights = torch.ones(num_items, 10)
            edge_index, weight = knn_weights(near, weights, 'binary')
            data[similar(modality)].edge_index = edge_index
            data[similar(modality)].edge_weight = weight
    tokens = 4 * len(widths)
    data[ITEM].token_id = torch.randint(
        256, (num_items, tokens), generator=generator, dtype=torch.uint8
    )
    return data


def held_out(num_users: int, num_items: int) -> EvalTargets:
    r"""Holds out one random item per user."""
    item = torch.randint(num_items, (num_users,), generator=torch.Generator().manual_seed(1))
    return EvalTargets(torch.arange(num_users), torch.arange(num_users + 1), item)


def prices(folder: str) -> Iterator[Row]:
    r"""Compares training steps with tokens and with IDs, in turns."""
    for name in ('tiktok', 'sports', 'ml1m'):
        path = osp.join(folder, name)
        dataset, tokenizer = TableDataset(path), None
        sizes = dataset.num_users, dataset.num_items
        batches = list(BPRSampler(dataset.data[RATES].edge_index, *sizes).epoch(0))
        for model in ('LightGCN', 'FREEDOM', 'BPR'):
            steps = []
            for items in ITEMS:
                job = assemble(configuration(path, model, items), dataset)
                job.add_tokens(tokenizer)
                tokenizer = job.tokenizer or tokenizer
                steps.append(training_steps(job.model, job.data, batches, 10))
            plain, ours = interleave(steps, repeats=7, warmup=2)
            count = len(batches) / 10
            yield row(
                f'{model} on {name}, an epoch with tokens',
                ours * count,
                plain * count,
                note='plain: with IDs',
            )


def training_steps(
    model: Recommender, data: HeteroData, batches: Sequence[Any], count: int, bf16: bool = False
) -> Callable[[], None]:
    r"""Returns a function that runs the next :obj:`count` training steps."""
    data = half_features(data) if bf16 else data
    optimizer = RowAdam(model.parameters(), lr=1e-3)
    model.begin_epoch(data, 0, torch.Generator().manual_seed(0))
    sparse = not model.needs_tables and model.user_encoder is None  # As in the trainer.
    position = 0

    def advance() -> None:
        nonlocal position
        for _ in range(count):
            optimizer.zero_grad()
            with row_gradients(sparse), torch.autocast('cpu', torch.bfloat16, enabled=bf16):
                losses = model.loss(data, batches[position % len(batches)])
            torch.stack(list(losses.values())).sum().backward()
            optimizer.step()
            position += 1

    return advance


def evaluation(folder: str, name: str = 'sports') -> Iterator[Row]:
    r"""Compares full ranking with all metrics against matrix products of blocks
    of users with all items, and the selection of the best items.
    """
    dataset = TableDataset(osp.join(folder, name))
    targets, num_items = dataset.targets('val'), dataset.num_items
    torch.manual_seed(0)
    emb = Embeddings(torch.randn(dataset.num_users, 64), torch.randn(num_items, 64))
    evaluator = Evaluator(targets, dataset.data[RATES].edge_index, num_items)

    def bare(size: int) -> None:
        for users in targets.user.split(max(1, size // (4 * num_items))):
            (emb.user[users] @ emb.item.t()).topk(50, dim=1)

    ours, large, small = interleave(
        [lambda: evaluator.evaluate(emb), lambda: bare(64 * 2**20), lambda: bare(4 * 2**20)],
        repeats=3,
    )
    what, size = f'evaluation of {name}', f'{len(targets):,} users x {num_items:,} items'
    yield row(
        what, ours, min(large, small), size=size, note='plain: matrix product and top 50 only'
    )


def baby(models: Sequence[str], threads: int, epochs: int = 2) -> Iterator[Row]:
    r"""Measures epochs of all backbones on generated data of the size of Baby."""
    sizes, more = (BABY, torch.float32), (measure, epochs, threads)
    trained = [name for name in models if name in REFERENCE_TRAINED]
    found = itertools.chain(
        in_processes(*sizes, models, ITEMS, *more), in_processes(*sizes, trained, [TRAINED], *more)
    )
    for name, items, numbers in found:
        reference = (REFERENCE_TRAINED if items == TRAINED else REFERENCE_BABY).get(name)
        yield row(
            f'{name} at Baby sizes, an epoch ({items})',
            numbers['train'],
            reference,
            peak_mb=numbers['peak'],
            note='plain: reference framework' if reference else '',
        )
        if name == 'LightGCN':
            what = f'evaluation at Baby sizes ({items})'
            yield row(what, numbers['evaluation'], 2.0, note='plain: reference framework')


def electronics(models: Sequence[str], threads: int) -> Iterator[Row]:
    r"""Measures the peak memory of training steps and ranking on generated data
    of the size of Electronics, with memory-mapped features in half precision.
    """
    found = in_processes(ELECTRONICS, torch.float16, models, ['specific'], memory, threads)
    for name, items, (seconds, peak) in found:
        what = f'{name} at Electronics sizes, peak memory ({items})'
        yield row(what, peak, 4000.0, 'MB', step_s=seconds, note='plain: memory limit')


def memory(path: str, name: str, items: str, threads: int) -> tuple[float, int]:
    r"""Returns the seconds per training step, and the peak resident memory in MB."""
    torch.set_num_threads(threads)
    data, targets = torch.load(path, weights_only=False, mmap=True)
    model = build(name, data, items)
    sizes = int(data[USER].num_nodes), int(data[ITEM].num_nodes)
    sampler = BPRSampler(data[RATES].edge_index, *sizes)
    batches = [batch for batch, _ in zip(sampler.epoch(0), range(3))]
    advance = training_steps(model, data, batches, 1)
    advance()
    (seconds,) = interleave([advance], repeats=2, warmup=0)
    model.eval()
    targets = EvalTargets(targets.user[:2000], targets.ptr[:2001], targets.item[:2000])
    with torch.no_grad():
        Evaluator(targets, data[RATES].edge_index, sizes[1]).evaluate(model(data))
    return round(seconds, 3), resident('VmHWM')


def wide_features(num_items: int = 63001, width: int = 4096, threads: int = 2) -> Iterator[Row]:
    r"""Measures the item graph and the tokens of wide, memory-mapped features in
    half precision.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = osp.join(folder, 'image_feat.npy')
        out = np.lib.format.open_memmap(path, 'w+', np.float16, (num_items, width))
        generator = np.random.default_rng(0)
        basis = generator.standard_normal((width // 8, width), np.float32)
        for start in range(0, num_items, 4096):  # A low-rank matrix with noise.
            rows = out[start : start + 4096]
            code = generator.standard_normal((len(rows), width // 8), np.float32)
            rows[:] = code @ basis / 8 + generator.standard_normal(rows.shape, np.float32)
        out.flush()
        del out
        for what, function in (('nearest neighbors', _neighbors), ('OPQ, 8 tokens', _tokens)):
            with ProcessPoolExecutor(1, mp_context=get_context('spawn')) as pool:
                seconds, peak = pool.submit(function, path, threads).result()
            size = f'{num_items:,} x {width:,}'
            yield row(what, seconds, None, peak_mb=peak, size=size)


def _neighbors(path: str, threads: int) -> tuple[float, int]:
    torch.set_num_threads(threads)
    start = time.perf_counter()
    knn_graph_cosine(np.load(path, mmap_mode='r'), 10)
    return time.perf_counter() - start, resident('VmHWM')


def _tokens(path: str, threads: int) -> tuple[float, int]:
    torch.set_num_threads(threads)
    start = time.perf_counter()
    x = np.load(path, mmap_mode='r')
    fit_quantizer(x, 8, 256).encode(x)
    return time.perf_counter() - start, resident('VmHWM')


def in_processes(
    sizes: tuple[int, int, int, dict[str, int]],
    dtype: torch.dtype,
    models: Sequence[str],
    items: Sequence[str],
    function: Callable[..., Any],
    *arguments: Any,
) -> Iterator[tuple[str, str, Any]]:
    r"""Measures every model on a generated graph in its own process."""
    for weighting in (None, 'binary'):
        names = [m for m in models if (not MODELS[m].transforms) == (weighting is None)]
        if not names:
            continue
        with tempfile.TemporaryDirectory() as folder:
            path = osp.join(folder, 'data.pt')
            torch.save((generate(sizes, weighting, dtype), held_out(*sizes[:2])), path)
            os.sync()  # Otherwise, writing would continue during the first measurement.
            for name in names:
                for how in items:
                    with ProcessPoolExecutor(1, mp_context=get_context('spawn')) as pool:
                        job = pool.submit(function, path, name, how, *arguments)
                        yield name, how, job.result()
