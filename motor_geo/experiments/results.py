r"""The results of an experiment for its views: values over seeds, tests per
user, groups of items, and published numbers.
"""

from __future__ import annotations

import json
import os.path as osp
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from importlib.resources import files
from typing import Any, NamedTuple

import numpy as np
import torch
import yaml

from motor_geo.data import RecommendationDataset
from motor_geo.engine.evaluator import slice_metrics
from motor_geo.experiments.metrics import read_metrics
from motor_geo.experiments.options import ExperimentOptions, Options, Variant
from motor_geo.experiments.queue import Job
from motor_geo.experiments.registry import Experiment
from motor_geo.experiments.user_values import compare, reference_of, user_means
from motor_geo.pipeline.assemble import build_dataset
from motor_geo.report.document import Value
from motor_geo.typing import RATES, EvalTargets
from motor_geo.utils.arrays import load_npz
from motor_geo.utils.errors import ConfigError
from motor_geo.utils.files import check_file

Label = tuple[str, ...]


class VariantResults(NamedTuple):
    r"""The results of a variant so far.

    Args:
        variant: The variant.
        setting: The setting chosen on validation. :obj:`None` if some settings
            have not been tried yet, or all of them have failed.
        validation: The settings tried so far, and their validation metrics.
        jobs: The finished runs of the chosen setting.
        results: The results of these runs.
    """

    variant: Variant
    setting: Options | None
    validation: list[tuple[Options, float]]
    jobs: list[Job]
    results: list[dict[str, Any]]

    def values(self, *path: str) -> list[float]:
        r"""Returns an entry of all results, *e.g.*, :obj:`('test', 'recall@20')`."""
        out = []
        for entry in self.results:
            value: Any = entry
            for key in path:
                value = value[key]
            out.append(float(value))
        return out

    def arrays(self) -> list[dict[str, np.ndarray]]:
        r"""Reads the metrics of users and the ranks of held-out items, by seed."""
        out = []
        for job in self.jobs:
            out.append(load_npz(osp.join(job.folder, 'per_user.npz'), 'the metrics of every user'))
        return out

    def epochs(self, metric: str) -> list[list[float]]:
        r"""Reads a validation metric after every epoch, by seed.

        Raises:
            ConfigError: If a file is damaged or lacks the metric.
        """
        out = []
        for job in self.jobs:
            path = osp.join(job.folder, 'metrics.jsonl')
            check_file(path, 'the metrics of every epoch')
            with open(path) as file:
                try:
                    out.append([float(json.loads(line)['val'][metric]) for line in file])
                except (ValueError, KeyError, TypeError, RecursionError) as error:
                    raise ConfigError(
                        f"'{path}' is damaged: expected '{metric}' for every epoch"
                    ) from error
        return out


class Results:
    r"""The input of a view.

    Args:
        experiment: The experiment.
        options: The options of the experiment.
        results: The results of its variants.
    """

    def __init__(
        self,
        experiment: Experiment,
        options: ExperimentOptions,
        results: Sequence[VariantResults],
    ):
        self.experiment, self.options = experiment, options
        self.metrics = read_metrics(options.options)
        self.variants = {entry.variant.label: entry for entry in results}
        self._datasets: dict[str, RecommendationDataset] = {}
        #: The metrics of every user that are tested, averaged over seeds, by label.
        self.user_values: dict[Label, dict[str, np.ndarray]] = {}
        if experiment.reference is not None:
            tested = self.metrics.tested
            self.user_values = {
                label: user_means(own.arrays(), tested) for label, own in self.variants.items()
            }
        #: Tests per user of all variants that are compared, by label and metric.
        self.tests = compare(self.user_values, experiment.reference)

    def of(self, data: str) -> dict[Label, VariantResults]:
        r"""Results on a data set."""
        return {label: out for label, out in self.variants.items() if label[0] == data}

    def reference(self, label: Label) -> Label | None:
        r"""What a variant is compared with."""
        return reference_of(label, self.experiment.reference, self.variants)

    def value(self, label: Label, metric: str) -> Value:
        r"""Returns a test metric of a variant."""
        own = self.variants[label]
        test = self.tests.get((label, metric))
        return summary(
            own.values('test', metric),
            own,
            published=published(self, label, metric),
            p=None if test is None else test.corrected_wilcoxon,
        )

    def gain(self, label: Label) -> Value | str:
        r"""Returns the relative gain of a variant over its reference."""
        other = self.reference(label)
        if other is None:
            return ''
        path = 'test', self.metrics.main
        new, old = (self.variants[name].values(*path) for name in (label, other))
        if not new or not old or np.mean(old) == 0:
            return Value(None)
        return Value(float(np.mean(new)) / float(np.mean(old)) - 1)

    def dataset(self, own: VariantResults) -> RecommendationDataset:
        r"""Returns the data set of the runs of a variant."""
        key = repr(sorted((k, v) for k, v in own.variant.options.items() if k[:4] == 'data'))
        if key not in self._datasets:
            self._datasets[key] = build_dataset(own.jobs[0].config)
        return self._datasets[key]

    def groups(
        self, own: VariantResults, bounds: Sequence[int] | None = None
    ) -> list[dict[str, dict[str, float]]]:
        r"""Computes metrics of groups of items by their number of training
        interactions, for each seed.
        """
        if not own.jobs:
            return []
        dataset, k = self.dataset(own), int(self.metrics.of_groups[0].partition('@')[2])
        count = dataset.data[RATES].edge_index[1].bincount(minlength=int(dataset.num_items))
        out = []
        for entry in own.arrays():
            user, ptr, item, rank = (
                torch.from_numpy(entry[key]) for key in ('user', 'ptr', 'item', 'rank')
            )
            out.append(slice_metrics(rank, EvalTargets(user, ptr, item), count, (k,), bounds))
        return out


def summary(values: Sequence[float], own: VariantResults, **more: Any) -> Value:
    r"""Returns the mean and the sample standard deviation over seeds."""
    if not values:
        return Value(None, **more)
    std = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Value(float(np.mean(values)), std, runs=tuple(job.name for job in own.jobs), **more)


@lru_cache
def numbers() -> dict[str, Any]:
    r"""Reads the file of published numbers."""
    return yaml.safe_load(files('motor_geo.experiments').joinpath('published.yaml').read_text())


def published(results: Results, label: Label, metric: str) -> float | None:
    r"""Returns the published number of a variant on data of the same name and
    size, or of a backbone with IDs on the splits released with DiffMM.
    """
    data, *rest = label
    table = {'table4': 'table4', 'lirdrec-table3': 'table3', 'lirdrec-table4': 'table4'}
    paper = results.experiment.paper
    if paper is not None and results.experiment.view == 'comparison':
        entry = numbers()[paper].get(table.get(results.experiment.name, 'table2'), {})
        for name, size in numbers()[paper]['table1']['datasets'].items():
            if name.lower() == data.lower() and (size['users'], size['items']) == (
                results.options.sizes.get(data)
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
        if isinstance(found, dict) and key in found:  # Ablations do not name the backbone.
            found = found[key]
    if not isinstance(found, list) or metric not in table['columns']:
        return None
    return float(found[table['columns'].index(metric)])


def of_group(groups: Sequence[Mapping[str, Any]], name: str, metric: str) -> list[float]:
    r"""Returns a metric of a group of items, by seed."""
    return [entry[name][metric] for entry in groups if metric in entry.get(name, {})]


def rows(results: Sequence[VariantResults], metric: str) -> Iterator[dict[str, Any]]:
    r"""Yields the measurements, one row per run of a chosen setting. The first
    row of a variant also has the validation metrics of all settings.
    """
    keys = ('seed', 'epochs', 'best_epoch', 'seconds', 'num_parameters', 'test', 'slices')
    for own in results:
        validation: dict[str, Any] = {'tried': own.validation}
        for job, result in zip(own.jobs, own.results):
            yield {
                'run': job.name,
                'label': own.variant.label,
                **validation,
                'command': job.command,
                'val': result['val'][metric],
                **{key: result[key] for key in keys},
            }
            validation = {}  # Once per variant.
