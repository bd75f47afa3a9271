r"""Training, checkpoints, ranking and metrics."""

from .evaluator import Evaluator
from .fitter import Fitter
from .loggers import Logger, MLflowLogger, TensorBoardLogger, WandbLogger
from .trainer import Trainer

__all__ = [
    'Evaluator',
    'Fitter',
    'Logger',
    'MLflowLogger',
    'TensorBoardLogger',
    'Trainer',
    'WandbLogger',
]
