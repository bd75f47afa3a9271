from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from motor_geo.nn.functional.hyperedges import shares
from motor_geo.parallel.user_shard import UserShard
from motor_geo.typing import ITEM, USER, Embeddings
from motor_geo.utils.numbers import positive


class Hypergraph(NamedTuple):
    r"""Memberships of nodes in hyperedges, and the vectors of the hyperedges. Their
    product gives the global vectors of nodes.
    """

    share: Embeddings  # [M, K_h], [N, K_h]: memberships
    lat: Tensor  # [K_h, d]: vectors of hyperedges

    @classmethod
    def merge(cls, graphs: Sequence[Hypergraph]) -> Hypergraph:
        r"""Merges the hyperedges of several hypergraphs into one."""
        user, item = (torch.cat(side, dim=1) for side in zip(*(g.share for g in graphs)))
        return cls(Embeddings(user, item), torch.cat([g.lat for g in graphs]))


class Hyperedges(nn.Module):
    r"""Message passing through hyperedges, which aggregate item vectors and pass
    them on to users and items, from the `"LGMRec: Local and Global Graph
    Learning for Multimodal Recommendation" <https://arxiv.org/abs/2312.16400>`_
    paper,

    .. math::
        \mathbf{G} = \textrm{gumbel-softmax}(\textrm{logits} / \tau), \qquad
        \mathbf{L} = (\mathbf{G}_I^{\top} \mathbf{G}_I)^{L_h - 1}
        \mathbf{G}_I^{\top} \mathbf{X}_I ,

    so that :math:`\mathbf{G}_I \mathbf{L}` are the item vectors after
    :math:`L_h` rounds of message passing.

    Args:
        num_layers: Number of rounds :math:`L_h`.
        keep_rate: Fraction of memberships to keep in training.
        temperature: Temperature :math:`\tau` of memberships.
        deterministic: If set to :obj:`False`, also draws Gumbel noise outside
            training.

    Shapes:
        - **input:** membership logits of users :math:`(M, K_h)` and of items
          :math:`(N, K_h)`, item vectors :math:`(N, d)`
        - **output:** memberships :math:`(M, K_h)` and :math:`(N, K_h)`, vectors
          of hyperedges :math:`(K_h, d)`

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(
        self, num_layers: int, keep_rate: float, temperature: float, deterministic: bool = True
    ):
        super().__init__()
        if num_layers < 1:
            raise ValueError(f"'num_layers' must be positive (got {num_layers})")
        if not 0 < keep_rate <= 1:
            raise ValueError(f"'keep_rate' must lie in (0, 1] (got {keep_rate})")
        positive('temperature', temperature)
        self.num_layers = num_layers
        self.keep_rate = keep_rate
        self.temperature = temperature
        self.deterministic = deterministic

    def draw(
        self, logits: Tensor, modality: str, node_type: str, training: bool
    ) -> tuple[Tensor | None, Tensor | None]:
        r"""Draws the Gumbel noise of membership logits and the dropout factors
        of memberships, which are zero or one over :obj:`keep_rate`. Either is
        :obj:`None` if it is not needed.

        Args:
            logits: Membership logits.
            modality: Modality of the hyperedges.
            node_type: Node type of the members, users or items.
            training: Whether the memberships are for the loss in training mode.

        Shapes:
            - **input:** logits :math:`(*, K_h)`
            - **output:** noise :math:`(*, K_h)`, factors :math:`(*, K_h)`
        """
        noise = factor = None
        if training or not self.deterministic:
            # Exponential numbers in float32 can be zero.
            tiny = torch.finfo(logits.dtype).tiny
            noise = -torch.empty_like(logits).exponential_().clamp_(min=tiny).log_()
        if training and self.keep_rate < 1:
            factor = torch.empty_like(logits).bernoulli_(self.keep_rate).div_(self.keep_rate)
        return noise, factor

    def membership(
        self,
        logits: Tensor,
        modality: str,
        node_type: str,
        training: bool,
        shard: UserShard | None = None,
    ) -> Tensor:
        r"""Memberships of nodes in hyperedges.

        Args:
            logits: Membership logits.
            modality: Modality of the hyperedges.
            node_type: Node type of the members, users or items.
            training: Whether the memberships are for the loss in training mode.
            shard: The part of all users that the nodes are. All processes draw for
                all users.

        Shapes:
            - **input:** logits :math:`(*, K_h)`
            - **output:** memberships :math:`(*, K_h)`
        """
        like = logits.detach()
        if shard is not None:
            like = like.new_empty(shard.num_users, like.size(1))
        noise, factor = self.draw(like, modality, node_type, training)
        if shard is not None:
            noise, factor = (
                None if x is None else x[shard.first : shard.last] for x in (noise, factor)
            )
        share = shares((logits if noise is None else logits + noise) / self.temperature)
        return share if factor is None else share * factor

    def forward(
        self,
        user_logits: Tensor,
        item_logits: Tensor,
        item: Tensor,
        modality: str,
        training: bool,
        shard: UserShard | None = None,
    ) -> Hypergraph:
        r"""The memberships of users and items in a modality, and the vectors of its hyperedges."""
        g_item = self.membership(item_logits, modality, ITEM, training)
        g_user = self.membership(user_logits, modality, USER, training, shard)
        lat = g_item.t() @ item
        if self.num_layers > 1:
            overlap = g_item.t() @ g_item
            for _ in range(1, self.num_layers):
                lat = overlap @ lat
        return Hypergraph(Embeddings(g_user, g_item), lat)

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}({self.num_layers}, temperature={self.temperature})'
