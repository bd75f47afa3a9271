r"""What an experiment runs on: data sets, backbones and the settings that are tried
for each of them on validation. PyTorch is imported when it is needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from motor_geo.pipeline import settings as pipeline_settings
from motor_geo.pipeline.settings import Options

if TYPE_CHECKING:
    from motor_geo.nn.models import FittedRecommender, Recommender

#: What runs have in common unless the call says otherwise.
BASE: Options = {'tokenizer.center': True, 'tokenizer.normalize': True}


def in_words(setting: Mapping[str, Any]) -> str:
    r"""A setting in words."""
    return ', '.join(f'{key.split(".")[-1]} {value}' for key, value in setting.items())


def backbone(name: str) -> Any:
    r"""The class of a backbone.

    Raises:
        ConfigError: If there is none of this name.
    """
    from motor_geo.pipeline.config import find_class

    return find_class('model', name)


def all_backbones() -> dict[str, type[Recommender]]:
    r"""The backbones of the package by name."""
    from motor_geo.nn.models import MODELS

    return MODELS


def all_fitted() -> dict[str, type[FittedRecommender]]:
    r"""The models that are fitted without gradient steps by name."""
    from motor_geo.nn.models import FITTED

    return FITTED


def all_baselines() -> dict[str, type[FittedRecommender]]:
    r"""The baselines by name."""
    from motor_geo.experiments.baselines import BASELINES

    return BASELINES


def short(name: str) -> str:
    r"""The name of a backbone in tables, without that of its module."""
    return name.rpartition('.')[2]


def settings_of(model: str) -> list[Options]:
    r"""The settings that are tried for a backbone, whatever its items, or for a
    baseline: :obj:`reproduce` in :obj:`configs/sweep/NAME.yaml`. The first one
    holds where nothing is tried; a model without such a file has its
    defaults.
    """
    return pipeline_settings.settings_of(backbone(model))


class Variant(NamedTuple):
    r"""A method that takes part in an experiment.

    Args:
        label: Data set, backbone and so on: the first columns of a table.
        options: Options of its runs, by dotted name.
        settings: Further options that are tried on validation with the first
            seed; the best ones are trained with every seed.
    """

    label: tuple[str, ...]
    options: Options
    settings: list[Options]


class ExperimentOptions(NamedTuple):
    r"""What an experiment runs on.

    Args:
        data: Folders of data sets by name.
        modalities: Modalities of each data set.
        models: Backbones; :obj:`None` are those of the paper.
        effort: Settings that are tried for every variant, at most.
        options: Options of all runs, by dotted name.
        sizes: Users and items of each data set.
        grid: What is tried for every backbone in place of its own settings.
    """

    data: dict[str, str]
    modalities: dict[str, list[str]]
    models: tuple[str, ...] | None = None
    effort: int = 3
    options: Options = {}
    sizes: dict[str, tuple[int, int]] = {}
    grid: tuple[Options, ...] = ()

    @property
    def content(self) -> dict[str, list[str]]:
        r"""Modalities of the data sets that have any."""
        return {data: names for data, names in self.modalities.items() if names}

    def settings(self, model: str) -> list[Options]:
        r"""What is tried for a backbone or a baseline."""
        own = settings_of(model)
        return own if model in all_baselines() else list(self.grid) or own

    def choose(self, models: Sequence[str] | None, data: str) -> list[str]:
        r"""The backbones that can be trained on a data set: of those that are
        asked for, or else of :obj:`models`, by default all.
        """
        count = len(self.modalities[data])
        models = self.models or (tuple(all_backbones()) if models is None else models)
        wanted = [name for name in models if name not in all_baselines()]
        return [name for name in wanted if backbone(name).min_modalities <= count]

    def baselines(self, names: Sequence[str] | None = ()) -> list[str]:
        r"""The baselines that are asked for, or else :obj:`names`, where
        :obj:`None` are all.
        """
        known = all_baselines()
        wanted = (tuple(known) if names is None else names) if self.models is None else self.models
        return [name for name in wanted if name in known]

    def variant(
        self,
        label: Iterable[str],
        model: str,
        items: str,
        options: Options | None = None,
        settings: list[Options] | None = None,
    ) -> Variant:
        r"""A variant on the data set that its label begins with."""
        label = tuple(short(part) if part == model else part for part in label)
        tried = self.settings(model)
        settings = tried if settings is None else settings
        fixed = {'data': self.data[label[0]], 'model': model, 'items': items, **BASE}
        fixed.update(tried[0])
        fixed.update(options or {})
        left: list[Options] = []
        for setting in settings:  # What is given for all runs is not tried.
            own = {key: value for key, value in setting.items() if key not in self.options}
            if own not in left:
                left.append(own)
        return Variant(label, {**fixed, **self.options}, left[: max(1, self.effort)])
