r"""Fitting models in closed form, or by a solver of their own."""

from __future__ import annotations

import json
import logging
import math
import os
import os.path as osp
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch_geometric.data import HeteroData
from torch_geometric.typing import EdgeType
from tqdm import tqdm

from motor_geo.engine.checkpoint import load_checkpoint, save_checkpoint
from motor_geo.engine.evaluator import Evaluator
from motor_geo.engine.loggers import Logger
from motor_geo.engine.trainer import FitResult, _check_metric
from motor_geo.nn.models import FittedRecommender
from motor_geo.typing import RATES, find_edges
from motor_geo.utils.files import atomic_write

logger = logging.getLogger(__name__)


class Fitter:
    r"""Fits a model without gradient steps: iterate, validate, checkpoint,
    stop, as :class:`~motor_geo.engine.Trainer` does with epochs.

    A model in closed form has one iteration. All others end when
    :obj:`metric`, rounded to four decimals, has not risen for more than
    :obj:`patience` iterations in a row.

    Args:
        model: The model.
        data: The graph with training edges, on the device of the model.
        evaluator: Ranks the validation targets. Without one, there are
            :obj:`epochs` iterations, and the last one counts as the best.
        epochs: Iterations at the most.
        patience: Iterations in a row without improvement before the next one
            is the last.
        metric: The validation metric that decides.
        seed: Seed of everything random in an iteration.
        out: Folder of checkpoints and of :obj:`metrics.jsonl`; nothing is
            written if :obj:`None`.
        fingerprint: Hash of data and settings, which a checkpoint must share.
        progress: Whether a bar is shown (or, where there is no terminal, a
            line per iteration logged at level :obj:`INFO`).
        callbacks: Called with the entry of every iteration: functions, or
            loggers of :obj:`motor_geo.engine.loggers`.
        edge_type: Edge type of training interactions, from users to items.

    Raises:
        ValueError: If an argument is out of range, or a checkpoint in
            :obj:`out` belongs to another model or other data.
        FloatingPointError: If the loss is not finite.
    """

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
        if epochs < 1:
            raise ValueError(f"'epochs' must be positive (got {epochs})")
        if patience < 0:
            raise ValueError(f"'patience' must not be negative (got {patience})")
        if evaluator is not None:
            _check_metric(metric, evaluator)
        self.model = model
        self.data = data
        self.evaluator = evaluator
        self.epochs = epochs if model.iterative else 1
        self.patience = patience
        self.metric = metric
        self.seed = seed
        self.out = out
        self.fingerprint = fingerprint
        self.progress = progress
        self.callbacks = callbacks
        self.device = find_edges(data, edge_type).device
        self.history: list[dict[str, Any]] = []

    def fit(self) -> FitResult:
        r"""Fits, from the last finished iteration if :obj:`out` holds one.

        With :obj:`out` given, the state of the best iteration is in
        :obj:`best.pt` afterwards, and the model has that of the last.
        """
        self._resume()
        iterations = self.model.fit(self.data)
        bar = tqdm(
            total=self.epochs,
            initial=len(self.history),
            desc='iterations',
            unit='iteration',
            disable=not self.progress or not sys.stderr.isatty(),
        )
        cuda = [self.device.index or 0] if self.device.type == 'cuda' else []
        with bar, torch.random.fork_rng(devices=cuda):
            while len(self.history) < self.epochs and self._failures() <= self.patience:
                entry = self._iterate(iterations)
                self.history.append(entry)
                self._save(entry)
                self._show(bar, entry)
                for callback in self.callbacks:
                    (callback.log if isinstance(callback, Logger) else callback)(entry)
        best = self._best()
        return FitResult(
            epochs=len(self.history),
            best_epoch=best + 1,
            best=self.history[best]['val'],
            history=self.history,
            seconds=sum(entry['seconds'] for entry in self.history),
        )

    def _iterate(self, iterations: Iterator[dict[str, float]]) -> dict[str, Any]:
        start, epoch = time.perf_counter(), len(self.history)
        state = np.random.SeedSequence((self.seed, epoch)).generate_state(1, np.uint64)
        torch.manual_seed(int(state[0]) >> 1)
        self.model.train()
        losses = next(iterations)
        if not all(math.isfinite(value) for value in losses.values()):
            raise FloatingPointError(f'The loss is not finite in iteration {epoch + 1} ({losses})')
        fitted = time.perf_counter()
        self.model.eval()
        metrics: dict[str, float] = {}
        if self.evaluator is not None:
            with torch.no_grad():
                metrics = self.evaluator.evaluate(self.model(self.data)).metrics
        return {
            'epoch': epoch + 1,
            'loss': sum(losses.values()),
            'losses': losses,
            'val': metrics,
            'seconds': time.perf_counter() - start,
            'train_seconds': fitted - start,
        }

    def _best(self) -> int:
        if self.evaluator is None:
            return len(self.history) - 1
        values = [round(entry['val'][self.metric], 4) for entry in self.history]
        return values.index(max(values))  # The first: a tie is no improvement.

    def _failures(self) -> int:
        return len(self.history) - 1 - self._best() if self.history else 0

    def _resume(self) -> None:
        path = None if self.out is None else osp.join(self.out, 'last.pt')
        if path is None or not osp.exists(path):
            return
        state = load_checkpoint(
            path,
            model=type(self.model).__name__,
            fingerprint=self.fingerprint,
            map_location=self.device,
        )
        self.model.load_state_dict(state['model'])
        self.history = json.loads(state['history'])
        # Lines of an iteration whose checkpoint was not written are taken back.
        with atomic_write(self._metrics_path()) as temporary, open(temporary, 'w') as file:
            file.writelines(json.dumps(entry) + '\n' for entry in self.history)

    def _save(self, entry: dict[str, Any]) -> None:
        if self.out is None:
            return
        os.makedirs(self.out, exist_ok=True)
        meta = {'model': type(self.model).__name__, 'fingerprint': self.fingerprint}
        weights = self.model.state_dict()
        # The order matters: a kill in between repeats the iteration.
        if self._failures() == 0:
            best = {'epoch': entry['epoch'], 'model': weights}
            save_checkpoint(osp.join(self.out, 'best.pt'), best, **meta)
        state = {'model': weights, 'history': json.dumps(self.history)}
        save_checkpoint(osp.join(self.out, 'last.pt'), state, **meta)
        path = self._metrics_path()
        try:
            with open(path, 'a') as file:
                file.write(json.dumps(entry) + '\n')
        except OSError as error:
            raise OSError(f"cannot write '{path}': {error.strerror}") from error

    def _metrics_path(self) -> str:
        assert self.out is not None
        return osp.join(self.out, 'metrics.jsonl')

    def _show(self, bar: tqdm, entry: dict[str, Any]) -> None:
        if not self.progress:
            return
        words = [f'loss {entry["loss"]:.4f}'] if entry['losses'] else []
        if self.evaluator is not None:
            best = self._best()
            words += [
                f'{self.metric} {entry["val"][self.metric]:.4f}',
                f'best {self.history[best]["val"][self.metric]:.4f} at {best + 1}',
            ]
        line = '  '.join(words)
        if bar.disable:
            logger.info('iteration %4d  %s  %.2f s', entry['epoch'], line, entry['seconds'])
        else:
            bar.set_postfix_str(line)
            bar.update()
