from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import HeteroData
from torch_geometric.typing import EdgeType

from motor_geo.nn.memo import Memo
from motor_geo.nn.models.fitted import FittedRecommender
from motor_geo.typing import RATES, Scores, find_edges

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


class ItemSimilarity(FittedRecommender):
    r"""Base class of models that score an item by its similarity to the training
    items :math:`\mathcal{N}_u` of a user,

    .. math::
        s(u, i) = \sum_{j \in \mathcal{N}_u} S_{ji} .

    A subclass implements :meth:`similarity`. The first call on a graph computes
    the similarities, and later calls reuse them as long as the edges stay the
    same. A run stores the graph rather than the item-item matrix.

    Args:
        data: The user-item graph.
        edge_type: Edge type of the training interactions, from users to items.
    """

    def __init__(self, data: HeteroData, edge_type: EdgeType = RATES):
        super().__init__(data, edge_type)
        self._similarity = Memo()

    def similarity(self, train: csr_matrix) -> csr_matrix | np.ndarray:
        r"""The similarities :math:`\mathbf{S}`, **[N, N]**, from the training
        interactions **[M, N]**.
        """
        raise NotImplementedError

    def forward(self, data: HeteroData) -> Scores:
        r"""A function that maps users **[B]** to their scores of all items
        **[B, N]**.
        """
        train = self.interactions(data)
        state = [buffer.cpu().numpy().tobytes() for buffer in self.buffers()]
        sources = find_edges(data, self.edge_type), train.shape, state
        similarity = self._similarity(lambda: self.similarity(train), *sources)

        def history(used: csr_matrix) -> Tensor:
            out = used @ similarity
            return torch.from_numpy(out if isinstance(out, np.ndarray) else out.toarray())

        def score(user: Tensor) -> Tensor:
            return history(train[user.cpu().numpy()]).to(user.device)

        return Scores(score, train.shape[0], train.shape[1], history)


def neighbors(
    left: csr_matrix,
    right: csr_matrix,
    scale: np.ndarray,
    row_scale: np.ndarray,
    k: int,
    order: Tensor,
    block_size: int = 1024,
    shrink: float = 0.0,
) -> csr_matrix:
    r"""The :obj:`k` largest similarities of every item to other items. All other
    similarities are zero,

    .. math::
        S_{ji} = \frac{(\mathbf{L} \mathbf{R})_{ji}}{a_i b_j + h}, \qquad S_{jj} = 0 .

    Args:
        left: The factor :math:`\mathbf{L}`, **[N, M]**.
        right: The factor :math:`\mathbf{R}`, **[M, N]**.
        scale: Divisors :math:`a_i` of columns, **[N]**.
        row_scale: Divisors :math:`b_j` of rows, **[N]**.
        k: Number of neighbors.
        order: Permutation that breaks ties between equally similar items,
            **[N]**. The order of items in a file may reveal their popularity.
        block_size: Maximum number of rows computed at once.
        shrink: Shrinkage :math:`h`.
    """
    from scipy.sparse import csr_matrix, vstack

    item, num_items = order.argsort().numpy(), order.numel()
    left, right = left[item], right[:, item]
    columns, rows = torch.from_numpy(scale[item]), torch.from_numpy(row_scale[item]).view(-1, 1)
    block_size = max(1, min(block_size, 2**26 // num_items))
    blocks = []
    for start in range(0, num_items, block_size):
        score = torch.from_numpy((left[start : start + block_size] @ right).toarray())
        row = torch.arange(score.size(0))
        if shrink > 0:
            score /= rows[start : start + row.numel()] * columns + shrink
        else:
            score /= columns
            score /= rows[start : start + row.numel()]
        score[row, row + start] = 0  # An item is not its own neighbor.
        value, index = score.topk(min(k, num_items))
        row = row.repeat_interleave(value.size(1))
        entries = value.flatten().numpy(), (row.numpy(), index.flatten().numpy())
        blocks.append(csr_matrix(entries, shape=score.shape))
    out = csr_matrix(vstack(blocks))
    out.eliminate_zeros()
    return out[order.numpy()][:, order.numpy()]
