r"""The options of an experiment: data sets, backbones and the settings to try
for each of them on validation. PyTorch is imported on demand.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from motor_geo.pipeline import settings as pipeline_settings
from motor_geo.pipeline.settings import Options

if TYPE_CHECKING:
    from motor_geo.nn.models import FittedRecommender, Recommender

#: Options of all runs, unless the call overrides them.
BASE: Options = {'tokenizer.center': True, 'tokenizer.normalize': True}


def in_words(setting: Mapping[str, Any]) -> str:
    r"""Describes a setting in words."""
    return ', '.join(f'{key.split(".")[-1]} {value}' for key, value in setting.items())


def backbone(name: str) -> Any:
    r"""Returns the class of a backbone.

    Raises:
        ConfigError: If the name is unknown.
    """
    from motor_geo.pipeline.config import find_class

    return find_class('model', name)


def all_backbones() -> dict[str, type[Recommender]]:
    r"""Returns the backbones of the package by name."""
    from motor_geo.nn.models import MODELS

    return MODELS


def all_fitted() -> dict[str, type[FittedRecommender]]:
    r"""Returns the models that are fitted without gradient steps by name."""
    from motor_geo.nn.models import FITTED

    return FITTED


def all_baselines() -> dict[str, type[FittedRecommender]]:
    r"""Returns the baselines by name."""
    from motor_geo.experiments.baselines import BASELINES

    return BASELINES


def short(name: str) -> str:
    r"""Returns the name of a backbone without its module, for tables."""
    return name.rpartition('.')[2]


def settings_of(model: str) -> list[Options]:
    r"""Returns the settings to try for a backbone (with any items) or for a
    baseline: :obj:`reproduce` in :obj:`configs/sweep/NAME.yaml`. Experiments
    that try no settings use the first one. A model without such a file uses its
    defaults.
    """
    return pipeline_settings.settings_of(backbone(model))


class Variant(NamedTuple):
    r"""A method in an experiment.

    Args:
        label: The first columns of a table: data set, backbone and so on.
        options: Options of its runs, by dotted name.
        settings: Further options to try on validation with the first seed. The
            best setting is trained with every seed.
    """

    label: tuple[str, ...]
    options: Options
    settings: list[Options]


class ExperimentOptions(NamedTuple):
    r"""The data sets, backbones and settings of an experiment.

    Args:
        data: Folders of data sets by name.
        modalities: Modalities of each data set.
        models: Backbones and baselines. (default: :obj:`None`, which means
            those of the paper)
        effort: Maximum number of settings to try for every variant.
            (default: :obj:`3`)
        options: Options of all runs, by dotted name. (default: :obj:`{}`)
        sizes: Number of users and items of each data set.
            (default: :obj:`{}`)
        grid: Settings to try for every backbone instead of its own.
            (default: :obj:`()`)
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
        r"""The modalities of the data sets with features."""
        return {data: names for data, names in self.modalities.items() if names}

    def settings(self, model: str) -> list[Options]:
        r"""Returns the settings to try for a backbone or a baseline."""
        own = settings_of(model)
        return own if model in all_baselines() else list(self.grid) or own

    def choose(self, models: Sequence[str] | None, data: str) -> list[str]:
        r"""Returns the backbones that can be trained on a data set.

        Args:
            models: The default backbones, if the call names none. :obj:`None`
                stands for all backbones.
            data: Name of the data set.
        """
        count = len(self.modalities[data])
        models = self.models or (tuple(all_backbones()) if models is None else models)
        wanted = [name for name in models if name not in all_baselines()]
        return [name for name in wanted if backbone(name).min_modalities <= count]

    def baselines(self, names: Sequence[str] | None = ()) -> list[str]:
        r"""Returns the baselines.

        Args:
            names: The default baselines, if the call names no models.
                :obj:`None` stands for all baselines. (default: :obj:`()`)
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
        r"""Builds a variant on the data set that its label starts with.

        Args:
            label: The label.
            model: The backbone or baseline.
            items: The item representation.
            options: Options of the variant, by dotted name.
                (default: :obj:`None`)
            settings: The settings to try. (default: those of the model)
        """
        label = tuple(short(part) if part == model else part for part in label)
        tried = self.settings(model)
        settings = tried if settings is None else settings
        fixed = {'data': self.data[label[0]], 'model': model, 'items': items, **BASE}
        fixed.update(tried[0])
        fixed.update(options or {})
        left: list[Options] = []
        for setting in settings:  # Options that are given for all runs are not tried.
            own = {key: value for key, value in setting.items() if key not in self.options}
            if own not in left:
                left.append(own)
        return Variant(label, {**fixed, **self.options}, left[: max(1, self.effort)])
