r"""Datasets in the common layout: a table of interactions, and a matrix of
features for each modality.
"""

from __future__ import annotations

import os
import os.path as osp
import warnings
from collections.abc import Callable, Sequence

import numpy as np

from motor_geo.data.datasets.base import RecommendationDataset, unique_pairs
from motor_geo.data.datasets.columns import Ids, Table
from motor_geo.data.datasets.reader import read_table
from motor_geo.data.datasets.split import SPLITS, cold_items, split_interactions
from motor_geo.data.datasets.subsample import drop_modalities, thin_training
from motor_geo.utils.files import load_array

USER_ID, ITEM_ID, LABEL, TIME = 'userID', 'itemID', 'x_label', 'timestamp'
MAX_MISSING = 1e-3  # Released files lack a few ids, whose indices must stay what they are.


class TableDataset(RecommendationDataset):
    r"""A folder with interactions and features of items.

    ============================ ==============================================
    :obj:`NAME.inter`            columns :obj:`userID`, :obj:`itemID`,
                                 optionally :obj:`x_label` (0 training, 1
                                 validation, 2 test) and :obj:`timestamp`;
                                 tab- or comma-separated, with a header
    :obj:`<modality>_feat.npy`   a feature matrix, one row per item
    :obj:`<modality>_mask.npy`   optional booleans: items that have the
                                 modality; the others get its mean row
    :obj:`items.tsv`             optional: a column :obj:`itemID`, the raw id
                                 of each row of the feature matrices
    ============================ ==============================================

    The interactions may also be a :obj:`.csv`, :obj:`.tsv` or
    :obj:`.parquet` file (which needs :obj:`pyarrow`); further columns are
    ignored.

    Integer item ids are rows of the feature matrices, and the number of items
    is the number of these rows; text ids, or others, are related to rows by
    :obj:`items.tsv`. Without features and :obj:`items.tsv`, integer ids run
    from 0 without gaps, and text ids are numbered in sorted order. The same
    holds for users. If at most one id in a thousand is missing, its index
    stays, without interactions and with a warning.

    Args:
        path: The folder, or the file of interactions inside it.
        split: :obj:`'column'` takes the splits from :obj:`x_label`, and a key
            of :obj:`motor_geo.data.datasets.split.SPLITS` makes them anew.
            By default the former if there is a column :obj:`x_label`,
            otherwise :obj:`'random'`.
        seed: Seed of the split.
        mmap: If set to :obj:`True`, float32 features without missing rows
            stay on disk.
        reindex: If set to :obj:`True`, integer ids with gaps are renumbered
            (of items only where they are not rows of features).
        modalities: Names of the modalities to read. (default: all)
        train_share: Share of the training interactions that is kept, drawn at
            random. Users who lose all of theirs are not evaluated.
        missing_share: Share of the items that lose one of their modalities,
            drawn at random, and get its mean row.

    Raises:
        FileNotFoundError: If the folder, the interactions or a modality are
            missing.
        ValueError: If a file is malformed or does not fit the others; the
            message names the file, the line and what was expected.
    """

    def __init__(
        self,
        path: str,
        split: str | None = None,
        seed: int = 0,
        mmap: bool = False,
        reindex: bool = False,
        modalities: list[str] | None = None,
        train_share: float = 1.0,
        missing_share: float = 0.0,
    ) -> None:
        if not 0 < train_share <= 1:
            raise ValueError(f"'train_share' must be above 0 and at most 1, got {train_share}.")
        if not 0 <= missing_share <= 1:
            raise ValueError(f"'missing_share' must be from 0 to 1, got {missing_share}.")
        if split not in (None, 'column', *SPLITS):
            raise ValueError(f"Unknown split '{split}'; expected 'column' or {sorted(SPLITS)}.")
        path = find_interactions(path)
        folder = osp.dirname(path)
        name = osp.basename(folder)

        table = read_table(
            path,
            [USER_ID, ITEM_ID],
            integers=[LABEL] if split in (None, 'column') else [],
            numbers=[TIME] if split in ('temporal', 'leave_one_out') else [],
            optional={None: [LABEL], 'leave_one_out': [TIME]}.get(split, []),
        )
        label = table.numbers.get(LABEL)
        if label is not None and ((label < 0) | (label > 2)).any():
            row = int(((label < 0) | (label > 2)).argmax())
            raise ValueError(
                f"{table.locate(row)}: expected 0 (train), 1 (val) or 2 (test) in column '{LABEL}',"
                f' got {label[row]}.'
            )

        features, masks = load_features(folder, mmap, modalities)
        user_ids, user = _index(table, USER_ID, reindex)
        catalogue = _find_catalogue(folder)
        if catalogue is not None:
            item_ids, item = _index_by_catalogue(table, catalogue)
        elif features:
            item_ids, item = _index_by_row(table, features, folder)
        else:
            item_ids, item = _index(table, ITEM_ID, reindex)
        for modality, x in features.items():
            if len(x) != len(item_ids):
                raise ValueError(
                    f"'{osp.join(folder, modality)}_feat.npy': expected {len(item_ids)} rows (one "
                    f"per row of '{catalogue}'), got {len(x)}."
                )

        locate: Callable[[int], str] = table.locate
        candidates = None
        if label is None:
            time = table.numbers.get(TIME)
            keep = np.sort(unique_pairs(user, item, time))
            if len(keep) < len(user):
                repeated = np.setdiff1d(np.arange(len(user)), keep, assume_unique=True)
                warnings.warn(
                    f"'{name}': removed {len(repeated)} duplicate interactions before the split, "
                    f'among them {locate(int(repeated[0]))}.',
                    stacklevel=2,
                )
            user, item, time = user[keep], item[keep], None if time is None else time[keep]
            label = split_interactions(user, item, split or 'random', seed, time)
            if split == 'cold_item':
                candidates = dict(zip(('val', 'test'), cold_items(item, seed)))
        label = np.asarray(label, np.int8)
        if train_share < 1:
            keep = np.flatnonzero(thin_training(user, item, label, train_share, seed))
            user, item, label = user[keep], item[keep], label[keep]
            locate = _through(locate, keep)
        if missing_share > 0 and features:
            masks = drop_modalities(list(features), len(item_ids), missing_share, seed, masks)
        self._build(
            name,
            user,
            item,
            label,
            features,
            user_ids,
            item_ids,
            candidates,
            masks,
            locate,
        )


def _through(locate: Callable[[int], str], rows: np.ndarray) -> Callable[[int], str]:
    return lambda row: locate(int(rows[row]))


def find_interactions(path: str) -> str:
    r"""The file of interactions in a folder: :obj:`NAME.inter` of the folder's
    name, or the only :obj:`.inter`, or else :obj:`.csv`, :obj:`.tsv` or
    :obj:`.parquet` file.
    """
    path = osp.abspath(osp.expanduser(path))
    if osp.isfile(path):
        return path
    if not osp.isdir(path):
        raise FileNotFoundError(f"'{path}' does not exist; expected a folder with NAME.inter.")
    names = [name for name in sorted(os.listdir(path)) if not name.startswith(('.', 'items.'))]
    for extensions in (('.inter',), ('.csv', '.tsv', '.parquet')):
        found = [name for name in names if name.endswith(extensions)]
        own = [name for name in found if osp.splitext(name)[0] == osp.basename(path)]
        if len(own) == 1 or len(found) == 1:
            return osp.join(path, (own if len(own) == 1 else found)[0])
        if found:
            raise ValueError(
                f"'{path}' holds several files of interactions, {found}; expected one, or one "
                f"called '{osp.basename(path)}{extensions[0]}'."
            )
    raise FileNotFoundError(
        f"'{path}' holds no interactions; expected '{osp.basename(path)}.inter' (or one .csv, .tsv "
        f'or .parquet file), found {names}.'
    )


def load_features(
    folder: str, mmap: bool = False, modalities: Sequence[str] | None = None
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    r"""All (or some) :obj:`<modality>_feat.npy` and :obj:`<modality>_mask.npy`
    of a folder, keyed by modality.
    """
    features, masks = {}, {}
    rows, first = None, ''
    found = [
        file.removesuffix('_feat.npy')
        for file in sorted(os.listdir(folder))
        if file.endswith('_feat.npy') and file != '_feat.npy' and not file.startswith('.')
    ]
    for modality in found if modalities is None else sorted(set(modalities)):
        if modality not in found:
            raise FileNotFoundError(
                f"'{folder}' holds no '{modality}_feat.npy'; it has the modalities {found}."
            )
        file = f'{modality}_feat.npy'
        path = osp.join(folder, file)
        features[modality] = x = load_array(path, mmap=mmap)
        if rows is not None and len(x) != rows:
            raise ValueError(f"'{path}': expected {rows} rows as in '{first}', got {len(x)}.")
        rows, first = len(x), file
        mask_path = osp.join(folder, f'{modality}_mask.npy')
        if osp.exists(mask_path):
            try:
                mask = np.load(mask_path, allow_pickle=False)
            except (ValueError, EOFError, OSError) as error:
                raise ValueError(f"'{mask_path}' cannot be read as booleans: {error}") from error
            if mask.dtype != bool or mask.shape != (rows,):
                raise ValueError(
                    f"'{mask_path}': expected {rows} booleans (one per item), got {mask.dtype} "
                    f'{list(mask.shape)}.'
                )
            masks[modality] = mask
    return features, masks


def _index(table: Table, column: str, reindex: bool) -> tuple[np.ndarray, np.ndarray]:
    r"""Raw ids and indices of ids that no other file refers to."""
    values, codes = table.ids[column]
    if reindex or values.dtype.kind != 'i':
        return values, codes
    size = int(values[-1]) + 1
    missing = size - len(values)
    if values[0] < 0 or missing > MAX_MISSING * size:
        code = int((values != np.arange(len(values))).argmax())
        problem = '' if values[code] < 0 else f', but no row has the id {code}'
        place = table.locate(int((codes == code).argmax()))
        raise ValueError(
            f"{place}: '{column}' is {values[code]}{problem}; "
            f'expected ids from 0 without gaps (reindex=True renumbers them).'
        )
    if missing:
        warnings.warn(
            f"'{table.path}': {missing} of the ids '{column}' from 0 to {size - 1} have no row; "
            f'they are kept without interactions (reindex=True renumbers the others).',
            stacklevel=3,
        )
    return np.arange(size), values[codes]


def _index_by_row(
    table: Table, features: dict[str, np.ndarray], folder: str
) -> tuple[np.ndarray, np.ndarray]:
    r"""Item ids that are rows of the feature matrices."""
    values, codes = table.ids[ITEM_ID]
    modality, x = next(iter(features.items()))
    path, rows = f"'{osp.join(folder, modality)}_feat.npy'", len(x)
    if values.dtype.kind != 'i':
        text = np.array([not _is_integer(value) for value in values])
        row = int(text[codes].argmax())
        raise ValueError(
            f"{table.locate(row)}: '{ITEM_ID}' is the text '{values[codes[row]]}', so that its row "
            f"in {path} is unknown; expected integers from 0, or a file 'items.tsv' in the same "
            f"folder with a column '{ITEM_ID}' that holds the id of each feature row in order."
        )
    outside = (values < 0) | (values >= rows)
    if outside.any():
        row = int(outside[codes].argmax())
        raise ValueError(
            f"{table.locate(row)}: '{ITEM_ID}' is {values[codes[row]]}, but {path} has rows for "
            f'items 0 to {rows - 1} only.'
        )
    return np.arange(rows), values[codes]


def _is_integer(text: str) -> bool:
    return text.removeprefix('-').isdecimal() and text == str(int(text)) and len(text) <= 18


def _find_catalogue(folder: str) -> str | None:
    found = [osp.join(folder, f'items.{kind}') for kind in ('tsv', 'csv', 'parquet')]
    found = [path for path in found if osp.isfile(path)]
    if len(found) > 1:
        raise ValueError(f"'{folder}': expected one file of items, found {found}.")
    return found[0] if found else None


def _index_by_catalogue(table: Table, path: str) -> tuple[np.ndarray, np.ndarray]:
    r"""Item ids that are looked up in the file of items."""
    items = read_table(path, [ITEM_ID])
    known: Ids = items.ids[ITEM_ID]
    if len(known.values) < len(known.codes):
        first = np.unique(known.codes, return_index=True)[1]
        row = int(np.setdiff1d(np.arange(len(known.codes)), first, assume_unique=True)[0])
        raise ValueError(
            f"{items.locate(row)}: expected each '{ITEM_ID}' once, got "
            f"'{known.values[known.codes[row]]}' again."
        )
    values, codes = table.ids[ITEM_ID]
    names, item_ids = known.values, known.values[known.codes]
    if names.dtype.kind != values.dtype.kind:
        names, values = names.astype(str), values.astype(str)
    row_of = np.argsort(item_ids.astype(names.dtype))  # Row of each sorted name.
    names = np.sort(names)
    place = np.minimum(np.searchsorted(names, values), len(names) - 1)
    unknown = names[place] != values
    if unknown.any():
        row = int(unknown[codes].argmax())
        raise ValueError(
            f"{table.locate(row)}: '{ITEM_ID}' is '{values[codes[row]]}', which is not among the "
            f"{len(item_ids)} items of '{path}'."
        )
    return item_ids, row_of[place][codes]
