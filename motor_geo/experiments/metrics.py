r"""The metrics of an experiment. They follow from :obj:`trainer.metric` and the
options of the evaluator.
"""

from __future__ import annotations

from typing import NamedTuple

from motor_geo.engine.metrics import GROUP_METRICS, LIST_METRICS
from motor_geo.experiments.options import Options, short
from motor_geo.experiments.search import override
from motor_geo.pipeline.config import resolve
from motor_geo.utils.errors import ConfigError

#: The cut-offs to show in tables, if both are evaluated.
CUTOFFS = (10, 20)
NAMES = ('recall', 'ndcg')


class Metrics(NamedTuple):
    r"""Metrics by name, such as :obj:`'recall@20'`.

    Args:
        main: The metric that chooses settings on validation.
        tested: The metrics of the tests between variants: the main metric, and
            either NDCG (if the main metric is recall) or recall.
        shown: The metrics in the columns of tables.
        of_groups: The metrics of groups of items: recall and NDCG at the
            cut-off of the main metric.
    """

    main: str
    tested: tuple[str, ...]
    shown: tuple[str, ...]
    of_groups: tuple[str, str]


def read_metrics(options: Options) -> Metrics:
    r"""Returns the metrics of runs with the given options.

    Args:
        options: The options, by dotted name.

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
    r"""Formats the name of a metric."""
    name, _, k = metric.partition('@')
    return f'{ {"recall": "Recall", "ndcg": "NDCG"}.get(name, name) }@{k}'


def stem(metric: str) -> str:
    r"""Returns the name of a metric without its cut-off, for file names."""
    return metric.partition('@')[0]
