from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData
from torch_geometric.typing import EdgeType

from motor_geo.nn.conv import LightPropagation, Propagate
from motor_geo.nn.functional.rows import mean_square, normalize_rows, row_norm
from motor_geo.nn.models.block_encoder import BlockEncoder, BlockGates
from motor_geo.nn.models.item_graph import ItemGraph, modality_weights
from motor_geo.nn.models.recommender import Recommender, check_choice
from motor_geo.typing import RATES, Batch, Embeddings, Rows, modalities, num_nodes
from motor_geo.utils.lazy import Lazy


class LIRDRec(Recommender):
    r"""LIRDRec from the `"Learning Item Representations Directly from
    Multimodal Features for Effective Recommendation"
    <https://arxiv.org/abs/2505.04960>`_ paper. Items have one block of
    :math:`d` channels per modality, and a shared block,

    .. math::
        \mathbf{B}_m = \mathbf{W}_2^m \, \phi(\mathbf{W}_1^m \mathbf{x}_m +
        \mathbf{b}_1^m), \qquad
        \mathbf{x}_{\textrm{shared}} = \Vert_m \, \textrm{DCT}(\mathbf{x}_m) .

    Blocks are scaled to unit length, concatenated, propagated on the user-item
    graph and summed over hops. With the results :math:`\mathbf{U}` and
    :math:`\mathbf{X}`, the final vectors are

    .. math::
        \mathbf{H}_u = \Vert_b \, a_{u,b} \mathbf{U}_{u,b}, \quad
        \mathbf{a}_u = \textrm{softmax}(w f(\mathbf{U}_u) + (1 - w)
        \boldsymbol{\theta}_u), \qquad
        \mathbf{H}_I = \mathbf{X} + \mathbf{S}^{L_{ii}} \mathbf{X} .

    Before the :math:`n`-th epoch, progressive weight copying sets
    :math:`\boldsymbol{\theta}` to the last :math:`\mathbf{a}`, if there is one,
    and multiplies :math:`w / (1 - w)` by :math:`\gamma^n`.

    ID-free: The published model has no item embedding. An
    :obj:`item_encoder` adds a block computed from tokens, or replaces the shared
    block (:obj:`item_block`).

    Args:
        data: The user-item graph with features :obj:`x_<modality>` and item
            graphs of :class:`~motor_geo.data.ItemKNN` (binary weighting).
        item_encoder: Item encoder of an additional block; :obj:`None` uses
            features alone, as published.
        channels: Size :math:`d` of a block.
        num_layers: Number of hops on the user-item graph.
        num_item_layers: Number of hops :math:`L_{ii}` on the item graph.
        modality_weight: Weight of the item graph of every modality; :obj:`None`
            uses the default of :class:`FREEDOM`.
        decay_weight: Initial value of :math:`w`.
        decay_base: Base :math:`\gamma` of the decay of :math:`w`.
        reg_weight: Weight of the mean squared entries of :math:`\mathbf{H}_u`
            and :math:`\mathbf{H}_I`.
        dct: :obj:`"1d"` transforms the features of every item, as in the
            published numbers. :obj:`"2d"` also transforms across items, as
            described in the paper. :obj:`"none"` removes the shared block.
        residual: Vectors that the output of the item graph is added to:
            :obj:`"propagated"` vectors :math:`\mathbf{X}`, as in the published
            numbers, or :obj:`"initial"` vectors, as described in the paper.
        schedule: Interval at which weights are copied: every :obj:`"epoch"`, as
            in the published numbers, or every :obj:`"step"`, as described in the
            paper.
        item_block: Block that :obj:`item_encoder` computes: an :obj:`"extra"`
            block, or the :obj:`"shared"` block.
        pwc: If set to :obj:`False`, does not weight the blocks of users.
        edge_type: Edge type of the training interactions, from users to items.

    Shapes:
        - **output:** user vectors :math:`(M, bd)`, item vectors
          :math:`(N, bd)` with :math:`b` the number of blocks

    Raises:
        ValueError: If the graph has no item features or no item graph, or an
            argument is out of range.
    """

    transforms = (Lazy('motor_geo.data.ItemKNN', weighting='binary'),)
    min_modalities = 1
    init = 'normal'
    #: Learning rate as published. Most other backbones use 1e-3.
    lr: ClassVar[float] = 1e-4

    fusion: Tensor
    num_copies: Tensor

    needs_all_users = None

    def __init__(
        self,
        data: HeteroData,
        item_encoder: nn.Module | None = None,
        channels: int = 64,
        num_layers: int = 2,
        num_item_layers: int = 1,
        modality_weight: Mapping[str, float] | None = None,
        decay_weight: float = 0.9,
        decay_base: float = 0.9,
        reg_weight: float = 1e-3,
        dct: str = '1d',
        residual: str = 'propagated',
        schedule: str = 'epoch',
        item_block: str = 'extra',
        pwc: bool = True,
        edge_type: EdgeType = RATES,
    ):
        check_choice('dct', dct, '1d', '2d', 'none')
        check_choice('residual', residual, 'propagated', 'initial')
        check_choice('schedule', schedule, 'epoch', 'step')
        check_choice('item_block', item_block, 'extra', 'shared')
        if not 0 < decay_weight < 1:
            raise ValueError(f"'decay_weight' must lie in (0, 1) (got {decay_weight})")
        if not 0 < decay_base <= 1:
            raise ValueError(f"'decay_base' must lie in (0, 1] (got {decay_base})")
        # There is no item embedding by default.
        encoder = nn.Identity() if item_encoder is None else item_encoder
        super().__init__(data, encoder, channels, edge_type)
        self.item_encoder = item_encoder  # type: ignore[assignment]
        self.num_item_layers = num_item_layers
        self.decay_weight = decay_weight
        self.decay_base = decay_base
        self.reg_weight = reg_weight
        self.residual = residual
        self.schedule = schedule
        self.pwc = pwc
        modal = modalities(data, 'LIRDRec', at_least=1, node_type=self.item_type)
        self.item_graphs = ItemGraph(modality_weights(modal, modality_weight), self.item_type)
        self.item_graphs.check(data, 'LIRDRec')
        self.propagation = LightPropagation(num_layers, readout='sum')
        self.conv = Propagate()

        shared = dct != 'none' and (item_encoder is None or item_block == 'extra')
        self.blocks = BlockEncoder(data, channels, shared, dct == '2d', self.item_type)
        self.num_blocks = len(self.blocks) + (item_encoder is not None)
        self.gates = BlockGates(self.num_blocks, channels)
        num_users = num_nodes(data, self.user_type)
        self.user_embedding = nn.Parameter(torch.empty(num_users, self.num_blocks * channels))
        self.theta = nn.Parameter(torch.empty(num_users, self.num_blocks))
        self.register_buffer('fusion', torch.empty(num_users, self.num_blocks))
        self.register_buffer('num_copies', torch.tensor(0))
        self._reset_tables()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        self._reset_tables()

    def _reset_tables(self) -> None:
        num_rows = self.user_embedding.size(0) + self.channels  # Every block is a separate table.
        nn.init.normal_(self.user_embedding, std=math.sqrt(2 / num_rows))
        nn.init.xavier_normal_(self.theta)
        self.fusion.zero_()
        self.num_copies.zero_()

    def user_tables(self) -> list[str]:
        return ['user_embedding', 'theta', 'fusion']

    def begin_epoch(self, data: HeteroData, epoch: int, generator: torch.Generator) -> None:
        if self.schedule == 'epoch':
            self.num_copies.fill_(epoch)
            self.copy_weights()

    @torch.no_grad()
    def copy_weights(self) -> None:
        r"""Reduces the weight :math:`w`, and replaces :math:`\boldsymbol{\theta}` by
        the last weights if there are any.
        """
        self.num_copies += 1
        self.theta.copy_(torch.where(self.num_copies > 1, self.fusion, self.theta))

    @property
    def net_weight(self) -> Tensor:
        r"""The current weight :math:`w` of the weight networks."""
        n = self.num_copies.to(self.theta.dtype)
        odds = self.decay_weight * self.decay_base ** (n * (n + 1) / 2)
        return odds / (odds + 1 - self.decay_weight)

    def propagate(self, data: HeteroData) -> tuple[Tensor, Tensor, Tensor]:
        r"""Blocks of users **[M, b, d]**, their weights **[M, b]**, and final item
        vectors **[N, bd]**.
        """
        blocks = self.blocks(data)  # W2 phi(W1 x + b1) of every modality, and of all DCTs.
        if self.item_encoder is not None:
            blocks.append(self.encode_items(data))
        item = normalize_rows(torch.stack(blocks, dim=1)).flatten(1)
        size = (-1, self.num_blocks, self.channels)
        user = normalize_rows(self.user_embedding.view(size)).flatten(1)
        out = self.propagation(user, item, self.graph(data))

        # softmax((1 - w) theta + w f(U))
        logits = self.gates(out.user).to(self.theta.dtype)
        fusion = self.theta.lerp(logits, self.net_weight).softmax(dim=-1)
        fusion = fusion if self.pwc else torch.ones_like(fusion)

        h = out.item
        edge_index, weight = self.item_graphs(data, h.dtype)
        for _ in range(self.num_item_layers):
            h = self.conv(h, edge_index, weight)
        h = h + (out.item if self.residual == 'propagated' else item)
        return out.user.view(size), fusion, h

    def forward(self, data: HeteroData) -> Embeddings:
        user, fusion, item = self.propagate(data)
        return Embeddings((fusion.unsqueeze(-1) * user).flatten(1), item)

    def loss(self, data: HeteroData, batch: Batch) -> dict[str, Tensor]:
        if self.training and self.schedule == 'step':
            self.copy_weights()
        blocks, fusion, item = self.propagate(data)
        if self.training:
            self.fusion.copy_(fusion.detach())
        user, pos, neg = batch.rows(Embeddings(blocks.flatten(1), item))
        user = fusion.index_select(0, batch.user).unsqueeze(-1) * user.view(-1, *blocks.shape[1:])
        # Computes mean squares from norms, since weighted users exist in the batch only.
        norm, num_entries = (fusion * row_norm(blocks)).square().sum(), blocks.numel()
        shard = self.shard(data)
        if shard is not None:
            norm, num_entries = shard.total(norm), shard.num_users * blocks.shape[1:].numel()
        return {
            **self.ranking(data, batch, Rows(user.flatten(1), pos, neg)),
            'reg_user': self.reg_weight * norm / num_entries,
            'reg_item': self.reg_weight * mean_square(item),
        }
