from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric import EdgeIndex
from torch_geometric.data import HeteroData
from torch_geometric.typing import EdgeType

from motor_geo.nn.conv import Propagate
from motor_geo.nn.conv.self_loop import SelfLoopPropagation
from motor_geo.nn.functional.similarity import top_k_cosine
from motor_geo.nn.graph import BipartiteGraph
from motor_geo.nn.loss import l2_reg
from motor_geo.nn.memo import Memo
from motor_geo.nn.models.item_features import ItemFeatures
from motor_geo.nn.models.item_graph import item_graph
from motor_geo.nn.models.recommender import Recommender
from motor_geo.typing import RATES, Batch, Embeddings, num_nodes, similar
from motor_geo.utils.cost import warn_of_time
from motor_geo.utils.lazy import Lazy
from motor_geo.utils.numbers import positive

ItemGraphs = list[tuple[EdgeIndex, Tensor]]


class LearnedGraphRecommender(Recommender):
    r"""Base class of :class:`~motor_geo.nn.models.LATTICE` and
    :class:`~motor_geo.nn.models.MICRO`, whose item graphs combine nearest
    neighbors by raw features with nearest neighbors by projected features,

    .. math::
        \mathbf{I} = \mathbf{G} + \frac{\mathbf{h}}{\| \mathbf{h} \|}, \qquad
        [\mathbf{U}; \mathbf{G}] = \frac{1}{L+1} \sum_{l=0}^{L} \left(
        \tilde{\mathbf{D}}^{-1} (\mathbf{A} + \mathbf{I}) \right)^l
        \mathbf{X}^{(0)} ,

    where a subclass computes :math:`\mathbf{h}` from its item graphs. Training
    builds the graphs in the first batch of every epoch, the only batch in which
    they have a gradient. The other batches reuse them without a gradient.
    Evaluation builds them from the current parameters and from the features of
    the given graph, which may have more items than in training.

    Args:
        data: The user-item graph with features :obj:`x_<modality>` and item
            graphs of :class:`~motor_geo.data.ItemKNN` (cosine weighting).
        item_encoder: Item encoder; :obj:`None` uses an ID embedding.
        channels: Size :math:`d` of user and item vectors.
        num_layers: Number of hops :math:`L` on the user-item graph.
        num_item_layers: Number of hops on the item graphs.
        k: Number of neighbors in learned graphs, including the item itself.
        initial_weight: Weight :math:`\lambda` of the graphs of raw features. With
            one, there are no learned graphs.
        reg_weight: Weight of half the sum of squared entries of the final
            vectors in the batch, divided by :obj:`reg_batch_size`.
        reg_batch_size: Divisor of the regularizer, which replaces the size of the
            batch.
        train_features: If set to :obj:`True`, trains the raw features, as the
            reference implementation does. The model is then not ID-free.
        edge_type: Edge type of the training interactions, from users to items.

    Raises:
        ValueError: If the graph has no item features or no item graph, or an
            argument is out of range.
    """

    transforms = (Lazy('motor_geo.data.ItemKNN', weighting='cosine'),)
    takes_user_encoder = True
    min_modalities = 1
    lr_decay = (0.96, 50.0)

    def __init__(
        self,
        data: HeteroData,
        item_encoder: nn.Module | None,
        channels: int,
        num_layers: int,
        num_item_layers: int,
        k: int,
        initial_weight: float,
        reg_weight: float,
        reg_batch_size: int,
        train_features: bool,
        edge_type: EdgeType = RATES,
    ):
        super().__init__(data, item_encoder, channels, edge_type)
        if k < 1:
            raise ValueError(f"'k' must be positive (got {k})")
        if not 0 <= initial_weight <= 1:
            raise ValueError(f"'initial_weight' must lie in [0, 1] (got {initial_weight})")
        if num_item_layers < 0:
            raise ValueError(f"'num_item_layers' must not be negative (got {num_item_layers})")
        self.num_item_layers = num_item_layers
        self.k = k
        self.initial_weight = initial_weight
        self.reg_weight = reg_weight
        self.reg_batch_size = positive('reg_batch_size', reg_batch_size)
        self.propagation = SelfLoopPropagation(num_layers)
        self.conv = Propagate()
        self.features = ItemFeatures(
            data,
            channels,
            self.__class__.__name__,
            train=train_features,
            node_type=self.item_type,
        )
        self._self_loops, self._epoch = Memo(), Memo()
        for modality in self.features.names:
            self.initial_graph(data, modality)
        num_items = num_nodes(data, self.item_type)
        if initial_weight < 1:  # Training and validation each search all pairs.
            warn_of_time(
                f"'{self.__class__.__name__}' compares all pairs of {num_items:,} items in every "
                'epoch, which',
                2 * len(self.features) * num_items**2 * channels,
                "'initial_weight' 1 leaves out learned graphs",
            )

    def graph(self, data: HeteroData) -> BipartiteGraph:
        r"""The training graph with weights :math:`1 / (\deg + 1)`, cached as long as
        its edges stay the same.
        """
        graph = super().graph(data)
        return self._self_loops(lambda: SelfLoopPropagation.normalize(graph), graph)

    def initial_graph(self, data: HeteroData, modality: str) -> tuple[Tensor, Tensor]:
        r"""Edges and weights of the item graph of raw features."""
        store = item_graph(data, modality, self.__class__.__name__, self.item_type)
        return store.edge_index, store.edge_weight.to(self.user_embedding.dtype)

    def learned_graphs(self, data: HeteroData) -> dict[str, tuple[Tensor, Tensor]]:
        r"""The nearest items of every item by projected features, for each modality.

        Shapes:
            - **output:** neighbors :math:`(N, k)`, their cosine similarities
              :math:`(N, k)`
        """
        return {m: top_k_cosine(z, self.k) for m, z in self.features(data).items()}

    def item_graphs(self, data: HeteroData) -> ItemGraphs:
        r"""The item graphs for the current parameters, with a gradient."""
        raise NotImplementedError

    def begin_epoch(self, data: HeteroData, epoch: int, generator: torch.Generator) -> None:
        self._epoch.clear()

    def epoch_item_graphs(self, data: HeteroData) -> ItemGraphs:
        r"""The item graphs of the current epoch: with a gradient in the first call
        after :meth:`begin_epoch`, and without a gradient in later calls. They are
        rebuilt if the item graphs or features of :obj:`data` change.
        """
        stores = [data[similar(m, self.item_type)] for m in self.features.names]
        sources = [
            [(store.edge_index, store.edge_weight) for store in stores],
            [self.features.given(data, m) for m in self.features.names],
            self.user_embedding.dtype,
        ]
        kept = self._epoch.get(*sources)
        if kept is not None:
            return kept
        graphs = self.item_graphs(data)
        if torch.is_grad_enabled():
            detached = [(edge_index, weight.detach()) for edge_index, weight in graphs]
            self._epoch(lambda: detached, *sources)
        return graphs

    def smooth(self, item: Tensor, graph: tuple[EdgeIndex, Tensor]) -> Tensor:
        r"""Item vectors after all hops on an item graph.

        Args:
            item: Item vectors.
            graph: Edges and edge weights of the item graph.

        Shapes:
            - **input:** item vectors :math:`(N, d)`, edge indices
              :math:`(2, |\mathcal{E}|)`, edge weights :math:`(|\mathcal{E}|)`
            - **output:** item vectors :math:`(N, d)`
        """
        for _ in range(self.num_item_layers):
            item = self.conv(item, *graph)
        return item

    def combine(self, data: HeteroData, item: Tensor, h: Tensor) -> Embeddings:
        r"""Final vectors, from item vectors before and after the item graphs.

        Args:
            data: The user-item graph.
            item: Item vectors :math:`\mathbf{Q}` from the item encoder.
            h: Item vectors :math:`\mathbf{h}` after the item graphs.

        Shapes:
            - **input:** item vectors :math:`(N, d)` and :math:`(N, d)`
            - **output:** user vectors :math:`(M, d)`, item vectors
              :math:`(N, d)`
        """
        out = self.propagation(self.encode_users(data, item), item, self.graph(data))
        return Embeddings(out.user, out.item + F.normalize(h, dim=-1))

    def batch_loss(self, data: HeteroData, out: Embeddings, batch: Batch) -> dict[str, Tensor]:
        r"""Ranking loss and regularizer of a batch."""
        rows = batch.rows(out)
        ranking = self.ranking(data, batch, rows, out)
        return {**ranking, 'reg': self.reg_weight * (l2_reg(*rows) / self.reg_batch_size)}
