from __future__ import annotations

import itertools
import weakref
from typing import Any, List, Mapping, NamedTuple, Optional, Tuple, Union

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch_geometric.data.storage import NodeStorage
from torch_geometric.nn.resolver import activation_resolver

from motor_geo.nn.conv.propagate import csr_matmul
from motor_geo.nn.item_encoder import ItemEncoder


class Incidence(NamedTuple):
    r"""Which items have which tokens, in compressed rows and columns."""

    ptr: Tensor  # [N + 1]: where the tokens of an item start
    token: Tensor  # [N * T]
    token_ptr: Tensor  # [T * K + 1]: where the items of a token start
    item: Tensor  # [N * T]

    @classmethod
    def from_tokens(cls, token_id: Tensor, codebook_size: int) -> Incidence:
        r"""From the token ids **[N, T]** of a group."""
        (num_items, num_tokens), device = token_id.shape, token_id.device
        offset = torch.arange(num_tokens, device=device) * codebook_size
        value, item = token_id.t().sort(dim=1, stable=True)
        value = (value.long() + offset.view(-1, 1)).flatten()
        bound = torch.arange(num_tokens * codebook_size + 1, device=device)
        return cls(
            torch.arange(num_items + 1, dtype=torch.int, device=device) * num_tokens,
            (token_id.int() + offset.int()).flatten(),
            torch.searchsorted(value, bound, out_int32=True),
            item.flatten().int(),
        )

    def gather(self, table: Tensor) -> Tensor:
        r"""Sums over the tokens of every item, **[N, d]**."""
        return csr_matmul(self.ptr, self.token, None, table)

    def scatter(self, x: Tensor) -> Tensor:
        r"""Sums over the items of every token, **[T * K, d]**."""
        return csr_matmul(self.token_ptr, self.item, None, x)


class _TokenSum(torch.autograd.Function):
    r"""Sums rows of a table over the tokens of every item."""

    @staticmethod
    def forward(ctx, incidence: Incidence, table: Tensor) -> Tensor:  # type: ignore
        ctx.incidence = incidence
        return incidence.gather(table)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):  # type: ignore
        return None, ctx.incidence.scatter(grad.contiguous())


class _TokenCross(torch.autograd.Function):
    r"""With :math:`\mathbf{b}, \mathbf{f}, \mathbf{h}` the sums of three
    tables over the tokens of an item, the sum over groups of
    :math:`\mathbf{b} + \mathbf{f}^2 / 2 + \textrm{ReLU}(\mathbf{h})`; the last
    may be missing.

    Nothing with a row per item is kept for the backward pass: the sums are so
    cheap that they are taken again, and memory is what costs time.
    """

    @staticmethod
    def forward(ctx, incidence: List[Incidence], *tables: Any):  # type: ignore
        ctx.incidence = incidence
        ctx.save_for_backward(*tables)
        out = None
        for graph, base, first, high in zip(incidence, tables[::3], tables[1::3], tables[2::3]):
            out = graph.gather(base) if out is None else out.add_(graph.gather(base))
            part = graph.gather(first)
            out.addcmul_(part, part, value=0.5)
            del part  # One at a time.
            if high is not None:
                out.add_(graph.gather(high).relu_())
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):  # type: ignore
        grad, tables = grad.contiguous(), ctx.saved_tensors
        out: List[Optional[Tensor]] = []
        for graph, first, high in zip(ctx.incidence, tables[1::3], tables[2::3]):
            out += [graph.scatter(grad), graph.scatter(graph.gather(first).mul_(grad)), None]
            if high is not None:
                out[-1] = graph.scatter(graph.gather(high).gt_(0).mul_(grad))
        return None, *out


class _Catalogue(NamedTuple):
    r"""The token-item graph of every group and, if these are graphs of
    distinct items only, which of them every item is.
    """

    graphs: List[Incidence]
    copies: Optional[Incidence] = None


class _Entry(NamedTuple):
    tokens: weakref.ref
    version: int
    catalogue: _Catalogue


MODES = ('specific', 'agnostic', 'mean', 'linear')


class TokenCrossEncoder(ItemEncoder):
    r"""The token cross network from the `"Learning ID-free Item Representation
    with Token Crossing for Multimodal Recommendation"
    <https://arxiv.org/abs/2410.19276>`_ paper: turns the token ids of an item
    into its vector, in the place of an item embedding.

    With :math:`\mathbf{e}_x` the embedding of an item's :math:`x`-th token,

    .. math::
        \mathbf{r} = \underbrace{\sum_x w_x \mathbf{e}_x}_{\textrm{first order}}
        + \underbrace{\sum_{x < y} w_x w_y \,
        \mathbf{e}_x \odot \mathbf{e}_y}_{\textrm{second order}}
        + \underbrace{\textrm{MLP}(\mathbf{e}_1 \Vert \cdots \Vert
        \mathbf{e}_T)}_{\textrm{high order}}

    computed once over all tokens (:obj:`"agnostic"`), or for every modality
    with its own weights and summed over modalities (:obj:`"specific"`). The
    two ablations of the paper are :obj:`"mean"`, the average of all token
    embeddings, and :obj:`"linear"`, an affine map of their concatenation.

    Args:
        num_tokens: Number of tokens of every modality, such as
            :obj:`{'image': 8, 'text': 8}`. The columns of :obj:`token_id` are
            grouped by modality in sorted order.
        codebook_size: Number :math:`K` of different tokens in a slot.
        out_channels: Size :math:`d` of token embeddings and of item vectors.
        mode: :obj:`"specific"`, :obj:`"agnostic"`, :obj:`"mean"` or
            :obj:`"linear"`.
        num_layers: Number of layers of the MLP, each with its activation;
            zero leaves the high-order part out. One is what the paper's
            parameter counts imply.
        activation: Name of the activation, as PyG resolves it, or
            :obj:`None`.
        init: Initialisation of the token tables: :obj:`"xavier"` treats each
            slot as a table :math:`(K, d)`, :obj:`"xavier_fused"` all slots as
            one table, and a number is the standard deviation of a normal
            distribution.
        weight_init: Initial :math:`w_x`; the default is one over the number
            of tokens that are summed.
        mlp_gain: Gain of the Xavier initialisation of the MLP (or of the
            affine map); small values start near the first two orders.
        dropout: Dropout probability of the high-order part in training.

    Shapes:
        - **input:** token ids :math:`(*, T)` of any integer type, with
          :math:`T` the total number of tokens
        - **output:** item vectors :math:`(*, d)`

    Raises:
        ValueError: If an argument is out of range, or :obj:`token_id` has
            another number of columns or a token outside the codebook.
    """

    def __init__(
        self,
        num_tokens: Mapping[str, int],
        codebook_size: int = 256,
        out_channels: int = 64,
        mode: str = 'specific',
        num_layers: int = 1,
        activation: Optional[str] = 'relu',
        init: Union[float, str] = 'xavier',
        weight_init: Optional[float] = None,
        mlp_gain: float = 1.0,
        dropout: float = 0.0,
    ):
        super().__init__()
        if len(num_tokens) == 0 or any(count < 1 for count in num_tokens.values()):
            raise ValueError(
                f"'num_tokens' must map at least one modality to a positive number of tokens "
                f'(got {dict(num_tokens)})'
            )
        if mode not in MODES:
            raise ValueError(f"'mode' must be one of {', '.join(MODES)} (got '{mode}')")
        if num_layers < 0:
            raise ValueError(f"'num_layers' must not be negative (got {num_layers})")
        if isinstance(init, str) and init not in ('xavier', 'xavier_fused'):
            raise ValueError(
                f"'init' must be 'xavier', 'xavier_fused' or a standard deviation (got '{init}')"
            )
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
        self.groups: List[Tuple[int, int]] = [(0, self.total_tokens)]
        if mode == 'specific':
            ends = list(itertools.accumulate(self.num_tokens.values()))
            self.groups = list(zip([0] + ends[:-1], ends))

        self.table = nn.Parameter(torch.empty(self.total_tokens * codebook_size, out_channels))
        self.offset: Tensor
        offset = torch.arange(self.total_tokens) * codebook_size
        self.register_buffer('offset', offset, persistent=False)
        self.act = nn.Identity() if activation is None else activation_resolver(activation)
        self.mlps = nn.ModuleList()
        self.weight: Optional[nn.Parameter] = None
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
        self._incidence: List[_Entry] = []
        self._checked: Optional[Tuple[weakref.ref, int]] = None
        self.reset_parameters()

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
        for mlp in self.mlps:
            for lin in mlp:  # type: ignore
                nn.init.xavier_uniform_(lin.weight, self.mlp_gain)
                nn.init.zeros_(lin.bias)

    def forward(self, token_id: Tensor) -> Tensor:
        if token_id.size(-1) != self.total_tokens:
            raise ValueError(
                f"'token_id' must have {self.total_tokens} columns, {self.num_tokens} (got "
                f'{token_id.size(-1)})'
            )
        if self._sparse(token_id):
            graphs, copies = self._get_incidence(token_id)
            out = self._forward_incidence(graphs)
            return out if copies is None else _TokenSum.apply(copies, out)
        self._check_range(token_id)
        return self._forward_gather(token_id)

    def encode(self, store: NodeStorage, index: Optional[Tensor] = None) -> Tensor:
        if 'token_id' not in store:
            raise ValueError(
                "data['item'].token_id is missing: apply 'OPQTokenizer' to the data first"
            )
        if index is None:
            return self(store.token_id)
        table: Tensor = store.token_id
        token_id = table.index_select(0, index)
        if not self._sparse(token_id):
            return self(token_id)
        last, version = self._checked or (lambda: None, None)
        if last() is not table or version != table._version:
            self._check_range(table, force=True)  # Once: a GPU has to wait for it.
            self._checked = (weakref.ref(table), table._version)
        # A batch comes once: its graph is not kept.
        return self._forward_incidence(self._build_incidence(token_id))

    def _sparse(self, token_id: Tensor) -> bool:
        # By size alone: the two forms differ in the last bits, and the same
        # call must give the same bits whatever was called before.
        enough = token_id.dim() == 2 and token_id.size(0) >= self.codebook_size
        return enough and not torch.compiler.is_compiling()

    def _forward_gather(self, token_id: Tensor) -> Tensor:
        x = F.embedding(token_id.long() + self.offset, self.table)  # [*, T, d]
        if self.mode == 'mean':
            return x.mean(dim=-2)
        if self.mode == 'linear':
            return self.mlps[0][0](x.flatten(-2))  # type: ignore
        assert self.weight is not None
        out = torch.zeros_like(x[..., 0, :])
        for (start, end), mlp in zip(self.groups, self.mlps):
            group = x[..., start:end, :]
            weighted = group * self.weight[start:end, None]
            first = weighted.sum(dim=-2)
            # Half of (square of the sum - sum of squares) is the sum over x < y.
            out = out + first + (first.square() - weighted.square().sum(dim=-2)) / 2
            if len(mlp) > 0:  # type: ignore
                hidden = group.flatten(-2)
                for lin in mlp:  # type: ignore
                    hidden = self.act(lin(hidden))
                out = out + F.dropout(hidden, self.dropout, self.training)
        return out

    def _forward_incidence(self, incidence: List[Incidence]) -> Tensor:
        # Every part is a sum over an item's tokens of something computed once
        # per row of the table, so that items receive it from token nodes.
        if self.mode == 'mean':
            return _TokenSum.apply(incidence[0], self.table / self.total_tokens)
        if self.mode == 'linear':
            lin = self.mlps[0][0]  # type: ignore
            return _TokenSum.apply(incidence[0], self._project(self.table, lin))
        assert self.weight is not None
        fused = self.num_layers == 1 and isinstance(self.act, nn.ReLU)
        fused &= self.dropout == 0 or not self.training
        tables, outs = [], []
        # Splitting, unlike slicing, has a backward pass without zero-filling.
        sizes = [end - start for start, end in self.groups]
        rows = self.table.split([size * self.codebook_size for size in sizes])
        for table, weight, mlp, graph in zip(rows, self.weight.split(sizes), self.mlps, incidence):
            weighted = table * weight.repeat_interleave(self.codebook_size)[:, None]
            # With f the sum of w e: f + (f^2 - sum of (w e)^2) / 2.
            tables += [torch.addcmul(weighted, weighted, weighted, value=-0.5), weighted]
            high = self._project(table, mlp[0]) if len(mlp) > 0 else None  # type: ignore
            tables.append(high if fused else None)
            if high is not None and not fused:
                hidden = self.act(_TokenSum.apply(graph, high))
                for lin in mlp[1:]:  # type: ignore
                    hidden = self.act(lin(hidden))
                outs.append(F.dropout(hidden, self.dropout, self.training))
        return sum(outs, _TokenCross.apply(incidence, *tables))

    def _project(self, table: Tensor, lin: nn.Linear) -> Tensor:
        r"""What the rows of every slot add to an affine map of the
        concatenation, of the shape of :obj:`table`.
        """
        slots = table.view(-1, self.codebook_size, self.out_channels)
        weight = lin.weight.view(-1, slots.size(0), self.out_channels).permute(1, 2, 0)
        bias = (lin.bias / slots.size(0)).expand(slots.size(0), 1, -1)
        return torch.baddbmm(bias, slots, weight).flatten(0, 1)

    def _get_incidence(self, token_id: Tensor) -> _Catalogue:
        r"""The token-item graphs, kept for as long as the same
        :obj:`token_id` comes in. Items that share all tokens, if most do, are
        encoded once.
        """
        version = token_id._version
        for entry in self._incidence:
            if entry.tokens() is token_id and entry.version == version:
                return entry.catalogue
        self._check_range(token_id, force=True)
        distinct, index = torch.unique(token_id, dim=0, return_inverse=True)
        if 2 * distinct.size(0) > token_id.size(0):
            catalogue = _Catalogue(self._build_incidence(token_id))
        else:
            copies = Incidence.from_tokens(index.view(-1, 1), distinct.size(0))
            catalogue = _Catalogue(self._build_incidence(distinct), copies)
        alive = [entry for entry in self._incidence if entry.tokens() is not None]
        self._incidence = [_Entry(weakref.ref(token_id), version, catalogue), *alive[:1]]
        return catalogue

    def _build_incidence(self, token_id: Tensor) -> List[Incidence]:
        return [
            Incidence.from_tokens(token_id[:, start:end], self.codebook_size)
            for start, end in self.groups
        ]

    def _check_range(self, token_id: Tensor, force: bool = False) -> None:
        # Tables share one tensor: a token outside its codebook would silently
        # read a row of the next slot. Small types cannot hold such a token.
        if torch.iinfo(token_id.dtype).max < self.codebook_size and not token_id.is_signed():
            return
        if torch.compiler.is_compiling() or (token_id.is_cuda and not force):
            return
        if token_id.numel() > 0 and not 0 <= token_id.min() <= token_id.max() < self.codebook_size:
            raise ValueError(
                f"'token_id' must lie in 0..{self.codebook_size - 1} (got "
                f'{int(token_id.min())}..{int(token_id.max())})'
            )

    def __getstate__(self) -> dict:
        # Weak references can be neither copied nor pickled.
        return {**self.__dict__, '_incidence': [], '_checked': None}

    def __repr__(self) -> str:
        return (
            f'{self.__class__.__name__}({self.num_tokens}, codebook_size={self.codebook_size}, '
            f'out_channels={self.out_channels}, mode={self.mode})'
        )
