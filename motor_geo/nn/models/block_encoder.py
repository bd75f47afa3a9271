from __future__ import annotations

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import HeteroData

from motor_geo.nn.functional.feature_blocks import block_linear, spectral_blocks
from motor_geo.nn.functional.rows import project
from motor_geo.nn.models.item_features import ItemFeatures
from motor_geo.typing import ITEM


class BlockEncoder(nn.Module):
    r"""Computes the blocks of item vectors of :class:`~motor_geo.nn.models.LIRDRec`
    from features: one block per modality and one shared block,

    .. math::
        \mathbf{B}_m = \mathbf{W}_2^m \, \phi(\mathbf{W}_1^m \mathbf{x}_m +
        \mathbf{b}_1^m), \qquad
        \mathbf{x}_{\textrm{shared}} = \Vert_m \, \textrm{DCT}(\mathbf{x}_m) .

    Args:
        data: The user-item graph with features :obj:`x_<modality>`.
        channels: Size :math:`d` of a block.
        shared: If set to :obj:`False`, there is no shared block.
        across_items: If set to :obj:`True`, uses a two-dimensional cosine
            transform, along features and items.
        node_type: Node type of items.

    Shapes:
        - **output:** vectors :math:`(N, d)` of every block

    Raises:
        ValueError: If the graph has no item features.
    """

    def __init__(
        self,
        data: HeteroData,
        channels: int,
        shared: bool,
        across_items: bool,
        node_type: str = ITEM,
    ):
        super().__init__()
        self.features = ItemFeatures(data, None, 'LIRDRec', node_type=node_type)
        self.across_items = across_items
        widths = list(self.features.widths.values())
        if shared:
            widths.append(sum(widths))
        self.encoders = nn.ModuleList(
            nn.Sequential(
                nn.Linear(width, 4 * channels),
                nn.LeakyReLU(inplace=True),
                nn.Linear(4 * channels, channels, bias=False),
            )
            for width in widths
        )

    def reset_parameters(self) -> None:
        r"""Draws new initial weights."""
        for lin in self.encoders.modules():
            if isinstance(lin, nn.Linear):
                lin.reset_parameters()

    def __len__(self) -> int:
        return len(self.encoders)

    def forward(self, data: HeteroData) -> list[Tensor]:
        r"""The blocks of all items: one per modality, followed by the shared block
        if there is one.
        """
        x = [table.detach() for table in self.features.raw(data)]
        weights, biases = linear_layers(self.encoders, 0)
        if len(weights) > len(x):
            *own, shared = weights
            hidden = spectral_blocks(x, own, shared, self.across_items)
        else:
            hidden = [project(*pair) for pair in zip(x, weights)]
        hidden = [F.leaky_relu_(h + bias) for h, bias in zip(hidden, biases)]
        return [F.linear(*pair) for pair in zip(hidden, linear_layers(self.encoders, 2)[0])]


class BlockGates(nn.Module):
    r"""The weight networks :math:`f` of :class:`~motor_geo.nn.models.LIRDRec`. Each
    block has a network that computes its logit.

    Args:
        num_blocks: Number of blocks :math:`b`.
        channels: Size :math:`d` of a block.

    Shapes:
        - **input:** blocks :math:`(M, bd)`
        - **output:** logits :math:`(M, b)`
    """

    def __init__(self, num_blocks: int, channels: int):
        super().__init__()
        hidden = max(channels // 4, 1)
        self.nets = nn.ModuleList(
            nn.Sequential(nn.Linear(channels, hidden), nn.LeakyReLU(), nn.Linear(hidden, 1))
            for _ in range(num_blocks)
        )

    def reset_parameters(self) -> None:
        r"""Draws new initial weights."""
        for lin in self.nets.modules():
            if isinstance(lin, nn.Linear):
                lin.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        r"""The logits of all blocks."""
        hidden = F.leaky_relu_(block_linear(x, *linear_layers(self.nets, 0)))
        return block_linear(hidden, *linear_layers(self.nets, 2))


def linear_layers(nets: nn.ModuleList, layer: int) -> tuple[list[Tensor], list[Tensor]]:
    r"""Weights and biases of one linear layer across several networks."""
    lins = [cast(nn.Linear, cast(nn.Sequential, net)[layer]) for net in nets]
    return [lin.weight for lin in lins], [lin.bias for lin in lins]
