from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric import EdgeIndex
from torch_geometric.data.storage import NodeStorage

from motor_geo.nn.functional.autocast import full_precision
from motor_geo.nn.functional.spmm import propagate
from motor_geo.nn.memo import Memo
from motor_geo.nn.token_cross import WHOLE, TokenCrossEncoder
from motor_geo.utils.numbers import positive


class SoftTokenEncoder(TokenCrossEncoder):
    r"""The token network of :class:`~motor_geo.nn.TokenCrossEncoder` with several
    nearest codes per slot instead of one, as in the `"Differentiable Product
    Quantization for End-to-End Embedding Compression"
    <https://arxiv.org/abs/1908.09756>`_ paper. With :math:`\Delta_{x,k}` the
    distance to code :math:`c_k` minus the distance to the nearest code, the
    network replaces the embedding of a token by

    .. math::
        \bar{\mathbf{e}}_x = \sum_k p_{x,k} \, \mathbf{e}_{x,c_k} , \qquad
        p_{x,k} = \frac{\exp(-\Delta_{x,k} / \tau_x)}
        {\sum_j \exp(-\Delta_{x,j} / \tau_x)} .

    Centroids are fixed. Each slot has a temperature :math:`\tau_x`, which is
    trained with the recommender. As it approaches zero, only the nearest code
    keeps a weight.

    :class:`~motor_geo.data.OPQTokenizer` adds codes and distances to the graph
    if its argument :obj:`num_near` is set.

    Args:
        num_tokens: Number of tokens of every modality.
        codebook_size: Number of different tokens in a slot.
        out_channels: Size of token embeddings and of item vectors.
        num_near: Number of codes :math:`k` per slot, equal to :obj:`num_near` of
            the tokenizer.
        temperature: Initial temperature of every slot.
        mode: As in :class:`~motor_geo.nn.TokenCrossEncoder`, like all remaining
            arguments.
        num_layers: Number of layers of the MLP.
        activation: Activation of the MLP.
        init: Initialization of the token tables.
        weight_init: Initial weights of the tokens.
        mlp_gain: Gain of the initialization of the MLP.
        dropout: Dropout probability of the high-order part.

    Shapes:
        - **input:** codes :math:`(*, T, k)` and their distances
          :math:`(*, T, k)`, or token ids :math:`(*, T)` alone
        - **output:** item vectors :math:`(*, d)`

    Raises:
        ValueError: If an argument is out of range, or the graph has no nearest
            codes or another number of them.
    """

    def __init__(
        self,
        num_tokens: Mapping[str, int],
        codebook_size: int = 256,
        out_channels: int = 64,
        num_near: int = 4,
        temperature: float = 0.5,
        mode: str = 'specific',
        num_layers: int = 1,
        activation: str | None = 'relu',
        init: float | str = 'xavier',
        weight_init: float | None = None,
        mlp_gain: float = 1.0,
        dropout: float = 0.0,
    ):
        if num_near < 2:
            raise ValueError(
                "'num_near' must be at least 2, as in OPQTokenizer(num_near=4) or "
                f'--tokenizer.num_near 4 (got {num_near})'
            )
        if num_near > codebook_size:
            raise ValueError(
                f"'num_near' must be at most 'codebook_size', {codebook_size} (got {num_near})"
            )
        self.temperature = positive('temperature', temperature)
        self.log_temperature: nn.Parameter | None = None
        super().__init__(
            num_tokens,
            codebook_size,
            out_channels,
            mode,
            num_layers,
            activation,
            init,
            weight_init,
            mlp_gain,
            dropout,
        )
        self.num_near = num_near
        self.log_temperature = nn.Parameter(torch.empty(self.total_tokens))
        self._edges = Memo()
        self.reset_parameters()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        if self.log_temperature is not None:
            nn.init.constant_(self.log_temperature, torch.tensor(self.temperature).log().item())

    @full_precision
    def forward(self, token_id: Tensor, distance: Tensor | None = None) -> Tensor:
        if distance is None:
            return super().forward(token_id)
        slots = self.total_tokens, self.num_near
        if token_id.shape != distance.shape or token_id.shape[-2:] != slots:
            raise ValueError(
                f"'token_id' and 'distance' must have the shape [*, {slots[0]}, {slots[1]}] (got "
                f'{list(token_id.shape)} and {list(distance.shape)})'
            )
        share = self.shares(distance)
        if token_id.dim() == 3 and token_id.size(0) >= self.codebook_size:
            if not torch.compiler.is_compiling():
                edge_index = self._edges(lambda: self._build_edges(token_id), token_id)
                x = propagate(self.table, edge_index, share.flatten())
                return self.combine(x.view(token_id.size(0), self.total_tokens, -1))
        self._check_range(token_id)
        rows = F.embedding(token_id.long() + self.offset.view(-1, 1), self.table)
        return self.combine((rows * share.unsqueeze(-1)).sum(dim=-2))

    def shares(self, distance: Tensor) -> Tensor:
        r"""The weights :math:`p_{x,k}` of codes.

        Shapes:
            - **input:** distances :math:`(*, T, k)`
            - **output:** weights :math:`(*, T, k)`
        """
        assert self.log_temperature is not None
        inverse = (-self.log_temperature).exp().view(-1, 1)
        return (-distance.to(inverse.dtype) * inverse).softmax(dim=-1)

    def _build_edges(self, near: Tensor) -> EdgeIndex:
        r"""The graph from rows of the token table to the slots of items."""
        self._check_range(near, force=True)
        source = (near.long() + self.offset.view(-1, 1)).flatten()
        slots = near.size(0) * self.total_tokens
        target = torch.arange(slots, device=near.device).repeat_interleave(near.size(-1))
        size = self.table.size(0), slots
        return EdgeIndex(torch.stack([source, target]), sparse_size=size, sort_order='col')

    def encode(self, store: NodeStorage, index: Tensor | None = None) -> Tensor:
        near, distance = store.get('token_near'), store.get('token_distance')
        if near is None or distance is None:
            raise ValueError(
                "data['item'].token_near and .token_distance are missing: apply "
                f"'OPQTokenizer(num_near={self.num_near})' to the data first"
            )
        if tuple(near.shape[1:]) != (self.total_tokens, self.num_near):
            raise ValueError(
                f"data['item'].token_near must hold {self.num_near} codes of each of "
                f'{self.total_tokens} tokens (got {list(near.shape[1:])})'
            )
        if index is None:
            return self(near, distance)
        if near.size(0) <= WHOLE * index.numel():
            return self(near, distance).index_select(0, index)
        return self(near.index_select(0, index), distance.index_select(0, index))
