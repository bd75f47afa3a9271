r"""Where the numbers of every epoch can go."""

from __future__ import annotations

import os.path as osp
from collections.abc import Iterator, Mapping
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Logger(Protocol):
    r"""What :class:`~motor_geo.engine.trainer.Trainer` tells its numbers to,
    as one of its :obj:`callbacks`. Who makes a logger closes it.

    The loggers of this module take the hyper-parameters of a run when they
    are made, write nothing before the first epoch, and close themselves in a
    :obj:`with` statement.

    .. code-block:: python

        with TensorBoardLogger('runs/mine', options={'lr': 1e-3}) as logger:
            Trainer(model, data, evaluator, callbacks=[logger]).fit()
    """

    def log(self, entry: Mapping[str, Any]) -> None:
        r"""Takes the entry of an epoch, a line of :obj:`metrics.jsonl`."""

    def close(self) -> None:
        r"""Writes what is left; nothing is logged afterwards."""


def scalars(entry: Mapping[str, Any]) -> dict[str, float]:
    r"""The numbers of an epoch by tag, in the groups :obj:`loss/`,
    :obj:`val/` and :obj:`seconds/`.
    """
    return {
        'loss/total': entry['loss'],
        **{f'loss/{name}': value for name, value in entry['losses'].items()},
        **{f'val/{name}': value for name, value in entry['val'].items()},
        'seconds/train': entry['train_seconds'],
        'seconds/epoch': entry['seconds'],
    }


class _Logger:
    r"""A logger that opens with its first entry."""

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
                raise ImportError(
                    f"{type(self).__name__} needs {self.package}: 'pip install {self.package}'"
                ) from error
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
    r"""Writes for `TensorBoard <https://www.tensorflow.org/tensorboard>`_;
    hyper-parameters are in its tab HPARAMS.

    Args:
        folder: Folder of the files.
        options: Hyper-parameters, nested or not.

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
    r"""Sends to `Weights & Biases <https://wandb.ai>`_.

    Args:
        folder: Folder of local files; its name is that of the run.
        options: Hyper-parameters, nested or not.
        project: Name of the project.
        **kwargs: Further arguments of :obj:`wandb.init`.

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
    r"""Sends to `MLflow <https://mlflow.org>`_, where a metric is spelled
    :obj:`val/recall_at_20`.

    Args:
        folder: Folder of the run; its name is that of the run.
        options: Hyper-parameters, nested or not.
        experiment: Name of the experiment.
        tracking_uri: Where MLflow keeps runs. (default: as MLflow is set up)

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
