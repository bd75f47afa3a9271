r"""A small data set, and reproductions on it."""

import json

import numpy as np

from motor_geo.reproduce import main

NUM_USERS, NUM_ITEMS = 80, 60
SMALL = [
    *('--trainer.epochs', '2', '--model.channels', '8', '--tokenizer.codebook_size', '8'),
    *('--svd.channels', '8', '--graph.k', '4', '--threads', '1'),
    *('--tokenizer.cache', 'false', '--graph.cache', 'false'),
]


def make_shop(folder):
    r"""A folder of kinds of items and of users who like one of them."""
    path = folder / 'shop'
    path.mkdir()
    rng = np.random.default_rng(0)
    kind = rng.integers(0, 4, NUM_ITEMS)
    for name, width in (('text', 8), ('image', 10)):
        x = rng.standard_normal((4, width))[kind] + rng.standard_normal((NUM_ITEMS, width)) / 4
        np.save(path / f'{name}_feat.npy', x.astype(np.float32))
    lines = []
    for user in range(NUM_USERS):
        weight = np.where(kind == rng.integers(4), 8.0, 1.0)
        items = rng.choice(NUM_ITEMS, 10, False, weight / weight.sum())
        lines += [f'{user}\t{item}\t{max(0, j - 7)}' for j, item in enumerate(items)]
    (path / 'shop.inter').write_text('\n'.join(['userID\titemID\tx_label', *lines]) + '\n')
    titles = [f'{i}\t<b>Thing</b> {i} of kind {k}' if i else '0\t' for i, k in enumerate(kind)]
    (path / 'items.tsv').write_text('\n'.join(['itemID\ttitle', *titles]) + '\n')
    return str(path)


def start(shop, out, name, *flags):
    return main([name, '--data', shop, '--out', str(out), *SMALL, *flags])


def results(out):
    paths = sorted((out / 'runs').glob('*/result.json'))
    return {path.parent.name: json.loads(path.read_text()) for path in paths}


def table(path, title):
    r"""Cells of the first table below a heading of the Markdown report."""
    text = path.read_text().split(f'## {title}')[1]
    lines = [line for line in text.split('\n') if line.startswith('|')]
    rows = [[cell.strip() for cell in line.strip('|').split(' | ')] for line in lines]
    stop = next((i for i, row in enumerate(rows) if i > 2 and len(row) != len(rows[0])), None)
    return rows[0], rows[2:stop]
