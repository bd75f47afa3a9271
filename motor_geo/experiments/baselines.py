r"""Models without an item encoder, which stand beside backbones."""

from __future__ import annotations

from typing import Any

from motor_geo.engine import Fitter
from motor_geo.nn.models import FITTED
from motor_geo.pipeline.config import arguments_of, takes_items

#: The baselines by name.
BASELINES = {name: model for name, model in FITTED.items() if not takes_items(model)}
#: Sections of options that play no part without tokens and item graphs.
UNREAD = ('items', 'tokenizer', 'svd', 'graph', 'behavior')


def applicable(options: dict[str, Any]) -> dict[str, Any]:
    r"""Options of all runs without those that a baseline does not have, by
    dotted name.
    """
    known = {'model': arguments_of(BASELINES[options['model']]), 'trainer': arguments_of(Fitter)}
    out = {}
    for key, value in options.items():
        section, _, name = key.partition('.')
        if section not in UNREAD and (not name or name in known.get(section, [name])):
            out[key] = value
    return out
