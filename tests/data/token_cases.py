r"""What the tests of tokens share."""

import torch
from torch_geometric.data import HeteroData

from motor_geo.data import OPQTokenizer


def features(num_rows, width, seed=0, rank=4):
    generator = torch.Generator().manual_seed(seed)
    low = torch.randn(num_rows, rank, generator=generator)
    x = low @ torch.randn(rank, width, generator=generator)
    return x + 0.1 * torch.randn(num_rows, width, generator=generator)


def make_data(**kwargs):
    data = HeteroData()
    for name, x in kwargs.items():
        data['item'][f'x_{name}'] = x
    return data


def tokenizer(num_tokens=2, codebook_size=16, **kwargs):
    kwargs = {'num_iters': 3, 'cache': False, 'verbose': False, **kwargs}
    return OPQTokenizer(num_tokens, codebook_size, **kwargs)


CASES = [
    {'method': 'opq'},
    {'method': 'opq', 'num_tokens': 4, 'init': 'random'},
    {'method': 'opq', 'num_tokens': 3, 'max_dim': 5, 'center': True, 'normalize': True},
    {'method': 'pq', 'num_tokens': 4},
    {'method': 'pq', 'normalize': True, 'max_dim': 6},
    {'method': 'rq', 'num_tokens': 3},
    {'method': 'rq', 'center': True, 'max_dim': 3},
    {'method': 'opq', 'num_tokens': 3, 'whiten': True},
    {'method': 'pq', 'whiten': True, 'normalize': True, 'max_dim': 6},
    {'method': 'rq', 'whiten': True, 'max_dim': 3},
]
