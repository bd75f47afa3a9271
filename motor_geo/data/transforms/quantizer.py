r"""What a fitted vector quantizer does to features, by plain matrix products."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from motor_geo.data.transforms.features import as_array, unique_rows

Q = TypeVar('Q', bound='Quantizer')


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
        offset: What is taken off the squared distances of centroids, **[D, K]**,
            such that they are used about equally often; :obj:`None` for
            nothing.
    """

    #: Whether :obj:`fit` gets what is known of the users of items, too:
    #: :obj:`behavior`, **[n, c]**, with zeros for items of which nothing is.
    reads_behavior: ClassVar[bool] = False

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
    offset: Tensor | None = None

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

    def project(self, x: Tensor) -> Tensor:
        r"""Prepared rows along the axes that are kept, **[n, d]** to **[n, p]**."""
        if self.projection is not None:
            x = x @ self.projection.double().t()
        return x if self.scale is None else x * self.scale.double()

    def transform(self, x: Tensor) -> Tensor:
        r"""Projects and rotates prepared rows, **[n, d]** to **[n, p]**."""
        x = self.project(x)
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
        return self._by_slot(z, nearest)

    def near(self, z: Tensor, k: int) -> tuple[Tensor, Tensor]:
        r"""The codes of the :obj:`k` nearest centroids of transformed rows,
        nearest first, **[n, D, k]**, and by how much farther than the first they
        are, **[n, D, k]**: squared distances in units of what lies between a
        centroid and the one next to it.
        """

        def search(block: Tensor, centroid: Tensor, offset: Tensor | None) -> Tensor:
            first = nearest(block, centroid, offset).view(-1, 1)
            distance = _distance(block, centroid, offset)
            far = (distance - distance.gather(1, first)).clamp_(min=0)
            # Of equally near ones, the token of the row comes first.
            code = far.scatter(1, first, -1.0).sort(dim=1, stable=True).indices[:, :k]
            return torch.stack([code.double(), far.gather(1, code) / spacing(centroid)], dim=-1)

        out = self._by_slot(z, search)
        return out[..., 0].long(), out[..., 1]

    def _by_slot(
        self, z: Tensor, search: Callable[[Tensor, Tensor, Tensor | None], Tensor]
    ) -> Tensor:
        r"""What is found in the codebook of every block (or level)."""
        size, found = self.centroids.size(2), []
        for t, centroid in enumerate(self.centroids.double()):
            offset = None if self.offset is None else self.offset[t].double()
            block = z if self.residual else z[:, t * size : (t + 1) * size]
            found.append(search(block, centroid, offset))
            if self.residual:
                z = z - centroid[nearest(block, centroid, offset)]
        return torch.stack(found, dim=1)

    def decode(self, codes: Tensor) -> Tensor:
        r"""Transformed rows that the codes stand for, **[n, p]**."""
        parts = self.centroids.double()[torch.arange(self.num_tokens), codes.long()]
        return parts.sum(dim=1) if self.residual else parts.flatten(1)

    def compare(self, x: Tensor, z: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        r"""Rows, and what their codes stand for, in units of prepared ones.

        Args:
            x: Prepared rows, **[n, d]**.
            z: The same transformed.
            codes: Their codes, **[n, D]**.
        """
        return self.straighten(z), self.straighten(self.decode(codes).to(z.dtype))

    def encode(self, x: Tensor | np.ndarray) -> Tensor:
        r"""Codes of raw feature rows, **[n, d]** to **[n, D]**. Each distinct
        row is encoded once.
        """
        return self._encode(x, lambda z: (self.assign(z),))[0]

    def encode_near(self, x: Tensor | np.ndarray, k: int) -> tuple[Tensor, Tensor]:
        r"""What :meth:`near` finds for raw feature rows."""
        codes, distance = self._encode(x, lambda z: self.near(z, k))
        return codes, distance

    def _encode(
        self, x: Tensor | np.ndarray, search: Callable[[Tensor], tuple[Tensor, ...]]
    ) -> list[Tensor]:
        array = as_array(x)
        first, inverse = unique_rows(array)
        step = self._chunk_size()
        found = []
        for start in range(0, max(1, first.size), step):  # One block if there are no rows.
            rows = np.ascontiguousarray(array[first[start : start + step]])
            found.append(search(self.transform(self.prepare(torch.from_numpy(rows)))))
        return [torch.cat(parts)[torch.from_numpy(inverse)] for parts in zip(*found)]

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
        if self.offset is not None:
            state['offset'] = self.offset
        return state

    @classmethod
    def from_state_dict(
        cls: type[Q], state: dict[str, Tensor], center: bool, normalize: bool, residual: bool
    ) -> Q:
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


def nearest(z: Tensor, centroid: Tensor, offset: Tensor | None = None) -> Tensor:
    r"""The nearest of **[K, c]** centroids to each row **[n, c]**; of equally
    near ones the first. An :obj:`offset` **[K]** is taken off their squared
    distances.
    """
    distance = _distance(z, centroid, offset)
    largest = centroid.square().sum(dim=1).max()
    if offset is not None:
        largest = largest + offset.abs().max()
    slack = 1e-12 * (z.square().sum(dim=1) + largest)
    near = distance <= (distance.min(dim=1).values + slack).unsqueeze(1)
    return near.to(torch.uint8).argmax(dim=1)  # The first one.


def _distance(z: Tensor, centroid: Tensor, offset: Tensor | None) -> Tensor:
    r"""Squared distances **[n, K]**, short of the squared length of rows."""
    square = centroid.square().sum(dim=1)
    square = square if offset is None else square - offset
    return square - 2 * (z @ centroid.t())


def spacing(centroid: Tensor) -> Tensor:
    r"""The mean squared distance of a centroid (of 1,024 at most) to the one
    next to it; one if all are the same.
    """
    if centroid.size(0) < 2:
        return centroid.new_ones(())
    distance = torch.cdist(centroid[:1024], centroid).square()
    mean = distance.fill_diagonal_(torch.inf).min(dim=1).values.mean()
    return torch.where(mean > 0, mean, torch.ones_like(mean))
