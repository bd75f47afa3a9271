from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData
from torch_geometric.typing import EdgeType

from motor_geo.nn.conv.mmgcn_conv import MMGCNBranch
from motor_geo.nn.functional.known_features import finite_features, known_features
from motor_geo.nn.graph import BipartiteGraph, mean_graph
from motor_geo.nn.item_encoder import IDEmbedding
from motor_geo.nn.loss import square_reg
from motor_geo.nn.memo import Memo
from motor_geo.nn.models.recommender import Recommender
from motor_geo.typing import (
    RATES,
    Batch,
    Embeddings,
    Rows,
    modalities,
    num_nodes,
)


class MMGCN(Recommender):
    r"""MMGCN from the `"MMGCN: Multi-modal Graph Convolution Network for
    Personalized Recommendation of Micro-video"
    <https://doi.org/10.1145/3343031.3351034>`_ paper. Every modality has its
    own branch. It starts from user preferences :math:`\mathbf{P}^m` and item
    features :math:`\mathbf{F}^m`, both scaled to unit length, and applies
    several layers of :class:`~motor_geo.nn.conv.mmgcn_conv.MMGCNConv`, by
    default three,

    .. math::
        \mathbf{X} = \frac{1}{|\mathcal{M}|} \sum_m \textrm{conv}_3 \circ
        \textrm{conv}_2 \circ \textrm{conv}_1 \left( \mathbf{P}^m,
        \mathbf{F}^m; \mathbf{id} \right) .

    In the published numbers, :math:`\mathbf{id}` and :math:`\mathbf{P}^m` are
    random constants that are never trained.

    ID-free: The item rows of :math:`\mathbf{id}` are computed from tokens. They
    are trained and regularized by :obj:`reg_weight`. User rows stay constant
    unless :obj:`train_embeddings` is set.

    Args:
        data: The user-item graph with features :obj:`x_<modality>`.
        item_encoder: Item encoder; :obj:`None` uses one random vector per item,
            which is constant unless :obj:`train_embeddings` is set.
        channels: Size :math:`d` of user and item vectors.
        num_layers: Number of layers. The published numbers always use three.
        latent_channels: Size of projected features by modality. Modalities that
            are not listed are not projected. :obj:`None` projects images to
            size 256.
        reg_weight: Weight of the mean squared entries of :math:`\mathbf{id}` in
            the batch and of the preferences of projected modalities. All of
            these are constants in the published numbers.
        train_embeddings: If set to :obj:`True`, trains :math:`\mathbf{id}` and
            preferences.
        edge_type: Edge type of the training interactions, from users to items.

    Shapes:
        - **output:** user vectors :math:`(M, d)`, item vectors :math:`(N, d)`

    Raises:
        ValueError: If the graph has no item features, or an argument is out of
            range.
    """

    min_modalities = 1
    init = 'normal'
    needs_all_users = None

    def __init__(
        self,
        data: HeteroData,
        item_encoder: nn.Module | None = None,
        channels: int = 64,
        num_layers: int = 3,
        latent_channels: Mapping[str, int] | None = None,
        reg_weight: float = 0.0,
        train_embeddings: bool = False,
        edge_type: EdgeType = RATES,
    ):
        super().__init__(data, item_encoder, channels, edge_type)
        if num_layers < 1:
            raise ValueError(f"'num_layers' must be positive (got {num_layers})")
        self.modalities = modalities(data, 'MMGCN', at_least=1, node_type=self.item_type)
        if latent_channels is None:
            latent_channels = {'image': 256} if 'image' in self.modalities else {}
        unknown = sorted(set(latent_channels) - set(self.modalities))
        if len(unknown) > 0:
            raise ValueError(
                f"'latent_channels' names {unknown}, expected modalities among {self.modalities}"
            )
        self.num_layers = num_layers
        self.reg_weight = reg_weight
        self.train_embeddings = train_embeddings
        self.branches = nn.ModuleList(
            MMGCNBranch(
                num_nodes(data, self.user_type),
                finite_features(data, m, self.item_type).size(1),
                latent_channels.get(m),
                channels,
                num_layers,
                train_embeddings,
            )
            for m in self.modalities
        )
        self._own_items = item_encoder is None
        self._mean_graphs = Memo()
        self.user_embedding.requires_grad_(train_embeddings)
        if self._own_items:
            self.item_encoder.requires_grad_(train_embeddings)
        self._reset_id()

    def _branches(self) -> Iterator[tuple[str, MMGCNBranch]]:
        return zip(self.modalities, cast('Iterable[MMGCNBranch]', self.branches))

    def reset_parameters(self) -> None:
        super().reset_parameters()
        for _, branch in self._branches():
            branch.reset_parameters()
        self._reset_id()

    def _reset_id(self) -> None:
        if isinstance(self.item_encoder, IDEmbedding) and self._own_items:
            # Users and items form one table.
            tables = [self.user_embedding, self.item_encoder.weight]
            std = math.sqrt(2 / (sum(t.size(0) for t in tables) + self.channels))
            for table in tables:
                nn.init.normal_(table, std=std)

    def user_tables(self) -> list[str]:
        tables = [f'branches.{i}.preference' for i in range(len(self.branches))]
        return [*super().user_tables(), *tables]

    def mean_graph(self, data: HeteroData) -> BipartiteGraph:
        r"""The training graph with the weights of a mean over neighbors, cached as
        long as its edges stay the same.
        """
        graph = self.graph(data)
        return self._mean_graphs(lambda: mean_graph(graph), graph)

    def propagate(
        self, data: HeteroData, ids: Embeddings, rows: Embeddings | None = None
    ) -> Embeddings:
        r"""Final vectors for the given :math:`\mathbf{id}` vectors.

        Args:
            data: The user-item graph with features.
            ids: The :math:`\mathbf{id}` vectors of users and items.
            rows: Output users and items; :obj:`None` means all nodes.

        Shapes:
            - **input:** user vectors :math:`(M, d)` and item vectors
              :math:`(N, d)`, output users :math:`(B_u)` and items :math:`(B_i)`
              *(optional)*
            - **output:** user vectors :math:`(M, d)` or :math:`(B_u, d)`, item
              vectors :math:`(N, d)` or :math:`(B_i, d)`
        """
        graph = self.mean_graph(data)
        outs = [
            branch(known_features(data, modality, self.item_type), ids, graph, rows)
            for modality, branch in self._branches()
        ]
        return Embeddings(*(sum(views[1:], views[0]) / len(outs) for views in zip(*outs)))

    def forward(self, data: HeteroData) -> Embeddings:
        return self.propagate(data, Embeddings(self.user_embedding, self.encode_items(data)))

    def loss(self, data: HeteroData, batch: Batch) -> dict[str, Tensor]:
        ids = Embeddings(self.user_embedding, self.encode_items(data))
        index = Embeddings(batch.user, torch.cat([batch.pos, batch.neg]))
        user, item = self.propagate(data, ids, index)
        pos, neg = item.split([batch.pos.numel(), batch.neg.numel()])
        losses = self.ranking(data, batch, Rows(user, pos, neg), form='raw')
        if self.reg_weight > 0:
            rows = batch.rows(ids)
            reg = square_reg(rows.user) + square_reg(rows.pos, rows.neg)
            losses['reg_id'] = self.reg_weight * reg
            for modality, branch in self._branches():
                if branch.lin is not None:
                    reg = square_reg(branch.preference, users=self.shard(data))
                    losses[f'reg_{modality}'] = self.reg_weight * reg
        return losses
