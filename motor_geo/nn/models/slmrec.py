from __future__ import annotations

import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData
from torch_geometric.typing import EdgeType

from motor_geo.nn.conv import Propagate
from motor_geo.nn.functional.distinct import distinct
from motor_geo.nn.functional.rows import inverse_norm, project
from motor_geo.nn.graph import SortedEdges
from motor_geo.nn.loss import info_nce
from motor_geo.nn.memo import Memo
from motor_geo.nn.models.feature_alignment import FeatureAlignment
from motor_geo.nn.models.item_features import ItemFeatures
from motor_geo.nn.models.recommender import Recommender
from motor_geo.typing import RATES, Batch, Embeddings, modalities
from motor_geo.utils.numbers import positive


class SLMRec(Recommender):
    r"""SLMRec from the `"Self-Supervised Learning for Multimedia
    Recommendation" <https://doi.org/10.1109/TMM.2022.3187556>`_ paper, with its
    fine-and-coarse feature alignment task (FAC).

    LightGCN runs once on item vectors and once on every projected modality,
    :math:`\mathbf{W}_m \mathbf{x}^m_i / \| \mathbf{x}^m_i \| + \mathbf{b}_m`,
    always with the same user table. Linear layers fuse the results,

    .. math::
        \mathbf{u} = \mathbf{W}_U \left( \mathbf{u}^{\textrm{id}} \Vert
        \mathbf{u}^{1} \Vert \cdots \Vert \mathbf{u}^{n} \right), \qquad
        \mathbf{i} = \mathbf{W}_I \left( \mathbf{i}^{\textrm{id}} \Vert
        \mathbf{i}^{1} \Vert \cdots \Vert \mathbf{i}^{n} \right) .

    The main loss is contrastive over the users and positive items of a batch,
    without sampled negatives. In addition,
    :class:`~motor_geo.nn.models.feature_alignment.FeatureAlignment` aligns the
    vectors of modalities, starting with images and followed by all others in
    sorted order.

    The main loss compares directions, but ranking uses inner products. The
    reference implementation ranks by the sigmoid of these, which gives the same
    order except for ties where the sigmoid saturates.

    ID-free: The item vectors of the first LightGCN are computed from tokens.

    Args:
        data: The user-item graph with features :obj:`x_<modality>`.
        item_encoder: Item encoder; :obj:`None` uses an ID embedding.
        channels: Size :math:`d` of user and item vectors, an even number.
        num_layers: Number of hops, at least one.
        temperature: Temperature of the main loss.
        ssl_weight: Weight of FAC.
        ssl_temperature: Temperature of FAC.
        edge_type: Edge type of the training interactions, from users to items.

    Shapes:
        - **output:** user vectors :math:`(M, d)`, item vectors :math:`(N, d)`

    Raises:
        ValueError: If the graph has no item features, or an argument is out
            of range.
    """

    min_modalities = 1
    needs_negatives = False
    weight_decay = 1e-4
    needs_all_users = None

    def __init__(
        self,
        data: HeteroData,
        item_encoder: nn.Module | None = None,
        channels: int = 64,
        num_layers: int = 3,
        temperature: float = 0.2,
        ssl_weight: float = 0.1,
        ssl_temperature: float = 0.2,
        edge_type: EdgeType = RATES,
    ):
        if channels % 2 != 0:
            raise ValueError(f"'channels' must be an even number (got {channels})")
        if num_layers < 1:
            raise ValueError(f"'num_layers' must be at least 1 (got {num_layers})")
        positive('temperature', temperature)
        positive('ssl_temperature', ssl_temperature)
        super().__init__(data, item_encoder, channels, edge_type)
        self.num_layers = num_layers
        self.temperature = temperature
        self.ssl_weight = ssl_weight
        names = modalities(data, 'SLMRec', at_least=1, node_type=self.item_type)
        self.modalities = sorted(names, key=lambda m: (m != 'image', m))
        self.conv = Propagate()

        self.features = ItemFeatures(
            data, channels, 'SLMRec', names=self.modalities, node_type=self.item_type
        )
        width = (len(self.modalities) + 1) * channels
        self.user_fusion = nn.Linear(width, channels)
        self.item_fusion = nn.Linear(width, channels)
        self.alignment = FeatureAlignment(self.modalities, channels, ssl_temperature)
        self._scales = Memo(size=len(self.modalities))
        self._reset_linears()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        self._reset_linears()

    def _reset_linears(self) -> None:
        for name, block in self.named_children():
            for lin in block.modules():
                if name != 'item_encoder' and isinstance(lin, nn.Linear):
                    lin.reset_parameters()  # Xavier weights, but PyTorch's own biases.
                    nn.init.xavier_uniform_(lin.weight)

    def item_inputs(self, data: HeteroData) -> Tensor:
        r"""Item inputs of all LightGCN runs, side by side: item vectors first, then
        projected modalities.

        Args:
            data: The user-item graph with features.

        Shapes:
            - **output:** item vectors :math:`(N, (n + 1) d)`
        """
        out, dtype = [self.encode_items(data)], self.user_embedding.dtype
        for name, lin in self.features:
            x = self.features.table(data, name)
            scale = self._scale(x, dtype)
            # Scales rows after the product, which avoids a scaled copy of the features.
            out.append(torch.addcmul(lin.bias, project(x, lin.weight), scale))
        return torch.cat(out, dim=1)

    def _scale(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        if x.requires_grad:
            return inverse_norm(x.to(dtype))
        return self._scales(lambda: inverse_norm(x.to(dtype)), x, dtype)

    def views(
        self, data: HeteroData, user: Tensor | None = None, item: Tensor | None = None
    ) -> Embeddings:
        r"""Results of all LightGCN runs, for all users and items or for the given ones:
        item vectors first, then modalities.

        Args:
            data: The user-item graph with features.
            user: Output users; :obj:`None` means all users.
            item: Output items; :obj:`None` means all items.

        Shapes:
            - **input:** user indices :math:`(U)` *(optional)*, item indices
              :math:`(I)` *(optional)*
            - **output:** user vectors :math:`(U, n + 1, d)`, item vectors
              :math:`(I, n + 1, d)`
        """
        graph = self.graph(data)
        to_user = (graph.to_user, graph.to_user_weight)
        to_item = (graph.to_item, graph.to_item_weight)
        # Propagation is linear and all runs share the user table, so messages from users are
        # propagated once instead of once per run.
        of_user = self._walk(self.user_embedding, to_item, to_user)
        of_item = self._walk(self.item_inputs(data), to_user, to_item)
        return Embeddings(
            self._join(of_item[1], of_user[0], user), self._join(of_item[0], of_user[1], item)
        )

    def _walk(
        self, x: Tensor, there: tuple[SortedEdges, Tensor], back: tuple[SortedEdges, Tensor]
    ) -> tuple[Tensor, Tensor]:
        r"""Sums over hops that start with :obj:`x` on one side: on this side over even
        numbers of hops, and on the other side over odd numbers. Horner's rule
        computes them without storing single hops.
        """
        here, other = x, self.conv(x, *there)
        for layer in range(1, self.num_layers):
            if layer % 2 == 1:
                here = self.conv(other, *back).add_(x)
            else:
                other = self.conv(here, *there)
        return here, other

    def _join(self, wide: Tensor, narrow: Tensor, index: Tensor | None) -> Tensor:
        if index is not None:
            wide, narrow = wide.index_select(0, index), narrow.index_select(0, index)
        wide = wide.unflatten(1, (-1, self.channels))
        return (wide + narrow.unsqueeze(1)) / (self.num_layers + 1)

    def fuse(self, user: Tensor, item: Tensor) -> Embeddings:
        r"""Final vectors from the vectors of all views."""
        return Embeddings(self.user_fusion(user.flatten(1)), self.item_fusion(item.flatten(1)))

    def forward(self, data: HeteroData) -> Embeddings:
        return self.fuse(*self.views(data))

    def loss(self, data: HeteroData, batch: Batch) -> dict[str, Tensor]:
        users, items = distinct(batch.user), distinct(batch.pos)
        if self.objective is None:
            user, item = self.views(data, users.node, items.node)
            contrast = info_nce(*self.fuse(user, item), self.temperature, (users, items))
            losses = {'info_nce': contrast}
        else:
            views = self.views(data)
            tables = self.fuse(*views)
            losses = self.ranking(data, batch, batch.rows(tables), tables)
            item = views.item.index_select(0, items.node)
        if self.ssl_weight > 0:
            for modality, value in self.alignment(item, items).items():
                losses[f'fac_{modality}'] = self.ssl_weight * value
        return losses
