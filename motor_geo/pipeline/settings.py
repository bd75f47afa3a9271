r"""The settings that are tried for a model on validation: :obj:`reproduce` in
:obj:`configs/sweep/NAME.yaml`, as values of options, of which all
combinations are tried, or as a list of settings. PyTorch is imported when it is needed.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import yaml

from motor_geo.pipeline.flags import find_config
from motor_geo.utils.errors import ConfigError

#: Options of runs by dotted name.
Options = dict[str, Any]


def product(choices: Mapping[str, Sequence[Any]]) -> list[Options]:
    r"""All combinations of options."""
    return [dict(zip(choices, values)) for values in itertools.product(*choices.values())]


@lru_cache
def _read(name: str) -> list[Options]:
    try:
        path = find_config(f'sweep/{name}', first='sweep')
    except ConfigError:
        return [{}]
    with open(path, encoding='utf-8') as file:
        found = yaml.safe_load(file).get('reproduce', {})
    return product(found) if isinstance(found, dict) else found


def settings_of(target: type) -> list[Options]:
    r"""The settings that are tried for a class of model. A class without a
    file of its own, or of another package, has its defaults alone.
    """
    from motor_geo.nn.models import FITTED, MODELS

    name = target.__name__
    known: dict[str, type] = {**MODELS, **FITTED}
    return list(_read(name)) if known.get(name) is target else [{}]


def settings_of_loss(name: str) -> list[Options]:
    r"""The settings that are tried for a loss, whatever the backbone:
    :obj:`"whole"` has those of
    :class:`~motor_geo.nn.models.TokenALS`, whose objective is the same; no
    other loss has any.
    """
    if name != 'whole':
        return [{}]
    settings = _read('TokenALS')
    return [
        {key.replace('model.', 'loss.'): setting[key] for key in setting} for setting in settings
    ]
