r"""Item features without NaN where an item lacks a modality."""

from __future__ import annotations

import torch
from torch import Tensor
from torch_geometric.data import HeteroData
from torch_geometric.data.storage import NodeStorage

from motor_geo.nn.memo import Memo
from motor_geo.typing import ITEM, feature_key, feature_table, node_store
from motor_geo.utils.missing import fill_missing

_FILLED = Memo(size=16)  # The modalities of a few graphs.
BLOCK = 65_536  # Number of rows that are checked at a time.


def known_rows(store: NodeStorage, modality: str) -> Tensor:
    r"""The features of a modality. If an item lacks it, as :obj:`mask_<modality>` tells,
    and its row has NaN or infinite values, the row is the mean of the items that have
    the modality. The result is cached.

    Shapes:
        - **output:** features :math:`(N, d_m)`
    """
    x, mask = store[feature_key(store, modality)], store.get(f'mask_{modality}')
    if mask is None:
        return x
    mask = torch.as_tensor(mask, device=x.device)  # It may be a NumPy array.
    filled = _FILLED(lambda: fill_missing(x, mask), x, mask)
    return x if filled is None else filled


def known_features(data: HeteroData, modality: str, node_type: str = ITEM) -> Tensor:
    r"""The same for a graph.

    Raises:
        ValueError: If the graph has no features of this modality.
    """
    feature_table(data, modality, node_type)
    return known_rows(node_store(data, node_type), modality)


def finite_features(data: HeteroData, modality: str, node_type: str = ITEM) -> Tensor:
    r"""The same after checking every value, for the constructor of a backbone.

    Raises:
        ValueError: If the graph has no features of this modality, or an item that has
            the modality has NaN or infinite values.
    """
    x = known_features(data, modality, node_type)
    for start in range(0, 0 if x.is_meta else x.size(0), BLOCK):
        bad = ~x[start : start + BLOCK].isfinite().all(dim=1)
        if bool(bad.any()):
            key = feature_key(node_store(data, node_type), modality)
            raise ValueError(
                f"data['{node_type}'].{key}: row {start + int(bad.nonzero()[0])} holds NaN or "
                f'infinite values; expected finite numbers, or mask_{modality} that tells which '
                'items have the modality'
            )
    return x
