r"""Runs of an experiment, and who carries out which."""

from __future__ import annotations

import json
import os.path as osp
import shlex
from collections.abc import Iterable
from typing import Any, NamedTuple, TextIO

import numpy as np

from motor_geo.experiments.variants import Contender, Options
from motor_geo.pipeline.config import Config
from motor_geo.utils.files import check_writable, try_lock

NEEDS = 'A reproduction needs Optuna, scipy and matplotlib: pip install "motor-geo[reproduce]"'


class Job(NamedTuple):
    r"""A run of a list."""

    name: str
    folder: str
    options: Options  # By dotted name, as the command spells them.
    config: Config

    @property
    def command(self) -> str:
        options = {**self.options, 'out': self.folder}
        words = [f'--{key} {shlex.quote(_spell(value))}' for key, value in options.items()]
        return ' '.join(['python -m motor_geo.run', *words])


def _spell(value: Any) -> str:
    return str(value) if isinstance(value, str) else json.dumps(value, separators=(',', ':'))


class Outcome(NamedTuple):
    r"""What came of a contender so far.

    Args:
        contender: The contender.
        setting: What was chosen on validation; :obj:`None` if some of it was
            not tried yet.
        tried: Settings and their Recall@20 on validation.
        jobs: The finished runs of the chosen setting.
        results: Their results.
    """

    contender: Contender
    setting: Options | None
    tried: list[tuple[Options, float]]
    jobs: list[Job]
    results: list[dict[str, Any]]

    def values(self, *path: str) -> list[float]:
        r"""An entry of the results, *e.g.*, :obj:`('test', 'recall@20')`."""
        out = []
        for entry in self.results:
            value: Any = entry
            for key in path:
                value = value[key]
            out.append(float(value))
        return out

    def arrays(self) -> list[dict[str, np.ndarray]]:
        r"""Values of users and ranks of held-out items, by seed."""
        out = []
        for job in self.jobs:
            with np.load(osp.join(job.folder, 'per_user.npz'), allow_pickle=False) as file:
                out.append(dict(file))
        return out

    def epochs(self) -> list[list[float]]:
        r"""Recall@20 on validation after every epoch, by seed."""
        out = []
        for job in self.jobs:
            with open(osp.join(job.folder, 'metrics.jsonl')) as file:
                out.append([json.loads(line)['val']['recall@20'] for line in file])
        return out


class Journal:
    r"""Who does which run.

    Args:
        folder: Folder of the journal.
    """

    def __init__(self, folder: str):
        try:
            import optuna
        except ImportError as error:
            raise ImportError(NEEDS) from error
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        check_writable(folder)
        self.folder = folder
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        with self._lock():
            storage = JournalStorage(JournalFileBackend(osp.join(folder, 'runs.log')))
            self.study = optuna.create_study(
                storage=storage, study_name='runs', direction='maximize', load_if_exists=True
            )

    def _lock(self) -> TextIO:
        file = try_lock(osp.join(self.folder, '.lock'), wait=True)
        assert file is not None
        return file

    def failed(self) -> dict[str, str]:
        r"""Names of the runs that failed, and why."""
        known = {}
        for trial in self.study.get_trials(deepcopy=False):
            known[trial.user_attrs['run']] = trial.user_attrs.get('error')
        return {name: error for name, error in known.items() if error is not None}

    def retry(self, names: Iterable[str]) -> None:
        r"""Makes failed runs open again."""
        from optuna.trial import TrialState, create_trial

        with self._lock():
            failed = self.failed()
            for name in failed.keys() & set(names):
                self.study.add_trial(
                    create_trial(state=TrialState.RUNNING, user_attrs={'run': name})
                )

    def claim(self, jobs: Iterable[Job]) -> tuple[Job, int, TextIO] | None:
        r"""Takes the first run that no other process holds, with the number
        of its trial and its lock.
        """
        from optuna.trial import TrialState, create_trial

        with self._lock():
            known = {t.user_attrs['run']: t for t in self.study.get_trials(deepcopy=False)}
            for job in jobs:
                lock = try_lock(osp.join(job.folder, '.lock'))
                if lock is None:
                    continue
                trial = known.get(job.name)
                if osp.exists(osp.join(job.folder, 'result.json')) and trial is not None:
                    lock.close()  # Another process has just finished it.
                    continue
                if trial is None or trial.state != TrialState.RUNNING:
                    attributes = {'run': job.name}
                    self.study.add_trial(
                        create_trial(state=TrialState.RUNNING, user_attrs=attributes)
                    )
                    trial = self.study.get_trials(deepcopy=False)[-1]
                return job, trial.number, lock
        return None

    def tell(self, number: int, value: float | None, error: str | None = None) -> None:
        r"""Notes the end of a run."""
        from optuna.trial import TrialState

        with self._lock():
            if error is not None:
                trial_id = self.study.get_trials(deepcopy=False)[number]._trial_id
                self.study._storage.set_trial_user_attr(trial_id, 'error', error)
                self.study.tell(number, state=TrialState.FAIL)
            else:
                self.study.tell(number, value)
