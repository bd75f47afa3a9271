r"""The experiment of assignment 5: two item representations, two learning rates, three seeds.

``python experiment.py`` writes ``values.npz`` with the arrays ``ids_val``, ``ids_test``,
``tokens_val`` and ``tokens_test``: Recall@20 by setting, seed and user.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch

from motor_geo.data import OPQTokenizer, SyntheticMultimodal
from motor_geo.engine import Evaluator, Trainer
from motor_geo.nn import TokenCrossEncoder
from motor_geo.nn.models import LightGCN

LEARNING_RATES = (0.01, 0.003)
SEEDS = (0, 1, 2)


def main(args=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--epochs', type=int, default=60)
    parser.add_argument('--out', default='values.npz')
    options = parser.parse_args(args)
    torch.set_num_threads(1)

    dataset = SyntheticMultimodal(num_users=600, num_items=400, num_interactions=6000)
    tokenizer = OPQTokenizer(num_tokens=4, codebook_size=32, cache=False, verbose=False)
    data = tokenizer(dataset[0])
    edge_index = data['user', 'rates', 'item'].edge_index
    val, test = (
        Evaluator(dataset.targets(split), edge_index, dataset.num_items, ks=20)
        for split in ('val', 'test')
    )

    def measure(items, lr, seed):
        torch.manual_seed(seed)
        encoder = TokenCrossEncoder.from_tokenizer(tokenizer) if items == 'tokens' else None
        model = LightGCN(data, item_encoder=encoder)
        fit = {'epochs': options.epochs, 'patience': 10, 'seed': seed, 'progress': False}
        Trainer(model, data, val, lr=lr, **fit).fit()  # Keeps the best validation epoch.
        with torch.no_grad():
            vectors = model.eval()(data)
        return [e.evaluate(vectors).per_user['recall@20'].numpy() for e in (val, test)]

    out = {}
    for items in ('ids', 'tokens'):
        runs = [[measure(items, lr, seed) for seed in SEEDS] for lr in LEARNING_RATES]
        for position, part in enumerate(('val', 'test')):
            values = [[run[position] for run in setting] for setting in runs]
            out[f'{items}_{part}'] = np.array(values)
        print(f'{items}: trained')
    np.savez(options.out, **out)


if __name__ == '__main__':
    main()
