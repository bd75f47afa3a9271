r"""Loggers by name: :obj:`--logger tensorboard`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec

from motor_geo.engine.loggers import Logger, MLflowLogger, TensorBoardLogger, WandbLogger
from motor_geo.pipeline.config import RunConfig
from motor_geo.pipeline.flags import flatten
from motor_geo.utils.errors import ConfigError, suggest
from motor_geo.utils.plugin import import_class, plugins

LOGGERS: dict[str, type[TensorBoardLogger | WandbLogger | MLflowLogger]] = {
    'tensorboard': TensorBoardLogger,
    'wandb': WandbLogger,
    'mlflow': MLflowLogger,
}
#: Entry points by which packages name theirs.
GROUP = 'motor_geo.loggers'


def build_loggers(config: RunConfig, out: str) -> list[Logger]:
    r"""The loggers of a run, which get the folder and the options by dotted
    name. They write nothing before the first epoch.

    Raises:
        ConfigError: If there is no such logger, or its package is missing.
    """
    names = [*(['tensorboard'] if config.tensorboard else []), *(config.logger or [])]
    options = flatten(config.to_dict())
    return [find_logger(name)(out, options) for name in dict.fromkeys(names)]


def find_logger(name: str) -> type:
    r"""The class of a logger: a name, the name of an entry point, or an import path.

    Raises:
        ConfigError: If there is none, or its package is missing.
    """
    if name in LOGGERS:
        package = LOGGERS[name].package
        if find_spec(package) is None:
            raise ConfigError(f"--logger {name} needs 'pip install {package}'")
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
    r"""Closes loggers in the end, whatever happens."""
    with ExitStack() as stack:
        for logger in loggers:
            stack.callback(logger.close)
        yield
