r"""Features of items that lack a modality."""

from __future__ import annotations

from torch import Tensor


def fill_missing(x: Tensor, mask: Tensor) -> Tensor | None:
    r"""Features in which the mean of the other rows replaces those rows of items without
    a modality that have NaN or infinite values, or :obj:`None` if there are none.

    Args:
        x: Features of a modality, **[N, d]**.
        mask: Which items have the modality, **[N]**.
    """
    mask = mask.bool()
    row = (~mask).nonzero().view(-1)
    row = row[~x.index_select(0, row).isfinite().all(dim=1)]
    if row.numel() == 0:
        return None
    mean = x[mask].double().mean(dim=0) if bool(mask.any()) else x.new_zeros(x.size(1))
    return x.detach().index_copy(0, row, mean.to(x.dtype).expand(row.numel(), -1))
