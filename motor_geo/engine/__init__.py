r"""Training, checkpoints, ranking and metrics."""

from .evaluator import Evaluator
from .loggers import Logger, MLflowLogger, TensorBoardLogger, WandbLogger
from .trainer import Trainer

__all__ = [
    'Evaluator',
    'Logger',
    'MLflowLogger',
    'TensorBoardLogger',
    'Trainer',
    'WandbLogger',
]
