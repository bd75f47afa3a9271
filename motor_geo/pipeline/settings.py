r"""The settings to try for a model on validation. They are the entry
:obj:`reproduce` of :obj:`configs/sweep/NAME.yaml`: either lists of values, all
combinations of which are tried, or a list of settings. PyTorch is imported on
demand.
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
    r"""Returns all combinations of options."""
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
    r"""Returns the settings to try for a model class. For a class without a
    file, or from another package, these are just the defaults.
    """
    from motor_geo.nn.models import FITTED, MODELS

    name = target.__name__
    known: dict[str, type] = {**MODELS, **FITTED}
    return list(_read(name)) if known.get(name) is target else [{}]


def settings_of_loss(name: str) -> list[Options]:
    r"""Returns the settings to try for a loss with any backbone. The loss
    :obj:`"whole"` uses those of :class:`~motor_geo.nn.models.TokenALS`, which
    has the same objective. Other losses have none.
    """
    if name != 'whole':
        return [{}]
    settings = _read('TokenALS')
    return [
        {key.replace('model.', 'loss.'): setting[key] for key in setting} for setting in settings
    ]
