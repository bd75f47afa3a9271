r"""The metrics of an experiment, which follow from :obj:`trainer.metric` and the
options of the evaluator.
"""

from __future__ import annotations

from typing import NamedTuple

from motor_geo.engine.metrics import GROUP_METRICS, LIST_METRICS
from motor_geo.experiments.options import Options, short
from motor_geo.experiments.search import override
from motor_geo.pipeline.config import resolve
from motor_geo.utils.errors import ConfigError

#: The cut-offs of tables, where both are evaluated.
CUTOFFS = (10, 20)
NAMES = ('recall', 'ndcg')


class Metrics(NamedTuple):
    r"""Metrics by name, such as :obj:`'recall@20'`.

    Args:
        main: The one that settings are chosen by, on validation.
        tested: Those that variants are compared by: the main one, and NDCG
            beside recall or recall beside all others.
        shown: The columns of tables.
        of_groups: Those of groups of items, which are recall and NDCG at the
            cut-off of the main one.
    """

    main: str
    tested: tuple[str, ...]
    shown: tuple[str, ...]
    of_groups: tuple[str, str]


def read_metrics(options: Options) -> Metrics:
    r"""The metrics of runs with these options, by dotted name.

    Raises:
        ConfigError: If :obj:`trainer.metric` is not evaluated.
    """
    own = {key: v for key, v in options.items() if key in ('trainer.metric', 'evaluator.ks')}
    own |= {key: v for key, v in options.items() if key == 'evaluator.metrics'}
    config = resolve(override({}, own))
    main, evaluator = config['trainer']['metric'], config['evaluator']
    names = [short(name) for name in evaluator['metrics']]
    ks = list(evaluator['ks'])
    known = [f'{name}@{k}' for name in (*names, *LIST_METRICS, *GROUP_METRICS) for k in ks]
    if main not in known:
        raise ConfigError(f"trainer.metric: expected one of {', '.join(known)}, got '{main}'")

    name, _, k = main.partition('@')
    other = f'{"ndcg" if name == "recall" else "recall"}@{k}'
    tested = (main, other) if other in known else (main,)
    cutoffs = CUTOFFS if set(CUTOFFS) <= set(ks) else ks
    common = [entry for entry in NAMES if entry in names] or names[:2]
    shown = dict.fromkeys([*(f'{entry}@{k}' for entry in common for k in cutoffs), *tested])
    groups = (f'ndcg@{k}', f'recall@{k}') if name == 'ndcg' else (f'recall@{k}', f'ndcg@{k}')
    return Metrics(main, tested, tuple(shown), groups)


def spelled(metric: str) -> str:
    r"""A metric in words."""
    name, _, k = metric.partition('@')
    return f'{ {"recall": "Recall", "ndcg": "NDCG"}.get(name, name) }@{k}'


def stem(metric: str) -> str:
    r"""A metric in the name of a file: without its cut-off."""
    return metric.partition('@')[0]
