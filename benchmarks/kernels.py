r"""Measurements of single parts of a training step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from benchmarks.speed import BABY, generate, training_steps
from benchmarks.timing import Row, interleave, row
from motor_geo.data import BPRSampler
from motor_geo.nn import TokenCrossEncoder
from motor_geo.nn.functional import matmul
from motor_geo.nn.functional.rows import project
from motor_geo.nn.models import MODELS
from motor_geo.typing import RATES


def token_network(num_items: int = 63001, num_tokens: int = 8) -> Iterator[Row]:
    r"""Compares the token network over all items with gathering the token
    embeddings of every item and multiplying them.
    """
    torch.manual_seed(0)
    counts = {'image': num_tokens, 'text': num_tokens}
    token_id = torch.randint(256, (num_items, 2 * num_tokens), dtype=torch.uint8)
    upstream = torch.randn(num_items, 64)
    for mode in ('specific', 'agnostic'):
        encoder = TokenCrossEncoder(counts, 256, 64, mode=mode)

        def step(forward: Callable[[Tensor], Tensor], encoder: TokenCrossEncoder = encoder) -> None:
            encoder.zero_grad()
            forward(token_id).backward(upstream)

        ours, plain = interleave(
            [partial(step, encoder), partial(step, encoder._forward_gather)], repeats=5
        )
        what = f'token network ({mode}), forward and backward'
        yield row(what, ours, plain, size=f'{num_items:,} items, {2 * num_tokens} tokens')
        encoder.zero_grad()
        vectors = num_items * 64 * 4 / 1e6
        yield row(
            f'token network ({mode}), memory beyond input and output',
            allocated(partial(step, encoder)) - vectors,
            3 * vectors,
            'MB',
            note='plain: three vectors per item',
        )


def allocated(function: Callable[[], Any]) -> float:
    r"""Returns the peak MB of tensors that a function allocates."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        function()
    events = profiler.profiler.kineto_results.events()  # type: ignore
    sizes = [(e.start_ns(), e.nbytes()) for e in events if e.name() == '[memory]']
    return float(np.cumsum([size for _, size in sorted(sizes)]).max() / 1e6)


def products(num_items: int = 7050, width: int = 4096) -> Iterator[Row]:
    r"""Compares projections of wide features, alone and in training steps, with
    the default of PyTorch. Both are the same on CPUs where the default is as
    fast.
    """
    torch.manual_seed(0)
    x, upstream = torch.randn(num_items, width), torch.randn(num_items, 64)
    weight = torch.randn(64, width, requires_grad=True)

    def step(function: Callable[[Tensor, Tensor], Tensor]) -> None:
        weight.grad = None
        function(x, weight).backward(upstream)

    ours, plain = interleave([partial(step, project), partial(step, F.linear)], repeats=15)
    yield row(
        'projection of features, forward and backward',
        ours,
        plain,
        size=f'{num_items:,} x {width:,} to 64',
    )
    data = generate(BABY, 'binary', torch.float32)
    batches = list(BPRSampler(data[RATES].edge_index, *BABY[:2]).epoch(0))
    for name in ('VBPR', 'GRCN', 'SLMRec', 'BM3', 'FREEDOM', 'MGCN', 'LIRDRec'):
        steps = []
        for _ in range(2):
            torch.manual_seed(0)
            steps.append(training_steps(MODELS[name](data), data, batches, 1))
        by_itself = mock.patch.object(matmul, 'prefers_onednn', lambda x: False)
        ours, plain = interleave([steps[0], by_itself(steps[1])], repeats=15, warmup=4)
        yield row(f'{name} at Baby sizes, a step (id)', ours, plain)


def half_precision() -> Iterator[Row]:
    r"""Compares training steps in bfloat16 and in float32."""
    data = generate(BABY, 'binary', torch.float32)
    batches = list(BPRSampler(data[RATES].edge_index, *BABY[:2]).epoch(0))
    for name in ('VBPR', 'GRCN', 'SLMRec', 'BM3', 'FREEDOM', 'MGCN', 'LIRDRec', 'LGMRec', 'MMGCN'):
        steps = []
        for bf16 in (True, False):
            torch.manual_seed(0)
            steps.append(training_steps(MODELS[name](data), data, batches, 1, bf16))
        ours, plain = interleave(steps, repeats=9, warmup=3)
        yield row(f'{name} at Baby sizes, a step in bfloat16', ours, plain, note='plain: float32')
