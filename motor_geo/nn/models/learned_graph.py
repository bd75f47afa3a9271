from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric import EdgeIndex
from torch_geometric.data import HeteroData

from motor_geo.nn.conv import Propagate
from motor_geo.nn.conv.self_loop import SelfLoopPropagation
from motor_geo.nn.functional.rows import project
from motor_geo.nn.functional.similarity import top_k_cosine
from motor_geo.nn.graph import BipartiteGraph
from motor_geo.nn.loss import bpr_loss, l2_reg
from motor_geo.nn.models.recommender import Recommender, modalities, num_nodes
from motor_geo.typing import ITEM, Batch, Embeddings, similar
from motor_geo.utils.lazy import Lazy

ItemGraphs = list[tuple[EdgeIndex, Tensor]]


class LearnedGraphRecommender(Recommender):
    r"""The common part of :class:`LATTICE` and :class:`MICRO`: item graphs
    that mix the neighbours of raw features with those of projected features,

    .. math::
        \mathbf{I} = \mathbf{G} + \frac{\mathbf{h}}{\| \mathbf{h} \|}, \qquad
        [\mathbf{U}; \mathbf{G}] = \frac{1}{L+1} \sum_{l=0}^{L} \left(
        \tilde{\mathbf{D}}^{-1} (\mathbf{A} + \mathbf{I}) \right)^l
        \mathbf{X}^{(0)} ,

    where a subclass computes :math:`\mathbf{h}` from its item graphs. The
    graphs are built in the first batch of every epoch, the only one in which
    they carry a gradient; the other batches reuse them as they are. Ranking
    builds them from the current parameters and the features of the graph at
    hand, which may hold more items than there were in training.

    Args:
        data: The user-item graph with features :obj:`x_<modality>` and item
            graphs of :class:`~motor_geo.data.ItemKNN` (cosine weighting).
        item_encoder: What yields item vectors; :obj:`None` is an ID embedding.
        channels: Size :math:`d` of user and item vectors.
        num_layers: Number of hops :math:`L` on the user-item graph.
        num_item_layers: Number of hops on the item graphs.
        k: Number of neighbours in learned graphs, the item itself included.
        initial_weight: Weight :math:`\lambda` of the graphs of raw features;
            one leaves out learned graphs.
        reg_weight: Weight of half the sum of squares of final vectors in the
            batch, divided by :obj:`reg_batch_size`.
        reg_batch_size: The constant that replaces the size of the batch.
        train_features: If set to :obj:`True`, raw features are trained, as in
            the reference implementation (not ID-free).
    """

    transforms = (Lazy('motor_geo.data.ItemKNN', weighting='cosine'),)
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
    ):
        super().__init__(data, item_encoder, channels)
        name = self.__class__.__name__
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
        self.reg_batch_size = reg_batch_size
        self.modalities = modalities(data, name)
        self.propagation = SelfLoopPropagation(num_layers)
        self.conv = Propagate()
        self.lins = nn.ModuleDict(
            {m: nn.Linear(data[ITEM][f'x_{m}'].size(1), channels) for m in self.modalities}
        )
        self.features: nn.ParameterDict | None = None
        if train_features:
            tables = {m: data[ITEM][f'x_{m}'].float().clone() for m in self.modalities}
            self.features = nn.ParameterDict(tables)
        self._self_loop: tuple[BipartiteGraph, BipartiteGraph] | None = None
        self._epoch: tuple[list, ItemGraphs] | None = None
        for modality in self.modalities:
            self.initial_graph(data, modality)

    def reset_parameters(self) -> None:
        super().reset_parameters()
        for lin in self.lins.values():
            lin.reset_parameters()  # type: ignore

    def graph(self, data: HeteroData) -> BipartiteGraph:
        r"""The training graph with weights :math:`1 / (\deg + 1)`, kept for as
        long as the same edges come in.
        """
        graph = super().graph(data)
        if self._self_loop is None or self._self_loop[0] is not graph:
            self._self_loop = (graph, SelfLoopPropagation.normalize(graph))
        return self._self_loop[1]

    def initial_graph(self, data: HeteroData, modality: str) -> tuple[Tensor, Tensor]:
        r"""Edges and weights of the item graph of raw features."""
        if similar(modality) not in data.edge_types:
            raise ValueError(
                f"'{self.__class__.__name__}' needs the item graph {similar(modality)}: apply "
                "'ItemKNN' to the data first"
            )
        store = data[similar(modality)]
        return store.edge_index, store.edge_weight.to(self.user_embedding.dtype)

    def learned_graphs(self, data: HeteroData) -> dict[str, tuple[Tensor, Tensor]]:
        r"""The nearest items of every item by projected features, per
        modality.

        Shapes:
            - **output:** neighbours :math:`(N, k)`, their cosine similarities
              :math:`(N, k)`
        """
        out = {}
        for modality, lin in self.lins.items():
            if self.features is None:
                x = data[ITEM][f'x_{modality}']
            else:
                x = self.features[modality]
                if x.size(0) != num_nodes(data, ITEM):
                    raise ValueError(
                        f"'{self.__class__.__name__}' trained the '{modality}' features of "
                        f'{x.size(0)} items but the graph has {num_nodes(data, ITEM)}: items '
                        "that were not there in training need 'train_features=False'"
                    )
            out[modality] = top_k_cosine(project(x, lin.weight, lin.bias), self.k)  # type: ignore
        return out

    def item_graphs(self, data: HeteroData) -> ItemGraphs:
        r"""Item graphs of the current parameters, with their gradient."""
        raise NotImplementedError

    def begin_epoch(self, data: HeteroData, epoch: int, generator: torch.Generator) -> None:
        self._epoch = None

    def epoch_item_graphs(self, data: HeteroData) -> ItemGraphs:
        r"""Item graphs of the first batch of the epoch: with their gradient in
        the first call after :meth:`begin_epoch`, without it from then on.
        """
        edges = [self.initial_graph(data, modality)[0] for modality in self.modalities]
        key = [(edge_index, edge_index._version) for edge_index in edges]
        if self._epoch is not None and all(
            old[0] is new[0] and old[1] == new[1] for old, new in zip(self._epoch[0], key)
        ):
            return self._epoch[1]
        graphs = self.item_graphs(data)
        if torch.is_grad_enabled():
            self._epoch = (key, [(edge_index, weight.detach()) for edge_index, weight in graphs])
        return graphs

    def smooth(self, item: Tensor, graph: tuple[EdgeIndex, Tensor]) -> Tensor:
        r"""All hops on an item graph.

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

        Shapes:
            - **input:** item vectors :math:`(N, d)` and :math:`(N, d)`
            - **output:** user vectors :math:`(M, d)`, item vectors
              :math:`(N, d)`
        """
        out = self.propagation(self.user_embedding, item, self.graph(data))
        return Embeddings(out.user, out.item + F.normalize(h, dim=-1))

    def ranking_loss(self, out: Embeddings, batch: Batch) -> dict[str, Tensor]:
        r"""Ranking loss and regularisation of a batch."""
        user, pos, neg = batch.rows(out)
        bpr = bpr_loss((user * pos).sum(dim=-1), (user * neg).sum(dim=-1))
        reg = l2_reg(user, pos, neg) / self.reg_batch_size
        return {'bpr': bpr, 'reg': self.reg_weight * reg}

    def __getstate__(self) -> dict:
        return {**super().__getstate__(), '_self_loop': None, '_epoch': None}
