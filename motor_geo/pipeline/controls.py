r"""Trains a run together with controls: :obj:`--control id features`."""

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
#: Item representations in words.
WORDS = {'id': 'IDs', 'features': 'linear maps', 'recommended': 'tokens'}


class Scores(NamedTuple):
    r"""A test metric of an item representation.

    Args:
        name: The item representation.
        all: The metric of every user, ranking all items.
        new: The metric of every user with a held-out unseen item, ranking
            unseen items only. Empty if there is no such user.
    """

    name: str
    all: np.ndarray
    new: np.ndarray

    @property
    def word(self) -> str:
        return WORDS.get(self.name, f"'{self.name}'")


class Comparison(NamedTuple):
    r"""The comparison of a run with its controls.

    Args:
        metric: The metric.
        scores: The scores of the controls, followed by those of the run.
        popularity: The metric of a popularity ranking of all items.
        chance: The metric of a popularity ranking of unseen items, which is
            random because all of them are equally popular. :obj:`None` if
            there are no unseen items.
        folders: The run folders, in the order of :obj:`scores`.
    """

    metric: str
    scores: list[Scores]
    popularity: float
    chance: float | None
    folders: list[str]


def control_configs(options: Config, names: Sequence[str]) -> list[RunConfig]:
    r"""Returns the configurations of the controls, followed by that of the run
    itself. They differ only in the items. Controls without tokens have no
    tokens of behavior either.

    Args:
        options: The options of the run, as given.
        names: The item representations of the controls.

    Raises:
        ConfigError: If the model takes no item encoder, or an item
            representation occurs twice.
    """
    config = RunConfig.of(options)
    if not takes_items(config.target('model')):
        raise ConfigError(f'--control: {config.model["name"]} takes no item encoder')
    own = config.items['name']
    if own in names or len(set(names)) < len(names):
        raise ConfigError(
            f'--control: expected distinct items other than {own}, got {" ".join(names)}'
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
    r"""Trains a run and its controls, one after another, with a single progress
    bar. Results of finished runs are read from disk.

    Args:
        configs: The configurations from :func:`control_configs`.
        progress: Whether to show progress. (default: :obj:`True`)

    Raises:
        ConfigError: If a setting is invalid, a folder holds another run, or
            there are no test interactions.
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
            # The trainer and the tokenizer show no bars of their own.
            quiet = {**config.trainer, 'progress': False}
            config = dataclasses.replace(config, trainer=quiet)
            result = run(config, False, [lambda entry: _advance(bar)])
            results.append(result)
            bar.n = sum(sizes[: i + 1])  # Training may have stopped early.
            bar.refresh()
            if progress and bar.disable:
                LOG.info('%s: %d epochs, %.1f s', word, result['epochs'], result['seconds'])
    return compare(configs, folders, results)


def _advance(bar: tqdm) -> None:
    bar.update()


def compare(
    configs: Sequence[RunConfig], folders: Sequence[str], results: Sequence[dict[str, Any]]
) -> Comparison:
    r"""Compares finished runs by the metric of early stopping.

    Raises:
        ConfigError: If there are no test interactions.
    """
    metric, last = configs[-1].trainer['metric'], results[-1]
    if not last['test']:
        raise ConfigError('--control: expected test interactions, but no interaction is held out')
    scores = [
        Scores(config.items['name'], _read(folder, PER_USER, metric), _read(folder, UNSEEN, metric))
        for config, folder in zip(configs, folders)
    ]
    if any(len(score.new) == 0 for score in scores):  # No new items, or runs of an older version.
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
    r"""Summarizes the comparison in a sentence. Two item representations are
    level if their means differ by at most two standard errors of the paired
    differences.
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
    r"""Describes whether one metric is ahead of another, in a paired comparison
    over users, and by how much.
    """
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
    r"""Parses the item representations of controls, in the given order."""
    words = [value] if isinstance(value, str) else list(value)
    return [name for word in words for name in word.replace(',', ' ').split()]
