r"""Training: epochs of steps, validation, checkpoints and early stopping."""

from __future__ import annotations

import copy
import json
import logging
import math
import os
import os.path as osp
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import numpy as np
import torch
from torch_geometric.data import HeteroData
from torch_geometric.typing import EdgeType
from tqdm import tqdm

from motor_geo.data.sampler import BPRSampler, has_full_user
from motor_geo.engine.checkpoint import load_checkpoint, save_checkpoint
from motor_geo.engine.checks import (
    check_embeddings,
    check_losses,
    check_methods,
    checked_forward,
)
from motor_geo.engine.evaluator import Evaluator
from motor_geo.engine.loggers import Logger
from motor_geo.engine.metrics import LIST_METRICS
from motor_geo.nn.models import Recommender
from motor_geo.typing import ITEM, RATES, find_edges, num_nodes
from motor_geo.utils.cache import fingerprint
from motor_geo.utils.errors import one_line
from motor_geo.utils.files import atomic_write

logger = logging.getLogger(__name__)


class FitResult(NamedTuple):
    r"""The result of a training."""

    epochs: int  # finished epochs
    best_epoch: int  # counted from 1; the last one without an evaluator
    best: dict[str, float]  # validation metrics at the best epoch
    history: list[dict[str, Any]]  # one entry per epoch, as in metrics.jsonl
    seconds: float  # training and validation, interruptions apart


def half_features(data: HeteroData, node_type: str = ITEM) -> HeteroData:
    r"""A shallow copy of a graph whose item features are bfloat16."""
    out = copy.copy(data)
    for key, value in data[node_type].items():
        if key.startswith('x_') and value.is_floating_point():
            out[node_type][key] = value.bfloat16()
    return out


class Trainer:
    r"""Trains a backbone: sample, loss, step, validate, checkpoint, stop.

    Training ends when :obj:`metric`, rounded to four decimals, has not risen
    for more than :obj:`patience` epochs in a row. All randomness of an epoch
    derives from :obj:`seed` and the number of the epoch, so that a training
    which was killed goes on from its last finished epoch and ends with the
    same bits.

    Args:
        model: The backbone.
        data: The graph with training edges, on the device of the model.
        evaluator: Ranks the validation targets. Without one, all
            :obj:`epochs` are trained, nothing is validated, and the last
            epoch counts as the best.
        lr: Learning rate of Adam; :obj:`None` is the model's own.
        weight_decay: Coupled weight decay of Adam; :obj:`None` is the model's
            own.
        lr_decay: Whether the learning-rate schedule of the model is followed.
        batch_size: Interactions per step.
        epochs: Epochs at the most.
        patience: Epochs in a row without improvement before training ends with
            the next one.
        metric: The validation metric that decides.
        bf16: If set to :obj:`True`, losses are computed under
            :class:`torch.autocast` in bfloat16: products of matrices take and
            give half precision, while weights, token networks, sums over
            graphs and ranking stay as they are. Measured on CPUs with AMX
            only, where it pays for backbones that multiply much (LIRDRec,
            MMGCN, GRCN). Features are held a second time, in half the memory.
        seed: Seed of sampling and of everything random in a loss.
        out: Folder of checkpoints and of :obj:`metrics.jsonl`; nothing is
            written if :obj:`None`.
        fingerprint: Hash of data and settings, which a checkpoint must share.
        progress: Whether a bar is shown (or, where there is no terminal, a
            line per epoch logged at level :obj:`INFO`).
        callbacks: Called with the entry of every epoch: functions, or
            loggers of :obj:`motor_geo.engine.loggers`.
        user_names: Names of the users, for warnings. (default: their indices)
        edge_type: Edge type of training interactions, from users to items.

    Raises:
        ValueError: If an argument is out of range, a checkpoint in
            :obj:`out` belongs to another model or other data, or the model
            returns something other than losses and embeddings.
        FloatingPointError: If the loss is not finite.
    """

    def __init__(
        self,
        model: Recommender,
        data: HeteroData,
        evaluator: Evaluator | None = None,
        lr: float | None = None,
        weight_decay: float | None = None,
        lr_decay: bool = True,
        batch_size: int = 2048,
        epochs: int = 1000,
        patience: int = 20,
        metric: str = 'recall@20',
        bf16: bool = False,
        seed: int = 0,
        out: str | None = None,
        fingerprint: str = '',
        progress: bool = True,
        callbacks: Sequence[Callable[[dict[str, Any]], None] | Logger] = (),
        user_names: Sequence[object] | np.ndarray | None = None,
        edge_type: EdgeType = RATES,
    ):
        if epochs < 1:
            raise ValueError(f"'epochs' must be positive (got {epochs})")
        if patience < 0:
            raise ValueError(f"'patience' must not be negative (got {patience})")
        if evaluator is not None:
            _check_metric(metric, evaluator)
        check_methods(model)
        self.model = model
        self.data = data
        self.evaluator = evaluator
        self.lr = model.lr if lr is None else lr
        self.lr_decay = model.lr_decay if lr_decay else (1.0, 1.0)
        self.epochs = epochs
        self.patience = patience
        self.metric = metric
        self.bf16 = bf16
        self.seed = seed
        self.out = out
        self.fingerprint = fingerprint
        self.progress = progress
        self.callbacks = callbacks

        self.edge_type = edge_type
        edge_index = find_edges(data, edge_type)
        sizes = num_nodes(data, edge_type[0]), num_nodes(data, edge_type[2])
        self.sampler = BPRSampler(
            edge_index,
            *sizes,
            batch_size=batch_size,
            seed=seed,
            # Where all users have negatives, they are drawn for the sake of the random stream.
            negatives=model.needs_negatives or not has_full_user(edge_index, *sizes),
            user_names=user_names,
        )
        self.optimizer = torch.optim.Adam(
            model.parameters(),
            lr=self.lr,
            weight_decay=model.weight_decay if weight_decay is None else weight_decay,
            fused=True,
        )
        self.history: list[dict[str, Any]] = []
        self._inputs: dict[str, str] = {}

    def fit(self) -> FitResult:
        r"""Trains, from the last finished epoch if :obj:`out` holds one.

        With :obj:`out` given, the weights of the best epoch are in
        :obj:`best.pt` afterwards, and the model holds those of the last.
        """
        self._inputs = _inputs(self.data)
        self._resume()
        start = len(self.history)
        data = half_features(self.data, self.edge_type[2]) if self.bf16 else self.data
        bar = tqdm(
            total=self.epochs,
            initial=start,
            desc='epochs',
            unit='epoch',
            disable=not self.progress or not sys.stderr.isatty(),
        )
        with bar, torch.random.fork_rng(devices=self._cuda_devices()):
            for epoch in range(start, self.epochs):
                if self._failures() > self.patience:
                    break
                entry = self._run_epoch(epoch, data, check=epoch == start)
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

    def _run_epoch(self, epoch: int, data: HeteroData, check: bool) -> dict[str, Any]:
        start = time.perf_counter()
        generator = self._seed_epoch(epoch)
        factor = self.lr_decay[0] ** (epoch / self.lr_decay[1])
        for group in self.optimizer.param_groups:
            group['lr'] = self.lr * factor

        self.model.train()
        self.model.begin_epoch(data, epoch, generator)
        sums: dict[str, torch.Tensor] = {}
        bar = tqdm(
            self.sampler.epoch(epoch),
            total=len(self.sampler),
            desc=f'epoch {epoch + 1}',
            leave=False,
            position=1,
            mininterval=0.5,
            disable=not self.progress or not sys.stderr.isatty(),
        )
        for batch in bar:
            first = check and not sums
            with (
                torch.autocast(self._device().type, torch.bfloat16, enabled=self.bf16),
                checked_forward(self.model, data, self.edge_type) if first else nullcontext(),
            ):
                losses = self.model.loss(data, batch)
            if first:
                check_losses(self.model, losses)
            total = torch.stack(list(losses.values())).sum()
            self.optimizer.zero_grad(set_to_none=True)
            total.backward()
            self.optimizer.step()
            for name, value in losses.items():  # Read once, at the end of the epoch.
                value = value.detach()
                sums[name] = sums[name] + value if name in sums else value

        means = {name: float(value) / len(self.sampler) for name, value in sums.items()}
        if not all(math.isfinite(value) for value in means.values()):
            raise FloatingPointError(
                f'The loss is not finite in epoch {epoch + 1} ({means}); try a lower learning '
                'rate, or scale the features'
            )
        for name, weight in self.model.named_parameters():
            if not bool(weight.isfinite().all()):
                raise FloatingPointError(
                    f"The weights '{name}' are not finite after epoch {epoch + 1}: a gradient was "
                    'not; try a lower learning rate, or scale the features'
                )
        trained = time.perf_counter()
        self.model.eval()
        metrics: dict[str, float] = {}
        if self.evaluator is not None:
            with torch.no_grad():
                embeddings = self.model(self.data)
                if check:
                    check_embeddings(self.model, embeddings, self.data, self.edge_type)
                metrics = self.evaluator.evaluate(embeddings).metrics
        end = time.perf_counter()
        return {
            'epoch': epoch + 1,
            'loss': sum(means.values()),
            'losses': means,
            'val': metrics,
            'seconds': end - start,
            'train_seconds': trained - start,
        }

    def _seed_epoch(self, epoch: int) -> torch.Generator:
        state = np.random.SeedSequence((self.seed, epoch)).generate_state(2, np.uint64)
        torch.manual_seed(int(state[0]) >> 1)
        return torch.Generator(self._device()).manual_seed(int(state[1]) >> 1)

    def _device(self) -> torch.device:
        return self.data[self.edge_type].edge_index.device

    def _cuda_devices(self) -> list[int]:
        device = self._device()
        return [device.index or 0] if device.type == 'cuda' else []

    def _rounded(self) -> list[float]:
        return [round(entry['val'][self.metric], 4) for entry in self.history]

    def _best(self) -> int:
        if self.evaluator is None:
            return len(self.history) - 1
        values = self._rounded()
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
            map_location=self._device(),
        )
        known = state.get('inputs')  # Versions of before kept none.
        for name, value in self._inputs.items():
            if isinstance(known, dict) and known.get(name, value) != value:
                raise ValueError(
                    f"'{path}' was trained with other {name} than those that the data have now; "
                    'go on with the versions of before, or delete the folder'
                )
        try:
            self.model.load_state_dict(state['model'])
            self.optimizer.load_state_dict(state['optimizer'])
            self.history = json.loads(state['history'])
            self._best(), [entry['epoch'] + entry['seconds'] for entry in self.history]
        except Exception as error:
            raise ValueError(f"'{path}' does not fit the model: {one_line(error)[:200]}") from error
        # Lines of an epoch whose checkpoint was not written are taken back.
        with atomic_write(self._metrics_path()) as temporary, open(temporary, 'w') as file:
            file.writelines(json.dumps(entry) + '\n' for entry in self.history)

    def _save(self, entry: dict[str, Any]) -> None:
        if self.out is None:
            return
        os.makedirs(self.out, exist_ok=True)
        meta = {'model': type(self.model).__name__, 'fingerprint': self.fingerprint}
        weights = self.model.state_dict()
        # The order matters: a kill in between repeats the epoch.
        if self._failures() == 0:
            best = {'epoch': entry['epoch'], 'model': weights}
            save_checkpoint(osp.join(self.out, 'best.pt'), best, **meta)
        state = {
            'model': weights,
            'optimizer': self.optimizer.state_dict(),
            'history': json.dumps(self.history),
            'inputs': self._inputs,
        }
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
        line = f'loss {entry["loss"]:.4f}'
        if self.evaluator is not None:
            best = self._best()
            line += (
                f'  {self.metric} {entry["val"][self.metric]:.4f}  '
                f'best {self.history[best]["val"][self.metric]:.4f} at {best + 1}'
            )
        if bar.disable:
            logger.info('epoch %4d  %s  %.2f s', entry['epoch'], line, entry['seconds'])
        else:
            bar.set_postfix_str(line)
            bar.update()


def _inputs(data: HeteroData) -> dict[str, str]:
    r"""Hashes of the tokens and of the graphs that a model is trained with."""
    stores = [data[edge_type] for edge_type in data.edge_types]
    graphs = [[store.get(key) for key in ('edge_index', 'edge_weight')] for store in stores]
    tokens = [data[node_type].get('token_id') for node_type in data.node_types]
    return {'tokens': fingerprint(tokens), 'graphs': fingerprint(graphs)}


def _check_metric(metric: str, evaluator: Evaluator) -> None:
    names = (*evaluator.metrics, *LIST_METRICS)
    if metric not in {f'{name}@{k}' for name in names for k in evaluator.ks}:
        raise ValueError(
            f"'metric' must be one of {', '.join(names)} at one of the cut-offs "
            f"{', '.join(map(str, evaluator.ks))}, such as '{names[0]}@{evaluator.ks[-1]}' "
            f"(got '{metric}')"
        )
