r"""Time and memory of training by the number of interactions."""

from __future__ import annotations

import gc
import os.path as osp
import resource
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from functools import partial
from itertools import islice
from multiprocessing import get_context

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.data import HeteroData

from benchmarks.backbones import resident
from benchmarks.speed import generate, held_out, training_steps
from benchmarks.timing import Row, interleave, row
from motor_geo.data import BPRSampler
from motor_geo.engine.batch_size import USUAL, auto_batch_size
from motor_geo.engine.evaluator import Evaluator
from motor_geo.nn import TokenCrossEncoder
from motor_geo.nn.models import MODELS, Recommender
from motor_geo.pipeline.large_arrays import tune_large_arrays
from motor_geo.typing import ITEM, RATES, USER, Embeddings

#: Numbers of interactions. A tenth is the number of users, a hundredth the number of items.
COUNTS = 100_000, 1_000_000, 10_000_000, 100_000_000
#: Tokens of `recommended` items with one modality of content.
TOKENS = {'behavior': 16, 'text': 8}
#: Maximum address space of a process.
LIMIT = 24 * 10**9


def growth(counts: Sequence[int] = COUNTS, threads: int = 1) -> Iterator[Row]:
    r"""Measures the seconds per epoch, the bytes per interaction and the peak memory for
    growing numbers of interactions, each in its own process. An epoch is
    extrapolated from a few steps, and includes sampling.
    """
    for count in counts:
        with tempfile.TemporaryDirectory() as folder:
            path = osp.join(folder, 'data.pt')
            torch.save(generate((count // 10, count // 100, count, {}), None), path)
            for name in ('BPR', 'LightGCN'):
                for items in ('id', 'recommended'):
                    with ProcessPoolExecutor(1, mp_context=get_context('spawn')) as pool:
                        job = pool.submit(measure, path, name, items, threads)
                        found, held, peak = job.result()
                    for batch, seconds in found.items():
                        what = f'growth: {name}, {items}, batches of {batch}'
                        more = {'bytes': held, 'peak_mb': peak}
                        yield row(what, seconds, None, interactions=count, **more)
            with ProcessPoolExecutor(1, mp_context=get_context('spawn')) as pool:
                rest = pool.submit(others, path, threads).result()
            for what, seconds in rest.items():
                yield row(f'growth: {what}', seconds, None, interactions=count)


def measure(path: str, name: str, items: str, threads: int) -> tuple[dict[str, float], float, int]:
    r"""Returns the seconds per epoch by batch size, the bytes per interaction of all
    tensors except tables and tokens, and the peak memory in MB.
    """
    limit(threads)
    data = torch.load(path, weights_only=False)
    num_users, num_items = data[USER].num_nodes, data[ITEM].num_nodes
    edge_index = data[RATES].edge_index
    model = build(name, data, items)
    seconds = {}
    for batch, size in (('2,048', USUAL), ('auto', auto_batch_size(edge_index.size(1)))):
        sampler = BPRSampler(edge_index, num_users, num_items, batch_size=size)
        tune_large_arrays(model, size)  # As `motor_geo.run` does.
        start = time.perf_counter()
        epoch = sampler.epoch(0)
        batches = list(islice(epoch, 4))
        sampling = time.perf_counter() - start
        advance = training_steps(model, data, batches, 1)
        repeats = 7 if edge_index.size(1) <= 10**7 else 2 if edge_index.size(1) < 10**8 else 1
        (step,) = interleave([advance], repeats=repeats, warmup=1)
        seconds[batch] = len(sampler) * step + sampling
        del batches, advance
        held = held_bytes(model, data) / edge_index.size(1)  # In the middle of an epoch.
        del sampler, epoch
        for parameter in model.parameters():
            parameter.grad = None
        gc.collect()
    return seconds, round(held, 1), resident('VmHWM')


def build(name: str, data: HeteroData, items: str) -> Recommender:
    r"""Builds a backbone with IDs or with averages of random tokens."""
    torch.manual_seed(0)
    if items == 'id':
        return MODELS[name](data)
    shape = data[ITEM].num_nodes, sum(TOKENS.values())
    data[ITEM].token_id = torch.randint(256, shape, dtype=torch.uint8)
    return MODELS[name](data, TokenCrossEncoder(TOKENS, 256, mode='mean'))


def held_bytes(model: Recommender, data: HeteroData) -> int:
    r"""Counts the bytes of all tensors, except parameters, tensors of their size (their
    gradients and moments) and tokens.
    """
    gc.collect()
    tables = {x.numel() for x in model.parameters() if x.dim() > 1}
    found: dict[int, int] = {}
    for x in gc.get_objects():
        if not issubclass(type(x), Tensor) or x is data[ITEM].get('token_id'):
            continue
        if x.is_floating_point() and x.numel() in tables:
            continue
        with suppress(RuntimeError, NotImplementedError):  # Wrappers have no storage.
            found[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
    return sum(found.values())


def others(path: str, threads: int) -> dict[str, float]:
    r"""Measures ranking, and the memory alone: sums of twenty random users, as many users
    as interactions, as in a hop.
    """
    limit(threads)
    data = torch.load(path, weights_only=False)
    num_users, num_items = data[USER].num_nodes, data[ITEM].num_nodes
    emb = Embeddings(torch.randn(num_users, 64), torch.randn(num_items, 64))
    evaluator = Evaluator(held_out(1000, num_items), data[RATES].edge_index, num_items)
    (ranking,) = interleave([partial(evaluator.evaluate, emb)], repeats=3)
    del evaluator
    count = data[RATES].edge_index.size(1)
    index, bound = torch.randint(num_users, (count,)), torch.arange(0, count, 20)
    sums = partial(F.embedding_bag, index, emb.user, bound, mode='sum')
    (random,) = interleave([sums], repeats=5, warmup=1)
    return {'ranking for 1,000 users': ranking, 'sums of random rows alone': random}


def limit(threads: int) -> None:
    torch.set_num_threads(threads)
    np.random.seed(0)
    resource.setrlimit(resource.RLIMIT_AS, (LIMIT, LIMIT))
