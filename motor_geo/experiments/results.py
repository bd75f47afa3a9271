r"""What came of an experiment, as its views need it: values over seeds, tests
per user, groups of items, and published numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.resources import files
from typing import Any

import numpy as np
import torch
import yaml

from motor_geo.data import RecommendationDataset
from motor_geo.engine.evaluator import slice_metrics
from motor_geo.experiments.queue import Outcome
from motor_geo.experiments.registry import Experiment
from motor_geo.experiments.user_values import compare, reference_of, user_means
from motor_geo.experiments.variants import Setup
from motor_geo.pipeline.assemble import build_dataset
from motor_geo.report.document import Value
from motor_geo.typing import RATES, EvalTargets

Label = tuple[str, ...]
METRICS = ('recall@10', 'recall@20', 'ndcg@10', 'ndcg@20')
MAIN = 'recall@20'
TESTED = (MAIN, 'ndcg@20')


class Scene:
    r"""What a view is made from.

    Args:
        experiment: The experiment.
        setup: What it was carried out on.
        outcomes: What came of its contenders.
    """

    def __init__(self, experiment: Experiment, setup: Setup, outcomes: Sequence[Outcome]):
        self.experiment, self.setup = experiment, setup
        self.outcomes = {outcome.contender.label: outcome for outcome in outcomes}
        self._datasets: dict[str, RecommendationDataset] = {}
        #: Tests per user of all contenders that are compared, by label and metric.
        self.tests = compare(user_values(experiment, outcomes), experiment.reference)

    def of(self, data: str) -> dict[Label, Outcome]:
        r"""Outcomes of a data set."""
        return {label: out for label, out in self.outcomes.items() if label[0] == data}

    def reference(self, label: Label) -> Label | None:
        r"""What a contender is compared with."""
        return reference_of(label, self.experiment.reference, self.outcomes)

    def value(self, label: Label, metric: str) -> Value:
        r"""A metric on the test set."""
        outcome = self.outcomes[label]
        test = self.tests.get((label, metric))
        return summary(
            outcome.values('test', metric),
            outcome,
            published=published(self, label, metric),
            p=None if test is None else test.corrected_wilcoxon,
        )

    def gain(self, label: Label, metric: str = MAIN) -> Value | str:
        r"""By how many per cent a contender is better than the reference."""
        other = self.reference(label)
        if other is None:
            return ''
        new, old = (self.outcomes[name].values('test', metric) for name in (label, other))
        if not new or not old:
            return Value(None)
        return Value(float(np.mean(new)) / float(np.mean(old)) - 1)

    def dataset(self, outcome: Outcome) -> RecommendationDataset:
        r"""The data that the runs of a contender were made from."""
        key = repr(sorted((k, v) for k, v in outcome.contender.options.items() if k[:4] == 'data'))
        if key not in self._datasets:
            self._datasets[key] = build_dataset(outcome.jobs[0].config)
        return self._datasets[key]

    def groups(
        self, outcome: Outcome, bounds: Sequence[int] | None = None
    ) -> list[dict[str, dict[str, float]]]:
        r"""Metrics of groups of items by training count, by seed."""
        if not outcome.jobs:
            return []
        edge_index = self.dataset(outcome).data[RATES].edge_index
        num_items = int(self.dataset(outcome).num_items)
        count = edge_index[1].bincount(minlength=num_items)
        out = []
        for entry in outcome.arrays():
            user, ptr, item, rank = (
                torch.from_numpy(entry[key]) for key in ('user', 'ptr', 'item', 'rank')
            )
            targets = EvalTargets(user, ptr, item)
            out.append(slice_metrics(rank, targets, count, (20,), bounds))
        return out


def user_values(
    experiment: Experiment, outcomes: Sequence[Outcome]
) -> dict[Label, dict[str, np.ndarray]]:
    r"""What is tested, by label: means over seeds of the metrics of users."""
    if experiment.reference is None:
        return {}
    return {out.contender.label: user_means(out.arrays(), TESTED) for out in outcomes}


def summary(values: Sequence[float], outcome: Outcome, **more: Any) -> Value:
    r"""Mean and sample standard deviation over seeds."""
    if not values:
        return Value(None, **more)
    std = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Value(float(np.mean(values)), std, runs=tuple(job.name for job in outcome.jobs), **more)


@lru_cache
def numbers() -> dict[str, Any]:
    r"""The file of published numbers."""
    return yaml.safe_load(files('motor_geo.experiments').joinpath('published.yaml').read_text())


def published(scene: Scene, label: Label, metric: str) -> float | None:
    r"""The printed number of a contender on data of the same name and size,
    or of a backbone with IDs on the very split.
    """
    data, *rest = label
    table = {'table4': 'table4', 'lirdrec-table3': 'table3', 'lirdrec-table4': 'table4'}
    paper = scene.experiment.paper
    if paper is not None and scene.experiment.view == 'comparison':
        entry = numbers()[paper].get(table.get(scene.experiment.name, 'table2'), {})
        for name, size in numbers()[paper]['table1']['datasets'].items():
            if name.lower() == data.lower() and (size['users'], size['items']) == (
                scene.setup.sizes.get(data)
            ):
                found = _look_up(entry, name, rest, metric)
                if found is not None:
                    return found
    if len(rest) > 1 and rest[1] == 'id':
        entry = numbers()['diffmm']['table1']
        for name in entry['results']:
            if name.lower() == data.lower():
                return _look_up(entry, name, rest[:1], metric)
    return None


def _look_up(table: Mapping[str, Any], data: str, keys: Sequence[str], metric: str) -> float | None:
    found = table.get('results', {}).get(data, {})
    for key in keys:
        if isinstance(found, dict) and key in found:  # Ablations are of one backbone.
            found = found[key]
    if not isinstance(found, list) or metric not in table['columns']:
        return None
    return float(found[table['columns'].index(metric)])


def spelled(metric: str) -> str:
    r"""A metric in words."""
    name, _, k = metric.partition('@')
    return f'{ {"recall": "Recall", "ndcg": "NDCG"}.get(name, name) }@{k}'


def of_group(groups: Sequence[Mapping[str, Any]], name: str, metric: str) -> list[float]:
    r"""A metric of a group of items, by seed."""
    return [entry[name][metric] for entry in groups if metric in entry.get(name, {})]
