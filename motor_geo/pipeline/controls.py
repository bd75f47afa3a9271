r"""The same run with other items beside it: :obj:`--control id features`."""

from __future__ import annotations

import dataclasses
import logging
import os.path as osp
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from motor_geo.pipeline.config import Config, RunConfig, takes_items
from motor_geo.pipeline.train import (
    PER_USER,
    UNSEEN,
    check_folder,
    default_folder,
    in_closed_form,
    run,
)
from motor_geo.utils.errors import ConfigError

LOG = logging.getLogger(__name__)
#: Items in words.
WORDS = {'id': 'IDs', 'features': 'linear maps', 'recommended': 'tokens'}


class Scores(NamedTuple):
    r"""A test metric of a form of items.

    Args:
        name: The form.
        all: Of every user, all items ranked.
        new: Of every user with an unseen item held out, unseen items ranked.
            It is empty if there is none.
    """

    name: str
    all: np.ndarray
    new: np.ndarray

    @property
    def word(self) -> str:
        return WORDS.get(self.name, f"'{self.name}'")


class Comparison(NamedTuple):
    r"""A run beside its controls.

    Args:
        metric: What is compared.
        scores: Of the controls, and of the run at the end.
        popularity: The metric of popularity, all items ranked.
        chance: The metric of popularity on unseen items, all of which are
            equally popular; :obj:`None` if there is none.
        folders: The folders, in the same order as scores.
    """

    metric: str
    scores: list[Scores]
    popularity: float
    chance: float | None
    folders: list[str]


def control_configs(options: Config, names: Sequence[str]) -> list[RunConfig]:
    r"""The configurations of controls, and of the run itself at the end. Only
    the items differ; without tokens, there are none of behavior.

    Args:
        options: The options of the run, as they were given.
        names: Items of the controls.

    Raises:
        ConfigError: If the model takes no items, or some are there twice.
    """
    config = RunConfig.of(options)
    if not takes_items(config.target('model')):
        raise ConfigError(f'--control: {config.model["name"]} takes no item encoder')
    own = config.items['name']
    if own in names or len(set(names)) < len(names):
        raise ConfigError(
            f'--control: expected different items other than {own}, got {" ".join(names)}'
        )
    out = config.out or default_folder(config)
    configs = []
    for name in names:
        shared = {section: dict(getattr(config, section)) for section in ('loss', 'trainer')}
        given = {**options, **shared, 'items': {'name': name}, 'report': False}
        control = RunConfig.of(given)
        if not control.reads_tokens:
            control = RunConfig.of({**given, 'behavior': False})
        folder = default_folder(control) if config.out is None else f'{out}-{name}'
        configs.append(dataclasses.replace(control, out=folder))
    return [*configs, dataclasses.replace(config, out=out)]


def run_controls(configs: Sequence[RunConfig], progress: bool = True) -> Comparison:
    r"""Trains a run and its controls, one after the other, with one bar for
    all; what is finished is read back.

    Args:
        configs: Their configurations, from :func:`control_configs`.
        progress: Whether progress is shown.

    Raises:
        ConfigError: If a setting is wrong, a folder holds another run, or
            nothing is held out for testing.
    """
    folders = [config.out or default_folder(config) for config in configs]
    for config, folder in zip(configs, folders):
        check_folder(config, folder)
    sizes = [1 if in_closed_form(config) else config.trainer['epochs'] for config in configs]
    bar = tqdm(
        total=sum(sizes),
        disable=not progress or not sys.stderr.isatty(),
        bar_format='{desc:24s}{percentage:3.0f}% |{bar}| {elapsed}',
        leave=False,
        colour='green',
    )
    results = []
    with bar:
        for i, config in enumerate(configs):
            word = WORDS.get(config.items['name'], config.items['name'])
            bar.set_description_str(f'{i + 1} of {len(configs)}: {word}')
            # One bar: neither the trainer nor the tokenizer has its own.
            quiet = {**config.trainer, 'progress': False}
            config = dataclasses.replace(config, trainer=quiet)
            result = run(config, False, [lambda entry: _advance(bar)])
            results.append(result)
            bar.n = sum(sizes[: i + 1])  # It may have stopped early.
            bar.refresh()
            if progress and bar.disable:
                LOG.info('%s: %d epochs, %.1f s', word, result['epochs'], result['seconds'])
    return compare(configs, folders, results)


def _advance(bar: tqdm) -> None:
    bar.update()


def compare(
    configs: Sequence[RunConfig], folders: Sequence[str], results: Sequence[dict[str, Any]]
) -> Comparison:
    r"""Sets finished runs side by side by the metric that stopped them."""
    metric, last = configs[-1].trainer['metric'], results[-1]
    if not last['test']:
        raise ConfigError('--control: nothing is held out for testing; expected some interactions')
    scores = [
        Scores(config.items['name'], _read(folder, PER_USER, metric), _read(folder, UNSEEN, metric))
        for config, folder in zip(configs, folders)
    ]
    if any(len(score.new) == 0 for score in scores):  # Nothing new, or runs of an older version.
        scores = [score._replace(new=np.empty(0)) for score in scores]
    chance = last.get('unseen', {}).get('popularity', {}).get(metric)
    chance = chance if len(scores[-1].new) else None
    return Comparison(metric, scores, last['popularity'][metric], chance, list(folders))


def _read(folder: str, file: str, metric: str) -> np.ndarray:
    path = osp.join(folder, file)
    if not osp.exists(path):
        return np.empty(0)
    with np.load(path, allow_pickle=False) as values:
        return values[metric].astype(np.float64)


def conclusion(found: Comparison) -> str:
    r"""What the numbers say, in a sentence. Two forms are level if their means
    differ by less than two standard errors of the paired differences.
    """
    *controls, own = found.scores
    parts = []
    for control in controls:
        where = relation(own.all, control.all)
        text = f'{where[0]} {control.word} among all items ({where[1]})'
        if found.chance is not None:
            where = relation(own.new, control.new)
            text += f' and {where[0]} {control.word} among new ones ({where[1]})'
            if _is_level(control.new - found.chance):
                text += f', where {control.word} are no better than chance'
        parts.append(text)
    text = f'{own.word} are {"; they are ".join(parts)}'
    below = [score.word for score in found.scores if score.all.mean() < found.popularity]
    if below:
        text += f'; popularity alone is better than {" and ".join(below)} among all items'
    return f'{text[0].upper()}{text[1:]}.'


def relation(one: np.ndarray, other: np.ndarray) -> tuple[str, str]:
    r"""Whether one is ahead of another, user by user, and by how much."""
    a, b = float(one.mean()), float(other.mean())
    if b == 0:
        change = f'{a:.4f} and 0'
    else:
        change = f'{a / b:.1f} times' if a > 1.5 * b else f'{a / b - 1:+.1%}'
    if _is_level(one - other):
        return 'level with', change
    return ('ahead of' if a > b else 'behind'), change


def _is_level(difference: np.ndarray) -> bool:
    error = difference.std(ddof=1) / np.sqrt(len(difference)) if len(difference) > 1 else np.inf
    return bool(abs(difference.mean()) <= 2 * error)


def read_controls(value: str | Sequence[str]) -> list[str]:
    r"""Items of controls, in the order in which they were given."""
    words = [value] if isinstance(value, str) else list(value)
    return [name for word in words for name in word.replace(',', ' ').split()]
