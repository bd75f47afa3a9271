from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from motor_geo.nn.conv.propagate import Propagate
from motor_geo.nn.functional.autocast import Function
from motor_geo.nn.functional.spmm import csr_matmul, csr_matmul_rows, transposed
from motor_geo.nn.graph import BipartiteGraph
from motor_geo.typing import Embeddings


class LightRows(NamedTuple):
    r"""Rows of the result of :class:`LightPropagation`, and of its input."""

    out: Embeddings
    x: Embeddings


class LightPropagation(nn.Module):
    r"""Repeated hops on both sides of a user-item graph, from the `"LightGCN:
    Simplifying and Powering Graph Convolution Network for Recommendation"
    <https://arxiv.org/abs/2002.02126>`_ paper,

    .. math::
        \mathbf{u}^{(l+1)} = \sum_{i \in \mathcal{N}(u)} e_{u,i} \mathbf{i}^{(l)},
        \qquad
        \mathbf{i}^{(l+1)} = \sum_{u \in \mathcal{N}(i)} e_{u,i} \mathbf{u}^{(l)},

    read out as

    .. math::
        \mathbf{X} = \frac{1}{L+1} \sum_{l=0}^{L} \mathbf{X}^{(l)}
        \quad \textrm{or} \quad
        \mathbf{X} = \sum_{l=0}^{L} \mathbf{X}^{(l)}.

    Args:
        num_layers: Number of hops :math:`L`; zero returns the input.
        readout: :obj:`"mean"` or :obj:`"sum"` over layers, the input included.

    Shapes:
        - **input:** user features :math:`(M, F)` and item features
          :math:`(N, F)`, a :class:`~motor_geo.nn.graph.BipartiteGraph`
        - **output:** user features :math:`(M, F)`, item features
          :math:`(N, F)`

    Raises:
        ValueError: If :obj:`num_layers` is negative or :obj:`readout` unknown.
    """

    def __init__(self, num_layers: int, readout: str = 'mean'):
        super().__init__()
        if num_layers < 0:
            raise ValueError(f"'num_layers' must not be negative (got {num_layers})")
        if readout not in ('mean', 'sum'):
            raise ValueError(f"'readout' must be 'mean' or 'sum' (got '{readout}')")
        self.num_layers = num_layers
        self.readout = readout
        self.conv = Propagate()

    def forward(self, user: Tensor, item: Tensor, graph: BipartiteGraph) -> Embeddings:
        scale = 1 / (self.num_layers + 1) if self.readout == 'mean' else 1.0
        if self._fixed(graph):
            return Embeddings(*_LightSum.apply(user, item, graph, self.num_layers, scale))
        x_user, x_item = user, item
        for _ in range(self.num_layers):
            x_user, x_item = (
                self.conv(x_item, graph.to_user, graph.to_user_weight),
                self.conv(x_user, graph.to_item, graph.to_item_weight),
            )
            user, item = user + x_user, item + x_item
        return Embeddings(user * scale, item * scale)

    def rows(
        self,
        user: Tensor,
        item: Tensor,
        graph: BipartiteGraph,
        user_index: Tensor,
        item_index: Tensor,
    ) -> LightRows:
        r"""What a loss needs: the rows of a batch, after propagation and before.
        Layers are added up for these rows alone, and where that is less work,
        the last hop leaves out all others.

        Shapes:
            - **input:** user features :math:`(M, F)` and item features
              :math:`(N, F)`, a :class:`~motor_geo.nn.graph.BipartiteGraph`,
              users :math:`(B)`, items :math:`(C)`
            - **output:** user features :math:`(B, F)` and item features
              :math:`(C, F)` after propagation, and before
        """
        index = user_index, item_index
        if self._fixed(graph):
            scale = 1 / (self.num_layers + 1) if self.readout == 'mean' else 1.0
            rows = _LightRows.apply(user, item, graph, self.num_layers, scale, *index)
            return LightRows(Embeddings(*rows[:2]), Embeddings(*rows[2:]))
        out = self(user, item, graph)
        return LightRows(
            Embeddings(*(x.index_select(0, i) for x, i in zip(out, index))),
            Embeddings(*(x.index_select(0, i) for x, i in zip((user, item), index))),
        )

    def _fixed(self, graph: BipartiteGraph) -> bool:
        learned = graph.to_user_weight.requires_grad or graph.to_item_weight.requires_grad
        return self.conv.fuse and not learned

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}({self.num_layers}, readout={self.readout})'


class _LightSum(Function):
    r"""The whole sum over layers by Horner's rule,
    :math:`\mathbf{X} + \mathbf{A} (\mathbf{X} + \mathbf{A} ( \cdots ))`, forward
    and backward: no layer is kept.
    """

    @staticmethod
    def forward(  # type: ignore
        ctx, user: Tensor, item: Tensor, graph: BipartiteGraph, num_layers: int, scale: float
    ):
        ctx.options = graph, num_layers, scale
        return _horner(user, item, *_matrices(graph), num_layers, scale)

    @staticmethod
    @once_differentiable
    def backward(ctx, user: Tensor, item: Tensor):  # type: ignore
        graph, num_layers, scale = ctx.options
        return *_horner(user, item, *_transposed(graph), num_layers, scale), None, None, None


class _LightRows(Function):
    r"""Rows of the sum over layers and of the input. Layers are summed up for
    these rows only; the gradient, too, is added to them between hops.
    """

    @staticmethod
    def forward(  # type: ignore
        ctx,
        user: Tensor,
        item: Tensor,
        graph: BipartiteGraph,
        num_layers: int,
        scale: float,
        user_index: Tensor,
        item_index: Tensor,
    ):
        ctx.options = graph, num_layers, scale, (user.size(0), item.size(0))
        ctx.save_for_backward(user_index, item_index)
        to_user, to_item = _matrices(graph)
        x_user, x_item = user.index_select(0, user_index), item.index_select(0, item_index)
        out_user, out_item = x_user.clone(), x_item.clone()
        for layer in range(1, num_layers + 1):
            if layer == num_layers:
                out_user += csr_matmul_rows(*to_user, item, user_index)
                out_item += csr_matmul_rows(*to_item, user, item_index)
                break
            user, item = csr_matmul(*to_user, item), csr_matmul(*to_item, user)
            out_user += user.index_select(0, user_index)
            out_item += item.index_select(0, item_index)
        return out_user.mul_(scale), out_item.mul_(scale), x_user, x_item

    @staticmethod
    @once_differentiable
    def backward(  # type: ignore
        ctx, out_user: Tensor, out_item: Tensor, x_user: Tensor, x_item: Tensor
    ):
        graph, num_layers, scale, (num_users, num_items) = ctx.options
        user_index, item_index = ctx.saved_tensors
        to_user, to_item = _transposed(graph)
        out_user, out_item = out_user * scale, out_item * scale
        user = out_user.new_zeros(num_users, out_user.size(1))
        item = out_item.new_zeros(num_items, out_item.size(1))
        for layer in range(num_layers + 1):
            if layer > 0:
                user, item = csr_matmul(*to_user, item), csr_matmul(*to_item, user)
            if layer == num_layers:
                out_user, out_item = out_user + x_user, out_item + x_item
            user.index_add_(0, user_index, out_user)
            item.index_add_(0, item_index, out_item)
        return user, item, None, None, None, None, None


Matrix = tuple[Tensor, Tensor, Tensor]


def _matrices(graph: BipartiteGraph) -> tuple[Matrix, Matrix]:
    (user_ptr, user_col), _ = graph.to_user.get_csc()
    (item_ptr, item_col), _ = graph.to_item.get_csc()
    to_user = user_ptr, user_col, graph.to_user_weight
    return to_user, (item_ptr, item_col, graph.to_item_weight)


def _transposed(graph: BipartiteGraph) -> tuple[Matrix, Matrix]:
    to_user = transposed(graph.to_item, graph.to_item_weight)
    return to_user, transposed(graph.to_user, graph.to_user_weight)


def _horner(
    user: Tensor, item: Tensor, to_user: Matrix, to_item: Matrix, num_layers: int, scale: float
) -> tuple[Tensor, Tensor]:
    if scale != 1 or num_layers == 0:  # What is returned must not be an input.
        user, item = user * scale, item * scale
    x_user, x_item = user, item
    for _ in range(num_layers):
        x_user, x_item = (
            csr_matmul(*to_user, x_item).add_(user),
            csr_matmul(*to_item, x_user).add_(item),
        )
    return x_user, x_item
