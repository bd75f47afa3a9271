from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData
from torch_geometric.typing import EdgeType

from motor_geo.nn.conv import LightPropagation, Propagate
from motor_geo.nn.functional.distinct import distinct
from motor_geo.nn.functional.feature_blocks import linear_twice
from motor_geo.nn.loss import info_nce, l2_reg
from motor_geo.nn.models.item_features import ItemFeatures
from motor_geo.nn.models.item_graph import ItemGraph
from motor_geo.nn.models.recommender import Recommender, check_choice
from motor_geo.nn.models.similarity import feature_similarity_loss
from motor_geo.nn.name_dict import NameDict
from motor_geo.typing import RATES, Batch, Embeddings, Rows
from motor_geo.utils.lazy import Lazy
from motor_geo.utils.numbers import positive


class Views(NamedTuple):
    r"""The views that :class:`MGCN` fuses."""

    content: Embeddings  # [M, d], [N, d]: from the training graph
    modal: Embeddings  # [M, n, d], [N, n, d]: from every modality


class MGCN(Recommender):
    r"""MGCN from the `"Multi-View Graph Convolutional Network for Multimedia
    Recommendation" <https://arxiv.org/abs/2308.03588>`_ paper.

    Features of every modality gate item vectors :math:`\mathbf{Q}`, a frozen
    item graph smooths the result, and users average their items,

    .. math::
        \mathbf{Z}^m_I = (\mathbf{S}^m)^{L_{ii}} \left( \mathbf{Q} \odot
        \sigma(\mathbf{G}_m(\mathbf{W}_m \mathbf{X}^m)) \right), \qquad
        \mathbf{Z}^m_U = \hat{\mathbf{R}} \mathbf{Z}^m_I .

    With :math:`\mathbf{C}` the output of LightGCN and attention :math:`a_m` per
    node, the model adds a part shared by all modalities and a part specific to
    each of them,

    .. math::
        \mathbf{Z} = \sum_m a_m \mathbf{Z}^m, \qquad
        \tilde{\mathbf{Z}}^m = (\mathbf{Z}^m - \mathbf{Z}) \odot
        \sigma(\mathbf{H}_m(\mathbf{C})), \qquad
        \mathbf{X} = \mathbf{C} + \frac{1}{n + 1} \left( \mathbf{Z} +
        \sum_m \tilde{\mathbf{Z}}^m \right) .

    With a single modality, there is no specific part:
    :math:`\tilde{\mathbf{Z}}^m` is zero.

    ID-free: :math:`\mathbf{Q}` is computed from tokens, both as input of
    LightGCN and of the gates.

    Args:
        data: The user-item graph with features :obj:`x_<modality>` and item
            graphs of :class:`~motor_geo.data.ItemKNN` (cosine weighting).
        item_encoder: Item encoder; :obj:`None` uses an ID embedding.
        channels: Size :math:`d` of user and item vectors.
        num_layers: Number of hops on the user-item graph.
        num_item_layers: Number of hops :math:`L_{ii}` on the item graphs.
        reg_weight: Weight of half the sum of squared entries of the final
            vectors in the batch, divided by :obj:`batch_size`.
        batch_size: Divisor of the regularizer. It stays the same for a smaller
            last batch.
        cl_weight: Weight of the contrastive loss between modal and content
            vectors.
        temperature: Temperature of the contrastive loss.
        similarity_weight: Weight of the similarity term of
            :class:`~motor_geo.nn.models.AlignRec`, which keeps the inner
            products of the modal parts of positive items close to the cosine
            similarities of features. The paper has no such term.
        fusion: :obj:`"reference"` divides the sum of the shared and the specific
            parts by :math:`n + 1`. :obj:`"paper"` adds the shared part to the
            mean of the specific parts.
        train_features: If set to :obj:`True`, trains the raw features, as the
            reference implementation does. The model is then not ID-free, since
            they enter the score.
        edge_type: Edge type of the training interactions, from users to items.

    Shapes:
        - **output:** user vectors :math:`(M, d)`, item vectors :math:`(N, d)`

    Raises:
        ValueError: If the graph has no item features or no item graph, or an
            argument is out of range.
    """

    transforms = (Lazy('motor_geo.data.ItemKNN', weighting='cosine'),)
    takes_user_encoder = True
    min_modalities = 1
    lr_decay = (0.96, 50.0)
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
        similarity_weight: float = 0.0,
        fusion: str = 'reference',
        train_features: bool = False,
        edge_type: EdgeType = RATES,
    ):
        check_choice('fusion', fusion, 'reference', 'paper')
        positive('temperature', temperature)
        super().__init__(data, item_encoder, channels, edge_type)
        self.num_item_layers = num_item_layers
        self.reg_weight = reg_weight
        self.batch_size = positive('batch_size', batch_size)
        self.cl_weight = cl_weight
        self.temperature = temperature
        self.similarity_weight = similarity_weight
        self.fusion = fusion
        self.propagation = LightPropagation(num_layers)
        self.conv = Propagate()
        model = type(self).__name__
        self.features = ItemFeatures(
            data, channels, model, train=train_features, node_type=self.item_type
        )
        names = self.features.names
        self.item_graphs = {m: ItemGraph({m: 1.0}, self.item_type) for m in names}
        for graph in self.item_graphs.values():
            graph.check(data, model)
        self.gates = NameDict({m: nn.Linear(channels, channels) for m in names})
        self.preference_gates = NameDict({m: nn.Linear(channels, channels) for m in names})
        self.attention = nn.Sequential(
            nn.Linear(channels, channels), nn.Tanh(), nn.Linear(channels, 1, bias=False)
        )

    def reset_parameters(self) -> None:
        super().reset_parameters()
        for block in (self.gates, self.preference_gates, self.attention):
            for lin in block.modules():
                if isinstance(lin, nn.Linear):
                    lin.reset_parameters()

    def modal_item(self, data: HeteroData, name: str, item: Tensor) -> Tensor:
        r"""Item vectors :math:`\mathbf{Z}^m_I` of a modality, from :math:`\mathbf{Q}`
        **[N, d]**.
        """
        lin, gate = self.features.lin(name), self.gates[name]
        x = self.features.table(data, name)
        gated = linear_twice(x, lin.weight, lin.bias, gate.weight, gate.bias)
        z = item * torch.sigmoid(gated)
        for _ in range(self.num_item_layers):
            z = self.conv(z, *self.item_graphs[name](data, item.dtype))
        return z

    def views(self, data: HeteroData, index: tuple[Tensor, Tensor] | None = None) -> Views:
        r"""Content and modal vectors of all nodes, or of the given users and items."""
        item, graph = self.encode_items(data), self.graph(data)
        modal_item = torch.stack([self.modal_item(data, m, item) for m in self.gates], dim=1)
        args = modal_item.flatten(1), graph.to_user, graph.to_user_weight
        tables = self.encode_users(data, item), item, graph
        if index is None:
            content, modal_user = self.propagation(*tables), self.conv(*args)
        else:
            content = self.propagation.rows(*tables, *index).out
            modal_user = self.conv.rows(*args, index[0])
            modal_item = modal_item.index_select(0, index[1])
        modal_user = modal_user.view(-1, *modal_item.shape[1:])
        return Views(content, Embeddings(modal_user, modal_item))

    def side(self, content: Tensor, modal: Tensor) -> Tensor:
        r"""The sum of the shared and specific parts, from content vectors **[*, d]**
        and modal vectors **[*, n, d]**.
        """
        attention = self.attention(modal).softmax(dim=-2)
        shared = (attention * modal).sum(dim=-2)
        preference = [torch.sigmoid(gate(content)) for gate in self.preference_gates.values()]
        specific = ((modal - shared.unsqueeze(-2)) * torch.stack(preference, dim=-2)).sum(dim=-2)
        if self.fusion == 'paper':
            return shared + specific / len(preference)
        return (shared + specific) / (len(preference) + 1)

    def forward(self, data: HeteroData) -> Embeddings:
        (user, item), modal = self.views(data)
        return Embeddings(user + self.side(user, modal.user), item + self.side(item, modal.item))

    def loss(self, data: HeteroData, batch: Batch) -> dict[str, Tensor]:
        # Fusion is row-wise, so it only processes the rows of the batch. Users and positive items
        # that occur several times are processed once.
        users, items = distinct(batch.user), distinct(batch.pos)
        index = users.node, torch.cat([items.node, batch.neg])
        (user, item), modal = self.views(data, index)
        size = [items.node.numel(), batch.neg.numel()]
        user_side = self.side(user, modal.user)
        pos, neg = item.split(size)
        pos_side, neg_side = self.side(item, modal.item).split(size)
        rows = Rows(
            (user + user_side).index_select(0, users.inverse),
            (pos + pos_side).index_select(0, items.inverse),
            neg + neg_side,
        )

        losses = self.ranking(data, batch, rows)
        if self.reg_weight > 0:
            losses['reg'] = self.reg_weight * (l2_reg(*rows) / self.batch_size)
        if self.cl_weight > 0:
            cl_item = info_nce(pos_side, pos, self.temperature, (items, items))
            cl_user = info_nce(user_side, user, self.temperature, (users, users))
            losses['cl_item'] = self.cl_weight * cl_item
            losses['cl_user'] = self.cl_weight * cl_user
        if self.similarity_weight > 0:
            value = feature_similarity_loss(data, self.features, pos_side, items)
            losses['similarity'] = self.similarity_weight * value
        return losses
