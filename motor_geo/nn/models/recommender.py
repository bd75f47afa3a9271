from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from torch_geometric.data import HeteroData
from torch_geometric.transforms import BaseTransform
from torch_geometric.typing import EdgeType

from motor_geo.nn.graph import BipartiteGraph, build_graph
from motor_geo.nn.item_encoder import IDEmbedding, encode_items, xavier_
from motor_geo.nn.loss import bpr_loss
from motor_geo.nn.memo import Memo
from motor_geo.nn.objective import RankingLoss
from motor_geo.typing import RATES, Batch, Embeddings, Rows, find_edges, node_store, num_nodes
from motor_geo.utils.ranking import top_k


class Recommender(nn.Module):
    r"""The base of all backbones: a user table, an item encoder in the place
    of the item table, and the parts that training and ranking call.

    A subclass implements :meth:`forward` and :meth:`loss`. A schedule that
    belongs to the model (pruning, annealing, rebuilding a graph) goes into
    :meth:`begin_epoch` and keeps its state in buffers, so that it survives a
    restart.

    Args:
        data: The user-item graph. Only its sizes and, where a backbone needs
            them, its features are read here.
        item_encoder: A module that yields item vectors, see
            :func:`~motor_geo.nn.item_encoder.encode_items`;
            :obj:`None` is the classic ID embedding.
        channels: Size :math:`d` of user and item vectors.
        edge_type: Edge type of training interactions, from users to items.

    Raises:
        ValueError: If the item encoder yields vectors of another size.
    """

    #: What adds the graphs that the backbone reads to the data, in order.
    transforms: ClassVar[tuple[BaseTransform, ...]] = ()
    #: Whether raw features are read, and how many modalities are needed.
    min_modalities: ClassVar[int] = 0
    #: Whether the loss reads negative items.
    needs_negatives: bool = True
    #: Form of the Xavier initialization of ID tables.
    init: ClassVar[str] = 'uniform'
    #: Whether users can be what they used, see :meth:`set_user_encoder`.
    takes_user_encoder: ClassVar[bool] = False
    #: The loss, by name, that goes with :obj:`--items recommended`.
    recommended_loss: ClassVar[str] = 'published'
    #: Learning rate and weight decay of Adam, and ``(a, b)`` of the
    #: learning-rate factor ``a ** (epoch / b)``, as published.
    lr: ClassVar[float] = 1e-3
    weight_decay: ClassVar[float] = 0.0
    lr_decay: ClassVar[tuple[float, float]] = (1.0, 50.0)

    #: What ranks in the place of the published loss, see :meth:`set_objective`.
    objective: RankingLoss | None

    def __init__(
        self,
        data: HeteroData,
        item_encoder: nn.Module | None = None,
        channels: int = 64,
        edge_type: EdgeType = RATES,
    ):
        super().__init__()
        self.edge_type = edge_type
        self.user_type, _, self.item_type = edge_type
        if item_encoder is None:
            item_encoder = IDEmbedding(num_nodes(data, self.item_type), channels, self.init)
        size = getattr(item_encoder, 'out_channels', getattr(item_encoder, 'embedding_dim', None))
        if size is not None and size != channels:
            raise ValueError(
                f"The item encoder yields vectors of size {size}, but 'channels' is {channels}"
            )
        self.channels = channels
        self.item_encoder = item_encoder
        self.user_encoder: nn.Module | None = None
        self.objective = None
        self._finish: RemovableHandle | None = None
        self.user_embedding = nn.Parameter(
            torch.empty(num_nodes(data, self.user_type), self.user_channels(channels))
        )
        self._graphs = Memo()
        xavier_(self.user_embedding, self.init)

    @classmethod
    def user_channels(cls, channels: int) -> int:
        r"""Size of user vectors."""
        return channels

    def reset_parameters(self) -> None:
        r"""Draws all parameters anew."""
        xavier_(self.user_embedding, self.init)
        for module in self.children():
            reset = getattr(module, 'reset_parameters', None)
            if reset is not None:
                reset()

    def forward(self, data: HeteroData) -> Embeddings:
        r"""Final user and item vectors on the full training graph.

        Shapes:
            - **output:** user vectors :math:`(M, *)`, item vectors
              :math:`(N, *)`
        """
        raise NotImplementedError

    def loss(self, data: HeteroData, batch: Batch) -> dict[str, Tensor]:
        r"""Loss terms of a batch, already weighted: their sum is the loss.

        Shapes:
            - **input:** users, positive and negative items :math:`(B)`
            - **output:** scalars
        """
        raise NotImplementedError

    def set_objective(self, objective: RankingLoss | None) -> None:
        r"""Puts another loss in the place of the published ranking loss. The
        other terms of the backbone stay. A loss that compares cosines makes
        the model yield vectors of unit length.

        Args:
            objective: The loss; :obj:`None` is the published one.
        """
        if self._finish is not None:
            self._finish.remove()
            self._finish = None
        self.objective = objective
        cls = type(self)
        self.needs_negatives = cls.needs_negatives or getattr(objective, 'needs_negatives', False)
        if objective is not None and objective.cosine:
            self._finish = self.register_forward_hook(_finish)

    def set_user_encoder(self, user_encoder: nn.Module) -> None:
        r"""Replaces the user table by a module that computes user vectors, so
        that the model has no parameters per user and accepts users that arrive
        after training.

        Args:
            user_encoder: A module that is called with item vectors, user-item
                edges, the number of users and the users it is needed for, such
                as :class:`~motor_geo.nn.UsedItems`.

        Raises:
            ValueError: If the backbone needs a user table.
        """
        if not self.takes_user_encoder:
            raise ValueError(f"'{type(self).__name__}' needs a user table")
        self.user_encoder = user_encoder
        # The number of users and the type of vectors are still read from it.
        self.user_embedding = nn.Parameter(self.user_embedding.detach()[:, :0].clone())

    @property
    def needs_tables(self) -> bool:
        r"""Whether the loss reads the vectors of all users and items."""
        return self.objective is not None and self.objective.needs_tables

    def ranking(
        self,
        data: HeteroData,
        batch: Batch,
        rows: Rows,
        tables: Embeddings | None = None,
        form: str = 'log',
    ) -> dict[str, Tensor]:
        r"""The terms of the loss that rank: the published Bayesian personalized
        ranking, or those of :meth:`set_objective`.

        Args:
            data: The user-item graph.
            batch: Users, positive and negative items.
            rows: Their vectors.
            tables: Vectors of all users and items, if they are at hand. A loss
                that needs them calls :meth:`forward` otherwise.
            form: The published form, see :func:`~motor_geo.nn.loss.bpr_loss`.

        Shapes:
            - **output:** scalars
        """
        if self.objective is None:
            return {'bpr': bpr_loss(*rows.scores(), form)}
        if self.needs_tables and tables is None:
            tables = self(data)
        edge_index = find_edges(data, self.edge_type)
        edge_index = data[self.edge_type].get('full_edge_index', edge_index)
        return self.objective(rows, batch, edge_index, tables)

    def begin_epoch(self, data: HeteroData, epoch: int, generator: torch.Generator) -> None:
        r"""Called before every epoch, with a generator on the device of the
        graph that is seeded for this epoch.
        """

    def encode_items(self, data: HeteroData, index: Tensor | None = None) -> Tensor:
        r"""Item vectors, from the item encoder.

        Shapes:
            - **input:** item indices :math:`(B)` *(optional)*
            - **output:** item vectors :math:`(N, d)` or :math:`(B, d)`
        """
        return encode_items(self.item_encoder, node_store(data, self.item_type), index)

    def encode_users(
        self, data: HeteroData, item: Tensor | None = None, index: Tensor | None = None
    ) -> Tensor:
        r"""User vectors, from the user table or the user encoder.

        Args:
            data: The user-item graph.
            item: Item vectors, if they are at hand; a user encoder calls
                :meth:`encode_items` otherwise.
            index: Users that the vectors are needed for; all if :obj:`None`.

        Shapes:
            - **input:** item vectors :math:`(N, d)` *(optional)*, user indices
              :math:`(B)` *(optional)*
            - **output:** user vectors :math:`(M, d)` or :math:`(B, d)`
        """
        if self.user_encoder is None:
            user = self.user_embedding
            return user if index is None else user.index_select(0, index)
        if item is None:
            item = self.encode_items(data)
        edge_index = find_edges(data, self.edge_type)
        return self.user_encoder(item, edge_index, num_nodes(data, self.user_type), index)

    def encode(self, data: HeteroData) -> Embeddings:
        r"""User and item vectors before any propagation.

        Shapes:
            - **output:** user vectors :math:`(M, d)`, item vectors
              :math:`(N, d)`
        """
        item = self.encode_items(data)
        return Embeddings(self.encode_users(data, item), item)

    def graph(self, data: HeteroData) -> BipartiteGraph:
        r"""The symmetrically normalized training graph, kept for as long as
        the same edges come in.
        """
        args = self.graph_args(data)
        return self._graphs(lambda: build_graph(*args), *args)

    def graph_args(self, data: HeteroData) -> tuple[Tensor, int, int, torch.dtype]:
        r"""What the training graph is made from: user-item edges, the numbers
        of users and items, and the type of edge weights; what
        :func:`~motor_geo.nn.graph.build_graph` and
        :class:`~motor_geo.nn.graph.PrunedGraph` take.
        """
        size = num_nodes(data, self.user_type), num_nodes(data, self.item_type)
        return find_edges(data, self.edge_type), *size, self.user_embedding.dtype

    @torch.no_grad()
    def recommend(
        self, data: HeteroData, user: Tensor | None = None, k: int = 20
    ) -> tuple[Tensor, Tensor]:
        r"""The best :obj:`k` items that a user has no training edge to.

        Args:
            data: The user-item graph.
            user: Users, all of them if :obj:`None`.
            k: Length of the lists.

        Shapes:
            - **input:** user indices :math:`(U)` *(optional)*
            - **output:** scores :math:`(U, k)`, item indices :math:`(U, k)`
        """
        training = self.training
        self.eval()
        embeddings = self(data)
        self.train(training)
        if user is None:
            user = torch.arange(embeddings.user.size(0), device=embeddings.user.device)
        return top_k(embeddings, user, k, exclude=find_edges(data, self.edge_type))

    def item_parameters(self, num_items: int) -> list[str]:
        r"""Names of trainable parameters with a dimension equal to the number
        of items: none if the model is ID-free.
        """
        return [
            name
            for name, parameter in self.named_parameters()
            if parameter.requires_grad and num_items in parameter.shape
        ]

    def __repr__(self) -> str:
        return (
            f'{self.__class__.__name__}({self.user_embedding.size(0)}, {self.channels}, '
            f'item_encoder={self.item_encoder})'
        )


def _finish(model: Recommender, args: object, out: Embeddings) -> Embeddings:
    r"""A hook, which every caller of the model passes."""
    return out if model.objective is None else model.objective.finish(out)


def check_choice(name: str, value: str, *allowed: str) -> None:
    r"""Raises a :class:`ValueError` if an argument has an unknown value."""
    if value not in allowed:
        *first, last = (f"'{choice}'" for choice in allowed)
        raise ValueError(f"'{name}' must be {', '.join(first)} or {last} (got '{value}')")
