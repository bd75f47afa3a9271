r"""Uses tokens in PyG's HeteroConv with three edge types.

Users rate items, items are rated by users, and edges connect items with similar
text. Users have an embedding, items have tokens.

    python examples/hetero_conv.py [EPOCHS]

Test recall@20 after 30 epochs, seed 0: .130 (popularity: .054).
"""

import sys

import torch
import torch.nn.functional as F
from torch_geometric.nn import HeteroConv, LGConv, SAGEConv
from torch_geometric.transforms import Compose

from motor_geo import ItemKNN, OPQTokenizer, TokenCrossEncoder
from motor_geo.data import BPRSampler, SyntheticClusters
from motor_geo.engine import Evaluator
from motor_geo.typing import Embeddings

epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 30
torch.manual_seed(0)


class MyGNN(torch.nn.Module):
    def __init__(self, item, num_users, channels=64):
        super().__init__()
        self.item = item
        self.user = torch.nn.Parameter(0.02 * torch.randn(num_users, channels))
        self.conv = HeteroConv(
            {
                ('user', 'rates', 'item'): SAGEConv((channels, channels), channels),
                ('item', 'rated_by', 'user'): SAGEConv((channels, channels), channels),
                ('item', 'similar_text', 'item'): LGConv(normalize=False),  # Has edge weights.
            }
        )

    def forward(self, data):
        x = {'user': self.user, 'item': self.item(data['item'].token_id)}
        # Only edges between similar items have weights.
        out = self.conv(x, data.edge_index_dict, edge_weight_dict=data.edge_weight_dict)
        return Embeddings(x['user'] + out['user'], x['item'] + out['item'])


tokenizer = OPQTokenizer(num_tokens=4)
dataset = SyntheticClusters(pre_transform=Compose([tokenizer, ItemKNN(k=10)]))
data = dataset[0]
print(data)

edge_index = data['user', 'rates', 'item'].edge_index
sampler = BPRSampler(edge_index, dataset.num_users, dataset.num_items, batch_size=1024)
test = Evaluator(dataset.targets('test'), edge_index, dataset.num_items)

model = MyGNN(TokenCrossEncoder.from_tokenizer(tokenizer), dataset.num_users)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
for epoch in range(epochs):
    for batch in sampler.epoch(epoch):
        pos, neg = batch.scores(model(data))
        optimizer.zero_grad()
        F.softplus(neg - pos).mean().backward()
        optimizer.step()

with torch.inference_mode():
    print('test recall@20:', round(test.evaluate(model.eval()(data)).metrics['recall@20'], 4))
