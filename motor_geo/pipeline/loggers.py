r"""Loggers by name: :obj:`--logger tensorboard`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec

from motor_geo.engine.loggers import Logger, MLflowLogger, TensorBoardLogger, WandbLogger
from motor_geo.pipeline.config import RunConfig
from motor_geo.pipeline.flags import flatten
from motor_geo.utils.errors import ConfigError, suggest
from motor_geo.utils.extras import needs
from motor_geo.utils.plugin import import_class, plugins

LOGGERS: dict[str, type[TensorBoardLogger | WandbLogger | MLflowLogger]] = {
    'tensorboard': TensorBoardLogger,
    'wandb': WandbLogger,
    'mlflow': MLflowLogger,
}
#: The entry-point group in which other packages register loggers.
GROUP = 'motor_geo.loggers'


def build_loggers(config: RunConfig, out: str) -> list[Logger]:
    r"""Builds the loggers of a run. They receive the run folder and the options
    by dotted name, and write nothing before the first epoch.

    Raises:
        ConfigError: If a logger is unknown, or its package is missing.
    """
    names = [*(['tensorboard'] if config.tensorboard else []), *(config.logger or [])]
    options = flatten(config.to_dict())
    return [find_logger(name)(out, options) for name in dict.fromkeys(names)]


def find_logger(name: str) -> type:
    r"""Returns the class of a logger by its name, entry point, or import path.

    Raises:
        ConfigError: If the logger is unknown, or its package is missing.
    """
    if name in LOGGERS:
        package = LOGGERS[name].package
        if find_spec(package) is None:
            raise ConfigError(needs(f'--logger {name}', package, extra=package))
        return LOGGERS[name]
    found = plugins(GROUP)
    if name not in found and '.' not in name:
        raise ConfigError(f"--logger: unknown logger '{name}'{suggest(name, [*LOGGERS, *found])}")
    try:
        return import_class(found.get(name, name), Logger)
    except ValueError as error:
        raise ConfigError(f"--logger: '{name}' {error}") from error


@contextmanager
def closing_all(loggers: Sequence[Logger]) -> Iterator[None]:
    r"""Closes all loggers on exit, even after an exception."""
    with ExitStack() as stack:
        for logger in loggers:
            stack.callback(logger.close)
        yield
