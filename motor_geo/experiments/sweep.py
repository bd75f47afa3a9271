r"""Searches hyper-parameters on validation: :obj:`python -m motor_geo.sweep`.

Every trial is a run in :obj:`OUT/trials/<hash of its options>` (see
:mod:`motor_geo.experiments.queue`). Its :obj:`trial.json` holds its options and
its number, in the order in which trials started. The state of a sweep is read
entirely from these folders.
"""

from __future__ import annotations

import json
import os
import os.path as osp
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from glob import escape, glob
from typing import Any, NamedTuple

from tqdm import tqdm

from motor_geo.experiments.queue import RunQueue, in_folder
from motor_geo.experiments.search import Space
from motor_geo.experiments.storage import Row, Storage
from motor_geo.pipeline.assemble import build_dataset, check_splits
from motor_geo.pipeline.config import Config, write_yaml
from motor_geo.utils.cache import fingerprint
from motor_geo.utils.errors import ConfigError
from motor_geo.utils.extras import needs
from motor_geo.utils.files import atomic_write, read_json, writing
from motor_geo.utils.lock import locked


class Trial(NamedTuple):
    r"""A trial of a sweep: its number, from zero, and its options by dotted name."""

    number: int
    options: Config
    folder: str


class Sweep:
    r"""A search in a folder that several processes may share.

    Args:
        space: The search space.
        out: The folder.
        num_trials: Maximum number of trials. (default: the size of the grid,
            or 20 if there are ranges)
        storage: Address of a storage of Optuna that gets a copy of all trials,
            such as :obj:`sqlite:///trials.db`. (default: none)

    Raises:
        ConfigError: If the folder or the storage holds another search, or the data
            have no validation interactions.
        ImportError: If there are ranges or a storage, and Optuna is not installed.
    """

    def __init__(
        self, space: Space, out: str, num_trials: int | None = None, storage: str | None = None
    ):
        self.space, self.out = space, out
        self.metric = space.base['trainer']['metric']
        self.grid = space.grid(num_trials)
        self.total = (num_trials or 20) if self.grid is None else len(self.grid)
        if self.grid is None or storage is not None:
            try:
                import optuna  # noqa: F401
            except ModuleNotFoundError as error:
                what = 'A search with ranges' if storage is None else '--storage'
                raise ImportError(needs(what, 'optuna', extra='sweep')) from error

        self.queue = RunQueue(out)
        journal = osp.join(out, 'study.log')
        if osp.exists(journal) and osp.getsize(journal) > 0:  # An empty journal has no trials.
            raise ConfigError(
                f"'{out}' holds a sweep of an earlier version of motor_geo (study.log); choose "
                'another --out or delete it'
            )
        # Find invalid or changed data before any training.
        dataset = build_dataset(space.base)
        check_splits(dataset, 'val')
        own = {**space.settings(), 'hash of data': dataset.fingerprint}
        with locked(out, wait=True):
            old = self._read(osp.join(out, 'sweep.json'), {'settings': own})['settings']
            for key in sorted({*old, *own}):
                if old.get(key) != own.get(key):
                    raise ConfigError(
                        f"'{out}' holds another search ({key} is {old.get(key)} there, "
                        f'{own.get(key)} here); choose another --out or delete it'
                    )
            self.own = own
            self.storage = None
            if storage is not None:
                name = osp.basename(osp.abspath(out))
                self.storage = Storage(storage, name, space, fingerprint(own))
            self.write()

    def _read(self, path: str, default: Config) -> Config:
        r"""Reads the keys of :obj:`default` from a file, or returns
        :obj:`default` if the file does not exist.
        """
        if not osp.exists(path):
            return default
        try:
            content = read_json(path)
            return {key: content[key] for key in default}
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"'{path}' is damaged; delete it and start again") from error

    def trials(self) -> list[Trial]:
        r"""Returns the trials that have started, by number."""
        out = []
        for path in glob(osp.join(escape(self.out), 'trials', '*', 'trial.json')):
            entry = self._read(path, {'number': 0, 'options': {}})
            out.append(Trial(entry['number'], entry['options'], osp.dirname(path)))
        return sorted(out, key=lambda trial: trial.number)

    def folder(self, options: Config) -> str:
        r"""Returns the folder of a trial."""
        return osp.join(self.out, 'trials', fingerprint(options)[:12])

    @contextmanager
    def claim(self) -> Iterator[Trial | None]:
        r"""Locks an interrupted trial, or else a new one, and yields it. Yields
        :obj:`None` if there is none.
        """
        with ExitStack() as stack:
            with locked(self.out, wait=True):
                trials = {trial.folder: trial for trial in self.trials()}
                folder = stack.enter_context(self.queue.claim(trials))
                if folder is None:
                    new = self._new(trials)
                    if new is not None:
                        entry = {'number': new.number, 'options': new.options}
                        self._write(osp.join(new.folder, 'trial.json'), entry)
                        trials[new.folder] = new
                        folder = stack.enter_context(self.queue.claim([new.folder]))
            yield None if folder is None else trials[folder]

    def _new(self, trials: dict[str, Trial]) -> Trial | None:
        r"""Returns a new trial, or :obj:`None` if all trials have started."""
        if len(trials) >= self.total:
            return None
        history = [(trial.options, self._value(trial)) for trial in trials.values()]
        samples = (self.space.sample(history, i) for i in range(100))
        # A small space may be exhausted.
        for entry in samples if self.grid is None else self.grid:
            if (folder := self.folder(entry)) not in trials:
                return Trial(len(trials), entry, folder)
        return None

    def _value(self, trial: Trial) -> float | str | None:
        r"""Returns the validation metric of a trial, its error message, or
        :obj:`None` if it is open.
        """
        result = self.queue.result(trial.folder)
        return self.queue.error(trial.folder) if result is None else result['val'][self.metric]

    def run_trial(self, trial: Trial) -> str:
        r"""Executes a trial whose lock this process holds, and returns a log line."""
        name = ', '.join(f'{key} {value}' for key, value in trial.options.items())
        try:
            config = in_folder(self.space.resolve(trial.options), trial.folder)
            result = self.queue.run_job(config)  # Trials may diverge.
        except ValueError as error:
            raise ConfigError(f'In the trial with {name}: {error}') from error
        with locked(self.out, wait=True):
            self.write()
        if isinstance(result, str):
            return f'{name}: failed: {result}'
        return f'{name}: {self.metric} {result["val"][self.metric]:.4f}'

    def retry(self) -> None:
        r"""Reopens failed trials."""
        self.queue.retry(trial.folder for trial in self.trials())

    def summary(self) -> dict[str, Any]:
        r"""Returns all trials, best first, with validation metrics only."""
        rows: list[dict[str, Any]] = []
        for trial in self.trials():
            value = self._value(trial)
            known = isinstance(value, float)
            result = self.queue.result(trial.folder) or {}
            row = {
                'options': trial.options,
                'state': 'finished' if known else 'open' if value is None else 'failed',
                self.metric: value if known else None,
                **{key: result.get(key) for key in ('best_epoch', 'seconds')},
                'folder': osp.relpath(trial.folder, self.out),
            }
            rows.append(row)
        rows.sort(key=lambda row: row[self.metric] or 0, reverse=True)
        return {'metric': self.metric, 'total': self.total, 'trials': rows}

    def write(self) -> dict[str, Any]:
        r"""Writes :obj:`sweep.json` and :obj:`best.yaml` from the folders of the
        trials, copies these to the storage, and returns the :meth:`summary`.
        """
        out = self.summary()
        self._write(osp.join(self.out, 'sweep.json'), {**out, 'settings': self.own})
        if self.storage is not None:
            trials = ((trial, self._value(trial)) for trial in self.trials())
            self.storage.add(
                Row(trial.options, value, osp.relpath(trial.folder, self.out))
                for trial, value in trials
                if value is not None
            )
        path = osp.join(self.out, 'best.yaml')
        if out['trials'] and out['trials'][0]['state'] == 'finished':
            with writing(path):
                write_yaml(self.space.resolve(out['trials'][0]['options']), path)
        elif osp.exists(path):
            os.remove(path)
        return out

    def _write(self, path: str, content: Config) -> None:
        with writing(path), atomic_write(path) as temporary, open(temporary, 'w') as file:
            json.dump(content, file, indent=1)

    def fit(self, progress: bool = True) -> dict[str, Any]:
        r"""Runs trials until none is left and returns the :meth:`summary`."""
        hide = not progress or not sys.stderr.isatty()
        with tqdm(total=self.total, desc='trials', unit='trial', disable=hide) as bar:
            while True:
                bar.n = sum(not self.queue.is_open(trial.folder) for trial in self.trials())
                bar.refresh()
                with self.claim() as trial:
                    if trial is None:
                        break
                    line = self.run_trial(trial)
                if progress:
                    tqdm.write(line)
        with locked(self.out, wait=True):
            return self.write()
