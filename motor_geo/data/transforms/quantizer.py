r"""Applies fitted vector quantizers to features with plain matrix products."""

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
    r"""Converts a feature vector to :math:`D` codes.

    A quantizer optionally centers the vector and scales it to unit length. It
    then projects and rotates it, cuts it into :math:`D` blocks, and replaces
    each block by the index of its nearest centroid. A residual quantizer does
    not cut the vector. Instead, its :math:`t`-th code is the centroid nearest to
    the residual of the first :math:`t - 1` centroids.

    All distances are computed in double precision on the CPU. If several
    centroids are equally near up to rounding, the lowest index wins, so the
    codes of a row do not depend on the other rows in a batch.

    Args:
        mean: Mean of the fitted rows, **[d]**.
        centroids: Centroids of each block (or level), **[D, K, c]**.
        projection: Principal axes, **[p, d]**. (default: no projection)
        rotation: Rotation, **[D * c, p]**. (default: no rotation)
        scale: Whitening factor of each axis, **[p]**. (default: no whitening)
        kept_variance: Share of the variance that the projection keeps.
        center: If set to :obj:`True`, subtracts :obj:`mean`.
        normalize: If set to :obj:`True`, scales rows to unit length.
        residual: If set to :obj:`True`, quantizes residuals level by level.
        unit: A power of two that multiplies rows first. It differs from one if
            the squares of the features would leave the range of single
            precision.
        offset: Offsets that are subtracted from the squared distances to the
            centroids so that all centroids are used about equally often,
            **[D, K]**. (default: no offsets)
    """

    #: Whether :obj:`fit` also gets the behavior vectors of items,
    #: :obj:`behavior` **[n, c]**, with zeros for items without interactions.
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
        r"""Centers and normalizes rows, **[n, d]**, as configured. Zero rows
        stay zero.
        """
        return prepare(x, self.mean, self.center, self.normalize, self.unit)

    def project(self, x: Tensor) -> Tensor:
        r"""Projects prepared rows onto the kept axes and whitens them,
        **[n, d]** to **[n, p]**.
        """
        if self.projection is not None:
            x = x @ self.projection.double().t()
        return x if self.scale is None else x * self.scale.double()

    def transform(self, x: Tensor) -> Tensor:
        r"""Projects and rotates prepared rows, **[n, d]** to **[n, D * c]**
        (**[n, c]** for a residual quantizer).
        """
        x = self.project(x)
        if self.rotation is not None:
            return x @ self.rotation.double().t()
        num_blocks, _, size = self.centroids.size()
        width = size if self.residual else num_blocks * size
        return F.pad(x, (0, width - x.size(1)))

    def straighten(self, z: Tensor) -> Tensor:
        r"""Undoes the whitening of transformed rows, so that distances are those
        between prepared rows. Returns **[n, p]** if the quantizer whitens, and
        the rows as they are otherwise.
        """
        if self.scale is None:
            return z
        if self.rotation is not None:
            z = z @ self.rotation.to(z.dtype)
        z = z[:, : self.scale.numel()]
        return torch.where(self.scale > 0, z / self.scale.to(z.dtype), 0.0)

    def assign(self, z: Tensor) -> Tensor:
        r"""Returns the codes of transformed rows, **[n, D]**."""
        return self._by_slot(z, nearest)

    def near(self, z: Tensor, k: int) -> tuple[Tensor, Tensor]:
        r"""Finds the :obj:`k` nearest centroids of transformed rows.

        Args:
            z: Transformed rows.
            k: Number of centroids per block (or level).

        Returns:
            Their codes, nearest first, **[n, D, k]**, and their distances,
            **[n, D, k]**. A distance is the squared distance to a centroid
            minus the one to the nearest centroid, divided by the
            :func:`spacing` of the codebook.
        """

        def search(block: Tensor, centroid: Tensor, offset: Tensor | None) -> Tensor:
            first = nearest(block, centroid, offset).view(-1, 1)
            distance = _distance(block, centroid, offset)
            far = (distance - distance.gather(1, first)).clamp_(min=0)
            # Among equally near centroids, the token of the row comes first.
            code = far.scatter(1, first, -1.0).sort(dim=1, stable=True).indices[:, :k]
            return torch.stack([code.double(), far.gather(1, code) / spacing(centroid)], dim=-1)

        out = self._by_slot(z, search)
        return out[..., 0].long(), out[..., 1]

    def _by_slot(
        self, z: Tensor, search: Callable[[Tensor, Tensor, Tensor | None], Tensor]
    ) -> Tensor:
        r"""Applies :obj:`search` to every block (or level) and its codebook."""
        size, found = self.centroids.size(2), []
        for t, centroid in enumerate(self.centroids.double()):
            offset = None if self.offset is None else self.offset[t].double()
            block = z if self.residual else z[:, t * size : (t + 1) * size]
            found.append(search(block, centroid, offset))
            if self.residual:
                z = z - centroid[nearest(block, centroid, offset)]
        return torch.stack(found, dim=1)

    def decode(self, codes: Tensor) -> Tensor:
        r"""Reconstructs transformed rows from their codes, **[n, D]** to
        **[n, D * c]** (**[n, c]** for a residual quantizer).
        """
        parts = self.centroids.double()[torch.arange(self.num_tokens), codes.long()]
        return parts.sum(dim=1) if self.residual else parts.flatten(1)

    def compare(self, x: Tensor, z: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        r"""Returns rows and their reconstructions from codes, so that distances
        are those between prepared rows.

        Args:
            x: Prepared rows, **[n, d]**.
            z: The same rows, transformed.
            codes: Their codes, **[n, D]**.
        """
        return self.straighten(z), self.straighten(self.decode(codes).to(z.dtype))

    def encode(self, x: Tensor | np.ndarray) -> Tensor:
        r"""Computes the codes of raw feature rows, **[n, d]** to **[n, D]**.
        Encodes each distinct row only once.
        """
        return self._encode(x, lambda z: (self.assign(z),))[0]

    def encode_near(self, x: Tensor | np.ndarray, k: int) -> tuple[Tensor, Tensor]:
        r"""Applies :meth:`near` to raw feature rows, **[n, d]**."""
        codes, distance = self._encode(x, lambda z: self.near(z, k))
        return codes, distance

    def _encode(
        self, x: Tensor | np.ndarray, search: Callable[[Tensor], tuple[Tensor, ...]]
    ) -> list[Tensor]:
        array = as_array(x)
        first, inverse = unique_rows(array)
        step = self._chunk_size()
        found = []
        for start in range(0, max(1, first.size), step):  # At least one block, even without rows.
            rows = np.ascontiguousarray(array[first[start : start + step]])
            found.append(search(self.transform(self.prepare(torch.from_numpy(rows)))))
        return [torch.cat(parts)[torch.from_numpy(inverse)] for parts in zip(*found)]

    def _chunk_size(self) -> int:
        return max(1, 2**22 // max(self.codebook_size, self.width))

    def state_dict(self) -> dict[str, Tensor]:
        r"""Returns the fitted tensors, without the settings :obj:`center`,
        :obj:`normalize` and :obj:`residual`.
        """
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
        r"""Creates a quantizer from the tensors of :meth:`state_dict`.

        Args:
            state: The tensors.
            center: As in the constructor.
            normalize: As in the constructor.
            residual: As in the constructor.
        """
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
    r"""Optionally centers rows and scales them to unit length.

    Args:
        x: Rows, **[n, d]**.
        mean: Mean to subtract, **[d]**.
        center: If set to :obj:`True`, subtracts the mean.
        normalize: If set to :obj:`True`, scales rows to unit length.
        unit: A factor that multiplies rows first.

    Returns:
        The rows in double precision, **[n, d]**.
    """
    x, mean = x.double(), mean.double()
    if unit != 1:
        x, mean = x * unit, mean * unit
    if center:
        x = x - mean
    return F.normalize(x, dim=-1) if normalize else x


def nearest(z: Tensor, centroid: Tensor, offset: Tensor | None = None) -> Tensor:
    r"""Finds the nearest centroid of each row. Among equally near centroids, the
    first one wins.

    Args:
        z: Rows, **[n, c]**.
        centroid: Centroids, **[K, c]**.
        offset: Offsets to subtract from the squared distances, **[K]**.
            (default: none)

    Returns:
        Indices of centroids, **[n]**.
    """
    distance = _distance(z, centroid, offset)
    largest = centroid.square().sum(dim=1).max()
    if offset is not None:
        largest = largest + offset.abs().max()
    slack = 1e-12 * (z.square().sum(dim=1) + largest)
    near = distance <= (distance.min(dim=1).values + slack).unsqueeze(1)
    return near.to(torch.uint8).argmax(dim=1)  # The first one.


def _distance(z: Tensor, centroid: Tensor, offset: Tensor | None) -> Tensor:
    r"""Returns squared distances minus the squared lengths of rows, **[n, K]**."""
    square = centroid.square().sum(dim=1)
    square = square if offset is None else square - offset
    return square - 2 * (z @ centroid.t())


def spacing(centroid: Tensor) -> Tensor:
    r"""Returns the mean squared distance between a centroid and its nearest
    other centroid, over the first 1,024 centroids. It is one if all centroids
    are equal.

    Args:
        centroid: Centroids, **[K, c]**.
    """
    if centroid.size(0) < 2:
        return centroid.new_ones(())
    distance = torch.cdist(centroid[:1024], centroid).square()
    mean = distance.fill_diagonal_(torch.inf).min(dim=1).values.mean()
    return torch.where(mean > 0, mean, torch.ones_like(mean))
