from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import HeteroData
from torch_geometric.typing import EdgeType

from motor_geo.nn.conv import LightPropagation
from motor_geo.nn.functional.autocast import full_precision
from motor_geo.nn.functional.dropout import uniform_like
from motor_geo.nn.functional.rows import row_norm
from motor_geo.nn.models.item_features import ItemFeatures
from motor_geo.nn.models.recommender import Recommender
from motor_geo.typing import ITEM, RATES, USER, Batch, Embeddings

normalize = full_precision(F.normalize)


class BM3(Recommender):
    r"""BM3 from the `"Bootstrap Latent Representations for Multi-modal
    Recommendation" <https://arxiv.org/abs/2207.05969>`_ paper. It uses no
    negatives. A predictor :math:`p` predicts the vector of an item from its
    user, and vice versa, for every observed pair,

    .. math::
        s(u, i) = p(\mathbf{u}_u)^{\top} p(\mathbf{i}_i), \qquad
        \mathbf{I} = \mathbf{G} + \mathbf{Q}

    with :math:`\mathbf{U}` and :math:`\mathbf{G}` from LightGCN. Let
    :math:`\tilde{\mathbf{x}}` be a target (with dropout, without gradient) and
    :math:`\mathbf{z}^m_i = \mathbf{W}_m \mathbf{x}^m_i + \mathbf{b}_m`. The loss
    of an observed pair is

    .. math::
        2 - \cos(p(\mathbf{u}), \tilde{\mathbf{i}})
        - \cos(p(\mathbf{i}), \tilde{\mathbf{u}})
        + \lambda_{cl} \sum_m \left[ 2 - \cos(p(\mathbf{z}^m), \tilde{\mathbf{i}})
        - \cos(p(\mathbf{z}^m), \tilde{\mathbf{z}}^m) \right] .

    ID-free: :math:`\mathbf{Q}` is computed from tokens, both as input of
    LightGCN and in the residual connection.

    Args:
        data: The user-item graph with features :obj:`x_<modality>`.
        item_encoder: Item encoder; :obj:`None` uses an ID embedding.
        channels: Size :math:`d` of user and item vectors.
        num_layers: Number of hops on the user-item graph.
        dropout: Dropout probability of targets. Every row of a batch has its
            own mask.
        cl_weight: Weight :math:`\lambda_{cl}` of the feature terms.
        reg_weight: Weight of the unsquared Frobenius norms of all rows of
            :math:`\mathbf{U}` and :math:`\mathbf{I}`, divided by :math:`N`.
        train_features: If set to :obj:`True`, trains the raw features, as the
            reference implementation does. The model is then not ID-free. They
            do not enter the score.
        edge_type: Edge type of the training interactions, from users to items.

    Shapes:
        - **output:** user vectors :math:`(M, d)`, item vectors :math:`(N, d)`

    Raises:
        ValueError: If the graph has no item features, or an argument is out of
            range.
    """

    takes_user_encoder = True
    min_modalities = 1
    needs_negatives = False
    needs_all_users = None

    def __init__(
        self,
        data: HeteroData,
        item_encoder: nn.Module | None = None,
        channels: int = 64,
        num_layers: int = 1,
        dropout: float = 0.5,
        cl_weight: float = 2.0,
        reg_weight: float = 0.1,
        train_features: bool = False,
        edge_type: EdgeType = RATES,
    ):
        super().__init__(data, item_encoder, channels, edge_type)
        if not 0 <= dropout < 1:
            raise ValueError(f"'dropout' must lie in [0, 1) (got {dropout})")
        self.dropout = dropout
        self.cl_weight = cl_weight
        self.reg_weight = reg_weight
        self.propagation = LightPropagation(num_layers)
        self.predictor = nn.Linear(channels, channels)
        self.features = ItemFeatures(
            data, channels, 'BM3', train=train_features, node_type=self.item_type
        )
        self._reset_linear()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        self._reset_linear()

    def _reset_linear(self) -> None:
        for lin in (self.predictor, *self.features.lins.values()):
            lin.reset_parameters()
            nn.init.xavier_normal_(lin.weight)

    def propagate(self, data: HeteroData) -> Embeddings:
        r"""User and item vectors before the predictor.

        Shapes:
            - **output:** user vectors :math:`(M, d)`, item vectors
              :math:`(N, d)`
        """
        user, item = self.encode(data)
        out = self.propagation(user, item, self.graph(data))
        return Embeddings(out.user, out.item + item)

    def forward(self, data: HeteroData) -> Embeddings:
        out = self.propagate(data)
        return Embeddings(self.predictor(out.user), self.predictor(out.item))

    def loss(self, data: HeteroData, batch: Batch) -> dict[str, Tensor]:
        out = self.propagate(data)
        user = out.user.index_select(0, batch.user)
        item = out.item.index_select(0, batch.pos)
        # Projects features for the batch only.
        z = self.features(data, batch.pos) if self.cl_weight > 0 else {}
        rows, index = [user, item, *z.values()], [batch.user, *[batch.pos] * (1 + len(z))]
        target_user, target_item, *target_z = (
            normalize(self.drop(x.detach(), *where), eps=1e-8)
            for x, *where in zip(rows, [USER, ITEM, *z], index)
        )
        # Applies the predictor to all rows at once.
        predicted = normalize(self.predictor(torch.cat(rows)), eps=1e-8)
        user, item, *predicted_z = predicted.chunk(len(rows))

        def distance(x: Tensor, target: Tensor) -> Tensor:
            r"""One minus the mean cosine similarity of rows, or zero without rows."""
            cosine = (x * target).sum(dim=-1)
            return 1 - cosine.mean() if cosine.numel() > 0 else cosine.sum()

        if self.objective is None:
            pairs = {'rec_user': (user, target_item), 'rec_item': (item, target_user)}
            losses = {name: distance(*pair) for name, pair in pairs.items()}
        else:
            tables = Embeddings(self.predictor(out.user), self.predictor(out.item))
            losses = self.ranking(data, batch, batch.rows(tables), tables)
        for m, x, target in zip(z, predicted_z, target_z):
            losses[f'inter_{m}'] = self.cl_weight * distance(x, target_item)
            losses[f'intra_{m}'] = self.cl_weight * distance(x, target)
        if self.reg_weight > 0:
            shard = self.shard(data)
            user, item = (torch.linalg.vector_norm(row_norm(x)) for x in out)
            user = user if shard is None else shard.total(user.square()).sqrt()
            losses['reg'] = self.reg_weight * (user + item) / out.item.size(0)
        return losses

    def drop(self, x: Tensor, kind: str, index: Tensor) -> Tensor:
        r"""Applies dropout to targets.

        Args:
            x: The targets.
            kind: :obj:`"user"`, :obj:`"item"` or the name of a modality.
            index: Node of every row.

        Shapes:
            - **input:** targets :math:`(B, d)`, indices :math:`(B)`
            - **output:** targets :math:`(B, d)`
        """
        if x.is_cuda:
            return F.dropout(x, self.dropout)
        # Drawing uniform numbers is several times faster than drawing Bernoulli numbers.
        return x * (uniform_like(x) >= self.dropout) / (1 - self.dropout)
