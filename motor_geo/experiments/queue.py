r"""A queue of runs that any number of processes can share.

The folder of a run holds its whole state. A process that works on a run holds
the lock of the folder, a finished run has a :obj:`result.json`, and a failed
run has an :obj:`error.txt`. A run with neither file and without a lock is open:
either it has not started, or its process has ended, and the next process
resumes from the checkpoint.
"""

from __future__ import annotations

import json
import os
import os.path as osp
import shlex
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from motor_geo.experiments.options import Options
from motor_geo.pipeline.config import Config
from motor_geo.pipeline.finished import read_result
from motor_geo.pipeline.train import run
from motor_geo.utils.errors import one_line
from motor_geo.utils.files import atomic_write, check_writable, writing
from motor_geo.utils.lock import locked

RESULT, ERROR = 'result.json', 'error.txt'


class Job(NamedTuple):
    r"""A run in the queue."""

    name: str
    folder: str
    options: Options  # By dotted name, as in the command.
    config: Config

    @property
    def command(self) -> str:
        r"""The command to repeat the run."""
        options = {**self.options, 'out': self.folder}
        words = [f'--{key} {shlex.quote(_spell(value))}' for key, value in options.items()]
        return ' '.join(['python -m motor_geo.run', *words])


def _spell(value: Any) -> str:
    return str(value) if isinstance(value, str) else json.dumps(value, separators=(',', ':'))


def in_folder(config: Config, folder: str) -> Config:
    r"""Returns the configuration of a run in a folder, without a progress bar."""
    return {**config, 'out': folder, 'trainer': {**config['trainer'], 'progress': False}}


class RunQueue:
    r"""Assigns runs to processes.

    Args:
        folder: The folder with all run folders.
        failures: Exceptions that mark a run as failed. Other exceptions end
            the process. (default: :obj:`(FloatingPointError,)`)

    Raises:
        ConfigError: If the folder is not writable.
    """

    def __init__(self, folder: str, failures: tuple[type[Exception], ...] = (FloatingPointError,)):
        check_writable(folder)
        self.failures = failures
        self._results: dict[str, dict[str, Any]] = {}

    def result(self, folder: str) -> dict[str, Any] | None:
        r"""Returns the result of a run, or :obj:`None` if it is not finished."""
        if folder not in self._results:
            result = read_result(folder)
            if result is None:
                return None
            self._results[folder] = result
        return self._results[folder]

    def error(self, folder: str) -> str | None:
        r"""Returns the error message of a failed run, or :obj:`None`."""
        path = osp.join(folder, ERROR)
        if osp.exists(osp.join(folder, RESULT)) or not osp.exists(path):
            return None
        with open(path, encoding='utf-8') as file:
            return one_line(ValueError(file.read()))

    def is_open(self, folder: str) -> bool:
        r"""Whether a run has neither finished nor failed."""
        return not any(osp.exists(osp.join(folder, name)) for name in (RESULT, ERROR))

    @contextmanager
    def claim(self, folders: Iterable[str]) -> Iterator[str | None]:
        r"""Locks the first open run that no other process holds, and yields its
        folder, or :obj:`None` if there is no such run.
        """
        for folder in folders:
            if self.is_open(folder):
                with locked(folder) as held:
                    if held and self.is_open(folder):  # Another process may have just finished it.
                        yield folder
                        return
        yield None

    def run_job(
        self, config: Config, execute: Callable[[Config], dict[str, Any]] | None = None
    ) -> dict[str, Any] | str:
        r"""Executes a run whose lock this process holds.

        Args:
            config: The configuration of the run, including its folder.
            execute: A function to call instead of
                :func:`~motor_geo.pipeline.train.run`. (default: :obj:`None`)

        Returns:
            The result, or the error message if the run has failed.
        """
        folder = config['out']
        try:
            result = run(config, progress=False) if execute is None else execute(config)
        except self.failures as error:
            with writing(osp.join(folder, ERROR)) as path, atomic_write(path) as temporary:
                with open(temporary, 'w', encoding='utf-8') as file:
                    file.write(one_line(error) + '\n')
            return one_line(error)
        self._results[folder] = result
        return result

    def retry(self, folders: Iterable[str]) -> None:
        r"""Reopens failed runs."""
        for folder in folders:
            if self.error(folder) is not None:
                with locked(folder) as held:
                    if held and self.error(folder) is not None:
                        os.remove(osp.join(folder, ERROR))
