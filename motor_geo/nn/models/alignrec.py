from __future__ import annotations

import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData
from torch_geometric.typing import EdgeType

from motor_geo.nn.conv import Hops
from motor_geo.nn.functional.rows import inverse_norm, project
from motor_geo.nn.memo import Memo
from motor_geo.nn.models.bm3 import normalize
from motor_geo.nn.models.item_features import ItemFeatures
from motor_geo.nn.models.item_graph import ItemGraph
from motor_geo.nn.models.side_views import SideViews
from motor_geo.nn.models.similarity import cosine_distance, feature_similarity_loss
from motor_geo.typing import RATES, Batch
from motor_geo.utils.lazy import Lazy
from motor_geo.utils.numbers import not_negative


class AlignRec(SideViews):
    r"""AlignRec from the `"AlignRec: Aligning and Training in Multimodal
    Recommendations" <https://arxiv.org/abs/2403.12384>`_ paper. The features
    :math:`\mathbf{x}` of an item gate its vector in :math:`\mathbf{Q}`, a frozen
    item graph smooths the result, and users average their items,

    .. math::
        \mathbf{Z}_I = \mathbf{S}^{L_{ii}} \left( \mathbf{Q} \odot
        \sigma(\mathbf{G}(\mathbf{W} \mathbf{x} + \mathbf{b})) \right), \qquad
        \mathbf{Z}_U = \hat{\mathbf{R}} \mathbf{Z}_I, \qquad
        \mathbf{X} = \mathbf{C} + \mathbf{Z}

    with :math:`\mathbf{C}` the output of LightGCN. With several modalities,
    :math:`\mathbf{x}` concatenates their rows after scaling each to unit
    length. In addition to the ranking loss and to a contrastive loss between
    :math:`\mathbf{Z}` and :math:`\mathbf{C}`, two terms keep the inner products
    of the positive items in the batch close to the cosine similarities of their
    features, and align users with their items,

    .. math::
        \frac{\lambda_s}{B} {\| \mathbf{Z} \mathbf{Z}^{\top} - \cos(\mathbf{x},
        \mathbf{x}) \|}_F + \lambda_c \left( 1 - \frac{1}{B} \sum_b
        \cos(\mathbf{x}_{u_b}, \mathbf{x}_{i_b}) \right) .

    ID-free: :math:`\mathbf{Q}` is computed from tokens, both as input of
    LightGCN and of the gate.

    Args:
        data: The user-item graph with features :obj:`x_<modality>` and item
            graphs of :class:`~motor_geo.data.ItemKNN` (cosine weighting). The
            model uses their mean.
        item_encoder: Item encoder; :obj:`None` uses an ID embedding.
        channels: Size :math:`d` of user and item vectors.
        num_layers: Number of hops on the user-item graph.
        num_item_layers: Number of hops :math:`L_{ii}` on the item graph.
        reg_weight: Weight of half the sum of squared entries of the final
            vectors in the batch, divided by :obj:`batch_size`.
        batch_size: Divisor of the regularizer. It stays the same for a smaller
            last batch.
        cl_weight: Weight of the contrastive loss.
        temperature: Temperature of the contrastive loss.
        similarity_weight: Weight :math:`\lambda_s` of the similarity term, whose
            norm is not squared.
        cosine_weight: Weight :math:`\lambda_c` of the alignment term.
        train_features: If set to :obj:`True`, trains the raw features, as the
            reference implementation does. The model is then not ID-free, since
            they enter the score. The similarity term uses the original
            features.
        edge_type: Edge type of the training interactions, from users to items.

    Shapes:
        - **output:** user vectors :math:`(M, d)`, item vectors :math:`(N, d)`

    Raises:
        ValueError: If the graph has no item features or no item graph, or an
            argument is out of range.
    """

    transforms = (Lazy('motor_geo.data.ItemKNN', weighting='cosine'),)
    needs_all_users = None

    def __init__(
        self,
        data: HeteroData,
        item_encoder: nn.Module | None = None,
        channels: int = 64,
        num_layers: int = 2,
        num_item_layers: int = 1,
        reg_weight: float = 1e-4,
        batch_size: int = 2048,
        cl_weight: float = 0.01,
        temperature: float = 0.2,
        similarity_weight: float = 0.1,
        cosine_weight: float = 0.1,
        train_features: bool = False,
        edge_type: EdgeType = RATES,
    ):
        contrast = cl_weight, temperature
        super().__init__(
            data, item_encoder, channels, num_layers, reg_weight, batch_size, *contrast, edge_type
        )
        self.similarity_weight = similarity_weight
        self.cosine_weight = cosine_weight
        self.hops = Hops(not_negative('num_item_layers', num_item_layers))
        self.features = ItemFeatures(
            data, None, 'AlignRec', train=train_features, node_type=self.item_type
        )
        names = self.features.names
        self.item_graph = ItemGraph(dict.fromkeys(names, 1 / len(names)), self.item_type)
        self.item_graph.check(data, 'AlignRec')
        self.lin = nn.Linear(sum(self.features.widths.values()), channels)
        self.gate = nn.Linear(channels, channels)
        self._scales = Memo()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        for lin in (self.lin, self.gate):
            lin.reset_parameters()

    def scales(self, tables: list[Tensor]) -> list[Tensor]:
        r"""Factors that scale the features of every modality to unit length, **[N, 1]**
        each.
        """

        def compute() -> list[Tensor]:
            return [inverse_norm(x.to(self.lin.weight.dtype)) for x in tables]

        if any(x.requires_grad for x in tables):
            return compute()
        return self._scales(compute, tables, self.lin.weight.dtype)

    def modal_items(self, data: HeteroData, item: Tensor) -> Tensor:
        # Merge both maps into one, since its weight is small, and scale rows afterwards.
        tables = self.features.raw(data)
        weight = self.gate.weight @ self.lin.weight
        parts = weight.split(list(self.features.widths.values()), dim=1)
        gate = nn.functional.linear(self.lin.bias, self.gate.weight, self.gate.bias)
        scales = self.scales(tables) if len(tables) > 1 else [torch.ones_like(gate[:1])]
        for x, part, scale in zip(tables, parts, scales):
            gate = gate + project(x, part) * scale
        z = self.hops(item * torch.sigmoid(gate), *self.item_graph(data, item.dtype))
        return z.unsqueeze(1)

    def side(self, content: Tensor, modal: Tensor) -> Tensor:
        return modal.squeeze(-2)

    def loss(self, data: HeteroData, batch: Batch) -> dict[str, Tensor]:
        views = self.batch_views(data, batch)
        losses = self.view_losses(data, batch, views)
        if self.similarity_weight > 0:
            side, items = views.side.item, views.items
            value = feature_similarity_loss(data, self.features, side, items)
            losses['similarity'] = self.similarity_weight * value
        if self.cosine_weight > 0:
            user, pos, _ = (normalize(x, eps=1e-8) for x in views.rows)
            losses['cosine'] = self.cosine_weight * cosine_distance(user, pos)
        return losses
