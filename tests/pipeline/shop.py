r"""A small folder of data whose every interaction is known."""

import numpy as np

NUM_USERS, NUM_ITEMS = 12, 20
SMALL = {
    'model': {'name': 'LightGCN', 'channels': 8},
    'items': 'specific',
    'tokenizer': {'num_tokens': 2, 'codebook_size': 4, 'cache': False},
    'graph': {'k': 3, 'cache': False},
    'trainer': {'epochs': 2, 'batch_size': 32, 'progress': False},
    'threads': 1,
    'device': 'cpu',
}


def make_shop(folder, labels=(0, 0, 0, 0, 1, 2), more=()):
    r"""Users 'u0', 'u1', ... with an item for each label; `more` are rows."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    rows = ['userID\titemID\tx_label']
    for user in range(NUM_USERS):
        items = rng.permutation(NUM_ITEMS)[: len(labels)]
        rows += [f'u{user}\ti{item:02d}\t{label}' for item, label in zip(items, labels)]
    rows += ['\t'.join(map(str, row)) for row in more]
    (folder / f'{folder.name}.inter').write_text('\n'.join(rows) + '\n')
    names = ''.join(f'i{item:02d}\n' for item in range(NUM_ITEMS))
    (folder / 'items.tsv').write_text('itemID\n' + names)
    for name, width in (('text', 6), ('image', 4)):
        x = rng.standard_normal((NUM_ITEMS, width)).astype(np.float32)
        np.save(folder / f'{name}_feat.npy', x)
    return str(folder)
