from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from torch_geometric.data import HeteroData
from torch_geometric.transforms import BaseTransform
from torch_geometric.typing import EdgeType

from motor_geo.nn.functional.pairs import scores_and_norms
from motor_geo.nn.functional.rows import table_rows
from motor_geo.nn.graph import BipartiteGraph, build_graph
from motor_geo.nn.item_encoder import IDEmbedding, encode_items, xavier_
from motor_geo.nn.loss import bpr_loss, frobenius_reg, scores
from motor_geo.nn.memo import Memo
from motor_geo.nn.objective import RankingLoss
from motor_geo.parallel.user_shard import UserShard, shard_in
from motor_geo.typing import RATES, Batch, Embeddings, Rows, find_edges, node_store, num_nodes
from motor_geo.utils.ranking import top_k
from motor_geo.utils.seen import SeenItems


class Recommender(nn.Module):
    r"""Base class of all backbones, with a user table, an item encoder that
    replaces the item table, and the methods that training and evaluation call.

    A subclass implements :meth:`forward` and :meth:`loss`. Schedules of the
    model (such as pruning, annealing or rebuilding a graph) belong in
    :meth:`begin_epoch`. They keep their state in buffers, so that a run can
    resume.

    Args:
        data: The user-item graph. The constructor reads its sizes, and its
            features if the backbone needs them.
        item_encoder: Item encoder, see
            :func:`~motor_geo.nn.item_encoder.encode_items`; :obj:`None` uses an
            ID embedding.
        channels: Size :math:`d` of user and item vectors.
        edge_type: Edge type of the training interactions, from users to items.

    Raises:
        ValueError: If the size of the vectors of the item encoder differs from
            :obj:`channels`.
    """

    #: Transforms that add the graphs that the backbone reads, in order.
    transforms: ClassVar[tuple[BaseTransform, ...]] = ()
    #: Minimum number of modalities with raw features; zero if the backbone reads none.
    min_modalities: ClassVar[int] = 0
    #: Whether the loss reads negative items.
    needs_negatives: bool = True
    #: Whether the published loss reads only rows of tables, see
    #: :func:`~motor_geo.nn.functional.rows.table_rows`.
    reads_rows: ClassVar[bool] = False
    #: Distribution of the Xavier initialization of ID tables.
    init: ClassVar[str] = 'uniform'
    #: Whether :obj:`set_user_encoder` can replace the user table.
    takes_user_encoder: ClassVar[bool] = False
    #: Name of the loss that :obj:`--items recommended` uses by default.
    recommended_loss: ClassVar[str] = 'published'
    #: What the backbone needs of all users on one process, or :obj:`None` if several can
    #: share the users, see :class:`~motor_geo.parallel.UserShard`. Not inherited.
    needs_all_users: ClassVar[str | None] = 'all users'
    #: Whether processes can also share the columns of vectors, which :obj:`loss` and
    #: :obj:`forward` must not mix. What sums over columns gets :obj:`shard`. Not inherited.
    columns: ClassVar[bool] = False
    #: Published learning rate and weight decay of Adam, and ``(a, b)`` of the
    #: learning-rate factor ``a ** (epoch / b)``.
    lr: ClassVar[float] = 1e-3
    weight_decay: ClassVar[float] = 0.0
    lr_decay: ClassVar[tuple[float, float]] = (1.0, 50.0)

    #: Ranking loss that replaces the published one, see :meth:`set_objective`.
    objective: RankingLoss | None

    def __init__(
        self,
        data: HeteroData,
        item_encoder: nn.Module | None = None,
        channels: int = 64,
        edge_type: EdgeType = RATES,
    ):
        if channels < 1:
            raise ValueError(f"'channels' must be positive (got {channels})")
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
        self._graphs, self._seen = Memo(), Memo()
        xavier_(self.user_embedding, self.init)

    @classmethod
    def user_channels(cls, channels: int) -> int:
        r"""Size of the rows of the user table."""
        return channels

    def reset_parameters(self) -> None:
        r"""Draws new initial parameters."""
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
        r"""Weighted loss terms of a batch, by name. Their sum is the loss.

        Args:
            data: The user-item graph.
            batch: Users, positive items and negative items.

        Shapes:
            - **input:** users, positive and negative items :math:`(B)`
            - **output:** scalars
        """
        raise NotImplementedError

    def set_objective(self, objective: RankingLoss | None) -> None:
        r"""Replaces the published ranking loss. The other loss terms of the backbone
        do not change. With a loss that compares cosines, the model returns vectors
        of unit length.

        Args:
            objective: The ranking loss; :obj:`None` restores the published one.
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
        r"""The ranking terms of the loss: the published Bayesian personalized ranking,
        or those of the loss passed to :meth:`set_objective`.

        Args:
            data: The user-item graph.
            batch: Users, positive items and negative items.
            rows: Vectors of the batch.
            tables: Vectors of all users and items, if already computed. If they are
                missing and the loss needs them, :meth:`forward` computes them.
            form: Form of the published loss, see
                :func:`~motor_geo.nn.loss.bpr_loss`.

        Shapes:
            - **output:** scalars
        """
        if self.objective is None:
            return {'bpr': bpr_loss(*scores(rows, self.shard(data)), form)}
        if self.needs_tables and tables is None:
            tables = self(data)
        edge_index = find_edges(data, self.edge_type)
        edge_index = data[self.edge_type].get('full_edge_index', edge_index)
        return self.objective(rows, batch, edge_index, tables)

    def ranking_and_norms(
        self,
        data: HeteroData,
        batch: Batch,
        user: Tensor,
        item: Tensor,
        reg_weight: float,
        form: str = 'log',
    ) -> dict[str, Tensor]:
        r"""The terms of :meth:`ranking`, and :obj:`reg`, the regularizer
        :func:`~motor_geo.nn.loss.frobenius_reg` of the same vectors. For the published
        loss, both take one pass over the vectors.

        Args:
            data: The user-item graph.
            batch: Users, positive items and negative items.
            user: Vectors of the users.
            item: Vectors of all positive and then all negative items.
            reg_weight: Weight of the regularizer.
            form: Form of the published loss, see
                :func:`~motor_geo.nn.loss.bpr_loss`.

        Shapes:
            - **input:** user vectors :math:`(B, F)`, item vectors :math:`(2B, F)`
            - **output:** scalars
        """
        shard = self.shard(data)
        usual = self.objective is None and type(self).ranking is Recommender.ranking
        if usual and (shard is None or shard.columns.size == 1):
            pos, neg, norms = scores_and_norms(user, item)
            losses = {'bpr': bpr_loss(pos, neg, form)}
            reg = norms.sum() / max(user.size(0), 1)
        else:
            rows = Rows(user, *item.chunk(2))
            losses = self.ranking(data, batch, rows, form=form)
            reg = frobenius_reg(*rows, shard=shard)
        return {**losses, 'reg': reg_weight * reg}

    def begin_epoch(self, data: HeteroData, epoch: int, generator: torch.Generator) -> None:
        r"""Called before every epoch.

        Args:
            data: The user-item graph.
            epoch: Number of the epoch, from zero.
            generator: Random generator on the device of the graph, seeded for this
                epoch.
        """

    def encode_items(self, data: HeteroData, index: Tensor | None = None) -> Tensor:
        r"""Item vectors from the item encoder.

        Args:
            data: The user-item graph.
            index: Items to encode; :obj:`None` encodes all items.

        Shapes:
            - **input:** item indices :math:`(B)` *(optional)*
            - **output:** item vectors :math:`(N, d)` or :math:`(B, d)`
        """
        x = encode_items(self.item_encoder, node_store(data, self.item_type), index)
        return x if self._item_table() else self.own_columns(data, x)

    def own_columns(self, data: HeteroData, x: Tensor) -> Tensor:
        r"""The columns of this process if several share them, or else the vectors
        themselves.

        Shapes:
            - **input:** vectors :math:`(*, d)`
            - **output:** vectors :math:`(*, d)` or :math:`(*, d / C)`
        """
        shard = self.shard(data)
        return x if shard is None else shard.own_columns(x)

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
            return user if index is None else table_rows(user, index)
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
        r"""The symmetrically normalized training graph, cached as long as its edges
        stay the same.
        """
        args, shard = self.graph_args(data), self.user_shard(data)
        return self._graphs(lambda: build_graph(*args, shard), *args)

    def shard(self, data: HeteroData) -> UserShard | None:
        r"""The users and columns that this process has, or :obj:`None` if it has all."""
        return shard_in(data, self.edge_type)

    def user_shard(self, data: HeteroData) -> UserShard | None:
        r"""The users that this process has, or :obj:`None` if it has all of them."""
        shard = self.shard(data)
        return None if shard is None or shard.users.size == 1 else shard

    def graph_args(self, data: HeteroData) -> tuple[Tensor, int, int, torch.dtype]:
        r"""The arguments of the training graph, in the order of
        :func:`~motor_geo.nn.graph.build_graph` and
        :class:`~motor_geo.nn.pruning.PrunedGraph`: user-item edges, the numbers of
        users and items, and the type of edge weights.
        """
        size = num_nodes(data, self.user_type), num_nodes(data, self.item_type)
        return find_edges(data, self.edge_type), *size, self.user_embedding.dtype

    @torch.no_grad()
    def recommend(
        self, data: HeteroData, user: Tensor | None = None, k: int = 20
    ) -> tuple[Tensor, Tensor]:
        r"""Recommends the :obj:`k` items with the highest scores, without the
        training items of a user.

        Args:
            data: The user-item graph.
            user: Users; :obj:`None` means all users.
            k: Number of items per user.

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
        edge_index = find_edges(data, self.edge_type)
        seen = self._seen(lambda: SeenItems(edge_index), edge_index)
        return top_k(embeddings, user, k, exclude=seen)

    def user_tables(self) -> list[str]:
        r"""Names of the parameters and buffers with one row per user."""
        return ['user_embedding']

    def column_tables(self) -> list[str]:
        r"""Names of the parameters and buffers with the columns of vectors, which
        processes can share if :obj:`columns` is set.
        """
        return [*self.user_tables(), *self._item_table()]

    def _item_table(self) -> list[str]:
        r"""The name of the table if the vectors of items are one."""
        table = type(self.item_encoder) in (IDEmbedding, nn.Embedding)
        return ['item_encoder.weight'] if table else []

    def item_parameters(self, num_items: int) -> list[str]:
        r"""Names of trainable parameters with a dimension equal to the number of
        items. The list is empty if the model is ID-free.
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
    r"""A forward hook, so that it applies to every call of the model."""
    return out if model.objective is None else model.objective.finish(out)


def check_choice(name: str, value: str, *allowed: str) -> None:
    r"""Raises a :class:`ValueError` if an argument has an unknown value."""
    if value not in allowed:
        *first, last = (f"'{choice}'" for choice in allowed)
        raise ValueError(f"'{name}' must be {', '.join(first)} or {last} (got '{value}')")
