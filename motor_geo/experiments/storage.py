r"""Copies the trials of a sweep to a storage of Optuna, which its dashboard and its plots
read.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from motor_geo.experiments.search import Space
from motor_geo.pipeline.config import Config
from motor_geo.utils.errors import ConfigError, one_line

#: Attributes of the study and of its trials.
SWEEP, FOLDER = 'sweep', 'folder'


class Row(NamedTuple):
    r"""A trial that has ended: its options, its value or its error message, and its
    folder within that of the sweep.
    """

    options: Config
    value: float | str
    folder: str


class Storage:
    r"""A study in a storage of Optuna.

    Args:
        url: Address of the storage, such as :obj:`sqlite:///trials.db`.
        name: Name of the study.
        space: The search space.
        sweep: A hash of the settings of the sweep.

    Raises:
        ConfigError: If the storage cannot be opened, or its study of this name
            belongs to another sweep.
    """

    def __init__(self, url: str, name: str, space: Space, sweep: str):
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.space = space
        options: dict[str, Any] = {'study_name': name, 'direction': 'maximize'}
        try:
            self.study = optuna.create_study(storage=url, load_if_exists=True, **options)
            found = self.study.user_attrs.get(SWEEP)
            if found is None and not self.study.get_trials(deepcopy=False):
                self.study.set_user_attr(SWEEP, found := sweep)
        except Exception as error:  # Optuna and the driver of a database raise their own.
            raise ConfigError(f"--storage: '{url}' cannot be opened: {one_line(error)}") from error
        if found != sweep:
            raise ConfigError(
                f"--storage: '{url}' holds another study '{name}'; choose another storage, or "
                'another name of the folder (--out)'
            )

    def add(self, rows: Iterable[Row]) -> None:
        r"""Adds the trials that the study does not have yet."""
        states = {trial.user_attrs[FOLDER]: trial for trial in self.study.get_trials()}
        for options, value, folder in rows:
            if folder not in states or (
                isinstance(value, float) and states[folder].value is None
            ):  # A failed trial may have been tried again.
                self.study.add_trial(self.space.trial(options, value, {FOLDER: folder}))
