r"""Training epochs of other libraries, in turns with ours, and what ours consist of."""

from __future__ import annotations

import os.path as osp
import time
from collections.abc import Callable, Iterator, Sequence

import torch
from scipy.sparse import csr_matrix
from torch import Tensor
from torch_geometric.data import HeteroData
from torch_geometric.nn.models import LightGCN as PyGLightGCN
from torch_geometric.utils import to_torch_csr_tensor, to_undirected

from benchmarks.speed import training_steps
from benchmarks.timing import Row, interleave, row
from motor_geo.data import BPRSampler, TableDataset
from motor_geo.engine.row_adam import RowAdam
from motor_geo.nn.functional.rows import row_gradients
from motor_geo.nn.models import BPR, LightGCN
from motor_geo.typing import RATES, Batch


def libraries(folder: str, name: str = 'tiktok', repeats: int = 7) -> Iterator[Row]:
    r"""Compares epochs with IDs, batches of 2,048 and vectors of size 64.

    Args:
        folder: Folder of data sets in the common layout.
        name: Name of a data set.
        repeats: Number of rounds.
    """
    dataset = TableDataset(osp.join(folder, name))
    edge_index, sizes = dataset.data[RATES].edge_index, (dataset.num_users, dataset.num_items)
    sampler = BPRSampler(edge_index, *sizes)
    batches = list(sampler.epoch(0))
    yield from light_gcn(name, dataset.data, sizes, batches, repeats)

    exact, lazy = (BPREpoch(dataset.data, batches, lazy) for lazy in (False, True))
    epochs: list[Callable[[], object]] = [exact, lazy, lambda: list(sampler.epoch(1))]
    epochs += [implicit_epochs(edge_index, sizes, count) for count in (1, 11)]
    both, rows, sampling, first, eleven = interleave(epochs, repeats)
    theirs, note = (eleven - first) / 10, 'plain: BPR of implicit, one thread'
    yield row(f'BPR on {name}, an epoch', both + sampling, theirs, note=note)
    yield row(f'BPR on {name}, an epoch with sparse_adam', rows + sampling, theirs, note=note)
    yield row(f'BPR on {name}, of these for sampling', sampling, None)
    for what, parts in (('Adam', exact.adam), ('sparse_adam', lazy.adam)):
        seconds = sorted(parts[1:])[len(parts[1:]) // 2]  # The first round is a warm-up.
        yield row(f'BPR on {name}, of these for {what}', seconds, None)


def light_gcn(
    name: str,
    data: HeteroData,
    sizes: tuple[int, int],
    batches: Sequence[Batch],
    repeats: int,
    count: int = 5,
) -> Iterator[Row]:
    r"""Compares LightGCN with that of PyG, whose graph has one of two forms."""
    both = to_undirected(data[RATES].edge_index + torch.tensor([[0], [sizes[0]]]))
    forms = {'edge_index': both, 'a CSR tensor': to_torch_csr_tensor(both, size=sum(sizes))}
    torch.manual_seed(0)
    steps = [training_steps(LightGCN(data), data, batches, count)]
    steps += [pyg_steps(graph, *sizes, batches, count) for graph in forms.values()]
    ours, *theirs = (x * len(batches) / count for x in interleave(steps, repeats))
    for form, seconds in zip(forms, theirs):
        what = f'LightGCN on {name}, an epoch, against {form}'
        yield row(what, ours, seconds, note=f'plain: LightGCN of PyG with {form}')


def pyg_steps(
    graph: Tensor, num_users: int, num_items: int, batches: Sequence[Batch], count: int
) -> Callable[[], None]:
    r"""Returns a function that runs the next training steps of PyG's LightGCN."""
    model = PyGLightGCN(num_users + num_items, embedding_dim=64, num_layers=2)
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    position = 0

    def advance() -> None:
        nonlocal position
        for _ in range(count):
            user, pos, neg = batches[position % len(batches)]
            edges = torch.stack([user.repeat(2), num_users + torch.cat([pos, neg])])
            optimizer.zero_grad()
            ranks = model(graph, edges).chunk(2)
            model.recommendation_loss(*ranks, node_id=edges.unique()).backward()
            optimizer.step()
            position += 1

    return advance


class BPREpoch:
    r"""An epoch of BPR without sampling. Also measures the time of Adam."""

    def __init__(self, data: HeteroData, batches: Sequence[Batch], lazy: bool):
        torch.manual_seed(0)
        self.data, self.batches, self.model = data, batches, BPR(data)
        self.optimizer = RowAdam(self.model.parameters(), lazy=lazy)
        self.adam: list[float] = []

    def __call__(self) -> None:
        self.adam.append(0.0)
        for batch in self.batches:
            self.optimizer.zero_grad()
            with row_gradients():
                losses = self.model.loss(self.data, batch)
            torch.stack(list(losses.values())).sum().backward()
            start = time.perf_counter()
            self.optimizer.step()
            self.adam[-1] += time.perf_counter() - start


def implicit_epochs(edge_index: Tensor, sizes: tuple[int, int], count: int) -> Callable[[], object]:
    r"""Returns a function that trains BPR of :obj:`implicit` for some epochs."""
    from implicit.cpu.bpr import BayesianPersonalizedRanking

    user, item = edge_index.numpy()
    matrix = csr_matrix(([1.0] * len(user), (user, item)), sizes, dtype='float32')

    def fit() -> object:
        model = BayesianPersonalizedRanking(63, iterations=count, num_threads=1)  # And a bias.
        return model.fit(matrix, show_progress=False)

    return fit
