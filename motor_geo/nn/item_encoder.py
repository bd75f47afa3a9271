r"""Item encoders, which yield the item vectors of backbones: the base class,
and the two controls.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data.storage import NodeStorage

from motor_geo.nn.name_dict import NameDict
from motor_geo.typing import feature_key, num_rows


class ItemEncoder(nn.Module):
    r"""Turns what the graph knows of its items into item vectors.

    A subclass implements :obj:`forward` on tensors and :meth:`encode` on the
    item store of a graph.
    """

    out_channels: int

    def reset_parameters(self) -> None:
        raise NotImplementedError

    def encode(self, store: NodeStorage, index: Tensor | None = None) -> Tensor:
        r"""Vectors of all items, or of the items :obj:`index`.

        Args:
            store: The item node store, :obj:`data['item']`.
            index: Items to encode.

        Shapes:
            - **input:** item indices :math:`(B)` *(optional)*
            - **output:** item vectors :math:`(N, d)` or :math:`(B, d)`
        """
        raise NotImplementedError


def encode_items(encoder: nn.Module, store: NodeStorage, index: Tensor | None = None) -> Tensor:
    r"""Calls any module as an item encoder: an :class:`ItemEncoder`, a plain
    :class:`torch.nn.Embedding` over items, or a module that maps
    :obj:`token_id` to vectors.
    """
    if isinstance(encoder, ItemEncoder):
        return encoder.encode(store, index)
    if isinstance(encoder, nn.Embedding):
        return encoder.weight if index is None else encoder(index)
    if 'token_id' not in store:
        raise ValueError(
            f"The item encoder '{encoder.__class__.__name__}' is called with "
            "data['item'].token_id, which is missing; apply 'OPQTokenizer' to the data or "
            "derive the encoder from 'ItemEncoder'"
        )
    return encoder(store.token_id if index is None else store.token_id[index])


class IDEmbedding(ItemEncoder):
    r"""A free vector per item, the classic item embedding (a control: not
    ID-free).

    Args:
        num_items: Number of items :math:`N`.
        out_channels: Size :math:`d` of item vectors.
        xavier: :obj:`"uniform"` or :obj:`"normal"`, the form of the Xavier
            initialization.

    Shapes:
        - **input:** item indices :math:`(*)`, or nothing for all items
        - **output:** item vectors :math:`(*, d)`
    """

    def __init__(self, num_items: int, out_channels: int = 64, xavier: str = 'uniform'):
        super().__init__()
        self.num_items = num_items
        self.out_channels = out_channels
        self.xavier = xavier
        self.weight = nn.Parameter(torch.empty(num_items, out_channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        xavier_(self.weight, self.xavier)

    def forward(self, index: Tensor | None = None) -> Tensor:
        r"""Rows of the table: all, or those of :obj:`index`."""
        if index is None:
            return self.weight
        # Its backward pass is two to three times as fast as that of an embedding.
        rows = self.weight.index_select(0, index.reshape(-1))
        return rows.view(*index.shape, self.out_channels)

    def encode(self, store: NodeStorage, index: Tensor | None = None) -> Tensor:
        num_items = num_rows(store)
        if num_items != self.num_items:
            raise ValueError(
                f"'IDEmbedding' knows {self.num_items} items but the graph has {num_items}: an "
                'item that was not there in training has no ID vector; use token-based items '
                'or features'
            )
        return self(index)

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}({self.num_items}, {self.out_channels})'


class FeatureProjection(ItemEncoder):
    r"""A linear map of raw item features to the size of an item embedding (a
    control: content without tokens),

    .. math::
        \mathbf{r}_i = \mathbf{b} + \sum_m \mathbf{W}_m \mathbf{x}^m_i .

    Args:
        in_channels: Feature width of every modality, such as
            :obj:`{'image': 4096, 'text': 384}`.
        out_channels: Size :math:`d` of item vectors.
        normalize: If set to :obj:`False`, features are used as they are;
            otherwise their rows are scaled to unit length (raw image features
            have norms in the tens, which drowns everything else).

    Shapes:
        - **input:** a mapping from modality to features :math:`(*, d_m)`
        - **output:** item vectors :math:`(*, d)`
    """

    def __init__(
        self, in_channels: Mapping[str, int], out_channels: int = 64, normalize: bool = True
    ):
        super().__init__()
        if len(in_channels) == 0:
            raise ValueError("'FeatureProjection' needs at least one modality")
        self.in_channels = dict(sorted(in_channels.items()))
        self.out_channels = out_channels
        self.normalize = normalize
        self.lin: NameDict[nn.Linear] = NameDict(
            {m: nn.Linear(width, out_channels, bias=False) for m, width in self.in_channels.items()}
        )
        self.bias = nn.Parameter(torch.empty(out_channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for lin in self.lin.values():
            nn.init.xavier_uniform_(lin.weight)
        nn.init.zeros_(self.bias)

    def forward(self, x: Mapping[str, Tensor]) -> Tensor:
        r"""Item vectors from a feature matrix per modality."""
        out = self.bias
        for modality, lin in self.lin.items():
            value = x[modality].to(self.bias.dtype)
            out = out + lin(F.normalize(value, dim=-1) if self.normalize else value)
        return out

    def encode(self, store: NodeStorage, index: Tensor | None = None) -> Tensor:
        x = {m: store[feature_key(store, m)] for m in self.in_channels}
        return self(x if index is None else {m: value[index] for m, value in x.items()})

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}({self.in_channels}, {self.out_channels})'


def xavier_(tensor: Tensor, form: str) -> None:
    r"""Xavier initialization of a table in place, :obj:`"uniform"` or
    :obj:`"normal"`.
    """
    if form == 'uniform':
        nn.init.xavier_uniform_(tensor)
    elif form == 'normal':
        nn.init.xavier_normal_(tensor)
    else:
        raise ValueError(f"The Xavier form must be 'uniform' or 'normal' (got '{form}')")
