r"""The values behind the p-values of a report: metrics of every user, averaged
over seeds and stored in half precision next to the report.

The tests use the same rounded values, so each p-value can be recomputed exactly
from the file.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from motor_geo.experiments.significance import Paired, paired_tests
from motor_geo.utils.arrays import load_npz
from motor_geo.utils.files import atomic_write

Label = tuple[str, ...]


def reference_of(
    label: Label, reference: tuple[int, str] | None, labels: Collection[Label]
) -> Label | None:
    r"""Returns the label of the reference of a method, or :obj:`None`.

    Args:
        label: Label of the method.
        reference: Index of the part of the label in which they differ, and
            the value of this part for the reference.
        labels: All labels.
    """
    if reference is None:
        return None
    index, value = reference
    other = (*label[:index], value, *label[index + 1 :])
    return other if other != label and other in labels else None


def user_means(
    runs: Sequence[Mapping[str, np.ndarray]], metrics: Sequence[str]
) -> dict[str, np.ndarray]:
    r"""Averages the metrics of each user over seeds, in half precision. The
    entry :obj:`user` holds the users.

    Args:
        runs: The content of :obj:`per_user.npz`, by seed.
        metrics: The metrics.
    """
    if not runs:
        return {}
    out = {'user': runs[0]['user']}
    for metric in metrics:
        if metric not in runs[0]:  # Some metrics, such as coverage, have no values per user.
            continue
        values = np.stack([run[metric] for run in runs]).astype(np.float64)
        out[metric] = values.mean(axis=0).astype(np.float16)
    return out


def compare(
    values: Mapping[Label, Mapping[str, np.ndarray]], reference: tuple[int, str] | None
) -> dict[tuple[Label, str], Paired]:
    r"""Tests all methods against their references on the same users, and
    corrects the p-values together. Returns the tests by label and metric.

    Args:
        values: The values of :func:`user_means`, by label.
        reference: See :obj:`reference_of`.
    """
    pairs: dict[tuple[Label, str], tuple[np.ndarray, np.ndarray]] = {}
    for label, own in values.items():
        other = reference_of(label, reference, values)
        base = {} if other is None else values[other]
        if own and base and np.array_equal(own['user'], base['user']):
            pairs |= {(label, key): (own[key], base[key]) for key in own if key != 'user'}
    return paired_tests(pairs)


def save_user_values(
    path: str,
    values: Mapping[Label, Mapping[str, np.ndarray]],
    reference: tuple[int, str] | None,
) -> bool:
    r"""Writes the input of :func:`compare` as a compressed :obj:`.npz`. Methods
    with the same users share their ids.

    Args:
        path: The file.
        values: The values of :func:`user_means`, by label.
        reference: See :obj:`reference_of`.

    Returns:
        Whether there is any method to compare. If not, no file is written.
    """
    values = {label: own for label, own in values.items() if own}
    pairs = [(label, reference_of(label, reference, values)) for label in values]
    compared = {name for label, other in pairs if other is not None for name in (label, other)}
    used = [label for label in values if label in compared]
    if not used:
        return False
    arrays: dict[str, np.ndarray] = {}
    users: list[np.ndarray] = []
    methods = []
    for i, label in enumerate(used):
        own = values[label]
        known = [j for j, user in enumerate(users) if np.array_equal(user, own['user'])]
        if not known:
            users.append(own['user'])
        position = known[0] if known else len(users) - 1
        metrics = [key for key in own if key != 'user']
        methods.append({'label': label, 'user': position, 'metrics': metrics})
        arrays |= {f'{i}-{key}': own[key].astype(np.float16) for key in metrics}
    arrays |= {f'user-{j}': user.astype(np.int32) for j, user in enumerate(users)}
    head = json.dumps({'reference': reference, 'methods': methods})
    with atomic_write(path) as temporary:
        np.savez_compressed(temporary, head=np.array(head), **arrays)  # type: ignore[arg-type]
    return True


def load_user_values(
    path: str,
) -> tuple[dict[Label, dict[str, np.ndarray]], tuple[int, str]]:
    r"""Reads the values and the reference that :func:`save_user_values` wrote.

    Raises:
        ValueError: If the file is damaged. The message names the file.
    """
    try:
        file = load_npz(path)
        head: dict[str, Any] = json.loads(str(file['head']))
        values = {
            tuple(method['label']): {
                'user': file[f'user-{method["user"]}'],
                **{key: file[f'{i}-{key}'] for key in method['metrics']},
            }
            for i, method in enumerate(head['methods'])
        }
        index, value = head['reference']
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"'{path}': expected the user values of a report") from error
    return values, (index, value)


def recompute(path: str) -> dict[tuple[Label, str], Paired]:
    r"""Recomputes the tests of a report from the file of its user values."""
    return compare(*load_user_values(path))
