r"""The search space of a sweep: options with lists of choices or ranges."""

from __future__ import annotations

import itertools
import json
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from motor_geo.pipeline.config import (
    CHOICES,
    FIXED,
    GENERAL,
    Config,
    flatten,
    merge,
    parse_flags,
    read_yaml,
    resolve,
)
from motor_geo.pipeline.flags import UNHASHED
from motor_geo.utils.errors import ConfigError
from motor_geo.utils.safe_yaml import load_yaml


class Range(NamedTuple):
    r"""A range of numbers, including both ends."""

    low: int | float
    high: int | float
    log: bool


class Space:
    r"""A search space.

    Args:
        config: Options of all trials.
        search: The searched options by dotted name, each with a list of
            choices or a mapping :obj:`{low, high, log}`.

    Raises:
        ConfigError: If an option is unknown or cannot be searched, or a
            choice has the wrong type.
    """

    def __init__(self, config: Config, search: Config):
        self.config = config
        self.search = parse_search(config, search)
        #: The configuration with the first choices.
        self.base = self.resolve({key: entry[0] for key, entry in self.search.items()})

    def resolve(self, options: Mapping[str, Any]) -> Config:
        r"""Returns the configuration with the given searched options, without a
        folder.
        """
        return {**resolve(override(self.config, options)), 'out': None}

    def grid(self, limit: int | None = None) -> list[Config] | None:
        r"""Returns all combinations of choices, or :obj:`None` if there are
        ranges.

        Args:
            limit: Number of combinations to draw at random. (default:
                :obj:`None`, which returns all)
        """
        if any(isinstance(entry, Range) for entry in self.search.values()):
            return None
        choices = [json.loads(json.dumps(entry)) for entry in self.search.values()]
        grid = [dict(zip(self.search, entry)) for entry in itertools.product(*choices)]
        if limit is None or limit >= len(grid):
            return grid
        order = np.random.default_rng(self.base['seed']).permutation(len(grid))
        return [grid[i] for i in order[:limit]]

    def sample(
        self, history: Sequence[tuple[Config, float | str | None]], attempt: int = 0
    ) -> Config:
        r"""Samples the options of the next trial with TPE. The seed depends on
        the number of trials, so a resumed sweep samples the same options, and
        parallel processes sample different ones.

        Args:
            history: Options of the trials so far, each with its value, its
                error message, or :obj:`None` while it runs.
            attempt: Number of samples drawn so far for this trial, all of which
                were already in :obj:`history`. (default: :obj:`0`)
        """
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        entropy = self.base['seed'], len(history), *([attempt] if attempt else [])
        seed = int(np.random.SeedSequence(entropy).generate_state(1)[0])
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # `constant_liar` was experimental.
            sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True)
        study = optuna.create_study(direction='maximize', sampler=sampler)
        distributions = self.distributions()
        for options, value in history:
            study.add_trial(self.trial(options, value))
        params = study.ask(distributions).params
        return {
            key: params[key] if isinstance(entry, Range) else json.loads(params[key])
            for key, entry in self.search.items()
        }

    def trial(
        self, options: Config, value: float | str | None, attributes: Config | None = None
    ) -> Any:
        r"""Converts a trial to one of Optuna.

        Args:
            options: Its options.
            value: Its value, its error message, or :obj:`None` while it runs.
            attributes: Further values to keep with it.
        """
        from optuna.trial import TrialState, create_trial

        state = TrialState.RUNNING if value is None else TrialState.COMPLETE
        if isinstance(value, str):
            state = TrialState.FAIL
        return create_trial(
            state=state,
            value=value if isinstance(value, float) else None,
            params=self._params(options),
            distributions=self.distributions(),
            user_attrs=attributes,
        )

    def _params(self, options: Config) -> Config:
        r"""Converts options to parameters of Optuna."""
        return {
            key: value if isinstance(self.search[key], Range) else json.dumps(value)
            for key, value in options.items()
        }

    def distributions(self) -> dict[str, Any]:
        r"""Converts the space to distributions of Optuna. Choices are encoded as
        JSON because they may be lists or mappings.
        """
        from optuna.distributions import CategoricalDistribution as Choice
        from optuna.distributions import FloatDistribution, IntDistribution

        out: dict[str, Any] = {}
        for key, entry in self.search.items():
            if not isinstance(entry, Range):
                out[key] = Choice([json.dumps(value) for value in entry])
            elif isinstance(entry.low, int) and isinstance(entry.high, int):
                out[key] = IntDistribution(entry.low, entry.high, log=entry.log)
            else:
                out[key] = FloatDistribution(entry.low, entry.high, log=entry.log)
        return out

    def settings(self) -> Config:
        r"""Returns the settings that must not change when a sweep is resumed."""
        out = flatten({**self.base, 'search': self.search})
        for key in (*UNHASHED, 'trainer.progress', *self.search):
            out.pop('model.name' if key == 'model' else 'items.name' if key == 'items' else key)
        return json.loads(json.dumps(out))


def read_space(paths: Sequence[str], flags: Config) -> Space:
    r"""Reads and merges files and flags. Later files take precedence over
    earlier ones, and flags over files.

    Raises:
        ConfigError: If no file has an entry :obj:`search`.
    """
    config: Config = {}
    search: Config = {}
    for path in paths:
        options, entries = _read(path)
        config, search = merge(config, options), {**search, **entries}
    if not search:
        raise ConfigError("A sweep requires --config or --space with a file that has 'search'")
    return Space(merge(config, flags), search)


def override(config: Config, options: Mapping[str, Any]) -> Config:
    r"""Sets options by dotted name. Names of classes are set before their
    options.
    """
    for key in sorted(options, key=lambda key: key not in CHOICES):
        ((section, inner),) = parse_flags([f'--{key}=']).items()
        value = options[key]
        config = merge(config, {section: dict.fromkeys(inner, value) if inner else value})
    return config


def parse_search(config: Config, search: Config) -> dict[str, list[Any] | Range]:
    r"""Checks every choice of the search space against the constructors.

    Raises:
        ConfigError: If an option is unknown or cannot be searched, or a
            choice has the wrong type.
    """
    entries: dict[str, list[Any]] = {}
    logs: dict[str, bool] = {}
    for given, entry in search.items():
        ((section, inner),) = parse_flags([f'--{given}=']).items()
        key = section if not inner or 'name' in inner else f'{section}.{next(iter(inner))}'
        fixed = section in ('data', 'evaluator') or (section in GENERAL and section != 'seed')
        if fixed or key in ('trainer.metric', 'trainer.progress'):
            raise ConfigError(f"'search': '{given}' must be the same in all trials")
        if key in entries:
            raise ConfigError(f"'search': '{given}' occurs twice")
        if isinstance(entry, dict) and {'low', 'high'} <= set(entry) <= {'low', 'high', 'log'}:
            entries[key], logs[key] = [entry['low'], entry['high']], entry.get('log', False)
        elif isinstance(entry, list) and entry:
            entries[key] = entry
        else:
            raise ConfigError(
                f"'search': expected a list of choices or {{low, high, log}} for '{given}', "
                f'got {entry!r}'
            )
    if not entries:
        raise ConfigError("There is nothing to search; expected a mapping 'search' in the file")

    out: dict[str, list[Any] | Range] = {}
    names = [key for key in entries if key in CHOICES]
    for combination in itertools.product(*(entries[key] for key in names)):
        base = override(config, dict(zip(names, combination)))
        resolve(base)
        for key, values in entries.items():
            if key not in names:
                values = [flatten(resolve(override(base, {key: v})))[key] for v in values]
            if len({json.dumps(value) for value in values}) < len(values):
                raise ConfigError(f"'search': two choices of '{key}' are the same: {values}")
            out[key] = _range(key, values, logs[key]) if key in logs else values
    return out


def _range(key: str, values: list[Any], log: Any) -> Range:
    if any(isinstance(v, bool) or not isinstance(v, (int, float)) for v in values):
        raise ConfigError(f"'search': '{key}' does not take a range of numbers; expected a list")
    low, high = values
    if not isinstance(log, bool) or not low < high or (log and low <= 0):
        raise ConfigError(
            f"'search': expected low below high (above 0 if log is true) for '{key}', got "
            f'low {low}, high {high}, log {log}'
        )
    return Range(low, high, log)


def _read(path: str) -> tuple[Config, Config]:
    content = load_yaml(path)
    if not isinstance(content, dict) or 'search' not in content:
        return read_yaml(path), {}
    search = content.pop('search')
    content.pop('reproduce', None)  # See `motor_geo.experiments.options.settings_of`.
    config: Config = {}
    if not isinstance(search, dict) or not search:
        raise ConfigError(f"'{path}': 'search' must be a mapping of options (got {search!r})")
    for key, value in content.items():
        if key in (*CHOICES, *FIXED) and isinstance(value, dict):
            config = merge(config, {key: {str(option): entry for option, entry in value.items()}})
        else:
            config = override(config, {str(key): value})
    return config, {str(key): value for key, value in search.items()}
