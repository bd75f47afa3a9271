from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data.storage import NodeStorage
from torch_geometric.nn.resolver import activation_resolver

from motor_geo.nn.functional.autocast import full_precision
from motor_geo.nn.functional.tokens import (
    Incidence,
    TokenGraph,
    project_slots,
    token_cross,
    token_sum,
)
from motor_geo.nn.item_encoder import ItemEncoder
from motor_geo.nn.memo import Memo
from motor_geo.utils.hub import HubMixin
from motor_geo.utils.numbers import not_negative

MODES = ('specific', 'agnostic', 'mean', 'linear')

#: If the item table has at most this many times the items of a batch, the encoder encodes the
#: whole table: its graph is cached, while the graph of a batch has to be built.
WHOLE = 4

#: Integer types that PyTorch can store but not compare.
UNSIGNED = (torch.uint16, torch.uint32, torch.uint64)


class Tokenizer(Protocol):
    r"""The attributes that :meth:`~motor_geo.nn.TokenCrossEncoder.from_tokenizer`
    reads.
    """

    codebook_size: int

    @property
    def num_tokens_dict(self) -> dict[str, int]: ...


class _Tokens(NamedTuple):
    r"""The token-item graph. If it holds distinct items only, :obj:`copies` maps
    every item to one of them.
    """

    graph: TokenGraph
    copies: Incidence | None = None


class TokenCrossEncoder(ItemEncoder, HubMixin):
    r"""The token cross network from the `"Learning ID-free Item Representation
    with Token Crossing for Multimodal Recommendation"
    <https://arxiv.org/abs/2410.19276>`_ paper. It computes the vector of an
    item from its token ids and replaces an item embedding.

    With :math:`\mathbf{e}_x` the embedding of an item's :math:`x`-th token,

    .. math::
        \mathbf{r} = \underbrace{\sum_x w_x \mathbf{e}_x}_{\textrm{first order}}
        + \underbrace{\sum_{x < y} w_x w_y \,
        \mathbf{e}_x \odot \mathbf{e}_y}_{\textrm{second order}}
        + \underbrace{\textrm{MLP}(\mathbf{e}_1 \Vert \cdots \Vert
        \mathbf{e}_T)}_{\textrm{high order}}

    either over all tokens at once (:obj:`"agnostic"`), or per modality with
    separate weights and then summed over modalities (:obj:`"specific"`). The
    paper has two ablations: :obj:`"mean"`, the average of all token embeddings,
    and :obj:`"linear"`, an affine map of their concatenation.

    Args:
        num_tokens: Number of tokens per modality, such as
            :obj:`{'image': 8, 'text': 8}`. The columns of :obj:`token_id` are
            grouped by modality in sorted order.
        codebook_size: Number :math:`K` of different tokens in a slot.
        out_channels: Size :math:`d` of token embeddings and of item vectors.
        mode: :obj:`"specific"`, :obj:`"agnostic"`, :obj:`"mean"` or
            :obj:`"linear"`.
        num_layers: Number of layers of the MLP, each followed by the activation.
            Zero removes the high order. The parameter counts in the paper imply
            one layer.
        activation: Name of the activation, resolved as in PyG, or :obj:`None`
            for no activation.
        init: Initialization of the token tables. :obj:`"xavier"` treats each
            slot as a table :math:`(K, d)`, :obj:`"xavier_fused"` treats all
            slots as one table, and a number is the standard deviation of a
            normal distribution.
        weight_init: Initial value of :math:`w_x`. :obj:`None` uses one over the
            number of tokens in the sum.
        mlp_gain: Gain of the Xavier initialization of the MLP, or of the affine
            map. With a small gain, training starts near the first two orders.
        dropout: Dropout probability of the high order in training.

    Shapes:
        - **input:** token ids :math:`(*, T)` of any integer type, with
          :math:`T` the total number of tokens
        - **output:** item vectors :math:`(*, d)`

    Raises:
        ValueError: If an argument is out of range, or :obj:`token_id` is
            missing, has a wrong number of columns, holds a token outside the
            codebook, or is not of an integer type.
    """

    def __init__(
        self,
        num_tokens: Mapping[str, int],
        codebook_size: int = 256,
        out_channels: int = 64,
        mode: str = 'specific',
        num_layers: int = 1,
        activation: str | None = 'relu',
        init: float | str = 'xavier',
        weight_init: float | None = None,
        mlp_gain: float = 1.0,
        dropout: float = 0.0,
    ):
        super().__init__()
        counts = num_tokens.values() if isinstance(num_tokens, Mapping) else ()
        if len(counts) == 0 or any(count < 1 for count in counts):
            raise ValueError(
                "'num_tokens' must map at least one modality to a positive number of tokens, such "
                f"as {{'image': 4, 'text': 4}} (got {num_tokens!r})"
            )
        if codebook_size < 1 or out_channels < 1:
            raise ValueError(
                "'codebook_size' and 'out_channels' must be positive (got "
                f'{codebook_size} and {out_channels})'
            )
        if mode not in MODES:
            raise ValueError(f"'mode' must be one of {', '.join(MODES)} (got '{mode}')")
        if num_layers < 0:
            raise ValueError(f"'num_layers' must not be negative (got {num_layers})")
        if isinstance(init, str) and init not in ('xavier', 'xavier_fused'):
            raise ValueError(
                f"'init' must be 'xavier', 'xavier_fused' or a standard deviation (got '{init}')"
            )
        if not isinstance(init, str):
            not_negative('init', init)
        if weight_init is not None and not math.isfinite(weight_init):
            raise ValueError(f"'weight_init' must be finite (got {weight_init})")
        not_negative('mlp_gain', mlp_gain)
        if not 0 <= dropout < 1:
            raise ValueError(f"'dropout' must be at least 0 and below 1 (got {dropout})")
        self.num_tokens = dict(sorted(num_tokens.items()))
        self.codebook_size = codebook_size
        self.out_channels = out_channels
        self.mode = mode
        self.num_layers = num_layers
        self.activation = activation
        self.init = init
        self.weight_init = weight_init
        self.mlp_gain = mlp_gain
        self.dropout = dropout

        self.total_tokens = sum(self.num_tokens.values())
        self.groups: list[tuple[int, int]] = [(0, self.total_tokens)]
        if mode == 'specific':
            ends = list(itertools.accumulate(self.num_tokens.values()))
            self.groups = list(zip([0] + ends[:-1], ends))

        self.table = nn.Parameter(torch.empty(self.total_tokens * codebook_size, out_channels))
        self.act = nn.Identity() if activation is None else activation_resolver(activation)
        self.mlps = nn.ModuleList()
        self.weight: nn.Parameter | None = None
        if mode in ('specific', 'agnostic'):
            self.weight = nn.Parameter(torch.empty(self.total_tokens))
        if mode == 'mean':
            num_layers = 0
        elif mode == 'linear':
            num_layers = 1
        for start, end in self.groups:
            widths = [(end - start) * out_channels] + [out_channels] * num_layers
            self.mlps.append(
                nn.ModuleList(nn.Linear(*pair) for pair in zip(widths[:-1], widths[1:]))
            )
        self._graphs, self._checked = Memo(size=2), Memo()
        self.reset_parameters()

    @classmethod
    def from_tokenizer(
        cls, tokenizer: Tokenizer, out_channels: int = 64, **kwargs: Any
    ) -> TokenCrossEncoder:
        r"""Creates the encoder for the tokens of a fitted tokenizer.

        Args:
            tokenizer: A tokenizer, such as
                :class:`~motor_geo.data.OPQTokenizer`.
            out_channels: Size of item vectors.
            **kwargs (optional): Additional arguments of the encoder.
        """
        return cls(tokenizer.num_tokens_dict, tokenizer.codebook_size, out_channels, **kwargs)

    @property
    def offset(self) -> Tensor:
        r"""The first row of every slot in the table, **[T]**."""
        return torch.arange(self.total_tokens, device=self.table.device) * self.codebook_size

    def _lins(self) -> list[list[nn.Linear]]:
        r"""The linear layers of every MLP."""
        return [[cast(nn.Linear, lin) for lin in cast(nn.ModuleList, mlp)] for mlp in self.mlps]

    def reset_parameters(self) -> None:
        if isinstance(self.init, str):
            rows = self.codebook_size * (1 if self.init == 'xavier' else self.total_tokens)
            bound = (6 / (rows + self.out_channels)) ** 0.5
            nn.init.uniform_(self.table, -bound, bound)
        else:
            nn.init.normal_(self.table, std=self.init)
        if self.weight is not None:
            with torch.no_grad():
                for start, end in self.groups:
                    fill = 1 / (end - start) if self.weight_init is None else self.weight_init
                    self.weight[start:end] = fill
        for mlp in self._lins():
            for lin in mlp:
                nn.init.xavier_uniform_(lin.weight, self.mlp_gain)
                nn.init.zeros_(lin.bias)

    @full_precision
    def forward(self, token_id: Tensor) -> Tensor:
        r"""Item vectors **[*, d]** from token ids **[*, T]**."""
        if token_id.size(-1) != self.total_tokens:
            raise ValueError(
                f"'token_id' must have {self.total_tokens} columns, {self.num_tokens} (got "
                f'{token_id.size(-1)})'
            )
        if token_id.dtype == torch.bool or token_id.is_floating_point() or token_id.is_complex():
            raise ValueError(f"'token_id' must hold integers (got {token_id.dtype})")
        if self._sparse(token_id):
            graph, copies = self._graphs(lambda: self._build(token_id), token_id)
            out = self._forward_graph(graph)
            return out if copies is None else token_sum(out, copies)
        self._check_range(token_id)
        return self._forward_gather(token_id)

    def encode(self, store: NodeStorage, index: Tensor | None = None) -> Tensor:
        if 'token_id' not in store:
            raise ValueError(
                "data['item'].token_id is missing: apply 'OPQTokenizer' to the data first"
            )
        if index is None:
            return self(store.token_id)
        table: Tensor = store.token_id
        if self._sparse(table) and table.size(0) <= WHOLE * index.numel():
            return self(table).index_select(0, index)
        token_id = table.index_select(0, index)
        if not self._sparse(token_id):
            return self(token_id)
        # Check the whole table once, since the check synchronizes with the GPU.
        self._checked(lambda: self._check_range(table, force=True), table)
        return self._forward_batch(token_id)

    def _sparse(self, token_id: Tensor) -> bool:
        # Decide by size alone. The two code paths differ in the last bits, and a call must give
        # the same bits regardless of earlier calls. A compiled or exported program has to work
        # for all sizes.
        if torch.compiler.is_compiling():
            return False
        return token_id.dim() == 2 and token_id.size(0) >= self.codebook_size

    def _forward_gather(self, token_id: Tensor) -> Tensor:
        return self.combine(F.embedding(token_id.long() + self.offset, self.table))

    def combine(self, x: Tensor) -> Tensor:
        r"""Combines the token embeddings of an item into its vector.

        Shapes:
            - **input:** token embeddings :math:`(*, T, d)`
            - **output:** item vectors :math:`(*, d)`
        """
        if self.mode == 'mean':
            return x.mean(dim=-2)
        if self.mode == 'linear':
            return self._lins()[0][0](x.flatten(-2))
        assert self.weight is not None
        out = torch.zeros_like(x[..., 0, :])
        for (start, end), mlp in zip(self.groups, self._lins()):
            group = x[..., start:end, :]
            weighted = group * self.weight[start:end, None]
            first = weighted.sum(dim=-2)
            # The sum over x < y is (square of the sum - sum of squares) / 2.
            out = out + first + (first.square() - weighted.square().sum(dim=-2)) / 2
            if len(mlp) > 0:
                hidden = group.flatten(-2)
                for lin in mlp:
                    hidden = self.act(lin(hidden))
                out = out + F.dropout(hidden, self.dropout, self.training)
        return out

    def _forward_graph(self, graph: TokenGraph) -> Tensor:
        # Every part sums a quantity over the tokens of an item. It is computed once per row of the
        # table, and items receive it from token nodes.
        if self.mode == 'mean':
            return token_sum(self.table / self.total_tokens, graph.all)
        slots = self.table.view(self.total_tokens, self.codebook_size, self.out_channels)
        mlps = self._lins()
        if self.mode == 'linear':
            lin = mlps[0][0]
            return token_sum(project_slots(slots, lin.weight, lin.bias), graph.all)
        assert self.weight is not None
        fused = self.num_layers == 1 and isinstance(self.act, nn.ReLU)
        fused &= self.dropout == 0 or not self.training
        lins = [p for mlp in mlps for p in (mlp[0].weight, mlp[0].bias)] if fused else []
        out = token_cross(self.table, self.weight, graph, *lins)
        if fused or self.num_layers == 0:
            return out
        # Unlike slicing, splitting does not fill zeros in its backward pass.
        sizes = [end - start for start, end in self.groups]
        for group, rows, mlp in zip(graph.groups, slots.split(sizes), mlps):
            hidden = project_slots(rows, mlp[0].weight, mlp[0].bias)
            hidden = self.act(token_sum(hidden, group))
            for lin in mlp[1:]:
                hidden = self.act(lin(hidden))
            out = out + F.dropout(hidden, self.dropout, self.training)
        return out

    @full_precision
    def _forward_batch(self, token_id: Tensor) -> Tensor:
        # The graph of a batch is used only once, so it is not cached.
        return self._forward_graph(self._build_graph(token_id))

    def _build(self, token_id: Tensor) -> _Tokens:
        r"""Builds the token-item graph. If the items have at most half as many
        distinct token combinations, each combination is encoded once.
        """
        self._check_range(token_id, force=True)
        distinct, index = torch.unique(token_id, dim=0, return_inverse=True)
        if 2 * distinct.size(0) > token_id.size(0):
            return _Tokens(self._build_graph(token_id))
        copies = Incidence.from_tokens(index.view(-1, 1), distinct.size(0))
        return _Tokens(self._build_graph(distinct), copies)

    def _build_graph(self, token_id: Tensor) -> TokenGraph:
        token_id = token_id.long() if token_id.dtype in UNSIGNED else token_id
        return TokenGraph.from_tokens(token_id, self.codebook_size, self.groups)

    def _check_range(self, token_id: Tensor, force: bool = False) -> None:
        # All tables share one tensor, so a token outside its codebook would silently read a row of
        # another slot. Small integer types cannot hold such a token.
        if torch.iinfo(token_id.dtype).max < self.codebook_size and not token_id.is_signed():
            return
        if torch.compiler.is_compiling() or (token_id.is_cuda and not force):
            return
        token_id = token_id.long() if token_id.dtype in UNSIGNED else token_id
        if token_id.numel() > 0 and not 0 <= token_id.min() <= token_id.max() < self.codebook_size:
            raise ValueError(
                f"'token_id' must lie in 0..{self.codebook_size - 1} (got "
                f'{int(token_id.min())}..{int(token_id.max())})'
            )

    def __repr__(self) -> str:
        return (
            f'{self.__class__.__name__}({self.num_tokens}, codebook_size={self.codebook_size}, '
            f'out_channels={self.out_channels}, mode={self.mode})'
        )
