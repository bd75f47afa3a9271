r"""Reads the results of finished runs for comparisons."""

from __future__ import annotations

import os.path as osp
from typing import Any, NamedTuple

import numpy as np

from motor_geo.pipeline.flags import Config, flatten, read_yaml
from motor_geo.utils.arrays import load_npz
from motor_geo.utils.errors import ConfigError
from motor_geo.utils.files import read_json


class FinishedRun(NamedTuple):
    r"""A finished run.

    Args:
        folder: The run folder.
        result: The content of :obj:`result.json`.
        options: The options by dotted name. Empty without a
            :obj:`config.yaml`.
        values: The content of :obj:`per_user.npz`. Empty if the file does not
            exist.
    """

    folder: str
    result: dict[str, Any]
    options: Config
    values: dict[str, np.ndarray]


def read_result(folder: str) -> dict[str, Any] | None:
    r"""Reads the result of a run, or returns :obj:`None` if it is not finished.

    Raises:
        ConfigError: If the file is damaged.
    """
    path = osp.join(folder, 'result.json')
    if not osp.lexists(path):
        return None
    try:
        result = read_json(path)
        result['val'], result['test'], result['seconds']
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"'{path}' is damaged: expected the result of a run; delete it to evaluate again"
        ) from error
    return result


def read_finished(folder: str) -> FinishedRun:
    r"""Reads the folder of a finished run.

    Raises:
        ConfigError: If the folder holds no finished run, or a file is damaged.
    """
    result = read_result(folder)
    if result is None:
        raise ConfigError(f"'{folder}' does not hold a finished run: it has no result.json")
    values: dict[str, np.ndarray] = {}
    path = osp.join(folder, 'per_user.npz')
    try:
        if osp.exists(path):
            values = load_npz(path, 'the metrics of every user')
            values['user'], values['ptr'], values['item']
        result['hashes']['data'], result['data'], result['seed'], result['model']
    except Exception as error:
        raise ConfigError(f"'{folder}' is damaged: expected the results of a run") from error
    path = osp.join(folder, 'config.yaml')
    options = flatten(read_yaml(path)) if osp.exists(path) else {}
    return FinishedRun(folder, result, options, values)


def check_same(first: FinishedRun, other: FinishedRun) -> None:
    r"""Checks that two runs can be compared.

    Raises:
        ConfigError: If the runs differ in their data or evaluation protocol.
    """
    if first.result['hashes']['data'] != other.result['hashes']['data']:
        raise ConfigError(
            f"'{other.folder}' was trained on other data than '{first.folder}' "
            f'({other.result["data"]} and {first.result["data"]}); expected runs on the same data'
        )
    masks = [run.options.get('mask_validation') for run in (first, other) if run.options]
    empty = np.empty(0)
    same = all(
        np.array_equal(first.values.get(key, empty), other.values.get(key, empty))
        for key in ('user', 'ptr', 'item')
    )
    if len(set(masks)) > 1 or not same:
        raise ConfigError(
            f"'{other.folder}' and '{first.folder}' were evaluated differently "
            f'({"mask_validation" if same else "other held-out items"}); expected the same protocol'
        )
