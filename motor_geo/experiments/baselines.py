r"""Baselines: models without an item encoder."""

from __future__ import annotations

from typing import Any

from motor_geo.engine import Fitter
from motor_geo.nn.models import FITTED
from motor_geo.pipeline.config import arguments_of, takes_items

#: The baselines by name. They have no choice of items.
BASELINES = {name: model for name, model in FITTED.items() if not takes_items(model)}
#: Sections of options without effect on models without tokens and item graphs.
UNREAD = ('items', 'tokenizer', 'svd', 'graph', 'behavior')


def applicable(options: dict[str, Any]) -> dict[str, Any]:
    r"""Removes the options that a model without gradient steps does not have.

    Args:
        options: Options by dotted name, including :obj:`model`.
    """
    target = FITTED[options['model']]
    known = {'model': arguments_of(target), 'trainer': arguments_of(Fitter)}
    unread = () if takes_items(target) else UNREAD
    out = {}
    for key, value in options.items():
        section, _, name = key.partition('.')
        if section not in unread and (not name or name in known.get(section, [name])):
            out[key] = value
    return out
