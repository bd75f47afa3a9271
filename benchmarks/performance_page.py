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
    r"""A measurement, for the terminal."""
    setting = ' '.join(f'{key}={value}' for key, value in row.get('setting', {}).items())
    more = f'{row["interactions"]:,} interactions' if 'interactions' in row else setting
    peak = f'  peak {row["peak_mb"]:,} MB' if 'peak_mb' in row else ''
    plain = f'  plain {number(row["plain"])}  ratio {ratio(row)}' if row.get('plain') else ''
    error = f'  error {row["error"]:.4f}' if 'error' in row else ''
    what = f'{row["what"]} {more}'.strip()
    return f'{what:62s} {number(row["ours"]):>8s} {row["unit"]}{plain}{peak}{error}'


def render(rows: Sequence[Row]) -> str:
    r"""The page for the rows that :mod:`benchmarks` collects."""
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
    r"""Ours beside the plain form."""
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
    r"""Whole epochs beside those of the reference framework."""
    text = pairs(rows)
    for items, name in (('id', 'IDs'), (TRAINED, 'IDs and trained features')):
        known = [row for row in rows if row['plain'] and f'epoch ({items})' in row['what']]
        if known:
            mean = float(np.exp(np.mean([np.log(row['ours'] / row['plain']) for row in known])))
            text += f'\nGeometric mean of the ratios with {name}: {mean:.2f}.\n'
    return text


def growth(rows: Sequence[Row]) -> str:
    r"""Against the number of interactions, as a table and a plot."""
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
    r"""Draws seconds against interactions."""
    import matplotlib

    matplotlib.use('Agg')
    # Text as text is smaller than its outlines.
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
    r"""Error of the quantizer against its time."""
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

Medians; the two sides of a comparison take turns in one run, so that ratios say more than
seconds, which depend on what else the machine does. "Plain" is the straightforward form
named in the remark; loading and quantizers are in seconds of processor time. Times are
for float32, batches of 2,048 and d = 64 where nothing else is said.
"""

TEXT = {
    'tokens': """## Token network

`TokenCrossEncoder` sums precomputed table rows over the token-item graph; the plain form
gathers the embeddings of every item and multiplies.
""",
    'products': """## Wide products

Backbones that read features spend most of their time on products with them. PyTorch takes
MKL for those, which leaves half of the units of CPUs with AVX-512 that are not Intel's
unused; there, `motor_geo.nn.functional.matmul` takes oneDNN, which PyTorch brings as well. The
plain form is what PyTorch does by itself; on an Intel CPU the two are the same.
""",
    'bf16': """## In bfloat16

`--trainer.bf16 true` multiplies in half precision (weights, sums over graphs, token networks
and ranking stay in float32). On CPUs it pays where they have instructions for it (AMX), for
backbones whose products are many and of the same sizes in every step. After twelve epochs
on tiktok, losses of GRCN, LIRDRec and VBPR are those of float32 to four digits, and
Recall@20 on validation is within .0007.
""",
    'price': """## What tokens cost

An epoch with `specific` tokens (D = 4 per modality, K = 256) and one with IDs, steps of
both in turns. The token network takes eight sums over the tokens of all items in a step,
three forward and five backward: on tiktok (6,710 items of 12 tokens) that is 644,000 rows,
while two layers over its 59,541 interactions take at most 476,000, both ways. The more
interactions an item has, the less its tokens cost.
""",
    'evaluation': """## Evaluation

All metrics for all users against the plain form, products of blocks of users and all items
and `torch.topk` of each, without masks and metrics. `motor_geo.utils.topk` finds the largest
entries of long rows two to three times faster, by looking for maxima of columns first.
""",
    'baby': """## Epochs at the sizes of Baby

19,445 users, 7,050 items, 118,551 training interactions, features of width 4,096 and 384
(generated). Raw features are frozen, but for the rows that say otherwise: those are what
the reference framework does in BM3, FREEDOM and MGCN.
""",
    'electronics': """## Memory at the sizes of Electronics

192,403 users, 63,001 items, 1.69 million interactions, features of width 4,096 and 384
(generated, half precision, memory-mapped; the item graph is random): three steps of
training and a ranking for 2,000 users, in a process of its own. Pages of mapped features
that are in memory are counted.
""",
    'gpu': """## On a GPU

Generated graphs of the sizes of Baby and Electronics (above), features in half precision.
An epoch is as many times 30 steps as it has; sampling is not part of it. "Never waits"
says that a step went through while PyTorch forbids to wait for the GPU. Propagation is
compared with a copy of as many bytes as it has to read and write.
""",
    'growth': """## Growth

Users (an eighth of the interactions) and items (a twentieth) grow along, and so do
batches: an epoch has 50 steps. Gray lines are proportional. With batches of a fixed size,
steps grow in number and, wherever they go over all edges or all rows of a table, in size:
such an epoch grows with the square. At 10 million interactions, the tables (450 MB) leave
the cache and rows come from memory in random order: more than proportional, half as much
with huge pages (`THP_MEM_ALLOC_ENABLE=1`, which the commands set) as without. The
last line is what the memory does without any of our code: sums of twenty rows, drawn at
random, of a table as long as there are users, once per interaction. How much that grows
is up to the machine, and epochs follow: from 1 to 10 million, per interaction, 1.64 on an AMD
EPYC, where an epoch of LightGCN grew by 1.60 and one of BPR by 1.37, and more than twice as
much on the Intel Xeon of the table, where both double. Ranking stays proportional on both.
""",
    'loading': """## Loading
""",
    'features': """## Item graphs and tokens
""",
    'quantizer': """## Settings of the quantizer

Relative reconstruction error against the time of fitting.
""",
}

TRIED = """## Tried, and not kept

- MKL's sparse product (`torch.sparse_csr_tensor @ x`) on CPUs, 64-bit or 32-bit indices:
  1.4 to 3.6 times slower than `embedding_bag` on the graphs of tiktok, sports and ml1m
  (float32, one thread). It remains the form on GPUs.
- One product of triple width for the three sums of the token network: at 63,001 items its
  result is larger than what the allocator keeps, and clearing fresh pages costs more than
  the sums. Three products of width 64 are five to six times faster. At 6,710 items, where
  memory plays no part, they are still 1.8 times faster.
- Keeping those sums for the backward pass: no faster at 6,710 items, 25 % slower at 63,001.
- Everything from the heap (`M_MMAP_MAX` 0): a fifth faster at 10 million interactions, but
  with huge pages it falls apart, and GRCN needs 4.5 GB instead of 4.0 at Electronics sizes.
- Scores in blocks of 37 MB instead of 16: 1.15 to 1.25 times slower, since less of them is in
  the cache between product and selection. In blocks of 4 MB: 1.1 times slower with one thread,
  1.5 with two, among which `torch.topk` does not divide few short rows.
- `torch.set_float32_matmul_precision('medium')` in place of autocast: as good for MMGCN, better
  for MICRO (.79) and VBPR, but LIRDRec gains less (.55 against .45) and SLMRec, BM3 and LGMRec
  become a sixth to a third slower.
- `torch.compile(model.loss)` on two cores of an Intel Xeon (tiktok, default backend): a step of
  BPR takes 1.3 times as long with IDs and 3.2 with tokens, of VBPR 1.4 and 2.2, since gathers
  replace the sparse sums of the token network.
- 32-bit indices in `embedding_bag`: no faster (the token-item graph has them for its size).
- The distinct nodes of a batch for the last hop of a loss: finding them takes what they
  spare. The last hop of its gradient for those nodes alone: picking their edges takes
  longer than the hop.
- The gradient of propagation by the graph itself instead of its transpose (the same matrix
  for symmetric weights): 4 % on ml1m, nothing on tiktok and sports.
- Contrastive losses in tiles of columns as well as of rows: 5 to 8 %.
- `scipy.sparse.linalg.eigsh` for 512 of 4,096 principal axes: 50 s of processor time,
  against 11 s for all axes by LAPACK and 7 s by subspace iteration.
"""
