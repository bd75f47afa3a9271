from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector
from torch_geometric.data import HeteroData
from torch_geometric.typing import EdgeType

from motor_geo.nn.functional.conjugate_gradient import conjugate_gradient
from motor_geo.nn.functional.edges import edge_dot
from motor_geo.nn.functional.known_features import known_rows
from motor_geo.nn.functional.spmm import propagate
from motor_geo.nn.graph import BipartiteGraph, SortedEdges
from motor_geo.nn.item_encoder import FeatureProjection, IDEmbedding, encode_items
from motor_geo.nn.memo import Memo
from motor_geo.nn.models.fitted import FittedRecommender
from motor_geo.nn.objective import usual_weight
from motor_geo.nn.token_cross import TokenCrossEncoder
from motor_geo.typing import RATES, Embeddings, find_edges, node_store, num_nodes
from motor_geo.utils.numbers import positive


class TokenALS(FittedRecommender):
    r"""ID-free matrix factorization by alternating least squares over users and
    token tables, which trains in a few seconds. It minimizes the objective of
    the `"Revisiting the Performance of iALS on Item Recommendation Benchmarks"
    <https://arxiv.org/abs/2110.14037>`_ paper,

    .. math::
        \min_{\mathbf{U}, \mathbf{T}} \sum_{(u, i) \in \mathcal{E}}
        (1 - \mathbf{u}_u^{\top} \mathbf{i}_i)^2 + \alpha \sum_{u, i}
        (\mathbf{u}_u^{\top} \mathbf{i}_i)^2 + \lambda \sum_u (d_u + \alpha N)
        \| \mathbf{u}_u \|^2 + \lambda \sum_i (d_i + \alpha M)
        \| \mathbf{i}_i \|^2, \qquad \mathbf{I} = \mathbf{A} \mathbf{T} ,

    where :math:`\mathbf{A}` averages the tokens of an item, and
    :math:`\alpha = c E / (M N)`. In place of token tables, any item encoder whose
    vectors are linear in its parameters :math:`\mathbf{T}` works. The objective
    skips users and items without training interactions: they are unknown, not
    disliked. It equals :class:`~motor_geo.nn.objective.WholeDataLoss` for a model
    without propagation, up to a constant factor.

    An iteration solves first for the users and then for the tables, by a few
    conjugate gradient steps from their current values. A step costs
    :math:`O(E d + (M + N) d^2)`.

    Args:
        data: The user-item graph.
        item_encoder: Item encoder whose vectors are linear in its parameters:
            averages of tokens, a linear map of features, or an ID embedding;
            :obj:`None` uses an ID embedding.
        channels: Size :math:`d` of user and item vectors.
        unobserved: Weight :math:`c` of all pairs relative to the interactions.
        reg_weight: Weight :math:`\lambda` of the squared norms. :obj:`None` uses
            :func:`~motor_geo.nn.objective.usual_weight`, which was chosen for
            :math:`c = 3`.
        num_steps: Number of conjugate gradient steps per iteration, for users
            and for tables.
        edge_type: Edge type of the training interactions, from users to items.

    Shapes:
        - **output:** user vectors :math:`(M, d)`, item vectors :math:`(N, d)`

    Raises:
        ValueError: If an argument is out of range, or the item vectors are not
            linear in the parameters of the item encoder.
    """

    iterative = True

    def __init__(
        self,
        data: HeteroData,
        item_encoder: nn.Module | None = None,
        channels: int = 64,
        unobserved: float = 3.0,
        reg_weight: float | None = None,
        num_steps: int = 8,
        edge_type: EdgeType = RATES,
    ):
        super().__init__(data, edge_type)
        for name, value in (('unobserved', unobserved), ('reg_weight', reg_weight)):
            if value is not None:
                positive(name, value)
        if num_steps < 1:
            raise ValueError(f"'num_steps' must be positive (got {num_steps})")
        if item_encoder is None:
            item_encoder = IDEmbedding(self.num_items, channels)
        size = getattr(item_encoder, 'out_channels', channels)
        if size != channels:
            raise ValueError(
                f"The item encoder yields vectors of size {size}, but 'channels' is {channels}"
            )
        mean = isinstance(item_encoder, TokenCrossEncoder) and item_encoder.mode == 'mean'
        if not (mean or isinstance(item_encoder, (IDEmbedding, FeatureProjection))):
            raise ValueError(
                "'TokenALS' needs items that are linear in their parameters: 'mean', 'features' "
                f"or 'id' (got {item_encoder.__class__.__name__}"
                f'{" " + item_encoder.mode if isinstance(item_encoder, TokenCrossEncoder) else ""})'
            )
        self.channels = channels
        self.unobserved = unobserved
        self.reg_weight = reg_weight
        self.num_steps = num_steps
        self.item_encoder = item_encoder
        self.user_embedding = nn.Parameter(
            torch.zeros(self.num_users, channels), requires_grad=False
        )
        self._graphs = Memo()

    def forward(self, data: HeteroData) -> Embeddings:
        return Embeddings(self.user_embedding, self._items(data))

    def _items(self, data: HeteroData) -> Tensor:
        return encode_items(self.item_encoder, node_store(data, self.item_type))

    def weight(self, data: HeteroData) -> float:
        r"""The weight :math:`\lambda` for a graph."""
        if self.reg_weight is not None:
            return self.reg_weight
        return usual_weight(find_edges(data, self.edge_type))

    def fit(self, data: HeteroData) -> Iterator[dict[str, float]]:
        r"""Iterates endlessly and yields the objective per interaction."""
        edge_index = find_edges(data, self.edge_type)
        size = self.num_users, num_nodes(data, self.item_type)
        ones = self.user_embedding.new_ones(edge_index.size(1))
        graph = self._graphs(
            lambda: BipartiteGraph.from_edges(edge_index, *size, ones),
            *(edge_index, *size, ones.dtype),
        )
        # An item without interactions is not a negative: it may be new.
        degrees = [edges.degree().to(ones).view(-1, 1) for edges in (graph.to_user, graph.to_item)]
        there = [(count > 0).to(ones.dtype) for count in degrees]
        num_users, num_items = (float(x.sum()) for x in there)
        alpha = self.unobserved * edge_index.size(1) / max(num_users * num_items, 1)
        weight = self.weight(data)
        weights = [
            weight * (count + alpha * other)
            for count, other in zip(degrees, (num_items, num_users))
        ]
        while True:
            with torch.no_grad():
                item = self._items(data)
            user = Side(graph.to_user, item * there[1], alpha, weights[0], there[0])
            diagonal = torch.where(user.there > 0, user.diagonal, 1)
            x = conjugate_gradient(
                user.matmul, user.target, self.user_embedding, diagonal, self.num_steps, 1
            )
            with torch.no_grad():
                self.user_embedding.copy_(x)
            side = Side(graph.to_item, self.user_embedding, alpha, weights[1], there[1])
            self._solve_items(data, side)
            yield {'objective': self._objective(user, self._items(data), side)}

    def _solve_items(self, data: HeteroData, side: Side) -> None:
        if isinstance(self.item_encoder, IDEmbedding):  # One linear system per item.
            table = self.item_encoder.weight
            diagonal = torch.where(side.there > 0, side.diagonal, 1)
            args = side.target, table, diagonal, self.num_steps, 1
            with torch.no_grad():
                table.copy_(conjugate_gradient(side.matmul, *args))
            return
        parameters = list(self.item_encoder.parameters())
        start = parameters_to_vector(parameters)

        def encode(vector: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
            r"""Maps parameters to item vectors, and returns the transposed map."""
            assign(vector, parameters)
            with torch.enable_grad():
                out = self._items(data)

            def transpose(x: Tensor) -> Tensor:
                grads = torch.autograd.grad(out, parameters, x)
                return torch.cat([grad.flatten() for grad in grads])

            return out.detach(), transpose

        def matmul(vector: Tensor) -> Tensor:
            item, transpose = encode(vector)
            return transpose(side.matmul(item))

        with torch.enable_grad():
            squares = self._squares(data)
        grads = torch.autograd.grad(squares, parameters, side.diagonal)
        diagonal = torch.cat([grad.flatten() for grad in grads])
        # For a token without items, both the diagonal and the target are zero.
        diagonal = torch.where(diagonal > 0, diagonal, 1)
        target = encode(start)[1](side.target)
        x = conjugate_gradient(matmul, target, start, diagonal, self.num_steps)
        assign(x, parameters)

    def _squares(self, data: HeteroData) -> Tensor:
        r"""Item vectors from parameters by the map with squared entries, up to a
        constant factor.
        """
        encoder = self.item_encoder
        if not isinstance(encoder, FeatureProjection):
            return self._items(data)  # Entries are zero or a constant.
        store, out = node_store(data, self.item_type), encoder.bias
        for modality, lin in encoder.lin.items():
            x = known_rows(store, modality).to(out.dtype)
            x = F.normalize(x, dim=-1) if encoder.normalize else x
            out = out + lin(x.square())
        return out

    @torch.no_grad()
    def _objective(self, user: Side, item: Tensor, side: Side) -> float:
        x = self.user_embedding
        score = edge_dot(x, item, side.edge_index)
        total = (1 - score).square().sum() + (side.there * (item @ side.gram) * item).sum()
        total = total + (user.weight * x * x).sum() + (side.weight * item * item).sum()
        return float(total) / max(score.numel(), 1)

    def __repr__(self) -> str:
        return (
            f'{self.__class__.__name__}({self.num_users}, {self.channels}, '
            f'item_encoder={self.item_encoder})'
        )


class Side:
    r"""The normal equations of one side of the graph for a fixed other side.
    Every node has a linear system with the matrix
    :math:`\sum_{j \in \mathcal{N}(v)} \mathbf{y}_j \mathbf{y}_j^{\top} +
    \alpha \mathbf{Y}^{\top} \mathbf{Y} + \lambda_v \mathbf{I}`, which is zero for
    nodes without edges.
    """

    def __init__(
        self, edge_index: SortedEdges, other: Tensor, alpha: float, weight: Tensor, there: Tensor
    ):
        self.edge_index = edge_index
        self.other = other.detach()
        self.there = there
        self.weight = weight * there
        self.gram = alpha * (self.other.t() @ self.other)
        self.target = propagate(self.other, edge_index, None)
        self.diagonal = propagate(self.other.square(), edge_index, None)
        self.diagonal += there * self.gram.diagonal() + self.weight

    def matmul(self, x: Tensor) -> Tensor:
        r"""The product of every matrix with its row of :obj:`x`."""
        score = edge_dot(self.other, x, self.edge_index)
        observed = propagate(self.other, self.edge_index, score)
        return observed + self.there * (x @ self.gram) + self.weight * x


@torch.no_grad()
def assign(vector: Tensor, parameters: list[nn.Parameter]) -> None:
    r"""Copies a vector into parameters, one after the other."""
    sizes = [parameter.numel() for parameter in parameters]
    for parameter, part in zip(parameters, vector.split(sizes)):
        parameter.copy_(part.view_as(parameter))
