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
    r"""The base of models that score an item by its similarity to the training
    items :math:`\mathcal{N}_u` of a user,

    .. math::
        s(u, i) = \sum_{j \in \mathcal{N}_u} S_{ji} .

    A subclass implements :meth:`similarity`. It is computed when a graph is
    first seen and kept for as long as the same edges come in: a run stores no
    matrix of all items, but the graph that it follows from.

    Args:
        data: The user-item graph.
        edge_type: Edge type of training interactions, from users to items.
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
        r"""A function from users **[B]** to their scores of all items
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
    r"""The :obj:`k` largest similarities of every item to other ones, and zero
    for all others,

    .. math::
        S_{ji} = \frac{(\mathbf{L} \mathbf{R})_{ji}}{a_i b_j + h}, \qquad S_{jj} = 0 .

    Args:
        left: The factor :math:`\mathbf{L}`, **[N, M]**.
        right: The factor :math:`\mathbf{R}`, **[M, N]**.
        scale: The divisors :math:`a_i` of columns, **[N]**.
        row_scale: The divisors :math:`b_j` of rows, **[N]**.
        k: Number of neighbors.
        order: The place of every item among equally similar ones, a
            permutation: the order in a file may tell of popularity, **[N]**.
        block_size: Rows that are computed at once, at the most.
        shrink: The term :math:`h`.
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
        score[row, row + start] = 0  # Nobody's own neighbor.
        value, index = score.topk(min(k, num_items))
        row = row.repeat_interleave(value.size(1))
        entries = value.flatten().numpy(), (row.numpy(), index.flatten().numpy())
        blocks.append(csr_matrix(entries, shape=score.shape))
    out = csr_matrix(vstack(blocks))
    out.eliminate_zeros()
    return out[order.numpy()][:, order.numpy()]
