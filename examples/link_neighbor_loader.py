r"""Trains on sampled subgraphs with PyG's LinkNeighborLoader.

A batch contains interactions, one negative item for each, and sampled neighbors
of users and items. The model encodes only the items of the subgraph, so the cost
of a step does not depend on the size of the catalog. Needs pyg-lib or torch-sparse.

    python examples/link_neighbor_loader.py [EPOCHS]

Test recall@20 after 30 epochs, seed 0: .096 (popularity: .054).
"""

import sys

import torch
import torch.nn.functional as F
from torch_geometric.loader import LinkNeighborLoader
from torch_geometric.nn import SAGEConv

from motor_geo import OPQTokenizer, TokenCrossEncoder
from motor_geo.data import SyntheticClusters
from motor_geo.engine import Evaluator
from motor_geo.typing import RATED_BY, RATES, Embeddings

epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 30
torch.manual_seed(0)


class MyGNN(torch.nn.Module):
    def __init__(self, item, num_users, channels=64):
        super().__init__()
        self.item = item
        self.user = torch.nn.Embedding(num_users, channels)
        torch.nn.init.normal_(self.user.weight, std=0.02)
        self.to_user = SAGEConv((channels, channels), channels)
        self.to_item = SAGEConv((channels, channels), channels)

    def forward(self, data):
        user, item = self.user(data['user'].node_id), self.item(data['item'].token_id)
        to_user = self.to_user((item, user), data[RATED_BY].edge_index)
        to_item = self.to_item((user, item), data[RATES].edge_index)
        return Embeddings(user + to_user, item + to_item)


dataset = SyntheticClusters()
tokenizer = OPQTokenizer(num_tokens=4)
data = tokenizer(dataset[0])
test = Evaluator(dataset.targets('test'), data[RATES].edge_index, dataset.num_items)
data['user'].node_id = torch.arange(dataset.num_users)
for modality in dataset.modalities:  # Do not sample unused features.
    del data['item'][f'x_{modality}']

loader = LinkNeighborLoader(
    data,
    num_neighbors=[10],
    edge_label_index=(RATES, data[RATES].edge_index),
    neg_sampling='triplet',
    batch_size=256,
    shuffle=True,
)
model = MyGNN(TokenCrossEncoder.from_tokenizer(tokenizer), dataset.num_users)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
for epoch in range(epochs):
    for batch in loader:
        for edge_type in (RATES, RATED_BY):  # Hide the edges to predict.
            keep = ~torch.isin(batch[edge_type].e_id, batch[RATES].input_id)
            batch[edge_type].edge_index = batch[edge_type].edge_index[:, keep]
        out = model(batch)
        user = out.user[batch['user'].src_index]
        pos, neg = out.item[batch['item'].dst_pos_index], out.item[batch['item'].dst_neg_index]
        optimizer.zero_grad()
        F.softplus((user * (neg - pos)).sum(dim=-1)).mean().backward()
        optimizer.step()
    if epoch == 0:
        print(f'a batch: {batch["user"].num_nodes} users, {batch["item"].num_nodes} items')

with torch.inference_mode():  # The full graph, without sampling.
    print('test recall@20:', round(test.evaluate(model.eval()(data)).metrics['recall@20'], 4))
