r"""Reads items that were absent in training from a folder of features."""

from __future__ import annotations

import os.path as osp
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from motor_geo.data.datasets.features_folder import feature_files, load_features, load_mask
from motor_geo.data.datasets.item_index import check_distinct, find_items
from motor_geo.data.datasets.messages import clipped
from motor_geo.data.datasets.names import find_columns
from motor_geo.data.datasets.reader import read_header, read_table
from motor_geo.data.transforms.add_items import add_items
from motor_geo.pipeline.assemble import build_transforms, encode_tokens, fitted_graph
from motor_geo.pipeline.config import NO_ITEMS
from motor_geo.pipeline.folder import LoadedRun
from motor_geo.typing import ITEM


def with_new_items(run: LoadedRun, folder: str) -> tuple[HeteroData, np.ndarray]:
    r"""Appends new items to the graph of a run.

    Args:
        run: The run.
        folder: The folder with the features of the new items.

    Returns:
        The graph, and the raw ids of the new items.

    Raises:
        ValueError: If the model cannot represent new items, or the folder or
            a file is missing or invalid.
    """
    if run.config.items['name'] == NO_ITEMS:
        raise ValueError(
            f'{run.config.model["name"]} has no vector for an item that was absent in training; '
            'train a model with token-based items (--items recommended) or --items features'
        )
    if run.config.reads('num_items'):
        raise ValueError(
            'A model with ID embeddings has no vector for an item that was absent in training; '
            'train with token-based items (--items recommended) or --items features'
        )
    folder = osp.expanduser(folder)
    expected = run.dataset.modalities
    if not osp.isdir(folder):
        raise ValueError(
            f"The folder of new items '{folder}' does not exist; expected one with features of "
            f'{", ".join(expected)} (<modality>_feat.npy)'
        )
    features, masks = new_features(run, folder)
    tokens = None
    if run.tokenizer is not None:
        graph = fitted_graph(run.dataset, run.data)
        tokens = encode_tokens(run.config, graph, run.tokenizer, features, masks)
    data = add_items(run.data, features, tokens, transforms=build_transforms(run.config))
    return data, new_item_ids(run, folder, len(features[expected[0]]))


def new_features(run: LoadedRun, folder: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    r"""Reads the features of new items, and masks for the modalities that some
    items lack. As in training, items that lack a modality get its mean.

    Args:
        run: The run.
        folder: The folder with the features of the new items.

    Raises:
        ValueError: If a file is missing or has a wrong shape.
    """
    expected = run.dataset.modalities
    given = [name for name in expected if name in feature_files(folder)]
    arrays, found = load_features(folder, modalities=given)
    masks = {name: torch.from_numpy(mask) for name, mask in found.items()}
    features = {name: torch.from_numpy(x.astype(np.float32)) for name, x in arrays.items()}
    sizes = {f'{name}_feat.npy': len(x) for name, x in features.items()}
    for name in expected:
        path = osp.join(folder, f'{name}_feat.npy')
        old = run.data[ITEM][f'x_{name}']
        if name not in features:
            mask = load_mask(osp.join(folder, f'{name}_mask.npy'))
            if mask is None or mask.any():
                raise ValueError(
                    f"'{path}' is missing; expected features of {', '.join(expected)}, or a file "
                    f"'{name}_mask.npy' with False for every item that lacks them"
                )
            sizes[f'{name}_mask.npy'] = len(mask)
            masks[name] = torch.from_numpy(mask)
            features[name] = old.new_zeros(len(mask), old.size(1), device='cpu')
        if features[name].size(1) != old.size(1) or len(features[name]) == 0:
            raise ValueError(
                f"'{path}': expected at least one row of {old.size(1)} columns as in training, got "
                f'{list(features[name].shape)}'
            )
        if name in masks:
            features[name][~masks[name]] = old.double().mean(0).float().cpu()
    file, size = next(iter(sizes.items()))
    for other, rows in sizes.items():
        if rows != size:
            raise ValueError(
                f"'{osp.join(folder, other)}': expected {size} rows as in '{file}', got {rows}"
            )
    return features, masks


def new_item_ids(run: LoadedRun, folder: str, num_items: int) -> np.ndarray:
    r"""Reads the raw ids of new items.

    Args:
        run: The run.
        folder: The folder with the features of the new items.
        num_items: Number of new items.

    Raises:
        ValueError: If the number of ids is wrong, an id occurs twice, or an id
            exists in the data of the run.
    """
    dataset, path = run.dataset, find_items(folder)
    old = dataset.item_ids[dataset.known_items.numpy()].astype(str)
    if path is None:
        out = np.array([f'new_{position}' for position in range(num_items)])
        locate: Callable[[int], str] = f"'{folder}', row {{}}".format
    else:
        header, name = read_header(path), run.config.data.get('item')
        given = {'item': name if name in header else None}
        name = find_columns(path, header, given, ['item'])['item']
        table = read_table(path, ids=(name,))
        if len(table) != num_items:
            raise ValueError(f"'{path}' has {len(table)} rows, but the features have {num_items}")
        check_distinct(table, name)
        ids, locate = table.ids[name], table.locate
        out = ids.values[ids.codes].astype(str)
    again = np.isin(out, old)
    if again.any():
        row = int(again.argmax())
        raise ValueError(
            f"{locate(row)}: the item '{clipped(out[row])}' is already in '{dataset.name}'; "
            f'expected ids of new items'
        )
    return out
