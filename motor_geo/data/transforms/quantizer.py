r"""What a fitted vector quantizer does to features, by plain matrix products."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from motor_geo.data.transforms.features import as_array, unique_rows


@dataclass(frozen=True)
class Quantizer:
    r"""Turns a feature vector into :math:`D` codes.

    The vector is centered and scaled to unit length (if wanted), projected,
    rotated, and cut into :math:`D` blocks, each of which is replaced by the
    index of its nearest centroid. A residual quantizer does not cut: its
    :math:`t`-th centroid is the nearest one to what the first :math:`t - 1`
    centroids leave over.

    All distances are computed in double precision on the CPU, and centroids
    that are equally near up to rounding are resolved in favor of the lowest
    index, such that the codes of a row do not depend on the rows it is
    encoded with.

    Args:
        mean: Mean of the rows seen when fitting, **[d]**.
        centroids: Centroids of each block (or level), **[D, K, c]**.
        projection: Principal axes, **[p, d]**; :obj:`None` if all are kept.
        rotation: Rotation, **[D * c, p]**; :obj:`None` if there is none.
        scale: Factor of each axis that whitens, **[p]**; :obj:`None` if
            there is none.
        kept_variance: Share of the variance inside the projection.
        center: If set to :obj:`True`, subtracts :obj:`mean`.
        normalize: If set to :obj:`True`, scales rows to unit length.
        residual: If set to :obj:`True`, quantizes residuals level by level.
        unit: A power of two that rows are multiplied by first. It is not one
            where features are so large or so small that their squares would
            not fit into single precision.
    """

    mean: Tensor
    centroids: Tensor
    projection: Tensor | None = None
    rotation: Tensor | None = None
    scale: Tensor | None = None
    kept_variance: float = 1.0
    center: bool = False
    normalize: bool = False
    residual: bool = False
    unit: float = 1.0

    @property
    def width(self) -> int:
        return self.mean.numel()

    @property
    def num_tokens(self) -> int:
        return self.centroids.size(0)

    @property
    def codebook_size(self) -> int:
        return self.centroids.size(1)

    def prepare(self, x: Tensor) -> Tensor:
        r"""Centers and normalizes rows (zero rows stay zero)."""
        return prepare(x, self.mean, self.center, self.normalize, self.unit)

    def transform(self, x: Tensor) -> Tensor:
        r"""Projects and rotates prepared rows, **[n, d]** to **[n, p]**."""
        if self.projection is not None:
            x = x @ self.projection.double().t()
        if self.scale is not None:
            x = x * self.scale.double()
        if self.rotation is not None:
            return x @ self.rotation.double().t()
        num_blocks, _, size = self.centroids.size()
        width = size if self.residual else num_blocks * size
        return F.pad(x, (0, width - x.size(1)))

    def straighten(self, z: Tensor) -> Tensor:
        r"""Undoes what changes distances: rows in the units of the prepared
        ones, **[n, D * c]** to **[n, p]**, from transformed ones.
        """
        if self.scale is None:
            return z
        if self.rotation is not None:
            z = z @ self.rotation.to(z.dtype)
        z = z[:, : self.scale.numel()]
        return torch.where(self.scale > 0, z / self.scale.to(z.dtype), 0.0)

    def assign(self, z: Tensor) -> Tensor:
        r"""Codes of transformed rows, **[n, D]**."""
        size = self.centroids.size(2)
        codes = []
        for t, centroid in enumerate(self.centroids.double()):
            block = z if self.residual else z[:, t * size : (t + 1) * size]
            codes.append(nearest(block, centroid))
            if self.residual:
                z = z - centroid[codes[-1]]
        return torch.stack(codes, dim=1)

    def decode(self, codes: Tensor) -> Tensor:
        r"""Transformed rows that the codes stand for, **[n, p]**."""
        parts = self.centroids.double()[torch.arange(self.num_tokens), codes.long()]
        return parts.sum(dim=1) if self.residual else parts.flatten(1)

    def encode(self, x: Tensor | np.ndarray) -> Tensor:
        r"""Codes of raw feature rows, **[n, d]** to **[n, D]**. Each distinct
        row is encoded once.
        """
        array = as_array(x)
        first, inverse = unique_rows(array)
        step = self._chunk_size()
        codes = [torch.empty(0, self.num_tokens, dtype=torch.long)]
        for start in range(0, first.size, step):
            rows = np.ascontiguousarray(array[first[start : start + step]])
            codes.append(self.assign(self.transform(self.prepare(torch.from_numpy(rows)))))
        return torch.cat(codes)[torch.from_numpy(inverse)]

    def _chunk_size(self) -> int:
        return max(1, 2**22 // max(self.codebook_size, self.width))

    def state_dict(self) -> dict[str, Tensor]:
        r"""The fitted tensors; the three switches are settings."""
        state = {'mean': self.mean, 'centroids': self.centroids}
        state['kept_variance'] = torch.tensor(self.kept_variance, dtype=torch.double)
        if self.projection is not None:
            state['projection'] = self.projection
        if self.rotation is not None:
            state['rotation'] = self.rotation
        if self.scale is not None:
            state['scale'] = self.scale
        if self.unit != 1:
            state['unit'] = torch.tensor(self.unit, dtype=torch.double)
        return state

    @classmethod
    def from_state_dict(
        cls, state: dict[str, Tensor], center: bool, normalize: bool, residual: bool
    ) -> Quantizer:
        kept_variance, unit = float(state['kept_variance']), float(state.get('unit', 1.0))
        numbers = ('kept_variance', 'unit')
        tensors = {key: value for key, value in state.items() if key not in numbers}
        return cls(
            **tensors,
            kept_variance=kept_variance,
            center=center,
            normalize=normalize,
            residual=residual,
            unit=unit,
        )


def prepare(x: Tensor, mean: Tensor, center: bool, normalize: bool, unit: float = 1.0) -> Tensor:
    r"""Centers rows and scales them to unit length, if wanted, **[n, d]**."""
    x, mean = x.double(), mean.double()
    if unit != 1:
        x, mean = x * unit, mean * unit
    if center:
        x = x - mean
    return F.normalize(x, dim=-1) if normalize else x


def nearest(z: Tensor, centroid: Tensor) -> Tensor:
    r"""The nearest of **[K, c]** centroids to each row **[n, c]**; of equally
    near ones the first.
    """
    square = centroid.square().sum(dim=1)
    distance = square - 2 * (z @ centroid.t())  # Short of |z|^2.
    slack = 1e-12 * (z.square().sum(dim=1) + square.max())
    near = distance <= (distance.min(dim=1).values + slack).unsqueeze(1)
    return near.to(torch.uint8).argmax(dim=1)  # The first one.
