r"""Renders measurements as a page of Markdown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks.backbones import TRAINED
from benchmarks.text import group, markdown

Row = dict[str, Any]
GROWTH = 'performance-growth.svg'


def number(value: Any) -> str:
    return '' if value is None else f'{value:.3g}' if value < 100 else f'{value:,.0f}'


def ratio(row: Row) -> str:
    return '' if not row.get('plain') else f'{row["ours"] / row["plain"]:.2f}'


def line(row: Row) -> str:
    r"""Formats a measurement for the terminal."""
    setting = ' '.join(f'{key}={value}' for key, value in row.get('setting', {}).items())
    more = f'{row["interactions"]:,} interactions' if 'interactions' in row else setting
    peak = f'  peak {row["peak_mb"]:,} MB' if 'peak_mb' in row else ''
    plain = f'  plain {number(row["plain"])}  ratio {ratio(row)}' if row.get('plain') else ''
    error = f'  error {row["error"]:.4f}' if 'error' in row else ''
    what = f'{row["what"]} {more}'.strip()
    return f'{what:62s} {number(row["ours"]):>8s} {row["unit"]}{plain}{peak}{error}'


def render(rows: Sequence[Row]) -> str:
    r"""Renders the page for the rows that :mod:`benchmarks` collects."""
    by_part = group(rows, lambda row: row['part'])
    sections: dict[str, Callable[[Sequence[Row]], str]] = {
        'tokens': pairs,
        'products': pairs,
        'bf16': pairs,
        'price': pairs,
        'evaluation': pairs,
        'baby': epochs,
        'electronics': pairs,
        'gpu': pairs,
        'growth': growth,
        'loading': pairs,
        'features': pairs,
        'quantizer': curve,
    }
    parts = [INTRO, machines(rows)]
    for name, table in sections.items():
        if by_part[name]:
            parts += [TEXT[name], table(by_part[name])]
    return '\n'.join([*parts, TRIED])


def machines(rows: Sequence[Row]) -> str:
    names = {
        f'{m["cpu"]} with {m["cores"]} cores, {m["threads"]} thread(s), torch {m["torch"]}, '
        f'torch-geometric {m["torch_geometric"]}, faiss {m["faiss"]}, Python {m["python"]}'
        f'{", " + m["gpu"] if "gpu" in m else ""}'
        for m in (row['machine'] for row in rows)
    }
    return 'Measured on: ' + '; '.join(sorted(names)) + '.\n'


def pairs(rows: Sequence[Row]) -> str:
    r"""Renders a table that compares our form with the plain form."""
    header = ['what', 'ours', 'plain', 'ours / plain', 'remark']
    lines = []
    for row in rows:
        unit = f' {row["unit"]}'
        remarks = [row.get('size', ''), row.get('note', '')]
        if 'step_s' in row:
            remarks.insert(0, f'{row["step_s"]} s per step')
        if 'peak_mb' in row:
            remarks.insert(0, f'peak {row["peak_mb"]:,} MB')
        lines.append(
            [
                row['what'],
                number(row['ours']) + unit,
                number(row['plain']) + unit if row['plain'] is not None else '',
                ratio(row),
                '; '.join(filter(None, remarks)),
            ]
        )
    return markdown(header, lines)


def epochs(rows: Sequence[Row]) -> str:
    r"""Renders a table that compares whole epochs with the reference framework."""
    text = pairs(rows)
    for items, name in (('id', 'IDs'), (TRAINED, 'IDs and trained features')):
        known = [row for row in rows if row['plain'] and f'epoch ({items})' in row['what']]
        if known:
            mean = float(np.exp(np.mean([np.log(row['ours'] / row['plain']) for row in known])))
            text += f'\nGeometric mean of the ratios with {name}: {mean:.2f}.\n'
    return text


def growth(rows: Sequence[Row]) -> str:
    r"""Renders seconds over the number of interactions as a table, with a plot."""
    counts = sorted({row['interactions'] for row in rows})
    lines: list[list[str]] = []
    for what, mine in group(rows, lambda row: row['what']).items():
        seconds = {row['interactions']: row['ours'] for row in mine}
        per_million = [seconds.get(count) and seconds[count] / count * 1e6 for count in counts]
        cells = [f'{number(seconds.get(c))} ({number(p)})' for c, p in zip(counts, per_million)]
        lines.append([what.removeprefix('growth: '), *cells])
    header = ['seconds (per million interactions)', *(f'{count:,}' for count in counts)]
    return f'![Seconds against interactions]({GROWTH})\n\n' + markdown(header, lines)


def plot_growth(rows: Sequence[Row], path: str) -> None:
    r"""Plots seconds over the number of interactions."""
    import matplotlib

    matplotlib.use('Agg')
    # Text elements make smaller files than outlines.
    matplotlib.rcParams.update({'svg.hashsalt': 'motor_geo', 'svg.fonttype': 'none'})
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4), layout='constrained')
    for what, mine in group(rows, lambda row: row['what']).items():
        mine = sorted(mine, key=lambda row: row['interactions'])
        x, y = [row['interactions'] for row in mine], [row['ours'] for row in mine]
        axes.plot(x, y, marker='o', label=what.removeprefix('growth: '))
        axes.plot(x, [y[-1] * count / x[-1] for count in x], color='0.8', zorder=0)
    axes.set(xscale='log', yscale='log', xlabel='training interactions', ylabel='seconds per epoch')
    figure.legend(loc='outside right upper', frameon=False)
    figure.savefig(path, metadata={'Date': None})
    plt.close(figure)


def curve(rows: Sequence[Row]) -> str:
    r"""Renders a table with the error and the time of quantizers."""
    lines = []
    for row in rows:
        setting = ', '.join(f'{key} {value}' for key, value in row['setting'].items())
        lines.append([row['what'], setting, f'{row["ours"]:.2f}', f'{row["error"]:.4f}'])
    return markdown(['features', 'setting', 'seconds', 'relative error'], lines)


INTRO = """# Performance

Generated from `docs/performance.jsonl` by

```
python -m benchmarks --data FOLDER
```

All values are medians. The two sides of a comparison run in turns within one process, so ratios
are more reliable than seconds, which depend on the load of the machine. "Plain" is the
straightforward form named in the remark. Loading and quantizers are measured in CPU time. Unless
noted otherwise, times are for float32, batches of 2,048 and d = 64.
"""

TEXT = {
    'tokens': """## Token network

`TokenCrossEncoder` sums precomputed table rows over the token-item graph. The plain form
gathers the token embeddings of every item and multiplies them.
""",
    'products': """## Products with wide features

Backbones that read features spend most of their time on matrix products with them. PyTorch
computes these with MKL, which leaves half of the vector units of non-Intel CPUs with AVX-512
idle. On such CPUs, `motor_geo.nn.functional.matmul` uses oneDNN, which also ships with PyTorch.
The plain form is the default of PyTorch. On an Intel CPU, both forms are the same.
""",
    'bf16': """## Training in bfloat16

`--trainer.bf16 true` computes matrix products in half precision. Weights, sums over graphs, token
networks and ranking stay in float32. On CPUs with bfloat16 instructions (AMX), this speeds up
backbones with many matrix products whose sizes are the same in every step. After twelve epochs
on tiktok, the losses of GRCN, LIRDRec and VBPR match those of float32 to four digits, and
Recall@20 on validation differs by at most .0007.
""",
    'price': """## Cost of tokens

An epoch with `specific` tokens (D = 4 per modality, K = 256) compared with an epoch with IDs,
with their steps in turns. In each step, the token network computes eight sums over the tokens of
all items, three forward and five backward. On tiktok (6,710 items with 12 tokens each), these are
644,000 rows, while two layers over the 59,541 interactions read at most 476,000 rows, forward and
backward. The more interactions there are per item, the lower is the relative cost of tokens.
""",
    'evaluation': """## Evaluation

All metrics for all users. The plain form multiplies blocks of users with all items and calls
`torch.topk` on each block, without masks and metrics. `motor_geo.utils.topk` finds the largest
entries of long rows two to three times faster because it first searches the maxima of columns.
""",
    'baby': """## Epochs at the size of Baby

Generated data with 19,445 users, 7,050 items, 118,551 training interactions, and features of
width 4,096 and 384. Raw features are frozen unless a row says that they are trained, as in the
reference framework for BM3, FREEDOM and MGCN.
""",
    'electronics': """## Memory at the size of Electronics

Generated data with 192,403 users, 63,001 items, 1.69 million interactions, a random item graph,
and features of width 4,096 and 384 in half precision, memory-mapped. Each backbone runs three
training steps and a ranking for 2,000 users in its own process. The peak includes the pages of
the mapped features that are in memory.
""",
    'gpu': """## On a GPU

Generated graphs of the sizes of Baby and Electronics (above), with features in half precision.
The time of an epoch is extrapolated from 30 steps, without sampling. "Never waits" means that a
step succeeded while PyTorch forbids synchronization with the GPU. Propagation is compared with a
copy of as many bytes as it reads and writes.
""",
    'growth': """## Growth

The number of users is an eighth and the number of items a twentieth of the number of
interactions. The batch size grows too, so an epoch always has 50 steps. Gray lines show
proportional growth. With a fixed batch size, the number of steps grows and, if a step visits all
edges or all rows of a table, so does the cost of each step: the time of an epoch grows
quadratically. At 10 million interactions, the tables (450 MB) no longer fit in the cache, and
rows are read from memory in random order. The growth is then more than proportional; the excess
is half as large with huge pages (`THP_MEM_ALLOC_ENABLE=1`, which the commands set) as without. The
last line measures the memory alone, without our code: sums of twenty random rows of a table with
as many rows as there are users, with one row per interaction. Its growth depends on the machine,
and the epochs follow it. On an AMD EPYC, from 1 to 10 million interactions, its time per
interaction grew by a factor of 1.64, that of LightGCN by 1.60 and that of BPR by 1.37. On the Intel
Xeon of the table, that factor is more than twice as large, and both backbones take about twice as
long per interaction. Ranking stays proportional on both machines.
""",
    'loading': """## Loading
""",
    'features': """## Item graphs and tokens
""",
    'quantizer': """## Settings of the quantizer

Relative reconstruction error and time of fitting.
""",
}

TRIED = """## Tried and rejected

- MKL's sparse product (`torch.sparse_csr_tensor @ x`) on CPUs, with 64-bit or 32-bit indices:
  1.4 to 3.6 times slower than `embedding_bag` on the graphs of tiktok, sports and ml1m
  (float32, one thread). GPUs still use it.
- A single product of triple width for the three sums of the token network: at 63,001 items, its
  result is too large for the allocator to keep, and clearing fresh pages costs more than
  the sums. Three products of width 64 are five to six times faster. At 6,710 items, where
  memory is not a bottleneck, they are still 1.8 times faster.
- Storing these sums for the backward pass: no faster at 6,710 items, 25 % slower at 63,001.
- Allocating everything on the heap (`M_MMAP_MAX` 0): a fifth faster at 10 million interactions,
  but the gain is lost with huge pages, and GRCN needs 4.5 GB instead of 4.0 at the size of
  Electronics.
- Scores in blocks of 37 MB instead of 16 MB: 1.15 to 1.25 times slower because fewer scores stay
  in the cache between product and selection. In blocks of 4 MB: 1.1 times slower with one thread
  and 1.5 times with two, because `torch.topk` does not split a few short rows among threads.
- `torch.set_float32_matmul_precision('medium')` instead of autocast: as fast for MMGCN and faster
  for MICRO (.79) and VBPR, but LIRDRec gains less (.55 against .45), and SLMRec, BM3 and LGMRec
  become a sixth to a third slower.
- `torch.compile(model.loss)` on two cores of an Intel Xeon (tiktok, default backend): a step of
  BPR takes 1.3 times as long with IDs and 3.2 times with tokens, and a step of VBPR 1.4 and 2.2
  times, because gathers replace the sparse sums of the token network.
- 32-bit indices in `embedding_bag`: no faster (the token-item graph uses them to save memory).
- Restricting the last hop of a loss to the distinct nodes of a batch: finding these nodes takes as
  long as it saves. Restricting the last hop of the gradient to these nodes: selecting their edges
  takes longer than the hop.
- Propagating gradients with the graph itself instead of its transpose (the same matrix
  for symmetric weights): 4 % faster on ml1m, no gain on tiktok and sports.
- Contrastive losses in tiles of columns as well as of rows: a gain of 5 to 8 %.
- `scipy.sparse.linalg.eigsh` for 512 of 4,096 principal axes: 50 s of CPU time, compared with
  11 s for all axes with LAPACK and 7 s with subspace iteration.
"""
