r"""Measures every backbone (agreement with its published implementation, size,
time and memory), and writes :obj:`docs/backbones.md`:

    python -m benchmarks.backbones --data FOLDER

:obj:`FOLDER` holds one folder per data set in the common layout. The numbers
are stored next to the page in :obj:`docs/backbones.json`. With
:obj:`--skip-time`, time and memory are read from there instead of measured.
"""

from __future__ import annotations

import argparse
import json
import os.path as osp
import re
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import numpy as np
import torch
from torch_geometric.data import HeteroData
from tqdm import tqdm

from benchmarks.text import markdown
from motor_geo.data import OPQTokenizer, TableDataset
from motor_geo.engine.evaluator import Evaluator
from motor_geo.engine.trainer import Trainer
from motor_geo.nn import TokenCrossEncoder
from motor_geo.nn.models import MODELS, Recommender
from motor_geo.pipeline.assemble import assemble
from motor_geo.pipeline.config import MODE_OF, RunConfig
from motor_geo.typing import ITEM, RATES, USER, modalities, similar, similar_users

ITEMS = ('id', 'specific')
#: The item encoders whose time and memory are measured.
TIMED = (*ITEMS, 'recommended')
HEADER = {'id': 'ID', 'specific': 'tokens', 'recommended': 'recommended'}
#: IDs, with raw features as trainable parameters, as in some published implementations.
TRAINED = 'id, trained features'
NUM_TOKENS, CODEBOOK_SIZE = 4, 256
#: The Music data of the paper: number of users and items, and widths of features.
MUSIC = 57202, 25717, {'image': 4096, 'text': 384}
#: Seconds of training per epoch on tiktok in the reference framework.
REFERENCE = {
    'BPR': '0.24',
    'LightGCN': '0.94',
    'VBPR': '0.56',
    'GRCN': '8.2',
    'SLMRec': '5.0',
    'BM3': '1.6',
    'FREEDOM': '1.0',
    'MGCN': '3.3',
    'LATTICE': '28',
    'LGMRec': '12',
    'MMGCN': '10',
}

Numbers = dict[str, Any]


def deviations() -> Numbers:
    r"""Runs the golden tests, and returns the largest relative deviations by
    model, dtype and kind. Models without a golden case are left out.

    Raises:
        RuntimeError: If a golden test fails.
    """
    import pytest

    from tests.golden_case import DEVIATIONS

    root = osp.dirname(osp.dirname(osp.abspath(__file__)))
    DEVIATIONS.clear()
    folder = osp.join(root, 'tests', 'nn', 'models')
    if pytest.main(['-q', '--disable-warnings', '-k', 'golden', f'--rootdir={root}', folder]) != 0:
        raise RuntimeError('The golden tests have failed.')
    names = {name.lower(): name for name in MODELS}
    out: Numbers = defaultdict(lambda: defaultdict(dict))
    for (case, dtype, kind), value in DEVIATIONS.items():
        if case in names:  # The other cases are models without training.
            out[names[case]][dtype][kind] = value
    return {name: out[name] for name in MODELS if name in out}


def num_parameters(name: str, items: str) -> int:
    r"""Counts trainable parameters for the sizes of Music, without allocating
    them.
    """
    num_users, num_items, widths = MUSIC
    with torch.device('meta'):
        data = HeteroData()
        data[USER].num_nodes, data[ITEM].num_nodes = num_users, num_items
        for modality, width in widths.items():
            data[ITEM][f'x_{modality}'] = torch.empty(num_items, width)
            data[similar(modality)].edge_index = torch.empty(2, 10 * num_items, dtype=torch.long)
            data[similar(modality)].edge_weight = torch.empty(10 * num_items)
        data[similar_users()].edge_index = torch.empty(2, 40 * num_users, dtype=torch.long)
        data[similar_users()].edge_weight = torch.empty(40 * num_users)
        model = build(name, data, items)
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def build(
    name: str, data: HeteroData, items: str, num_tokens: dict[str, int] | None = None
) -> Recommender:
    r"""Builds a backbone on a graph. Its tokens may be generated.

    Args:
        name: The name of the backbone.
        data: The graph.
        items: The item encoder.
        num_tokens: The number of tokens per modality.
            (default: :obj:`NUM_TOKENS` for each modality of the graph)
    """
    options = {'train_features': True} if items == TRAINED else {}
    encoder = None
    if items in MODE_OF:
        num_tokens = num_tokens or dict.fromkeys(modalities(data), NUM_TOKENS)
        encoder = TokenCrossEncoder(num_tokens, CODEBOOK_SIZE, mode=MODE_OF[items])
    return MODELS[name](data, encoder, **options)


def configuration(folder: str, model: str, items: str) -> RunConfig:
    r"""Returns a configuration with the default arguments of a backbone, and
    with tokens of centered and normalized features. :obj:`recommended` keeps
    its own settings.
    """
    if items == 'recommended':
        return RunConfig.of({'data': folder, 'model': model, 'items': items})
    tokenizer = {
        'num_tokens': NUM_TOKENS,
        'codebook_size': CODEBOOK_SIZE,
        'center': True,
        'normalize': True,
    }
    sections = {'data': folder, 'model': model, 'items': items}
    named = {section: {'name': name} for section, name in sections.items()}
    return RunConfig.of({**named, 'tokenizer': tokenizer})


def measure_all(
    folder: str, models: Sequence[str], epochs: int, threads: int
) -> Iterator[tuple[str, Numbers]]:
    r"""Measures time and memory of each backbone in its own process, one after
    another.
    """
    dataset = TableDataset(folder)
    fitted: dict[str, OPQTokenizer | None] = dict.fromkeys(TIMED)
    for name in tqdm(models, desc='time'):
        found = {}
        for items in TIMED:
            job = assemble(configuration(folder, name, items), dataset)
            job.add_tokens(fitted[items])
            fitted[items] = job.tokenizer
            num_tokens = job.tokenizer.num_tokens_dict if job.tokenizer is not None else None
            with tempfile.TemporaryDirectory() as scratch:
                path = osp.join(scratch, 'data.pt')
                torch.save((job.data, dataset.targets('val')), path)
                with ProcessPoolExecutor(1, mp_context=get_context('spawn')) as pool:
                    timed = pool.submit(measure, path, name, items, epochs, threads, num_tokens)
                    found[items] = timed.result()
        yield name, found


def measure(
    path: str,
    name: str,
    items: str,
    epochs: int,
    threads: int,
    num_tokens: dict[str, int] | None = None,
) -> Numbers:
    r"""Measures the median seconds per epoch after the first one, and the
    resident memory in MB before building the model and at its peak.
    """
    torch.set_num_threads(threads)
    data, targets = torch.load(path, weights_only=False)
    before = resident('VmRSS')
    torch.manual_seed(0)
    model = build(name, data, items, num_tokens)
    evaluator = Evaluator(targets, data[RATES].edge_index, int(data[ITEM].num_nodes))
    trainer = Trainer(
        model, data, evaluator, epochs=epochs + 1, patience=epochs + 1, progress=False
    )
    history = trainer.fit().history[1:]
    train = [entry['train_seconds'] for entry in history]
    evaluation = [entry['seconds'] - entry['train_seconds'] for entry in history]
    return {
        'train': round(float(np.median(train)), 4),
        'evaluation': round(float(np.median(evaluation)), 4),
        'before': before,
        'peak': resident('VmHWM'),
        'epochs': epochs,
        'threads': threads,
    }


def resident(name: str) -> int:
    r"""Returns a memory size of this process in MB (Linux only). The peak of
    :obj:`getrusage` would include that of the parent process.
    """
    with open('/proc/self/status') as file:
        match = re.search(rf'^{name}:\s+(\d+) kB$', file.read(), re.MULTILINE)
    assert match is not None
    return round(int(match[1]) * 1024 / 1e6)


def render(numbers: Numbers) -> str:
    r"""Renders the page."""
    parts = [INTRO, AGREEMENT]
    kinds = ('outputs', 'losses', 'gradients')
    header = [
        'backbone',
        *(f'{kind}, {dtype}' for dtype in ('float64', 'float32') for kind in kinds),
    ]
    lines = []
    for name, found in numbers['deviations'].items():
        values = [
            found.get(dtype, {}).get(kind) for dtype in ('float64', 'float32') for kind in kinds
        ]
        lines.append([link(name), *('' if v is None else f'{v:.0e}' if v else '0' for v in values)])
    parts += [markdown(header, lines), PARAMETERS]

    lines = []
    for name, count in numbers['parameters'].items():
        saved = 100 * (1 - count['specific'] / count['id'])
        lines.append([link(name), f'{count["id"]:,}', f'{count["specific"]:,}', f'{saved:.2f} %'])
    parts.append(markdown(['backbone', 'ID', 'tokens', 'saved'], lines))

    if numbers['cost']:
        parts += [cost_note(numbers['cost']), cost_table(numbers['cost'])]
    return '\n'.join(parts)


def cost_table(cost: Numbers) -> str:
    lines = []
    for name, found in cost.items():
        rows = [found.get(items) for items in TIMED]
        lines.append(
            [
                link(name),
                *(seconds(row['train']) if row else '' for row in rows),
                REFERENCE.get(name, ''),
                *(seconds(row['evaluation']) if row else '' for row in rows),
                *(row['peak'] if row else '' for row in rows),
            ]
        )
    header = [
        'backbone',
        *(f'training s, {HEADER[items]}' for items in TIMED),
        'training s, reference',
        *(f'evaluation s, {HEADER[items]}' for items in TIMED),
        *(f'peak MB, {HEADER[items]}' for items in TIMED),
    ]
    return markdown(header, lines)


def cost_note(cost: Numbers) -> str:
    rows = [row for found in cost.values() for row in found.values()]

    def values(name: str) -> str:
        ordered = sorted({row[name] for row in rows})
        return ' to '.join(str(value) for value in dict.fromkeys((ordered[0], ordered[-1])))

    return f"""## Time and memory

Seconds per epoch on tiktok with {values('threads')} CPU thread(s): 9,308 users, 6,710 items,
59,541 training interactions, image and audio features of width 128, batches of 2048, d = 64.

- Times are medians of {values('epochs')} epoch(s) after a warm-up epoch. Evaluation is that of
  an epoch. Each backbone runs in its own process, one after another.
- The machine is virtual: seconds vary by up to a third from process to process. Small differences
  between columns and rows mean nothing.
- Memory is the peak resident size of the process. PyTorch and the data take
  {values('before')} MB of it before the model exists.
- "Reference" is MMRec, the [reference framework](evaluation.rst), with ID embeddings on two
  cores. Its evaluation takes 0.31 s.
"""


def seconds(value: float) -> str:
    return f'{value:.2f}' if value < 10 else f'{value:.0f}'


def link(name: str) -> str:
    return f'[{name}](api/models.rst#motor_geo.nn.models.{name})'


INTRO = f"""# Backbones

Generated from `docs/backbones.json` by

```
python -m benchmarks.backbones --data FOLDER
```

where `FOLDER` contains one folder per data set in the common layout. Each name links to the
formula, paper and arguments of a backbone. "ID" is an ID embedding. "Tokens" are `specific`
with D = {NUM_TOKENS} per modality and K = {CODEBOOK_SIZE}. "Recommended" is `--items recommended`:
averages of eight tokens per modality and of sixteen tokens of behavior. All arguments are defaults.
"""

AGREEMENT = """## Agreement with published implementations

The table shows the largest deviation from the float64 results of the published
implementation, on a small graph with given weights, relative to the largest entry of an
array. For float32, the published results are rounded first.

- Outputs are scores, user and item vectors, and intermediate vectors.
- Losses are all terms and the total.
- Gradients are those of the tables, or their norms where only norms are known.

Float64 deviations near 1e-8 occur where the published code adds a small constant to node
degrees.
"""

PARAMETERS = f"""## Trainable parameters

The sizes are those of the Music data of the paper: {MUSIC[0]:,} users, {MUSIC[1]:,} items,
d = 64, image features of width {MUSIC[2]['image']} and text features of width
{MUSIC[2]['text']}. Raw features are not trained.

Tokens save no parameters in backbones without a trainable item table. The ID embeddings of
MMGCN are constants, as published. LIRDRec, PGL, DRAGON and DualGNN have no ID embedding, so
tokens are an additional input, which also widens the user table.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog='python -m benchmarks.backbones')
    parser.add_argument('--data', help='folder of data set folders that includes tiktok')
    parser.add_argument('--out', default=osp.join('docs', 'backbones.md'), help='the page')
    parser.add_argument('--skip-time', action='store_true', help='do not measure time and memory')
    parser.add_argument('--models', nargs='+', default=list(MODELS), help='backbones to time')
    parser.add_argument(
        '--epochs', type=int, default=5, help='epochs to time, after a first one (default: 5)'
    )
    parser.add_argument(
        '--threads', type=int, default=max(1, torch.get_num_threads()), help='number of threads'
    )
    options = parser.parse_args(arguments)
    if options.data is None and not options.skip_time:
        parser.error('--data is required unless --skip-time is given')

    path = osp.splitext(options.out)[0] + '.json'
    cost: Numbers = {}
    if osp.exists(path):
        with open(path) as file:
            cost = json.load(file)['cost']
    numbers: Numbers = {
        'deviations': deviations(),
        'parameters': {
            name: {items: num_parameters(name, items) for items in ITEMS} for name in MODELS
        },
    }
    write({**numbers, 'cost': cost}, options.out)
    if not options.skip_time:
        folder = osp.join(options.data, 'tiktok')
        for name, found in measure_all(folder, options.models, options.epochs, options.threads):
            cost[name] = found
            write({**numbers, 'cost': cost}, options.out)  # Keep the measurements so far.
    print(f"numbers written to '{path}', the page is '{options.out}'")
    return 0


def write(numbers: Numbers, page: str) -> None:
    r"""Writes the numbers and the page, with backbones in the order of the package."""
    cost = numbers['cost']
    numbers = {**numbers, 'cost': {name: cost[name] for name in MODELS if name in cost}}
    with open(osp.splitext(page)[0] + '.json', 'w') as file:
        json.dump(numbers, file, indent=1)
        file.write('\n')
    with open(page, 'w') as file:
        file.write(render(numbers))


if __name__ == '__main__':
    sys.exit(main())
