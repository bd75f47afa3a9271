from __future__ import annotations

import warnings
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from motor_geo.nn.functional.tokens import TokenGraph, token_sum
from motor_geo.nn.token_cross import TokenCrossEncoder
from motor_geo.utils.numbers import not_negative

#: Networks over the tokens of an item, in addition to those of the paper.
INTERACTIONS = ('cross', 'low_rank', 'attention', 'self_attention', 'product')


class TokenInteractionEncoder(TokenCrossEncoder):
    r"""Alternatives to the network of :class:`~motor_geo.nn.TokenCrossEncoder` over
    the token embeddings :math:`\mathbf{e}_1, \ldots, \mathbf{e}_T` of an item.
    With :math:`\mathbf{r}_1 = \sum_x w_x \mathbf{e}_x`, the options are:

    * :obj:`"cross"`: cross layers of `"DCN V2"
      <https://arxiv.org/abs/2008.13535>`_ on the sum, which model interactions
      of all orders up to :math:`L + 1`,

      .. math::
          \mathbf{r}^{(l+1)} = \mathbf{r}_1 \odot (\mathbf{W}_l \mathbf{r}^{(l)}
          + \mathbf{b}_l) + \mathbf{r}^{(l)}, \qquad
          \mathbf{r}^{(0)} = \mathbf{r}_1

    * :obj:`"low_rank"`: cross layers on the concatenation
      :math:`\mathbf{x}^{(0)} = \Vert_x \, \mathbf{e}_x`, with low-rank weights
      :math:`\mathbf{W}_l = \mathbf{V}_l \mathbf{C}_l` and the output
      :math:`\mathbf{r}_1 + \mathbf{P} \mathbf{x}^{(L)}`
    * :obj:`"attention"`: an attention-weighted mean,

      .. math::
          \sum_x \textrm{softmax}_x(\mathbf{q}^{\top} \tanh(\mathbf{W}
          \mathbf{e}_x)) \, \mathbf{e}_x

    * :obj:`"self_attention"`: the interacting layer of `"AutoInt"
      <https://arxiv.org/abs/1810.11921>`_, averaged over all tokens,

      .. math::
          \mathbf{r}_1 + \frac{1}{T} \sum_x \textrm{ReLU} \left( \mathbf{W}_0
          \mathbf{e}_x + \Vert_h \sum_y \textrm{softmax}_y \left(
          \mathbf{e}_x^{\top} \mathbf{Q}_h^{\top} \mathbf{K}_h \mathbf{e}_y
          \right) \mathbf{V}_h \mathbf{e}_y \right)

    * :obj:`"product"`: an affine map of all pairwise inner products, as in
      `"PNN" <https://arxiv.org/abs/1611.00144>`_,

      .. math::
          \mathbf{r}_1 + \mathbf{b} + \sum_{x < y} \mathbf{e}_x^{\top}
          \mathbf{e}_y \, \mathbf{w}_{xy} .

    Args:
        num_tokens: Number of tokens per modality, such as
            :obj:`{'image': 8, 'text': 8}`.
        codebook_size: Number :math:`K` of different tokens in a slot.
        out_channels: Size :math:`d` of token embeddings and of item vectors.
        mode: One of the options above.
        num_layers: Number :math:`L` of cross layers (:obj:`"cross"` and
            :obj:`"low_rank"`).
        rank: Rank of the cross weights (:obj:`"low_rank"`).
        heads: Number of attention heads (:obj:`"self_attention"`).
        init: Initialization of the token tables, as in
            :class:`~motor_geo.nn.TokenCrossEncoder`.
        gain: Gain of the Xavier initialization of all linear maps. With a small
            gain, training starts near :math:`\mathbf{r}_1` with
            :math:`w_x = 1 / T`.

    Shapes:
        - **input:** token ids :math:`(*, T)` of any integer type, with
          :math:`T` the total number of tokens
        - **output:** item vectors :math:`(*, d)`

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(
        self,
        num_tokens: Mapping[str, int],
        codebook_size: int = 256,
        out_channels: int = 64,
        mode: str = 'cross',
        num_layers: int = 2,
        rank: int = 16,
        heads: int = 2,
        init: float | str = 'xavier',
        gain: float = 0.1,
    ):
        if mode not in INTERACTIONS:
            raise ValueError(f"'mode' must be one of {', '.join(INTERACTIONS)} (got '{mode}')")
        if num_layers < 1 or rank < 1:
            raise ValueError(
                f"'num_layers' and 'rank' must be positive (got {num_layers} and {rank})"
            )
        if heads < 1 or out_channels % heads != 0:
            raise ValueError(
                f"'heads' must be a divisor of 'out_channels', {out_channels} (got {heads})"
            )
        not_negative('gain', gain)
        self.maps: nn.ModuleList | None = None
        super().__init__(
            num_tokens, codebook_size, out_channels, 'agnostic', num_layers=0, init=init
        )
        self.mode = mode
        self.num_layers = num_layers
        self.rank = rank
        self.heads = heads
        self.gain = gain
        self.maps = nn.ModuleList(self._build_maps(rank))
        if mode == 'attention':
            self.weight = None
        self.reset_parameters()

    def _build_maps(self, rank: int) -> list[nn.Module]:
        d, width = self.out_channels, self.total_tokens * self.out_channels
        if self.mode == 'cross':
            return [nn.Linear(d, d) for _ in range(self.num_layers)]
        if self.mode == 'attention':
            return [nn.Linear(d, d, bias=False), nn.Linear(d, 1, bias=False)]
        if self.mode == 'self_attention':
            return [nn.Linear(d, d, bias=False) for _ in range(4)]
        if self.mode == 'product':
            with warnings.catch_warnings():  # One token has no pairs.
                warnings.filterwarnings('ignore', message='Initializing zero-element')
                return [nn.Linear(self._pairs().size(1), d)]
        layers: list[nn.Module] = [
            nn.Sequential(nn.Linear(width, rank, bias=False), nn.Linear(rank, width))
            for _ in range(self.num_layers)
        ]
        return [*layers, nn.Linear(width, d, bias=False)]

    def reset_parameters(self) -> None:
        super().reset_parameters()
        for lin in [] if self.maps is None else self.maps.modules():
            if isinstance(lin, nn.Linear):
                if lin.weight.numel() > 0:
                    nn.init.xavier_uniform_(lin.weight, self.gain)
                if lin.bias is not None:
                    nn.init.zeros_(lin.bias)

    def _pairs(self) -> Tensor:
        return torch.triu_indices(self.total_tokens, self.total_tokens, 1)

    def _forward_graph(self, graph: TokenGraph) -> Tensor:
        # Quantities that depend only on single tokens or on sums of them are computed once per
        # token node.
        row = graph.all.token.view(-1, self.total_tokens)
        if self.mode == 'attention':
            alpha = F.embedding(row, self._score(self.table)).softmax(dim=-2)
            return (alpha * F.embedding(row, self.table)).sum(dim=-2)
        if self.mode == 'cross':
            assert self.weight is not None
            weight = self.weight.repeat_interleave(self.codebook_size).view(-1, 1)
            return self._cross(token_sum(self.table * weight, graph.all))
        return self.combine(F.embedding(row, self.table))

    def combine(self, x: Tensor) -> Tensor:
        assert self.maps is not None
        if self.mode == 'attention':
            return (self._score(x).softmax(dim=-2) * x).sum(dim=-2)
        assert self.weight is not None
        first = (x * self.weight.view(-1, 1)).sum(dim=-2)
        if self.mode == 'cross':
            return self._cross(first)
        if self.mode == 'low_rank':
            *layers, out = self.maps
            x0 = h = x.flatten(-2)
            for layer in layers:
                h = x0 * layer(h) + h
            return first + out(h)
        if self.mode == 'product':
            left, right = self._pairs().to(x.device)
            products = (x @ x.transpose(-1, -2))[..., left, right]
            return first + self.maps[0](products)
        query, key, value = (
            lin(x).unflatten(-1, (self.heads, -1)).transpose(-2, -3) for lin in self.maps[:3]
        )
        alpha = (query @ key.transpose(-1, -2)).softmax(dim=-1)  # [*, heads, T, T]
        heads = (alpha @ value).transpose(-2, -3).flatten(-2)
        return first + torch.relu(self.maps[3](x) + heads).mean(dim=-2)

    def _cross(self, first: Tensor) -> Tensor:
        out = first
        for lin in self.maps or ():
            out = first * lin(out) + out
        return out

    def _score(self, x: Tensor) -> Tensor:
        assert self.maps is not None
        return self.maps[1](torch.tanh(self.maps[0](x)))
