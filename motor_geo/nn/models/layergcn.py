from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch_geometric.data import HeteroData

from motor_geo.nn.functional.autocast import Function
from motor_geo.nn.functional.rows import normalize_grad
from motor_geo.nn.functional.spmm import csr_matmul, transposed
from motor_geo.nn.graph import (
    BipartiteGraph,
    PrunedGraph,
    degree_sensitive_pruning,
    uniform_pruning,
)
from motor_geo.nn.loss import bpr_loss, l2_reg
from motor_geo.nn.models.recommender import Recommender
from motor_geo.typing import Batch, Embeddings

EPS = 1e-8  # Shorter vectors have no direction.


class LayerGCN(Recommender):
    r"""LayerGCN from the `"Layer-refined Graph Convolutional Networks for
    Recommendation" <https://arxiv.org/abs/2207.11088>`_ paper: every layer is
    scaled node by node by its similarity to the ego layer,

    .. math::
        \mathbf{Y}^{(l+1)} = \mathbf{D}^{-1/2} \mathbf{A} \mathbf{D}^{-1/2}
        \mathbf{X}^{(l)}, \qquad
        \mathbf{x}_v^{(l+1)} = \cos(\mathbf{y}_v^{(l+1)}, \mathbf{x}_v^{(0)})
        \, \mathbf{y}_v^{(l+1)}, \qquad
        \mathbf{X} = \sum_{l=1}^{L} \mathbf{X}^{(l)} ,

    on a training graph that is pruned anew in every epoch. The ego layer is
    left out, so that an item without training edges scores zero.

    ID-free: the item rows of :math:`\mathbf{X}^{(0)}` are computed from
    tokens, in the first layer and in all similarities.

    Args:
        data: The user-item graph.
        item_encoder: What yields item vectors; :obj:`None` is an ID embedding.
        channels: Size :math:`d` of user and item vectors.
        num_layers: Number of hops :math:`L`.
        rho: Share of training edges removed in every epoch. Ranking uses all
            edges.
        pruning: :obj:`"alternating"` removes edges between nodes of high
            degree first in even epochs (counted from zero) and uniformly in
            odd ones, as published implementations do; :obj:`"degree"` is
            degree-sensitive in every epoch, as in the paper.
        reg_weight: Weight of half the squared rows of
            :math:`\mathbf{X}^{(0)}` in the batch. Like the ranking loss it is
            a sum over the batch.

    Shapes:
        - **output:** user vectors :math:`(M, d)`, item vectors :math:`(N, d)`

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(
        self,
        data: HeteroData,
        item_encoder: nn.Module | None = None,
        channels: int = 64,
        num_layers: int = 4,
        rho: float = 0.1,
        pruning: str = 'alternating',
        reg_weight: float = 1e-3,
    ):
        super().__init__(data, item_encoder, channels)
        if num_layers < 1:
            raise ValueError(
                f"'num_layers' must be positive, since the ego layer is no part of the output "
                f'(got {num_layers})'
            )
        if not 0 <= rho < 1:
            raise ValueError(f"'rho' must lie in [0, 1) (got {rho})")
        if pruning not in ('alternating', 'degree'):
            raise ValueError(f"'pruning' must be 'alternating' or 'degree' (got '{pruning}')")
        self.num_layers = num_layers
        self.rho = rho
        self.pruning = pruning
        self.reg_weight = reg_weight
        self.pruned = PrunedGraph()

    def begin_epoch(self, data: HeteroData, epoch: int, generator: torch.Generator) -> None:
        if self.rho == 0:
            return
        edge_index, num_users, num_items, _ = self.graph_args(data)
        if self.pruning == 'alternating' and epoch % 2 == 1:
            keep = uniform_pruning(edge_index, self.rho, generator)
        else:
            keep = degree_sensitive_pruning(edge_index, num_users, num_items, self.rho, generator)
        self.prune(data, keep)

    def prune(self, data: HeteroData, keep: Tensor) -> None:
        r"""Makes the training edges :obj:`keep` the graph of :meth:`loss`.

        Shapes:
            - **input:** positions of kept edges :math:`(|\mathcal{E}^{\prime}|)`
        """
        self.pruned.set(keep, *self.graph_args(data))

    def training_graph(self, data: HeteroData) -> BipartiteGraph:
        r"""The graph of :meth:`loss`: what pruning left, or the whole graph if
        :meth:`begin_epoch` was not called with these edges.
        """
        return self.pruned.get(*self.graph_args(data)) or self.graph(data)

    def propagate(self, item: Tensor, graph: BipartiteGraph) -> Embeddings:
        r"""Final vectors from the item vectors of the ego layer, on the given
        user-item graph.

        Shapes:
            - **input:** item vectors :math:`(N, d)`
            - **output:** user vectors :math:`(M, d)`, item vectors
              :math:`(N, d)`
        """
        return Embeddings(*_Refined.apply(self.user_embedding, item, graph, self.num_layers))

    def forward(self, data: HeteroData) -> Embeddings:
        return self.propagate(self.encode_items(data), self.graph(data))

    def loss(self, data: HeteroData, batch: Batch) -> dict[str, Tensor]:
        item = self.encode_items(data)
        out = self.propagate(item, self.training_graph(data))
        user, pos, neg = batch.rows(out)
        pos, neg = (user * pos).sum(dim=-1), (user * neg).sum(dim=-1)
        reg = l2_reg(*batch.rows(Embeddings(self.user_embedding, item)))
        return {'bpr': bpr_loss(pos, neg, 'sum'), 'reg': self.reg_weight * reg}


class _Refined(Function):
    r"""All layers, with the cosines :math:`\cos(\mathbf{y}, \mathbf{x})` written
    as :math:`\mathbf{y}^{\top} \mathbf{e} / \| \mathbf{y} \|` for unit rows
    :math:`\mathbf{e}` of the ego layer: only :math:`\mathbf{y}` is kept of a
    layer.
    """

    @staticmethod
    def forward(ctx, user, item, graph, num_layers):  # type: ignore
        (user_ptr, user_col), _ = graph.to_user.get_csc()
        (item_ptr, item_col), _ = graph.to_item.get_csc()
        norms = [torch.linalg.vector_norm(x, dim=-1, keepdim=True) for x in (user, item)]
        egos = [x / norm.clamp_min(EPS) for x, norm in zip((user, item), norms)]
        kept, out = [*egos, *norms], []
        ys, weights = (user, item), (graph.to_user_weight, graph.to_item_weight)
        for layer in range(num_layers):
            if layer > 0:  # Weights of edges are fewer than entries of rows.
                weights = (
                    graph.to_user_weight * kept[-1].view(-1).index_select(0, user_col),
                    graph.to_item_weight * kept[-4].view(-1).index_select(0, item_col),
                )
            ys = (
                csr_matmul(user_ptr, user_col, weights[0], ys[1]),
                csr_matmul(item_ptr, item_col, weights[1], ys[0]),
            )
            for side, (y, ego) in enumerate(zip(ys, egos)):
                norm = torch.linalg.vector_norm(y, dim=-1, keepdim=True)
                scale = (y * ego).sum(dim=-1, keepdim=True).div_(norm.clamp_min(EPS))
                kept += [y, norm, scale]
                if layer == 0:
                    out.append(y * scale)
                else:
                    out[side].addcmul_(y, scale)
        ctx.graph = graph
        ctx.save_for_backward(*kept)
        return tuple(out)

    @staticmethod
    @once_differentiable
    def backward(ctx, *outputs):  # type: ignore
        graph = ctx.graph
        to_user = transposed(graph.to_item, graph.to_item_weight)
        to_item = transposed(graph.to_user, graph.to_user_weight)
        ego_user, ego_item, norm_user, norm_item, *kept = ctx.saved_tensors
        grads = [grad.contiguous() for grad in outputs]
        egos = [torch.zeros_like(ego_user), torch.zeros_like(ego_item)]
        x_user, x_item = grads
        while kept:
            *kept, y_user, n_user, s_user, y_item, n_item, s_item = kept
            y_user = _refined_grad(x_user, y_user, n_user, s_user, ego_user, egos[0])
            y_item = _refined_grad(x_item, y_item, n_item, s_item, ego_item, egos[1])
            x_user, x_item = csr_matmul(*to_user, y_item), csr_matmul(*to_item, y_user)
            if kept:
                x_user, x_item = x_user.add_(grads[0]), x_item.add_(grads[1])
        x_user = x_user.add_(normalize_grad(egos[0], ego_user, norm_user, EPS))
        x_item = x_item.add_(normalize_grad(egos[1], ego_item, norm_item, EPS))
        return x_user, x_item, None, None


def _refined_grad(
    grad: Tensor, y: Tensor, norm: Tensor, scale: Tensor, ego: Tensor, grad_ego: Tensor
) -> Tensor:
    r"""The gradient of :math:`\mathbf{y}` from that of :math:`\mathbf{x}`; adds
    that of :math:`\mathbf{e}` to :obj:`grad_ego`.
    """
    length = norm.clamp_min(EPS)
    dot = (grad * y).sum(dim=-1, keepdim=True).div_(length)
    grad_ego.addcmul_(y, dot)
    out = (grad * scale).addcmul_(ego, dot)
    radial = dot * scale / length
    return out.addcmul_(y, radial * (norm >= EPS), value=-1)
