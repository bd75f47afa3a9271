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
        'libraries': pairs,
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
    sizes: list[list[str]] = []
    for what, mine in group(rows, lambda row: row['what']).items():
        found = {row['interactions']: row for row in mine}
        name = what.removeprefix('growth: ')
        cells = []
        for count in counts:
            seconds = found[count]['ours'] if count in found else None
            per_million = seconds and seconds / count * 1e6
            cells.append(f'{number(seconds)} ({number(per_million)})' if seconds else '')
        lines.append([name, *cells])
        if mine[0].get('bytes') is not None and name.endswith('auto'):
            pairs = [found.get(count, {}) for count in counts]
            cells = [f'{row["bytes"]:g} ({row["peak_mb"]:,})' if row else '' for row in pairs]
            sizes.append([name.rsplit(',', 1)[0], *cells])
    heads = [f'{count:,}' for count in counts]
    text = f'![Seconds against interactions]({GROWTH})\n\n'
    text += markdown(['seconds (per million interactions)', *heads], lines)
    if sizes:
        text += '\n' + markdown(['bytes per interaction (peak MB)', *heads], sizes)
    return text + growth_per_interaction(rows)


def growth_per_interaction(rows: Sequence[Row], few: int = 10**6) -> str:
    r"""Says how much more an interaction costs in the largest graph than among a
    million, beside the memory alone.
    """
    most = max(row['interactions'] for row in rows)
    factors = {}
    for what, mine in group(rows, lambda row: row['what']).items():
        cost = {row['interactions']: row['ours'] / row['interactions'] for row in mine}
        if few in cost and most in cost and most > few:
            factors[what.removeprefix('growth: ')] = cost[most] / cost[few]
    auto = [f'{x:.1f} ({name.rsplit(",", 1)[0]})' for name, x in factors.items() if 'auto' in name]
    alone = factors.get('sums of random rows alone')
    if not auto or alone is None:
        return ''
    return (
        f'\nFrom {few:,} to {most:,} interactions, the time per interaction with `auto` grows by '
        f'factors of {", ".join(auto)}, and that of the memory alone by {alone:.1f}.\n'
    )


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

All times are medians. The two sides of a comparison alternate in one run, so ratios are more
reliable than seconds, which depend on the load of the machine. "Plain" is the
straightforward implementation in the remark, and "reference framework" is
[MMRec](evaluation.rst). Loading and quantizers are measured in processor time. Unless
stated otherwise, models use float32, batches of 2,048 and d = 64.
"""

TEXT = {
    'tokens': """## Token network

`TokenCrossEncoder` sums precomputed table rows over the token-item graph. The plain form
gathers the embeddings of every item and multiplies them.
""",
    'products': """## Products with wide features

Backbones that read features spend most of their time on feature products. PyTorch uses MKL,
which leaves half of the vector units idle on non-Intel CPUs with AVX-512. On these CPUs,
`motor_geo.nn.functional.matmul` uses oneDNN, which PyTorch includes. The plain form is the
default of PyTorch. On Intel CPUs, both are the same.
""",
    'bf16': """## Training in bfloat16

`--trainer.bf16 true` multiplies in half precision. Weights, sums over graphs, token networks
and ranking stay in float32. On CPUs with AMX instructions, it speeds up backbones with many
products of the same size in every step. After twelve epochs on tiktok, the losses of GRCN,
LIRDRec and VBPR agree with float32 to four digits, and validation Recall@20 within .0007.
""",
    'price': """## Cost of tokens

The table compares an epoch with `specific` tokens (D = 4 per modality, K = 256) and one with
IDs, in alternating steps. In each step, the token network sums over the tokens of all items
eight times, three times forward and five times backward. On tiktok (6,710 items, 12 tokens
each), it reads 644,000 rows. Two graph layers over the 59,541 interactions read at most
476,000 rows, forward and backward. The relative cost of tokens decreases with the number of
interactions per item.
""",
    'libraries': """## Other libraries

Epochs with IDs on tiktok, vectors of size 64 and one thread, without validation. LightGCN of PyG
gets the same batches.

The gap to BPR of `implicit` has two reasons. It changes three vectors after every interaction, in
C++, so no step has a fixed cost. Ours takes 30 steps per epoch, each of a few dozen operations of
PyTorch. And it uses plain gradient descent, whereas Adam reads and writes three tables in every
step, whatever the batch. Both are what a batch of 2,048 and Adam mean: losses of published
backbones and their settings refer to them.
""",
    'evaluation': """## Evaluation

We compute all metrics for all users. The plain form only multiplies blocks of users with all
items and calls `torch.topk`, without masks and metrics. `motor_geo.utils.topk` finds the
largest entries of long rows two to three times faster, because it computes maxima of columns
first.
""",
    'baby': """## Epochs at the size of Baby

The data are generated: 19,445 users, 7,050 items, 118,551 training interactions, features of
width 4,096 and 384. Raw features are frozen, except in the rows with trained features. The
reference framework trains the features of BM3, FREEDOM and MGCN.
""",
    'electronics': """## Memory at the size of Electronics

The data are generated: 192,403 users, 63,001 items, 1.69 million interactions, features of
width 4,096 and 384 in half precision, memory-mapped, and a random item graph. Each process
trains three steps and ranks for 2,000 users. Memory includes the resident pages of
the mapped features.
""",
    'gpu': """## On a GPU

The graphs are generated with the sizes of Baby and Electronics (above), and features are in
half precision. The time of an epoch is extrapolated from 30 steps and excludes sampling.
"Never waits" means that a step succeeds while PyTorch forbids synchronization with the GPU.
Propagation is compared with a copy of the bytes that it reads and writes.
""",
    'growth': """## Growth

A tenth of the number of interactions is the number of users, a hundredth the number of items.
Batches have 2,048 interactions, or a number that grows with the data
(`--batch_size auto`, about 50 steps per epoch). `recommended` items are averages of 24 tokens.
Gray lines show linear growth. An epoch is extrapolated from a few steps, and includes sampling.

With a fixed batch size, an epoch that reads all edges or all table rows in every step grows
quadratically. With `auto`, it grows linearly until the tables no longer fit into the cache;
from there on, random access to rows costs more. Huge pages (`THP_MEM_ALLOC_ENABLE=1`, which
the commands set) halve this effect. Arrays from 32 MB on, such as those of a batch of 65,536
interactions, would get new pages in every step, and clearing them would take up to a third
of it: commands keep their memory (`motor_geo.pipeline.large_arrays`), except for LightGCN at 100
million interactions, where gaps between arrays would exceed 24 GB. The last row measures the
memory alone: for each interaction, it reads one random row of a table with one row per user, and
adds up twenty at a time. All numbers are from the Intel Xeon, whose cache of 260 MB holds the
tables of ten million interactions.

Bytes per interaction count all tensors in the middle of an epoch, except parameters, their
gradients and moments, and tokens. 16 of them are the opposite edges of the data, which a graph
from a file holds; those of a data set are computed when they are first read. From a million
interactions on, both directions in a model share their memory.
""",
    'loading': """## Loading
""",
    'features': """## Item graphs and tokens
""",
    'quantizer': """## Settings of the quantizer

The table shows the relative reconstruction error and the fitting time.
""",
}

TRIED = """## What we tried and rejected

- **MKL's sparse product** (`torch.sparse_csr_tensor @ x`) on CPUs, with 64-bit or 32-bit
  indices, is 1.4 to 3.6 times slower than `embedding_bag` on the graphs of tiktok, sports and
  ml1m (float32, one thread). We use it on GPUs.
- **One product of triple width** for the three sums of the token network. At 63,001 items, its
  result exceeds what the allocator keeps, and clearing new pages costs more than the sums.
  Three products of width 64 are five to six times faster. At 6,710 items, where memory does
  not matter, they are still 1.8 times faster.
- **Storing these sums** for the backward pass is no faster at 6,710 items and 25 % slower at
  63,001.
- **Allocating everything on the heap** (`M_MMAP_MAX` 0), always. It fragments with huge pages:
  GRCN then needs 4.5 GB instead of 4.0 GB at Electronics sizes, and LightGCN no longer fits into
  24 GB at 100 million interactions. Commands do it for BPR with large batches, and for graph
  backbones without features if an eighth of the memory holds all parameters.
- **Other block sizes for scores** than 16 MB. Blocks of 37 MB are 1.15 to 1.25 times slower,
  because fewer scores stay in the cache between product and selection. Blocks of 4 MB are 1.1
  times slower with one thread. With two threads, they are 1.5 times slower, because
  `torch.topk` does not parallelize over few short rows.
- **`torch.set_float32_matmul_precision('medium')`** instead of autocast is equally fast for
  MMGCN and faster for MICRO (.79) and VBPR. But LIRDRec gains less (.55 instead of .45), and
  SLMRec, BM3 and LGMRec become 17 to 33 % slower.
- **`torch.compile(model.loss)`** on two cores of an Intel Xeon (tiktok, default backend). A step
  of BPR takes 1.3 times as long with IDs and 3.2 times with tokens, a step of VBPR 1.4 and 2.2
  times, because gathers replace the sparse sums of the token network.
- **A compiled extension.** A prototype in C (AVX-512, one thread, d = 64) fuses the token network,
  and the layers of LightGCN with factored weights and 32-bit indices. With `specific` tokens
  (D = 4), a step of LightGCN takes .73 to .75 of the processor time on tiktok, .85 to .87 on
  ml1m and .86 to .88 on sports (quartile and median, in turns). A step of FREEDOM takes .83 to .86
  on tiktok and .88 to .93 on the other two, a step of MGCN .90 to .91 on tiktok and .96 to .99 on
  ml1m. In PyTorch, tokens are 34 % and hops 43 % of a step of LightGCN on tiktok, but 9 % and 74 %
  on sports and 12 % and 76 % on ml1m, and the hops of the prototype are not much faster. With
  `--items recommended`, both together are 24 % of a step on tiktok, where the products of
  `--loss whole` dominate. Other trainings ran on the same two cores (AMD EPYC), so caches were
  cold, and an idle machine may gain more. This is too little for a second implementation that
  needs a compiler and changes results by rounding.
- **32-bit indices in `embedding_bag`** are no faster. The token-item graph uses them to save
  memory.
- **Restricting the last hop of a loss to the distinct nodes of a batch.** Finding these nodes
  costs what they save. In the backward pass, selecting their edges takes longer than the hop.
- **Using the graph instead of its transpose** in the gradient of propagation (the same matrix
  for symmetric weights) saves 4 % on ml1m and nothing on tiktok and sports.
- **Tiling contrastive losses** by columns as well as rows saves 5 to 8 %.
- **`scipy.sparse.linalg.eigsh`** for 512 of 4,096 principal axes takes 50 s of processor time.
  LAPACK takes 11 s for all axes, and subspace iteration 7 s.
"""
