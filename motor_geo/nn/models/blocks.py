from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData
from torch_geometric.typing import EdgeType

from motor_geo.nn.item_encoder import xavier_
from motor_geo.nn.models.pruned import PrunedRecommender
from motor_geo.typing import RATES, modalities, num_nodes


class BlockRecommender(PrunedRecommender):
    r"""Base class of backbones without an item embedding. Every modality has a
    block of :math:`d` channels with its own user table, and an item encoder adds
    one more block.

    Args:
        data: The user-item graph with features :obj:`x_<modality>`.
        item_encoder: Item encoder of an additional block; :obj:`None` uses
            features alone, as published.
        channels: Size :math:`d` of a block.
        rho: Fraction of training edges to remove in every epoch.
        edge_type: Edge type of the training interactions, from users to items.

    Raises:
        ValueError: If the graph has no item features, or an argument is out of
            range.
    """

    min_modalities = 1

    def __init__(
        self,
        data: HeteroData,
        item_encoder: nn.Module | None,
        channels: int,
        rho: float = 0.0,
        edge_type: EdgeType = RATES,
    ):
        # There is no item embedding by default.
        encoder = nn.Identity() if item_encoder is None else item_encoder
        super().__init__(data, encoder, channels, rho, edge_type)
        self.item_encoder = cast(nn.Module, item_encoder)
        names = modalities(data, type(self).__name__, self.min_modalities, self.item_type)
        self.num_blocks = len(names) + (item_encoder is not None)
        num_users = num_nodes(data, self.user_type)
        self.user_embedding = nn.Parameter(torch.empty(num_users, self.num_blocks * channels))
        self._reset_users()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        self._reset_users()

    def _reset_users(self) -> None:
        xavier_blocks_(self.user_embedding, self.channels, self.init)

    def blocks(self, x: Tensor) -> Tensor:
        r"""Splits vectors **[B, bd]** into blocks **[B, b, d]**."""
        return x.view(-1, self.num_blocks, self.channels)


@torch.no_grad()
def xavier_blocks_(table: Tensor, channels: int, form: str) -> None:
    r"""Initializes a table in place with the Xavier distribution, treating every
    :obj:`channels` columns as a separate table.
    """
    for block in table.split(channels, dim=1):
        xavier_(block, form)
