r"""Reads the feature matrices in a folder, and which items have them."""

from __future__ import annotations

import os
import os.path as osp
import warnings
from collections.abc import Sequence

import numpy as np

from motor_geo.data.datasets.messages import listed
from motor_geo.utils.arrays import check_finite, load_array, load_npy, load_npz
from motor_geo.utils.saved import load

READ = ('.npy', '.npz', '.pt')
#: Extensions of files that contain arrays, or may contain them.
ARRAYS = (*READ, '.pth', '.pkl', '.pickle', '.mat', '.h5', '.hdf5', '.safetensors', '.memmap')


def load_features(
    folder: str, mmap: bool = False, modalities: Sequence[str] | None = None
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    r"""Reads the files :obj:`<modality>_feat.npy` and
    :obj:`<modality>_mask.npy` of a folder. Features may also be a :obj:`.npz`
    with one array or a :obj:`.pt` with one tensor. If all modalities are read,
    a warning names such files, as well as files that look like features but
    have other names.

    Args:
        folder: The folder.
        mmap: If set to :obj:`True`, keeps :obj:`.npy` files on disk.
        modalities: Names of the modalities. (default: all)

    Returns:
        The features **[N, d]** and the masks **[N]**, by modality.

    Raises:
        FileNotFoundError: If a modality is missing.
        ValueError: If a file is malformed, does not match the others, or
            contains NaN or infinite values in the row of an item that has the
            modality.
    """
    features, masks = {}, {}
    rows, first = None, ''
    files = feature_files(folder)
    for modality in files if modalities is None else sorted(set(modalities)):
        if modality not in files:
            raise FileNotFoundError(
                f"'{folder}' has no '{modality}_feat.npy'; found the modalities "
                f'{listed(list(files))}.'
            )
        if len(files[modality]) > 1:
            raise ValueError(
                f"'{folder}' holds {listed(files[modality])}; expected one file for the modality "
                f"'{modality}'."
            )
        file = files[modality][0]
        path = osp.join(folder, file)
        x = load_matrix(path, mmap)
        if rows is not None and len(x) != rows:
            raise ValueError(f"'{path}': expected {rows} rows as in '{first}', got {len(x)}.")
        rows, first = len(x), file
        mask = load_mask(osp.join(folder, f'{modality}_mask.npy'), rows)
        features[modality] = finite(path, x, mask)
        if mask is not None:
            masks[modality] = mask
    if modalities is None:
        _name_others(folder, files)
    return features, masks


def feature_files(folder: str) -> dict[str, list[str]]:
    r"""Returns the names of the feature files of each modality."""
    out: dict[str, list[str]] = {}
    for file in sorted(os.listdir(folder)):
        stem, ending = osp.splitext(file)
        modality = stem.removesuffix('_feat')
        if ending in READ and modality not in (stem, '') and not file.startswith('.'):
            out.setdefault(modality, []).append(file)
    return out


def load_matrix(path: str, mmap: bool = False) -> np.ndarray:
    r"""Reads a numeric matrix from a :obj:`.npy`, a :obj:`.npz` with one array
    or a :obj:`.pt` with one tensor. Does not check its values.

    Args:
        path: The file.
        mmap: If set to :obj:`True`, keeps a :obj:`.npy` file on disk.

    Returns:
        The matrix, **[N, d]**.

    Raises:
        FileNotFoundError: If the file is missing.
        ValueError: If the file contains anything else.
    """
    if path.endswith('.npy'):
        return load_array(path, mmap=mmap, finite=False)
    array: np.ndarray
    if path.endswith('.npz'):
        arrays = load_npz(path, 'an archive of arrays')
        if len(arrays) != 1:
            raise ValueError(f"'{path}': expected one array, found {listed(list(arrays))}")
        (array,) = arrays.values()
    else:
        import torch

        content = load(path, 'a tensor without pickled objects', old=True)
        if not isinstance(content, torch.Tensor) or content.layout != torch.strided:
            raise ValueError(
                f"'{path}': expected one dense tensor, found {type(content).__name__} (save only "
                f'the matrix, or save it as .npy)'
            )
        content = content.detach()
        array = (content.float() if content.dtype == torch.bfloat16 else content).numpy()
    if array.ndim != 2 or array.dtype.kind not in 'fiu' or array.shape[1] == 0:
        raise ValueError(
            f"'{path}': expected a numeric matrix [items, width], got {array.dtype} "
            f'{list(array.shape)}'
        )
    return array


def load_mask(path: str, rows: int | None = None) -> np.ndarray | None:
    r"""Reads which items have a modality.

    Args:
        path: The file.
        rows: Expected number of items, if known.

    Returns:
        The mask **[N]**, or :obj:`None` if the file does not exist.

    Raises:
        ValueError: If the file contains anything else.
    """
    if not osp.lexists(path):
        return None
    mask = load_npy(path, 'booleans')
    if mask.dtype != bool or mask.ndim != 1 or rows not in (None, len(mask)):
        number = '' if rows is None else f'{rows} '
        raise ValueError(
            f"'{path}': expected {number}booleans (one per item), got {mask.dtype} "
            f'{list(mask.shape)}.'
        )
    return mask


def finite(name: str, x: np.ndarray, mask: np.ndarray | None, block: int = 65_536) -> np.ndarray:
    r"""Returns the matrix itself if it is finite. Otherwise returns a copy with
    zeros in the rows of items that lack the modality.

    Args:
        name: Name of the matrix, for messages.
        x: The matrix, **[N, d]**.
        mask: Which items have the modality, **[N]**. (default: all)
        block: Number of rows to check at a time.

    Raises:
        ValueError: If another row contains NaN or infinite values.
    """
    if mask is not None and not mask.all():
        missing = np.flatnonzero(~mask)
        for start in range(0, len(missing), block):
            if not np.isfinite(x[missing[start : start + block]]).all():
                x = np.array(x)
                x[missing] = 0
                break
    try:
        check_finite(x, f"'{name}'")
    except ValueError as error:
        if mask is not None:
            raise
        stem = osp.basename(osp.splitext(name)[0]).removesuffix('_feat')
        raise ValueError(
            f"{error}, or a file '{stem}_mask.npy' that is False for items that lack '{stem}'"
        ) from None
    return x


def _name_others(folder: str, files: dict[str, list[str]]) -> None:
    r"""Warns about feature files that are not :obj:`.npy`, and about files that
    look like features but are not read.
    """
    read = {file for names in files.values() for file in names}
    masks = {f'{modality}_mask.npy' for modality in files}
    unusual = sorted(file for file in read if not file.endswith('.npy'))
    others = [
        file
        for file in sorted(os.listdir(folder))
        if file not in read | masks and not file.startswith('.') and _looks_like(folder, file)
    ]
    words = []
    if unusual:
        words.append(f'{listed(unusual)} {"is" if len(unusual) == 1 else "are"} read as features')
    if others:
        words.append(
            f'{listed(others)} {"looks" if len(others) == 1 else "look"} like features and '
            f'{"is" if len(others) == 1 else "are"} not read (expected <modality>_feat.npy, .npz '
            f'or .pt, and <modality>_mask.npy)'
        )
    if words:
        warnings.warn(f"'{folder}': {'; '.join(words)}.", stacklevel=4)


def _looks_like(folder: str, file: str) -> bool:
    stem, ending = osp.splitext(file.lower())
    if osp.isdir(osp.join(folder, file)):
        return stem.endswith(('_feat', '_feats', '_features', '_feature', '_emb', '_embeddings'))
    if ending in ARRAYS:
        return True
    return ending in ('.csv', '.tsv', '.parquet', '.txt', '.gz') and '_feat' in stem
