r"""Trains models with gradient steps."""

from __future__ import annotations

import copy
import math
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, Literal

import numpy as np
import torch
from torch_geometric.data import HeteroData
from torch_geometric.typing import EdgeType
from tqdm import tqdm

from motor_geo.data.sampler import BPRSampler, has_full_user
from motor_geo.engine.batch_size import auto_batch_size, auto_lr
from motor_geo.engine.checks import (
    check_columns,
    check_embeddings,
    check_losses,
    check_methods,
    check_weights,
    checked_forward,
    checked_objective,
)
from motor_geo.engine.epoch_loop import EpochLoop, FitResult
from motor_geo.engine.evaluator import Evaluator
from motor_geo.engine.loggers import Logger
from motor_geo.engine.row_adam import RowAdam
from motor_geo.nn.functional.rows import row_gradients
from motor_geo.nn.models import Recommender
from motor_geo.typing import ITEM, RATES, Embeddings, find_edges, num_nodes, with_edges

#: A best epoch of at most this number makes early stopping suspicious.
EARLY = 5


def half_features(data: HeteroData, node_type: str = ITEM) -> HeteroData:
    r"""Returns a shallow copy of a graph with item features in bfloat16.

    Args:
        data: The graph.
        node_type: Node type of items.
    """
    out = copy.copy(data)
    for key, value in data[node_type].items():
        if key.startswith('x_') and value.is_floating_point():
            out[node_type][key] = value.bfloat16()
    return out


def without_items(
    data: HeteroData, share: float, generator: torch.Generator, edge_type: EdgeType = RATES
) -> HeteroData:
    r"""Returns a shallow copy of a graph in which a random share of the items
    has no interactions. :obj:`full_edge_index` contains all interactions. If no
    interaction would remain, it returns the graph itself.

    Args:
        data: The graph.
        share: Probability that an item loses its interactions.
        generator: The random number generator.
        edge_type: Edge type of interactions, from users to items.
    """
    edge_index = find_edges(data, edge_type)
    num_items = num_nodes(data, edge_type[2])
    draw = torch.rand(num_items, generator=generator, device=edge_index.device)
    keep = draw[edge_index[1]] >= share
    if not bool(keep.any()):
        return data
    out = with_edges(data, edge_index[:, keep], edge_type)
    out[edge_type].full_edge_index = edge_index
    return out


class Trainer(EpochLoop):
    r"""Trains a backbone with sampled mini-batches, and validates it and saves a
    checkpoint after each epoch.

    Training ends when :obj:`metric`, rounded to four decimals, has not improved
    for more than :obj:`patience` epochs in a row. All randomness of an epoch
    derives from :obj:`seed` and the number of the epoch. An interrupted
    training therefore resumes after its last finished epoch and gives
    bit-identical results.

    Args:
        model: The backbone.
        data: The graph with training edges, on the device of the model. If it is the
            part of one of several processes (:meth:`UserShard.cut
            <motor_geo.parallel.UserShard.cut>`), all of them train together.
        evaluator: Ranks the validation targets. Without one, training runs all
            :obj:`epochs` without validation, and the last epoch counts as the
            best.
        lr: Learning rate of Adam. (default: the model's own)
        weight_decay: Coupled weight decay of Adam. (default: the model's own)
        lr_decay: If set to :obj:`True`, follows the learning-rate schedule of
            the model.
        batch_size: Number of interactions per step. :obj:`'auto'` grows with the
            number of interactions, and so does a learning rate that is not
            given, see :mod:`motor_geo.engine.batch_size`.
        epochs: Maximum number of epochs.
        patience: Number of epochs in a row without improvement before the next
            one is the last.
        min_epochs: Number of epochs before which early stopping does not end
            training. With contrastive losses, the metric often falls for tens of
            epochs before it rises above its first values.
        metric: The validation metric for early stopping.
        drop_items: Share of the items whose edges are removed from the graph,
            but not from the loss. They are drawn anew in every epoch. The model
            must then represent these items by their content, as in DropoutNet.
        bf16: If set to :obj:`True`, computes losses under
            :class:`torch.autocast` in bfloat16: matrix products take and return
            half precision, while weights, token networks, sums over graphs and
            ranking keep their precision. Only measured on CPUs with AMX, where
            it speeds up backbones with many matrix products (LIRDRec, MMGCN,
            GRCN). It stores a second copy of the features in half the memory.
        sparse_adam: If set to :obj:`True`, Adam updates only the rows of tables that
            a batch reads, as :class:`torch.optim.SparseAdam` does. A step then
            costs what the batch costs, whatever the size of the tables. It
            changes results, and applies to models whose losses read only rows of
            tables (BPR, VBPR, DeepStyle).
        seed: Seed of sampling and of all randomness in a loss.
        out: Folder of checkpoints and of :obj:`metrics.jsonl`. If set to
            :obj:`None`, nothing is written.
        fingerprint: Hash of data and settings. Resuming requires a checkpoint
            with the same hash.
        progress: If set to :obj:`True`, shows a progress bar, or logs one line
            per epoch at level :obj:`INFO` if there is no terminal.
        callbacks: Functions, or loggers from :obj:`motor_geo.engine.loggers`,
            that receive the entry of every epoch.
        user_names: Names of the users, for warnings. (default: their indices)
        edge_type: Edge type of training interactions, from users to items.

    Raises:
        ValueError: If an argument is out of range, a checkpoint in
            :obj:`out` belongs to another model or other data, or the model
            returns something other than losses and embeddings.
        FloatingPointError: If the loss or a weight is not finite.
    """

    def __init__(
        self,
        model: Recommender,
        data: HeteroData,
        evaluator: Evaluator | None = None,
        lr: float | None = None,
        weight_decay: float | None = None,
        lr_decay: bool = True,
        batch_size: int | Literal['auto'] = 2048,
        epochs: int = 1000,
        patience: int = 20,
        min_epochs: int = 0,
        metric: str = 'recall@20',
        drop_items: float = 0.0,
        bf16: bool = False,
        sparse_adam: bool = False,
        seed: int = 0,
        out: str | None = None,
        fingerprint: str = '',
        progress: bool = True,
        callbacks: Sequence[Callable[[dict[str, Any]], None] | Logger] = (),
        user_names: Sequence[object] | np.ndarray | None = None,
        edge_type: EdgeType = RATES,
    ):
        loop = seed, out, fingerprint, progress, callbacks, edge_type
        super().__init__(model, data, evaluator, epochs, patience, metric, *loop)
        if min_epochs < 0:
            raise ValueError(f"'min_epochs' must not be negative (got {min_epochs})")
        self.min_epochs = min_epochs
        check_methods(model)
        check_weights(model)
        if self.shard is not None and self.shard.columns.size > 1:
            check_columns(model)
        if not 0 <= drop_items < 1:
            raise ValueError(f"'drop_items' must be at least 0 and below 1 (got {drop_items})")
        self.drop_items = drop_items
        self.model = model
        self.lr = model.lr if lr is None else lr
        self.lr_decay = model.lr_decay if lr_decay else (1.0, 1.0)
        self.bf16 = bf16
        edge_index = find_edges(data, edge_type)
        if batch_size == 'auto':
            num_edges = edge_index.size(1) if self.shard is None else self.shard.num_edges
            batch_size = auto_batch_size(num_edges)
            self.lr = auto_lr(model.lr, batch_size) if lr is None else lr
        sizes = num_nodes(data, edge_type[0]), num_nodes(data, edge_type[2])
        self.sampler = BPRSampler(
            edge_index,
            *sizes,
            batch_size=batch_size,
            seed=seed,
            # Draws negatives if all users have some, even if the loss does not need them: this
            # keeps the random stream the same.
            negatives=model.needs_negatives or not has_full_user(edge_index, *sizes, self.shard),
            user_names=user_names,
            shard=self.shard,
        )
        self.optimizer = RowAdam(
            model.parameters(),
            lr=self.lr,
            weight_decay=model.weight_decay if weight_decay is None else weight_decay,
            lazy=sparse_adam,
        )
        self.parts['optimizer'] = self.optimizer
        self._features = data

    def begin(self) -> None:
        item_type = self.edge_type[2]
        self._features = half_features(self.data, item_type) if self.bf16 else self.data

    def fit(self) -> FitResult:
        result = super().fit()
        early = result.best_epoch <= EARLY < 2 * EARLY < result.epochs and self._stops()
        if early and self.world.is_first:
            warnings.warn(
                f"'{self.metric}' was best after epoch {result.best_epoch} of {result.epochs}. "
                'With contrastive losses, it often falls for tens of epochs before it rises above '
                'its first values: train longer (min_epochs), or with a lower learning rate',
                stacklevel=2,
            )
        return result

    def _check_sparse(self) -> None:
        grads = [parameter.grad for parameter in self.model.parameters()]
        if not any(grad is not None and grad.is_sparse for grad in grads):
            warnings.warn(
                f"'sparse_adam' changes nothing: the loss of '{type(self.model).__name__}' does "
                'not read only the rows of a batch from any table.',
                stacklevel=1,
            )

    def run_epoch(self, epoch: int, first: bool) -> dict[str, Any]:
        data = self._features
        start = time.perf_counter()
        generator = self.seed_epoch(epoch)
        factor = self.lr_decay[0] ** (epoch / self.lr_decay[1])
        for group in self.optimizer.param_groups:
            group['lr'] = self.lr * factor

        self.model.train()
        if self.drop_items > 0:
            data = without_items(data, self.drop_items, generator, self.edge_type)
        self.model.begin_epoch(data, epoch, generator)
        # The gradients are exact for tables that a loss reads once.
        sparse = not self.model.needs_tables and self.model.user_encoder is None
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
            check = first and not sums
            self.optimizer.zero_grad(set_to_none=True)  # Before the loss: gradients take memory.
            with (
                row_gradients(sparse),
                torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16),
                checked_forward(self.model, data, self.edge_type) if check else nullcontext(),
                checked_objective(self.model) if check else nullcontext(),
            ):
                batch = batch if self.shard is None else self.shard.batch(batch)
                losses = self.model.loss(data, batch)
            if check:
                check_losses(self.model, losses)
            total = torch.stack(list(losses.values())).sum()
            if self.world.size > 1:  # All processes have the same loss, see `World`.
                total = total / self.world.size
            total.backward()
            if check and self.optimizer.lazy:
                self._check_sparse()
            if self.shard is not None:
                tables = self.model.user_tables(), self.model.column_tables()
                self.shard.sum_gradients(self.model, *tables)
            self.optimizer.step()
            for name, value in losses.items():  # Read from the device only once per epoch.
                value = value.detach()
                sums[name] = sums[name] + value if name in sums else value

        means = {name: float(value) / len(self.sampler) for name, value in sums.items()}
        if not all(math.isfinite(value) for value in means.values()):
            raise FloatingPointError(
                f'The loss is not finite in epoch {epoch + 1} ({means}); try a lower learning '
                'rate, or scale the features'
            )
        for name, weight in self.model.named_parameters():
            if not self.world.agree(bool(weight.isfinite().all())):
                raise FloatingPointError(
                    f"The weights '{name}' are not finite after epoch {epoch + 1}, because a "
                    'gradient was not; try a lower learning rate, or scale the features'
                )
        trained = time.perf_counter()
        self.model.eval()
        metrics: dict[str, float] = {}
        if self.evaluator is not None:
            with torch.no_grad():
                embeddings = self.model(self.data)
                if first:
                    check_embeddings(self.model, embeddings, self.data, self.edge_type)
                if self.shard is not None:
                    embeddings = Embeddings(*self.shard.to_rank(*embeddings))
                metrics = self.validate(embeddings)
        end = time.perf_counter()
        return {
            'epoch': epoch + 1,
            'loss': sum(means.values()),
            'losses': means,
            'val': metrics,
            'seconds': end - start,
            'train_seconds': trained - start,
        }
