r"""Tokens instead of an item embedding in somebody's own GNN.

A message-passing layer, a model and a training loop in plain PyG; the one line
that changes is where item vectors come from. Nothing of the trainer, the
backbones or the configuration is used.

    python examples/custom_gnn.py [EPOCHS]
"""

import sys

import torch
import torch.nn.functional as F
from torch_geometric.nn import MessagePassing

from motor_geo.data import BPRSampler, OPQTokenizer, SyntheticMultimodal
from motor_geo.evaluator import Evaluator
from motor_geo.nn import TokenCrossEncoder
from motor_geo.typing import Embeddings

epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 30


class GatedConv(MessagePassing):
    r"""A target takes from its neighbours what its own vector lets through."""

    def __init__(self, channels):
        super().__init__(aggr='mean')
        self.gate = torch.nn.Linear(channels, channels)

    def forward(self, x, edge_index):
        return self.propagate(edge_index, x=x, size=(x[0].size(0), x[1].size(0)))

    def message(self, x_j, x_i):
        return torch.sigmoid(self.gate(x_i)) * x_j


class MyGNN(torch.nn.Module):
    def __init__(self, item, key, num_users, channels=64):
        super().__init__()
        self.item, self.key = item, key
        self.user = torch.nn.Parameter(0.1 * torch.randn(num_users, channels))
        self.to_user, self.to_item = GatedConv(channels), GatedConv(channels)

    def forward(self, data):
        x_item = self.item(data['item'][self.key])  # The line that differs.
        rates, rated_by = data['user', 'rates', 'item'], data['item', 'rated_by', 'user']
        user = self.user + self.to_user((x_item, self.user), rated_by.edge_index)
        item = x_item + self.to_item((self.user, x_item), rates.edge_index)
        return Embeddings(user, item)


dataset = SyntheticMultimodal()
data = OPQTokenizer(num_tokens=4)(dataset[0])
data['item'].node_id = torch.arange(dataset.num_items)
edge_index = data['user', 'rates', 'item'].edge_index
test = Evaluator(dataset.targets('test'), edge_index, dataset.num_items)

for key in ('node_id', 'token_id'):
    torch.manual_seed(0)
    if key == 'node_id':
        encoder = torch.nn.Embedding(dataset.num_items, 64)
        torch.nn.init.xavier_uniform_(encoder.weight)
    else:
        encoder = TokenCrossEncoder({'image': 4, 'text': 4}, codebook_size=256, out_channels=64)
    model = MyGNN(encoder, key, dataset.num_users)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    sampler = BPRSampler(edge_index, dataset.num_users, dataset.num_items, batch_size=1024)
    for epoch in range(epochs):
        for user, pos, neg in sampler.epoch(epoch):
            out = model(data)
            margin = (out.user[user] * (out.item[pos] - out.item[neg])).sum(dim=-1)
            loss = F.softplus(-margin).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    recall = test.evaluate(model(data)).metrics['recall@20']
    size = sum(p.numel() for p in encoder.parameters())
    print(f'{type(encoder).__name__:18s} {size:7,} item-side parameters, recall@20 {recall:.4f}')
