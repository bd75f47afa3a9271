r"""The loop shared by training and fitting: run, validate and save epochs until
early stopping or the last epoch, and resume after an interruption.
"""

from __future__ import annotations

import json
import logging
import os
import os.path as osp
import shutil
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData
from torch_geometric.typing import EdgeType
from tqdm import tqdm

from motor_geo.engine.checkpoint import load_checkpoint, save_checkpoint
from motor_geo.engine.evaluator import Evaluator
from motor_geo.engine.loggers import Logger
from motor_geo.engine.metrics import LIST_METRICS
from motor_geo.engine.sharded import SharedState, check_safetensors, last_folder, world_of
from motor_geo.parallel.user_shard import UserShard, shard_in
from motor_geo.typing import Embeddings, find_edges, unread_edges
from motor_geo.utils.cache import fingerprint
from motor_geo.utils.errors import one_line
from motor_geo.utils.files import atomic_write

logger = logging.getLogger(__name__)


class FitResult(NamedTuple):
    r"""The result of training or fitting."""

    epochs: int  # number of finished epochs
    best_epoch: int  # number of the best epoch, from 1; the last one without an evaluator
    best: dict[str, float]  # validation metrics of the best epoch
    history: list[dict[str, Any]]  # one entry per epoch, as in metrics.jsonl
    seconds: float  # time of training and validation, without interruptions


class EpochLoop:
    r"""Base class of :class:`~motor_geo.engine.trainer.Trainer` and
    :class:`~motor_geo.engine.fitter.Fitter`, which implement :obj:`run_epoch`.
    """

    #: The word for an epoch in progress bars and logs.
    word = 'epoch'

    def __init__(
        self,
        model: nn.Module,
        data: HeteroData,
        evaluator: Evaluator | None,
        epochs: int,
        patience: int,
        metric: str,
        seed: int,
        out: str | None,
        fingerprint: str,
        progress: bool,
        callbacks: Sequence[Callable[[dict[str, Any]], None] | Logger],
        edge_type: EdgeType,
    ):
        if epochs < 1:
            raise ValueError(f"'epochs' must be positive (got {epochs})")
        if patience < 0:
            raise ValueError(f"'patience' must not be negative (got {patience})")
        if evaluator is not None:
            _check_metric(metric, evaluator)
        self.data = data
        self.evaluator = evaluator
        self.epochs = epochs
        self.patience = patience
        #: Number of epochs before which early stopping does not end training.
        self.min_epochs = 0
        self.metric = metric
        self.seed = seed
        self.out = out
        self.fingerprint = fingerprint
        self.progress = progress
        self.callbacks = callbacks
        self.edge_type = edge_type
        #: The users of this process, if it is one of several.
        self.shard: UserShard | None = shard_in(data, edge_type)
        self.world = world_of(self.shard)
        if self.world.size > 1:
            self.progress = progress and self.world.is_first
            if out is not None:
                check_safetensors()
        self.history: list[dict[str, Any]] = []
        #: The objects to save and restore, by their name in the checkpoint.
        self.parts: dict[str, Any] = {'model': model}
        self._inputs: dict[str, str] = {}

    def begin(self) -> None:
        r"""Called once before the first epoch, after restoring a checkpoint."""

    def run_epoch(self, epoch: int, first: bool) -> dict[str, Any]:
        r"""Trains and validates one epoch.

        Args:
            epoch: Number of the epoch, from 0.
            first: Whether it is the first epoch of this call of :obj:`fit`.

        Returns:
            The entry of the epoch in :obj:`metrics.jsonl`.
        """
        raise NotImplementedError

    def fit(self) -> FitResult:
        r"""Runs all remaining epochs. If :obj:`out` contains a checkpoint,
        resumes after the last finished epoch.

        Afterwards, the model has the weights of the last epoch. If :obj:`out`
        is given, :obj:`best.pt` contains the weights of the best epoch.

        Raises:
            OSError: If a file cannot be written.
            ValueError: If a checkpoint in :obj:`out` belongs to another model,
                other data, other tokens or other graphs.
        """
        self._inputs = _inputs(self.data if self.shard is None else self.shard.whole(self.data))
        self._resume()
        self.begin()
        start = len(self.history)
        bar = tqdm(
            total=self.epochs,
            initial=start,
            desc=f'{self.word}s',
            unit=self.word,
            disable=not self.progress or not sys.stderr.isatty(),
        )
        device = self.device
        cuda = [device.index or 0] if device.type == 'cuda' else []
        with bar, torch.random.fork_rng(devices=cuda):
            for epoch in range(start, self.epochs):
                if self._stops():
                    break
                entry = self.run_epoch(epoch, epoch == start)
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

    @property
    def device(self) -> torch.device:
        r"""The device of the graph."""
        return find_edges(self.data, self.edge_type).device

    def validate(self, emb: Embeddings | Callable[[Tensor], Tensor]) -> dict[str, float]:
        r"""Computes the metrics of an epoch. Coverage and popularity need the lists of
        all users, so they are only computed if :obj:`metric` is one of them.
        """
        assert self.evaluator is not None
        if self.metric.split('@')[0] in LIST_METRICS:
            return self.evaluator.evaluate(emb).metrics
        return self.evaluator.validate(emb)

    def seed_epoch(self, epoch: int) -> torch.Generator:
        r"""Seeds the global random state for an epoch, and returns an
        independent generator on the device of the graph.

        Args:
            epoch: Number of the epoch, from 0.
        """
        state = np.random.SeedSequence((self.seed, epoch)).generate_state(2, np.uint64)
        torch.manual_seed(int(state[0]) >> 1)
        return torch.Generator(self.device).manual_seed(int(state[1]) >> 1)

    def _best(self) -> int:
        if self.evaluator is None:
            return len(self.history) - 1
        values = [round(entry['val'][self.metric], 4) for entry in self.history]
        return values.index(max(values))  # The first one, since a tie is not an improvement.

    def _failures(self) -> int:
        return len(self.history) - 1 - self._best() if self.history else 0

    def _stops(self) -> bool:
        return self._failures() > self.patience and len(self.history) >= self.min_epochs

    def _resume(self) -> None:
        if self.out is None:
            return
        path = self.world.share(last_folder(osp.join(self.out, 'last')))
        single = path is None
        path = osp.join(self.out, 'last.pt') if path is None else path
        if not self.world.share(osp.exists(path)):
            if self.world.is_first and osp.lexists(self._metrics_path()):  # It was lost.
                os.remove(self._metrics_path())
            return
        expected = {'model': type(self.parts['model']).__name__, 'fingerprint': self.fingerprint}
        if single:
            state = load_checkpoint(path, **expected, map_location=self.device)
            state = state if self.shard is None else self._shared().part(state)
        else:
            state = self._shared().load(path, self.device, **expected)
        known = state.get('inputs')  # Checkpoints of earlier versions have none.
        for name, value in self._inputs.items():
            if isinstance(known, dict) and known.get(name, value) != value:
                raise ValueError(
                    f"'{path}' was trained with other {name} than the data has now; resume with "
                    'the package versions that created it, or delete the folder'
                )
        try:
            for name, part in self.parts.items():
                part.load_state_dict(state[name])
            self.history = json.loads(state['history'])
            self._best(), [entry['epoch'] + entry['seconds'] for entry in self.history]
        except Exception as error:
            raise ValueError(f"'{path}' does not fit the model: {one_line(error)[:200]}") from error
        if not self.world.is_first:
            return
        # Removes the lines of epochs without a checkpoint.
        with atomic_write(self._metrics_path()) as temporary, open(temporary, 'w') as file:
            file.writelines(json.dumps(entry) + '\n' for entry in self.history)

    def _save(self, entry: dict[str, Any]) -> None:
        if self.out is None:
            return
        os.makedirs(self.out, exist_ok=True)
        meta = {'model': type(self.parts['model']).__name__, 'fingerprint': self.fingerprint}
        parts = {name: part.state_dict() for name, part in self.parts.items()}
        # The order matters: if the process is killed in between, the epoch runs again.
        if self._failures() == 0:
            weights = parts['model']
            weights = weights if self.shard is None else self._shared().whole(weights)
            if self.world.is_first:
                best = {'epoch': entry['epoch'], 'model': weights}
                save_checkpoint(osp.join(self.out, 'best.pt'), best, **meta)
        more = {'history': json.dumps(self.history), 'inputs': self._inputs}
        folder, single = (osp.join(self.out, name) for name in ('last', 'last.pt'))
        if self.shard is None:
            save_checkpoint(single, {**parts, **more}, **meta)
            shutil.rmtree(folder, ignore_errors=True)
        else:
            self._shared().save(folder, entry['epoch'], parts, {**more, **meta})
            with suppress(FileNotFoundError):
                os.remove(single)
        if not self.world.is_first:
            return
        path = self._metrics_path()
        try:
            with open(path, 'a') as file:
                file.write(json.dumps(entry) + '\n')
        except OSError as error:
            raise OSError(f"cannot write '{path}': {error.strerror}") from error

    def _shared(self) -> SharedState:
        return SharedState(self.parts['model'], self.shard)

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
            logger.info('%s %4d  %s  %.2f s', self.word, entry['epoch'], line, entry['seconds'])
        else:
            bar.set_postfix_str(line)
            bar.update()


def _inputs(data: HeteroData) -> dict[str, str]:
    r"""Returns hashes of the tokens and the graphs that a model is trained on."""
    stores = [data[edge_type] for edge_type in data.edge_types]
    graphs = [[unread_edges(store), store.get('edge_weight')] for store in stores]
    tokens = [data[node_type].get('token_id') for node_type in data.node_types]
    return {'tokens': fingerprint(tokens), 'graphs': fingerprint(graphs)}


def _check_metric(metric: str, evaluator: Evaluator) -> None:
    names = evaluator.mean_metrics
    if metric not in {f'{name}@{k}' for name in names for k in evaluator.ks}:
        raise ValueError(
            f"'metric' must be one of {', '.join(names)} at one of the cut-offs "
            f"{', '.join(map(str, evaluator.ks))}, such as '{names[0]}@{evaluator.ks[-1]}' "
            f"(got '{metric}')"
        )
