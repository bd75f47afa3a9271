r"""Fits models in closed form or with their own solver."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch_geometric.data import HeteroData
from torch_geometric.typing import EdgeType

from motor_geo.engine.epoch_loop import EpochLoop
from motor_geo.engine.evaluator import Evaluator
from motor_geo.engine.loggers import Logger
from motor_geo.nn.models import FittedRecommender
from motor_geo.typing import RATES


class Fitter(EpochLoop):
    r"""Fits a model without gradient steps. Like
    :class:`~motor_geo.engine.trainer.Trainer`, it validates and saves the model
    after each iteration, and stops early.

    A closed-form model takes a single iteration. For other models, fitting ends
    when :obj:`metric`, rounded to four decimals, has not improved for more than
    :obj:`patience` iterations in a row.

    Args:
        model: The model.
        data: The graph with training edges, on the device of the model.
        evaluator: Ranks the validation targets. Without one, fitting runs
            :obj:`epochs` iterations, and the last one counts as the best.
        epochs: Maximum number of iterations.
        patience: Number of iterations in a row without improvement before the
            next one is the last.
        metric: The validation metric for early stopping.
        seed: Seed of all randomness in an iteration.
        out: Folder of checkpoints and of :obj:`metrics.jsonl`. If set to
            :obj:`None`, nothing is written.
        fingerprint: Hash of data and settings. Resuming requires a checkpoint
            with the same hash.
        progress: If set to :obj:`True`, shows a progress bar, or logs one line
            per iteration at level :obj:`INFO` if there is no terminal.
        callbacks: Functions, or loggers from :obj:`motor_geo.engine.loggers`,
            that receive the entry of every iteration.
        edge_type: Edge type of training interactions, from users to items.

    Raises:
        ValueError: If an argument is out of range, or a checkpoint in
            :obj:`out` belongs to another model or other data.
        FloatingPointError: If the loss is not finite.
    """

    word = 'iteration'

    def __init__(
        self,
        model: FittedRecommender,
        data: HeteroData,
        evaluator: Evaluator | None = None,
        epochs: int = 1000,
        patience: int = 20,
        metric: str = 'recall@20',
        seed: int = 0,
        out: str | None = None,
        fingerprint: str = '',
        progress: bool = True,
        callbacks: Sequence[Callable[[dict[str, Any]], None] | Logger] = (),
        edge_type: EdgeType = RATES,
    ):
        epochs = epochs if model.iterative or epochs < 1 else 1
        loop = seed, out, fingerprint, progress, callbacks, edge_type
        super().__init__(model, data, evaluator, epochs, patience, metric, *loop)
        self.model = model

    def begin(self) -> None:
        self._iterations = self.model.fit(self.data)

    def run_epoch(self, epoch: int, first: bool) -> dict[str, Any]:
        start = time.perf_counter()
        self.seed_epoch(epoch)
        self.model.train()
        losses = next(self._iterations)
        if not all(math.isfinite(value) for value in losses.values()):
            raise FloatingPointError(f'The loss is not finite in iteration {epoch + 1} ({losses})')
        fitted = time.perf_counter()
        self.model.eval()
        metrics: dict[str, float] = {}
        if self.evaluator is not None:
            with torch.no_grad():
                metrics = self.validate(self.model(self.data))
        return {
            'epoch': epoch + 1,
            'loss': sum(losses.values()),
            'losses': losses,
            'val': metrics,
            'seconds': time.perf_counter() - start,
            'train_seconds': fitted - start,
        }
