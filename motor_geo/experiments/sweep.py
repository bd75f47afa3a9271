r"""Searches hyper-parameters on validation: :obj:`python -m motor_geo.sweep`.

Every trial is a run in :obj:`OUT/trials/<hash of its options>`, locked by the
process that runs it. The lock ends with the process, however that ends: a trial
that is marked as running but not locked was interrupted, and the next process
goes on with it from its checkpoint.
"""

from __future__ import annotations

import json
import os.path as osp
import sys
from typing import Any, TextIO

from tqdm import tqdm

from motor_geo.experiments.search import Space
from motor_geo.pipeline.assemble import build_dataset
from motor_geo.pipeline.config import Config, write_yaml
from motor_geo.pipeline.train import run
from motor_geo.utils.cache import fingerprint
from motor_geo.utils.errors import ConfigError, one_line
from motor_geo.utils.files import atomic_write, check_writable, try_lock, writing


class Sweep:
    r"""A search in a folder, which processes may share.

    Args:
        space: What is searched.
        out: The folder.
        num_trials: Trials at the most; by default the whole grid, or 20.

    Raises:
        ConfigError: If the folder holds another search.
        ImportError: If Optuna is not installed.
    """

    def __init__(self, space: Space, out: str, num_trials: int | None = None):
        try:
            import optuna
        except ImportError as error:
            raise ImportError('A sweep needs Optuna: pip install "motor-geo[sweep]"') from error
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        self.space, self.out = space, out
        self.metric = space.base['trainer']['metric']
        self.grid = space.grid(num_trials)
        self.total = (num_trials or 20) if self.grid is None else len(self.grid)

        check_writable(out)
        # Data that are wrong or have changed are found before any training.
        own = {**space.settings(), 'hash of data': build_dataset(space.base).fingerprint}
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        with self._lock(self.out):
            storage = JournalStorage(JournalFileBackend(osp.join(out, 'study.log')))
            self.study = optuna.create_study(
                storage=storage, study_name='sweep', direction='maximize', load_if_exists=True
            )
            old = self.study.user_attrs.get('settings', own)
            for key in sorted({*old, *own}):
                if old.get(key) != own.get(key):
                    raise ConfigError(
                        f"'{out}' holds another search ({key} is {old.get(key)} there, "
                        f'{own.get(key)} here); give another --out or delete it'
                    )
            self.study.set_user_attr('settings', own)

    def _lock(self, folder: str) -> TextIO:
        file = try_lock(osp.join(folder, '.lock'), wait=True)
        assert file is not None
        return file

    def _trials(self) -> dict[str, Any]:
        r"""Trials of Optuna by folder, without those that repeat another and
        those that were interrupted before they had parameters.
        """
        out: dict[str, Any] = {}
        for trial in self.study.get_trials(deepcopy=False):
            if set(trial.params) == set(self.space.search):
                out.setdefault(self.folder(trial.params), trial)
        return out

    def folder(self, params: Config) -> str:
        r"""Folder of a trial."""
        return osp.join(self.out, 'trials', fingerprint(self.space.options(params))[:12])

    def claim(self) -> tuple[int, Config, TextIO] | None:
        r"""Takes a trial that was interrupted, or else a new one, for this
        process: its number, parameters and lock.
        """
        from optuna.trial import TrialState

        with self._lock(self.out):
            seen = self._trials()
            for folder, old in seen.items():
                if old.state == TrialState.RUNNING:
                    if (lock := try_lock(osp.join(folder, '.lock'))) is not None:
                        return old.number, old.params, lock
            for _ in range(100):  # A small space may be exhausted.
                if len(seen) >= self.total or not self._add(seen):
                    return None
                new = self.study.get_trials(deepcopy=False)[-1]
                folder = self.folder(new.params)
                if folder not in seen:
                    return new.number, new.params, self._lock(folder)
                self.study.tell(new.number, state=TrialState.FAIL)
        return None

    def _add(self, seen: dict[str, Any]) -> bool:
        if self.grid is None:
            self.space.sample(self.study)
            return True
        for params in self.grid:
            if self.folder(params) not in seen:
                self.space.add(self.study, params)
                return True
        return False

    def run_trial(self, number: int, params: Config, lock: TextIO) -> str:
        r"""Carries out a trial and returns a line about it."""
        from optuna.trial import TrialState

        options = self.space.options(params)
        name = ', '.join(f'{key} {value}' for key, value in options.items())
        config = {**self.space.resolve(options), 'out': self.folder(params)}
        config['trainer'] = {**config['trainer'], 'progress': False}
        told: dict[str, Any] = {'state': TrialState.FAIL}
        with lock:
            try:
                value = run(config, progress=False)['val'][self.metric]
                outcome, told = f'{self.metric} {value:.4f}', {'values': value}
            except FloatingPointError as error:  # A learning rate may well be too high.
                outcome = f'failed: {one_line(error)}'
            except ValueError as error:
                raise ConfigError(f'In the trial with {name}: {error}') from error
            with self._lock(self.out):
                self.study.tell(number, **told)
                self.write()
        return f'{name}: {outcome}'

    def summary(self) -> dict[str, Any]:
        r"""All trials, best first, with validation metrics only."""
        rows = []
        for folder, trial in self._trials().items():
            result = {}
            if osp.exists(path := osp.join(folder, 'result.json')):
                with open(path) as file:
                    result = json.load(file)
            row = {
                'options': self.space.options(trial.params),
                'state': {'COMPLETE': 'finished', 'FAIL': 'failed'}.get(trial.state.name, 'open'),
                self.metric: trial.value,
                **{key: result.get(key) for key in ('best_epoch', 'seconds')},
                'folder': osp.relpath(folder, self.out),
            }
            rows.append(row)
        rows.sort(key=lambda row: row[self.metric] or 0, reverse=True)
        return {'metric': self.metric, 'total': self.total, 'trials': rows}

    def write(self) -> None:
        r"""Writes :obj:`sweep.json` and :obj:`best.yaml`."""
        out = self.summary()
        with writing(osp.join(self.out, 'sweep.json')) as path, atomic_write(path) as temporary:
            with open(temporary, 'w') as file:
                json.dump(out, file, indent=1)
        if out['trials'][0]['state'] == 'finished':
            with writing(osp.join(self.out, 'best.yaml')) as path:
                write_yaml(self.space.resolve(out['trials'][0]['options']), path)

    def fit(self, progress: bool = True) -> dict[str, Any]:
        r"""Runs trials until none is left and returns the :meth:`summary`."""
        hide = not progress or not sys.stderr.isatty()
        with tqdm(total=self.total, desc='trials', unit='trial', disable=hide) as bar:
            while True:
                bar.n = sum(trial.state.is_finished() for trial in self._trials().values())
                bar.refresh()
                claimed = self.claim()
                if claimed is None:
                    return self.summary()
                line = self.run_trial(*claimed)
                if progress:
                    tqdm.write(line)
