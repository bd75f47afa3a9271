r"""Goes from your own files to recommendations.

The script writes a small shop in the common layout (an interaction table and a
feature matrix), reads it, computes tokens, trains LightGCN, and recommends
items, including new ones.

    python examples/own_data.py [EPOCHS]

Test recall@20 after 30 epochs: .282 (random lists: .05), in 5 s.
"""

import os
import os.path as osp
import sys
import tempfile

import numpy as np
import torch

from motor_geo.data import OPQTokenizer, TableDataset
from motor_geo.engine import Evaluator, Trainer
from motor_geo.nn import TokenCrossEncoder
from motor_geo.nn.models import LightGCN
from motor_geo.typing import RATES

epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 30
rng = np.random.default_rng(0)
torch.manual_seed(0)


def describe(category):  # A stand-in for your text or image encoder.
    return (prototypes[category] + 0.5 * rng.standard_normal((len(category), 32))).astype('f4')


# Each of 300 customers buys in two of eight categories; 400 items have a description.
prototypes = rng.standard_normal((8, 32))
item_category = rng.integers(8, size=400)
with tempfile.TemporaryDirectory() as root:
    folder = osp.join(root, 'shop')
    os.makedirs(folder)
    with open(osp.join(folder, 'shop.inter'), 'w') as file:
        file.write('userID\titemID\n')
        for user in range(300):
            liked = np.flatnonzero(np.isin(item_category, rng.choice(8, size=2)))
            for item in rng.choice(liked, size=8, replace=False):
                file.write(f'customer_{user}\t{item}\n')
    np.save(osp.join(folder, 'text_feat.npy'), describe(item_category))
    dataset = TableDataset(folder, split='random', seed=0)
print(dataset)

tokenizer = OPQTokenizer(num_tokens=4, codebook_size=16, cache=False)
data = tokenizer(dataset[0])
print(tokenizer.report_table(data))

encoder = TokenCrossEncoder(tokenizer.num_tokens_dict, tokenizer.codebook_size, out_channels=64)
model = LightGCN(data, item_encoder=encoder, channels=64)
val = Evaluator(dataset.targets('val'), data[RATES].edge_index, dataset.num_items)
test = Evaluator(dataset.targets('test'), data[RATES].edge_index, dataset.num_items)
Trainer(model, data, val, epochs=epochs, batch_size=256, progress=False).fit()
print('test recall@20:', round(test.evaluate(model.eval()(data)).metrics['recall@20'], 4))

score, item = model.recommend(data, torch.tensor([0, 1]), k=5)
for user, items in zip(dataset.user_ids, dataset.item_ids[item]):
    print(user, 'gets', items.tolist())

# New items have a description but no interactions. The trained encoder computes their vectors.
category = np.arange(8)
with torch.no_grad():
    arrival = encoder(tokenizer.encode({'text': describe(category)}))
    best = (model(data).user[:2] @ arrival.t()).argmax(dim=1)
for user, index in enumerate(best.tolist()):
    bought = data[RATES].edge_index[1, data[RATES].edge_index[0] == user]
    print(dataset.user_ids[user], 'bought in', sorted(set(item_category[bought].tolist())), end=' ')
    print('and gets the arrival of category', category[index])
