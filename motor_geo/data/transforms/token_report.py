r"""Measures how well the tokens of a catalog distinguish its items."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from motor_geo.data.transforms.features import MAX_ROWS, as_block, unique_rows
from motor_geo.data.transforms.quantizer import Quantizer


def token_report(
    quantizers: dict[str, Quantizer],
    features: dict[str, np.ndarray],
    k: int = 10,
    num_samples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    r"""Computes the report of :meth:`motor_geo.data.OPQTokenizer.report`.

    Args:
        quantizers: The quantizer of each modality.
        features: The feature matrix of each modality, **[N, d_m]**.
        k: Number of nearest neighbors to compare.
        num_samples: Number of items to sample for :obj:`neighbors`. Those, and
            :obj:`error`, compare items of a random sample of 262,144 if there
            are more.
        seed: Seed of the sample.
    """
    codes = {m: quantizer.encode(features[m]) for m, quantizer in quantizers.items()}
    everything = torch.cat(list(codes.values()), dim=1)
    return {
        'num_items': everything.size(0),
        'collisions': collisions(everything),
        'modalities': {
            m: _report_one(quantizers[m], features[m], codes[m], k, num_samples, seed)
            for m in codes
        },
    }


def format_report(report: dict[str, Any]) -> str:
    r"""Formats a report of :func:`token_report` with one line per modality."""
    lines = [
        f'{"modality":<12}{"tokens":>7}{"perplexity":>12}{"used":>8}{"collisions":>12}'
        f'{"duplicates":>12}{"error":>8}{"kept":>8}{"neighbors":>11}'
    ]
    for m, row in report['modalities'].items():
        lines.append(
            f'{m:<12}{row["num_tokens"]:>7}{np.mean(row["perplexity"]):>12.1f}'
            f'{np.mean(row["used"]):>8.1f}{row["collisions"]:>12}{row["duplicates"]:>12}'
            f'{row["error"]:>8.3f}{row["kept_variance"]:>8.3f}{row["neighbors"]:>11.3f}'
        )
    lines.append(
        f'{report["collisions"]} of {report["num_items"]} items share all tokens with another.'
    )
    return '\n'.join(lines)


def collisions(codes: Tensor) -> int:
    r"""Returns the number of rows that equal another row.

    Args:
        codes: Rows, **[n, D]**.
    """
    _, counts = torch.unique(codes, dim=0, return_counts=True)
    return int(counts[counts > 1].sum())


def _report_one(
    quantizer: Quantizer, array: np.ndarray, codes: Tensor, k: int, num_samples: int, seed: int
) -> dict[str, Any]:
    perplexity, used = [], []
    for column in codes.unbind(dim=1):
        share = column.bincount().double() / column.numel()
        perplexity.append(float(torch.special.entr(share).sum().exp()))
        used.append(int((share > 0).sum()))
    num_collisions = collisions(codes)
    num_duplicates = collisions(torch.from_numpy(unique_rows(array)[1]).view(-1, 1))
    if len(array) > MAX_ROWS:
        rows = np.random.default_rng(seed).choice(len(array), MAX_ROWS, replace=False)
        array, codes = array[np.sort(rows)], codes[torch.from_numpy(np.sort(rows))]
    x, z = _prepared(quantizer, array)
    z, decoded = quantizer.compare(x, z, codes)
    variance = float(x.var(dim=0, correction=0).sum())
    outside = max(0.0, variance - float(z.var(dim=0, correction=0).sum()))
    error = float((z - decoded).square().sum(dim=1).mean()) + outside
    k = min(k, x.size(0) - 1)
    return {
        'num_tokens': quantizer.num_tokens,
        'perplexity': perplexity,
        'used': used,
        'collisions': num_collisions,
        'duplicates': num_duplicates,
        'error': error / variance if variance > 0 else 0.0,
        'kept_variance': quantizer.kept_variance,
        'neighbors': _overlap(x, z, decoded, k, num_samples, seed) if k > 0 else 1.0,
    }


def _prepared(quantizer: Quantizer, array: np.ndarray) -> tuple[Tensor, Tensor]:
    r"""Returns prepared rows and transformed rows in single precision."""
    x, z = [], []
    step = max(1, 2**22 // quantizer.width)
    for start in range(0, array.shape[0], step):
        block = quantizer.prepare(as_block(array, start, start + step, torch.double))
        x.append(block.float())
        z.append(quantizer.transform(block).float())
    return torch.cat(x), torch.cat(z)


def _overlap(x: Tensor, z: Tensor, decoded: Tensor, k: int, num_samples: int, seed: int) -> float:
    r"""Returns the share of nearest neighbors by cosine similarity that remain
    when queries stay exact and all other items are decoded from their tokens.
    """
    generator = torch.Generator().manual_seed(seed)
    sample = torch.randperm(x.size(0), generator=generator)[:num_samples]
    x, decoded = F.normalize(x), F.normalize(decoded)
    shared = 0
    for rows in sample.split(256):
        own = torch.arange(rows.numel())
        lists = []
        for query, base in [(x[rows], x), (z[rows], decoded)]:
            score = query @ base.t()
            score[own, rows] = -torch.inf
            lists.append(score.topk(k, dim=1).indices)
        shared += int((lists[0].unsqueeze(2) == lists[1].unsqueeze(1)).sum())
    return shared / (sample.numel() * k)
