from __future__ import annotations

import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData
from torch_geometric.typing import EdgeType

from motor_geo.nn.functional.distinct import distinct
from motor_geo.nn.functional.rows import project, table_rows
from motor_geo.nn.item_encoder import IDEmbedding
from motor_geo.nn.loss import l2_reg
from motor_geo.nn.memo import Memo
from motor_geo.nn.models.item_features import ItemFeatures
from motor_geo.nn.models.recommender import Recommender
from motor_geo.typing import RATES, Batch, Embeddings, Rows, node_store, num_nodes


class DeepStyle(Recommender):
    r"""DeepStyle from the `"DeepStyle: Learning User Preferences for Visual
    Recommendation" <https://doi.org/10.1145/3077136.3080658>`_ paper. It
    subtracts a vector of the item category from the projected features, so that
    the style of an item remains,

    .. math::
        s(u, i) = \mathbf{p}_u^{\top} \left( \sum_m \mathbf{W}_m \mathbf{x}^m_i
        - \mathbf{l}_{c(i)} + \mathbf{q}_i \right) ,

    where features are not normalized.

    The category :math:`c(i)` is :obj:`data['item'].category` if the graph has
    this attribute. Otherwise, it depends on the item encoder. With tokens, the
    category is the first token of an item. With an ID embedding, every item has
    its own vector :math:`\mathbf{l}`, as in published implementations. With any
    other item encoder, there is no :math:`\mathbf{l}`.

    ID-free: :math:`\mathbf{q}_i` is computed from tokens, and
    :math:`\mathbf{l}` has one row per value of the first token. Training
    computes :math:`\mathbf{q}_i` for the items of a batch only.

    Args:
        data: The user-item graph with features :obj:`x_<modality>`.
        item_encoder: Item encoder; :obj:`None` uses an ID embedding.
        channels: Size :math:`d` of user and item vectors.
        reg_weight: Weight of half the sum of squared entries of the user, item
            and category vectors in the batch. Like the ranking loss, it is a sum
            over the batch.
        edge_type: Edge type of the training interactions, from users to items.

    Shapes:
        - **output:** user vectors :math:`(M, d)`, item vectors :math:`(N, d)`

    Raises:
        ValueError: If the graph has no item features, or lacks the categories
            that the model was trained with, or has others.
    """

    min_modalities = 1
    needs_all_users = None
    reads_rows = True
    columns = True

    def __init__(
        self,
        data: HeteroData,
        item_encoder: nn.Module | None = None,
        channels: int = 64,
        reg_weight: float = 1e-3,
        edge_type: EdgeType = RATES,
    ):
        super().__init__(data, item_encoder, channels, edge_type)
        self.reg_weight = reg_weight
        self.features = ItemFeatures(
            data, channels, 'DeepStyle', bias=False, node_type=self.item_type
        )
        size: int | None = getattr(self.item_encoder, 'codebook_size', None)
        self.category = 'none' if size is None else 'token'
        store = node_store(data, self.item_type)
        self._checked = Memo()
        if 'category' in store:
            self._check(data, None)
            self.category, size = 'given', int(store.category.max()) + 1
        elif isinstance(self.item_encoder, IDEmbedding):
            self.category, size = 'item', self.item_encoder.num_items
        self.style = None if size is None else nn.Embedding(size, channels)
        self._reset_weights()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        self._reset_weights()

    def _reset_weights(self) -> None:
        for lin in self.features.lins.values():
            nn.init.xavier_uniform_(lin.weight)
        if self.style is not None:
            nn.init.xavier_uniform_(self.style.weight)

    def categories(self, data: HeteroData, num_categories: int) -> Tensor:
        r"""Categories :math:`c(i)` of all items, **[N]**.

        Raises:
            ValueError: If the model was trained with categories and the graph has
                none, or others.
        """
        store = node_store(data, self.item_type)
        if self.category == 'item':
            return torch.arange(num_categories, device=self.user_embedding.device)
        if self.category == 'token':
            return store.token_id[:, 0]
        if 'category' not in store:
            raise ValueError(
                f"'DeepStyle' was trained with data['{self.item_type}'].category, which is "
                'missing: expected a category of every item'
            )
        self._checked(lambda: self._check(data, num_categories), store.category, num_categories)
        return store.category

    def _check(self, data: HeteroData, num_categories: int | None) -> None:
        category = node_store(data, self.item_type).category
        size = num_nodes(data, self.item_type)
        what = f"data['{self.item_type}'].category"
        if category.shape != (size,):
            raise ValueError(
                f'{what} must be a number of every item, [{size}], got {list(category.shape)}'
            )
        low, high = int(category.min()), int(category.max())
        if low < 0 or (num_categories is not None and high >= num_categories):
            most = num_categories and f' and at most {num_categories - 1}, as in training'
            raise ValueError(f'{what} must be at least 0{most or ""} (got {low}..{high})')

    def item_vectors(
        self, data: HeteroData, index: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        r"""Final item vectors and their parts :math:`\mathbf{q}` and
        :math:`\mathbf{l}`, of all items or of those in :obj:`index`, **[N, d]** or
        **[B, d]**. Without categories, :math:`\mathbf{l}` is :obj:`None`.
        """
        q = self.encode_items(data, index)
        out = q
        for x, lin in zip(self.features.raw(data, index), self.features.lins.values()):
            out = out + self.own_columns(data, project(x, lin.weight))
        if self.style is None:
            return out, q, None
        category = self.categories(data, self.style.num_embeddings)
        category = category if index is None else category.index_select(0, index)
        style = self.style.weight.index_select(0, category.long())
        style = self.own_columns(data, style)
        return out - style, q, style

    def forward(self, data: HeteroData) -> Embeddings:
        return Embeddings(self.user_embedding, self.item_vectors(data)[0])

    def loss(self, data: HeteroData, batch: Batch) -> dict[str, Tensor]:
        user = table_rows(self.user_embedding, batch.user)
        items = distinct(torch.cat([batch.pos, batch.neg]))
        item, *parts = self.item_vectors(data, items.node)
        rows = Rows(user, *item.index_select(0, items.inverse).chunk(2))
        losses = self.ranking(data, batch, rows, form='sum')
        if self.reg_weight > 0:
            used = [x.index_select(0, items.inverse) for x in parts if x is not None]
            losses['reg'] = self.reg_weight * l2_reg(user, *used, shard=self.shard(data))
        return losses
