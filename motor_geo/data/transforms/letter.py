r"""Tokens of a residual-quantized autoencoder that also uses behavior."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from motor_geo.data.transforms.features import as_array
from motor_geo.data.transforms.rq_vae import RQVAEQuantizer, Schedule
from motor_geo.data.transforms.sinkhorn import balanced_kmeans

#: How many times the codes are clustered during training.
CLUSTERINGS = 20


@dataclass(frozen=True)
class LETTERQuantizer(RQVAEQuantizer):
    r"""The tokenizer from the `"Learnable Item Tokenization for Generative
    Recommendation" <https://arxiv.org/abs/2405.07314>`_ (LETTER) paper. It is an
    :class:`~motor_geo.data.transforms.rq_vae.RQVAEQuantizer` with two
    additional loss terms. The first one aligns the quantized latent vectors
    :math:`\hat{\mathbf{z}}_i` of a batch with behavior vectors
    :math:`\mathbf{h}_i`, so that items of the same users share tokens:

    .. math::
        - \frac{\alpha}{B} \sum_i \log \frac{\exp(\hat{\mathbf{z}}_i^{\top}
        \mathbf{h}_i)}{\sum_j \exp(\hat{\mathbf{z}}_i^{\top} \mathbf{h}_j)} ,

    The second one diversifies the codes. It clusters the codes of each level,
    and pulls a selected code toward another code :math:`c_+` of its cluster and
    away from all other codes:

    .. math::
        - \frac{\beta}{B} \sum_l \sum_i \log \frac{\exp(\mathbf{e}_{l,t_l}^{\top}
        \mathbf{e}_{l,c_+})}{\sum_{c \neq t_l} \exp(\mathbf{e}_{l,t_l}^{\top}
        \mathbf{e}_{l,c})} .

    The paper takes :math:`\mathbf{h}_i` from SASRec. Here, they come from
    :class:`~motor_geo.data.InteractionSVD` on the training interactions, scaled
    to entries of about unit variance. Items without a behavior vector do not
    take part in the alignment. Encoding needs only features, so new items get
    tokens as well.
    """

    reads_behavior: ClassVar[bool] = True

    @classmethod
    def fit(  # type: ignore[override]
        cls,
        x: Tensor | np.ndarray,
        num_tokens: int,
        codebook_size: int,
        behavior: Tensor | np.ndarray | None = None,
        alpha: float = 0.02,
        beta: float = 1e-4,
        num_clusters: int = 10,
        hidden: Sequence[int] = (256, 128),
        latent: int = 32,
        num_steps: int = 2000,
        warmup: float = 0.1,
        batch_size: int = 1024,
        lr: float = 1e-3,
        weight_decay: float = 1e-4,
        commitment: float = 0.25,
        **settings: Any,
    ) -> LETTERQuantizer:
        r"""Trains the autoencoder.

        Args:
            x: Features, **[n, d]**.
            num_tokens: Number of levels.
            codebook_size: Number of codes per level.
            behavior: Behavior vectors, **[n, c]**, with zeros for items that
                have none. Columns beyond :obj:`latent` are ignored.
            alpha: Weight :math:`\alpha` of the alignment.
            beta: Weight :math:`\beta` of the diversity.
            num_clusters: Number of clusters per level.
            hidden: This and all following arguments are those of
                :meth:`~motor_geo.data.transforms.rq_vae.RQVAEQuantizer.fit`.
            latent: Width of the latent vectors.
            num_steps: Number of training steps.
            warmup: Share of the steps that run without quantization.
            batch_size: Number of rows per step.
            lr: Learning rate of AdamW.
            weight_decay: Weight decay of AdamW.
            commitment: Weight :math:`\mu` of the commitment term.
            **settings: Settings of :class:`~motor_geo.data.OPQTokenizer`.

        Raises:
            ValueError: If a setting is out of range, there are no behavior
                vectors or fewer rows than codes, or training diverges.
        """
        for key, value in (('alpha', alpha), ('beta', beta)):
            if not 0 <= value < float('inf'):
                raise ValueError(f'{key} must be at least 0 and finite, got {value}.')
        if num_clusters < 1:
            raise ValueError(f'num_clusters must be at least 1, got {num_clusters}.')
        if behavior is None or not as_array(behavior).any():
            raise ValueError(
                "method='letter' aligns tokens with the users of items: expected a graph with "
                'interactions.'
            )
        schedule = Schedule(
            tuple(hidden), latent, num_steps, warmup, batch_size, lr, weight_decay, commitment
        )
        target = aligned(torch.as_tensor(as_array(behavior)).float(), latent)
        seed = int(settings.get('seed', 0)) % 2**63
        term = _Terms(target, alpha, beta, num_clusters, max(1, num_steps // CLUSTERINGS), seed)
        return cls._fit(x, num_tokens, codebook_size, schedule, term, **settings)


def aligned(behavior: Tensor, width: int) -> Tensor:
    r"""Truncates or pads behavior vectors to a given width, and scales their
    entries to a variance of about one. Zero rows stay zero.

    Args:
        behavior: Behavior vectors, **[n, c]**.
        width: Width of the result.

    Returns:
        The vectors, **[n, width]**.
    """
    behavior = behavior[:, :width]
    known = behavior.any(dim=1)
    scale = behavior[known].square().mean().sqrt()
    return F.pad(behavior / scale, (0, width - behavior.size(1)))


class _Terms:
    r"""The additional loss terms of LETTER."""

    def __init__(
        self,
        behavior: Tensor,
        alpha: float,
        beta: float,
        num_clusters: int,
        interval: int,
        seed: int,
    ):
        self.behavior, self.alpha, self.beta = behavior, alpha, beta
        self.num_clusters, self.interval, self.seed = num_clusters, interval, seed
        self.known = behavior.any(dim=1)
        self.generator = torch.Generator().manual_seed(seed)
        self.clusters: list[Tensor] = []

    def __call__(
        self,
        step: int,
        rows: Tensor,
        quantized: Tensor,
        codes: list[Tensor],
        centroids: Sequence[Tensor],
    ) -> Tensor:
        if not self.clusters or step % self.interval == 0:
            self.clusters = [
                balanced_kmeans(centroid.detach(), self.num_clusters, self.seed)
                for centroid in centroids
            ]
        known = self.known[rows]
        loss = self.alpha * alignment(quantized[known], self.behavior[rows][known])
        for code, centroid, cluster in zip(codes, centroids, self.clusters):
            mate = mates(code, cluster, self.generator)
            loss = loss + self.beta * diversity(code, centroid, mate)
        return loss


def alignment(z: Tensor, behavior: Tensor) -> Tensor:
    r"""Computes the contrastive loss between quantized latent vectors and
    behavior vectors. It is zero if there are none.

    Args:
        z: Quantized latent vectors, **[n, c]**.
        behavior: Behavior vectors, **[n, c]**.
    """
    if z.size(0) == 0:
        return z.sum()
    return F.cross_entropy(z @ behavior.t(), torch.arange(z.size(0)))


def mates(code: Tensor, cluster: Tensor, generator: torch.Generator) -> Tensor:
    r"""Draws, for every code, another random code of its cluster.

    Args:
        code: Codes, **[n]**.
        cluster: The cluster of every code in the codebook, **[K]**.
        generator: The random number generator.

    Returns:
        The other codes, **[n]**, or :obj:`-1` where a cluster has no other.
    """
    order = cluster.argsort(stable=True)
    count = cluster.bincount()
    start = count.cumsum(0) - count
    position = torch.empty_like(order)
    position[order] = torch.arange(order.numel()) - start[cluster[order]]
    own, size = cluster[code], count[cluster[code]]
    # Cyclic step of 1 to size - 1 within the cluster.
    step = 1 + (torch.rand(code.numel(), generator=generator) * (size - 1)).long()
    step = torch.minimum(step, (size - 1).clamp(min=1))
    other = order[start[own] + (position[code] + step) % size]
    return torch.where(size > 1, other, -1)


def diversity(code: Tensor, centroid: Tensor, mate: Tensor) -> Tensor:
    r"""Computes the cross entropy of selected codes against all others of a
    codebook.

    Args:
        code: Selected codes, **[n]**.
        centroid: The codebook, **[K, c]**.
        mate: The code that each one is pulled toward, **[n]**; :obj:`-1` for
            none.
    """
    some = mate >= 0
    code, mate = code[some], mate[some]
    if code.numel() == 0:
        return centroid.sum() * 0
    logits = (F.embedding(code, centroid) @ centroid.t()).scatter(1, code.view(-1, 1), -torch.inf)
    return F.cross_entropy(logits, mate)
