r"""Item encoders: the base class and the two controls, an ID embedding and a
linear map of features.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data.storage import NodeStorage

from motor_geo.nn.functional.known_features import known_rows
from motor_geo.nn.functional.rows import table_rows
from motor_geo.nn.name_dict import NameDict
from motor_geo.typing import num_rows


class ItemEncoder(nn.Module):
    r"""Base class of item encoders, which turn the item data of a graph into item
    vectors.

    A subclass implements :obj:`forward` on tensors and :meth:`encode` on the
    item store of a graph.
    """

    out_channels: int

    def reset_parameters(self) -> None:
        raise NotImplementedError

    def encode(self, store: NodeStorage, index: Tensor | None = None) -> Tensor:
        r"""Vectors of all items, or of the items in :obj:`index`.

        Args:
            store: The item node store, :obj:`data['item']`.
            index: Items to encode; :obj:`None` encodes all items.

        Shapes:
            - **input:** item indices :math:`(B)` *(optional)*
            - **output:** item vectors :math:`(N, d)` or :math:`(B, d)`
        """
        raise NotImplementedError


def encode_items(encoder: nn.Module, store: NodeStorage, index: Tensor | None = None) -> Tensor:
    r"""Calls any supported module as an item encoder: an :class:`ItemEncoder`, a
    plain :class:`torch.nn.Embedding` over items, or a module that maps
    :obj:`token_id` to vectors.

    Args:
        encoder: The module.
        store: The item node store, :obj:`data['item']`.
        index: Items to encode; :obj:`None` encodes all items.

    Shapes:
        - **input:** item indices :math:`(B)` *(optional)*
        - **output:** item vectors :math:`(N, d)` or :math:`(B, d)`

    Raises:
        ValueError: If the module reads :obj:`token_id` and the store has none.
    """
    if isinstance(encoder, ItemEncoder):
        return encoder.encode(store, index)
    if isinstance(encoder, nn.Embedding):
        return encoder.weight if index is None else encoder(index)
    if 'token_id' not in store:
        raise ValueError(
            f"The item encoder '{encoder.__class__.__name__}' needs data['item'].token_id, which "
            "is missing; apply 'OPQTokenizer' to the data or derive the encoder from 'ItemEncoder'"
        )
    return encoder(store.token_id if index is None else store.token_id[index])


class IDEmbedding(ItemEncoder):
    r"""The classic item embedding, with one trained vector per item. It is a
    control and not ID-free.

    Args:
        num_items: Number of items :math:`N`.
        out_channels: Size :math:`d` of item vectors.
        xavier: Distribution of the Xavier initialization, :obj:`"uniform"` or
            :obj:`"normal"`.

    Shapes:
        - **input:** item indices :math:`(*)` *(optional; all items if missing)*
        - **output:** item vectors :math:`(*, d)`

    Raises:
        ValueError: If :obj:`xavier` is unknown, or the graph has another number
            of items.
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
        r"""Rows of the table: all of them, or those in :obj:`index`."""
        if index is None:
            return self.weight
        # Its backward pass is two to three times faster than that of an embedding.
        rows = table_rows(self.weight, index.reshape(-1))
        return rows.view(*index.shape, rows.size(-1))

    def encode(self, store: NodeStorage, index: Tensor | None = None) -> Tensor:
        num_items = num_rows(store)
        if num_items != self.num_items:
            raise ValueError(
                f"'IDEmbedding' knows {self.num_items} items but the graph has {num_items}: items "
                'added after training have no ID vector; use token-based items or features'
            )
        return self(index)

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}({self.num_items}, {self.out_channels})'


class FeatureProjection(ItemEncoder):
    r"""A linear map from raw item features to item vectors. It is a control
    that uses content without tokens,

    .. math::
        \mathbf{r}_i = \mathbf{b} + \sum_m \mathbf{W}_m \mathbf{x}^m_i .

    Args:
        in_channels: Feature width of every modality, such as
            :obj:`{'image': 4096, 'text': 384}`.
        out_channels: Size :math:`d` of item vectors.
        normalize: If set to :obj:`False`, uses features without normalization.
            Otherwise, scales their rows to unit length: raw image features
            have norms in the tens and would dominate the other modalities.

    Shapes:
        - **input:** a mapping from modality to features :math:`(*, d_m)`
        - **output:** item vectors :math:`(*, d)`

    Raises:
        ValueError: If :obj:`in_channels` is empty.
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
        x = {m: known_rows(store, m) for m in self.in_channels}
        return self(x if index is None else {m: value[index] for m, value in x.items()})

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}({self.in_channels}, {self.out_channels})'


def xavier_(tensor: Tensor, form: str) -> None:
    r"""Initializes a table in place with the :obj:`"uniform"` or :obj:`"normal"`
    Xavier distribution.

    Raises:
        ValueError: If :obj:`form` is unknown.
    """
    if form == 'uniform':
        nn.init.xavier_uniform_(tensor)
    elif form == 'normal':
        nn.init.xavier_normal_(tensor)
    else:
        raise ValueError(f"The Xavier form must be 'uniform' or 'normal' (got '{form}')")
