r"""Runs that any number of processes share.

A run is a folder, which says all that there is to know: the process that works
on it holds its lock, a finished run has a :obj:`result.json`, and a failed one
an :obj:`error.txt`. A folder with neither, which nobody holds, is open: its run
has not begun, or the process that worked on it has ended, and the next one goes
on from the checkpoint.
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
from motor_geo.utils.files import atomic_write, check_writable, locked, writing

RESULT, ERROR = 'result.json', 'error.txt'
NEEDS = 'A reproduction needs matplotlib: pip install "motor-geo[reproduce]"'


class Job(NamedTuple):
    r"""A run of a list."""

    name: str
    folder: str
    options: Options  # By dotted name, as the command spells them.
    config: Config

    @property
    def command(self) -> str:
        r"""The command that repeats the run."""
        options = {**self.options, 'out': self.folder}
        words = [f'--{key} {shlex.quote(_spell(value))}' for key, value in options.items()]
        return ' '.join(['python -m motor_geo.run', *words])


def _spell(value: Any) -> str:
    return str(value) if isinstance(value, str) else json.dumps(value, separators=(',', ':'))


def in_folder(config: Config, folder: str) -> Config:
    r"""The configuration of a run in a folder, which shows no progress of its own."""
    return {**config, 'out': folder, 'trainer': {**config['trainer'], 'progress': False}}


class RunQueue:
    r"""Who works on which run.

    Args:
        folder: The folder that holds those of the runs.
        failures: Errors after which a run counts as failed; others end the
            process.

    Raises:
        ConfigError: If the folder cannot be written to.
    """

    def __init__(self, folder: str, failures: tuple[type[Exception], ...] = (FloatingPointError,)):
        check_writable(folder)
        self.failures = failures
        self._results: dict[str, dict[str, Any]] = {}

    def result(self, folder: str) -> dict[str, Any] | None:
        r"""The result of a run that is finished."""
        if folder not in self._results:
            result = read_result(folder)
            if result is None:
                return None
            self._results[folder] = result
        return self._results[folder]

    def error(self, folder: str) -> str | None:
        r"""Why a run has failed, if it has."""
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
        r"""Holds the first open run that no other process holds."""
        for folder in folders:
            if self.is_open(folder):
                with locked(folder) as held:
                    if held and self.is_open(folder):  # Or another process has just finished it.
                        yield folder
                        return
        yield None

    def run_job(
        self, config: Config, execute: Callable[[Config], dict[str, Any]] | None = None
    ) -> dict[str, Any] | str:
        r"""Does a run that this process holds.

        Args:
            config: Its configuration, with the folder.
            execute: What to do in place of a run of :obj:`motor_geo.run`.

        Returns:
            The result, or why the run has failed.
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
        r"""Makes failed runs open again."""
        for folder in folders:
            if self.error(folder) is not None:
                with locked(folder) as held:
                    if held and self.error(folder) is not None:
                        os.remove(osp.join(folder, ERROR))
