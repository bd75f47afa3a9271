r"""Loggers for the numbers of every epoch."""

from __future__ import annotations

import os.path as osp
from collections.abc import Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

from motor_geo.utils.extras import needs


@runtime_checkable
class Logger(Protocol):
    r"""The interface of loggers, which
    :class:`~motor_geo.engine.trainer.Trainer` accepts as :obj:`callbacks`.
    Whoever creates a logger must close it.

    The loggers of this module take the hyper-parameters of a run in their
    constructor and write nothing before the first epoch. A :obj:`with`
    statement closes them.

    .. code-block:: python

        with TensorBoardLogger('runs/mine', options={'lr': 1e-3}) as logger:
            Trainer(model, data, evaluator, callbacks=[logger]).fit()
    """

    def log(self, entry: Mapping[str, Any]) -> None:
        r"""Logs the entry of an epoch.

        Args:
            entry: The entry, as in a line of :obj:`metrics.jsonl`.
        """

    def close(self) -> None:
        r"""Writes pending entries and closes the logger."""


def scalars(entry: Mapping[str, Any]) -> dict[str, float]:
    r"""Returns the numbers of an epoch by tag, in the groups :obj:`loss/`,
    :obj:`val/` and :obj:`seconds/`.

    Args:
        entry: The entry, as in a line of :obj:`metrics.jsonl`.
    """
    return {
        'loss/total': entry['loss'],
        **{f'loss/{name}': value for name, value in entry['losses'].items()},
        **{f'val/{name}': value for name, value in entry['val'].items()},
        'seconds/train': entry['train_seconds'],
        'seconds/epoch': entry['seconds'],
    }


class _Logger:
    r"""Base class of loggers that open on their first entry."""

    #: The package, which is also the name of the extra.
    package = ''

    def __init__(self, folder: str, options: Mapping[str, Any] | None = None):
        self.folder = folder
        self.options = dict(_flatten(options or {}))
        self._open = False

    def log(self, entry: Mapping[str, Any]) -> None:
        values = scalars(entry)
        if not self._open:
            try:
                self._start(values)
            except ImportError as error:
                message = needs(type(self).__name__, self.package, extra=self.package)
                raise ImportError(message) from error
            self._open = True
        self._write(values, entry['epoch'])

    def close(self) -> None:
        if self._open:
            self._stop()
        self._open = False

    def _start(self, values: Mapping[str, float]) -> None:
        raise NotImplementedError

    def _write(self, values: Mapping[str, float], epoch: int) -> None:
        raise NotImplementedError

    def _stop(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> _Logger:
        return self

    def __exit__(self, *args: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}('{self.folder}')"


class TensorBoardLogger(_Logger):
    r"""Logs to `TensorBoard <https://www.tensorflow.org/tensorboard>`_. The tab
    HPARAMS shows the hyper-parameters.

    Args:
        folder: Folder of the event files.
        options: Hyper-parameters, nested or not. (default: none)

    Raises:
        ImportError: If :obj:`tensorboard` is not installed (with the first
            entry).
    """

    package = 'tensorboard'

    def _start(self, values: Mapping[str, float]) -> None:
        from torch.utils.tensorboard import SummaryWriter
        from torch.utils.tensorboard.summary import hparams

        self._writer = SummaryWriter(self.folder)
        if self.options:
            plain = (bool, int, float, str)
            options = {k: v if isinstance(v, plain) else str(v) for k, v in self.options.items()}
            for summary in hparams(options, dict.fromkeys(values, 0.0)):
                self._writer._get_file_writer().add_summary(summary)

    def _write(self, values: Mapping[str, float], epoch: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, epoch)
        self._writer.flush()

    def _stop(self) -> None:
        self._writer.close()


class WandbLogger(_Logger):
    r"""Logs to `Weights & Biases <https://wandb.ai>`_.

    Args:
        folder: Folder of local files. The run has the name of this folder.
        options: Hyper-parameters, nested or not. (default: none)
        project: Name of the project.
        **kwargs: Additional arguments of :obj:`wandb.init`.

    Raises:
        ImportError: If :obj:`wandb` is not installed (with the first entry).
    """

    package = 'wandb'

    def __init__(
        self,
        folder: str,
        options: Mapping[str, Any] | None = None,
        project: str = 'motor_geo',
        **kwargs: Any,
    ):
        super().__init__(folder, options)
        self.project = project
        self.kwargs = kwargs

    def _start(self, values: Mapping[str, float]) -> None:
        import wandb

        settings = {'name': _name(self.folder), 'dir': self.folder, **self.kwargs}
        self._run = wandb.init(project=self.project, config=self.options, **settings)

    def _write(self, values: Mapping[str, float], epoch: int) -> None:
        self._run.log(dict(values), step=epoch)

    def _stop(self) -> None:
        self._run.finish()


class MLflowLogger(_Logger):
    r"""Logs to `MLflow <https://mlflow.org>`_. Metric names replace :obj:`@`,
    as in :obj:`val/recall_at_20`.

    Args:
        folder: Folder of the run. The run has the name of this folder.
        options: Hyper-parameters, nested or not. (default: none)
        experiment: Name of the experiment.
        tracking_uri: Location of the MLflow runs. (default: as configured in
            MLflow)

    Raises:
        ImportError: If :obj:`mlflow` is not installed (with the first entry).
    """

    package = 'mlflow'

    def __init__(
        self,
        folder: str,
        options: Mapping[str, Any] | None = None,
        experiment: str = 'motor_geo',
        tracking_uri: str | None = None,
    ):
        super().__init__(folder, options)
        self.experiment = experiment
        self.tracking_uri = tracking_uri

    def _start(self, values: Mapping[str, float]) -> None:
        from mlflow import MlflowClient

        self._client = MlflowClient(tracking_uri=self.tracking_uri)
        found = self._client.get_experiment_by_name(self.experiment)
        key = self._client.create_experiment(self.experiment) if found is None else None
        run = self._client.create_run(
            key if found is None else found.experiment_id, run_name=_name(self.folder)
        )
        self._run = run.info.run_id
        for name, value in self.options.items():
            self._client.log_param(self._run, name, value)

    def _write(self, values: Mapping[str, float], epoch: int) -> None:
        for name, value in values.items():
            self._client.log_metric(self._run, name.replace('@', '_at_'), value, step=epoch)

    def _stop(self) -> None:
        self._client.set_terminated(self._run)


def _flatten(options: Mapping[str, Any], prefix: str = '') -> Iterator[tuple[str, Any]]:
    for key, value in options.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f'{prefix}{key}.')
        else:
            yield f'{prefix}{key}', value


def _name(folder: str) -> str:
    return osp.basename(osp.abspath(folder))
