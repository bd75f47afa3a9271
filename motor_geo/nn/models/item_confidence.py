from __future__ import annotations

import torch
from torch import Tensor, nn

from motor_geo.nn.models.recommender import check_choice


class ItemConfidence(nn.Module):
    r"""The confidence :math:`C_{i,m}` of items in :class:`GRCN`, which weights
    the messages that they send.

    Args:
        form: :obj:`"token"` uses an affine map of item vectors, :obj:`"free"` a
            parameter per item and modality, and :obj:`"none"` the constant one.
        num_items: Number of items :math:`N`.
        channels: Size :math:`d` of item vectors.
        num_modalities: Number of modalities :math:`n`.
        std: Standard deviation of initial weights.

    Shapes:
        - **input:** normalized item vectors :math:`(N, d)`
        - **output:** confidence per modality :math:`(N, n)`

    Raises:
        ValueError: If :obj:`form` is unknown, or it is :obj:`"free"` and the
            number of items differs from :obj:`num_items`.
    """

    def __init__(self, form: str, num_items: int, channels: int, num_modalities: int, std: float):
        super().__init__()
        check_choice('item_confidence', form, 'token', 'free', 'none')
        self.num_modalities = num_modalities
        self.std = std
        self.lin = nn.Linear(channels, num_modalities) if form == 'token' else None
        self.weight: nn.Parameter | None = None
        if form == 'free':
            self.weight = nn.Parameter(torch.empty(num_items, num_modalities))

    def reset_parameters(self) -> None:
        r"""Draws new initial weights."""
        if self.lin is not None:
            # Item vectors can point in similar directions. One weight vector could then set the
            # confidence of all items to zero for good, so the bias starts above zero.
            nn.init.normal_(self.lin.weight, std=self.std)
            nn.init.constant_(self.lin.bias, 2 * self.std)
        if self.weight is not None:
            nn.init.normal_(self.weight, std=self.std)

    def forward(self, item: Tensor) -> Tensor:
        r"""The confidence of every item in every modality."""
        if self.lin is not None:
            return self.lin(item)
        if self.weight is None:
            return item.new_ones(item.size(0), self.num_modalities)
        if len(self.weight) != item.size(0):
            raise ValueError(
                f"'GRCN' has a free confidence for {len(self.weight)} items but the graph "
                f"has {item.size(0)}; use item_confidence='token' or 'none'"
            )
        return self.weight
