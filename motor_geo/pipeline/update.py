r"""Updates a finished run with new data: :obj:`motor-geo update`."""

from __future__ import annotations

import argparse
import dataclasses
import os.path as osp
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from motor_geo.utils.errors import ConfigError, run_command
from motor_geo.utils.memory import tune_process

if TYPE_CHECKING:
    from torch import Tensor, nn

    from motor_geo.data.datasets.bundle import BundledDataset
    from motor_geo.pipeline.config import RunConfig
    from motor_geo.pipeline.folder import LoadedRun

#: Default number of epochs of an update.
EPOCHS = 5


class Change(NamedTuple):
    r"""The changes of an update.

    Args:
        users: Raw ids of the new users.
        items: Raw ids of the new items.
        interactions: Number of new interactions.
        known: Number of given interactions that were already known. They are
            not among the new ones.
    """

    users: np.ndarray
    items: np.ndarray
    interactions: int
    known: int

    def __str__(self) -> str:
        known = f' ({self.known:,} more were already known)' if self.known else ''
        return (
            f'{self.interactions:,} new interactions{known}, {len(self.users):,} new users, '
            f'{len(self.items):,} new items'
        )


def main(arguments: Sequence[str] | None = None) -> int:
    tune_process()
    parser = argparse.ArgumentParser(
        prog='motor-geo update',
        description='Continues a finished run with new interactions and items, in a new, '
        'self-contained folder. Existing users and items keep their indices.',
    )
    parser.add_argument('run', metavar='RUN_DIR', type=osp.expanduser, help='run folder')
    parser.add_argument(
        '--interactions',
        metavar='FILE',
        type=osp.expanduser,
        help='new interactions (columns userID and itemID)',
    )
    parser.add_argument('--items', metavar='FOLDER', help='folder with the features of new items')
    parser.add_argument(
        '--refit',
        action='store_true',
        help='train from scratch on everything, including held-out interactions, for the best '
        'number of epochs of the run',
    )
    parser.add_argument(
        '--epochs', type=int, help=f'number of epochs (default: {EPOCHS}; see --refit)'
    )
    parser.add_argument('--out', type=osp.expanduser, help='the new folder (default: RUN_DIR-next)')
    parser.add_argument('--data', metavar='FOLDER', help='location of the data, if they have moved')
    parser.add_argument('--device', default='auto', help='auto, cpu or cuda (default: auto)')
    options = parser.parse_args(arguments)

    def command() -> int:
        from motor_geo.pipeline.folder import load_run
        from motor_geo.utils.files import check_new

        if options.epochs is not None and options.epochs < 1:
            raise ValueError(f'--epochs must be at least 1 (got {options.epochs})')
        if options.interactions is None and options.items is None and not options.refit:
            raise ValueError(
                'nothing to update; expected --interactions FILE, --items FOLDER or --refit'
            )
        out = options.out or f'{osp.normpath(options.run)}-next'
        check_new(out)
        run = load_run(options.run, options.device, options.data)
        args = options.interactions, options.items, options.refit, options.epochs
        for line in update(run, options.run, out, *args):
            print(line)
        return 0

    return run_command(command)


def update(
    run: LoadedRun,
    folder: str,
    out: str,
    interactions: Any = None,
    new_items: str | None = None,
    refit: bool = False,
    epochs: int | None = None,
) -> list[str]:
    r"""Continues a run in a new folder.

    New interactions are added to the training interactions. Existing users and
    items keep their indices and weights, and new ones start from the mean of
    the existing ones. Tokens do not change, and the codebooks of the run yield
    the tokens of new items. With :obj:`refit`, tokens and model are instead
    fitted from scratch on all interactions, including held-out ones.

    Args:
        run: The run.
        folder: The run folder.
        out: The new folder.
        interactions: The new interactions: a file, a mapping from users to
            items, pairs of a user and an item, or a data frame.
            (default: :obj:`None`)
        new_items: A folder with the features of new items.
            (default: :obj:`None`)
        refit: Whether to train from scratch on everything.
            (default: :obj:`False`)
        epochs: Number of epochs. (default: 5, or with :obj:`refit` the best
            epoch of the run)

    Returns:
        A summary of the update, as a list of lines.

    Raises:
        ValueError: If an interaction or a feature is invalid.
    """
    import torch

    from motor_geo.data.datasets.bundle import write_bundle
    from motor_geo.pipeline.assemble import assemble
    from motor_geo.pipeline.folder import BUNDLED
    from motor_geo.pipeline.train import build_evaluator, build_trainer, train
    from motor_geo.utils.files import move_folder, temporary_folder

    result, best = finished(folder)
    dataset, change = extend(run, interactions, new_items, refit)
    if epochs is None:
        epochs = best if refit else EPOCHS
    config = with_epochs(run.config, epochs, out)
    config = dataclasses.replace(config, data={'name': BUNDLED, 'path': osp.abspath(out)})
    device = str(run.data['user', 'rates', 'item'].edge_index.device)
    assembly = assemble(config, dataset, device)
    assembly.add_tokens(None if refit else run.tokenizer)
    lines = [f'{change}']
    before = None
    if not refit:
        warm_start(run, assembly.model)
        validation = build_evaluator(assembly, 'val')
        if validation is not None:
            assembly.model.eval()
            with torch.no_grad():
                before = validation.evaluate(assembly.model(assembly.data)).metrics
    content = dataset.content()
    if refit and assembly.tokenizer is not None:
        content['token_id'] = assembly.data['item'].token_id.cpu()
        content['fitted'] = None
    parent = osp.dirname(osp.realpath(out))
    with temporary_folder(parent) as temporary:
        trainer = build_trainer(assembly, temporary, config.trainer['progress'])
        trainer.data = assembly.data
        write_bundle(content, temporary)
        found = train(assembly, trainer, build_evaluator(assembly, 'test'), temporary)
        move_folder(temporary, out)
    rate = getattr(trainer, 'lr', None)
    word = 'epoch' if rate is not None else 'iteration'
    at = '' if rate is None else f' at a learning rate of {rate:g}'
    start = 'from scratch on everything' if refit else 'from the weights of the run'
    lines.append(f'{found["epochs"]} {word}s{at}, {start}')
    metric = config.trainer['metric']
    if before is not None and found['val']:
        lines.append(
            f'validation {metric}: {result["val"].get(metric, float("nan")):.4f} before, '
            f'{before[metric]:.4f} with the new data, {found["val"][metric]:.4f} after training'
        )
    lines.append(f"written to '{out}', which is self-contained")
    return lines


def finished(folder: str) -> tuple[dict[str, Any], int]:
    r"""Returns the result of a run and its best epoch.

    Raises:
        ConfigError: If the run is not finished, or its result is damaged.
    """
    from motor_geo.pipeline.finished import read_finished

    result = read_finished(folder).result
    best = result.get('best_epoch')
    if not isinstance(best, int) or best < 1 or not isinstance(result['val'], dict):
        raise ConfigError(f"'{folder}' is damaged: expected the best epoch in its result.json")
    return result, best


def with_epochs(config: RunConfig, epochs: int, out: str) -> RunConfig:
    r"""Returns the configuration with another number of epochs and folder."""
    trainer = {**config.trainer, 'epochs': epochs}
    return dataclasses.replace(config, trainer=trainer, out=out, report=False)


def extend(
    run: LoadedRun, interactions: Any, new_items: str | None, everything: bool = False
) -> tuple[BundledDataset, Change]:
    r"""Appends new data to the data of a run. Existing users and items keep
    their indices.

    Args:
        run: The run.
        interactions: The new interactions, or :obj:`None`.
        new_items: A folder with the features of new items, or :obj:`None`.
        everything: Whether to also train on held-out interactions.
            (default: :obj:`False`)

    Returns:
        The extended data set, and the changes.
    """
    import torch

    from motor_geo.data.datasets.bundle import BundledDataset, content_of
    from motor_geo.pipeline.catalog import read_catalog
    from motor_geo.pipeline.new_items import with_new_items
    from motor_geo.pipeline.new_users import known_pairs, read_users
    from motor_geo.typing import ITEM, RATES

    dataset, data = run.dataset, run.data
    catalog = read_catalog(dataset, run.config.data.get('item'))
    named = zip(catalog.titles, catalog.titled.tolist())
    titles = [title if titled else None for title, titled in named]
    fitted = getattr(dataset, 'fitted', None)
    if fitted is None:
        edge_index = data[RATES].edge_index.cpu()
        fitted = dataset.num_users, dataset.num_items, edge_index
    new_ids = np.empty(0, str)
    item_ids = dataset.item_ids
    if new_items is not None:
        data, new_ids = with_new_items(run, new_items)
        item_ids = np.concatenate([item_ids.astype(str), new_ids])
    content = content_of(dataset, None, fitted, titles)
    for m in dataset.modalities:
        content['features'][m] = data[ITEM][f'x_{m}'].cpu()
    if 'token_id' in data[ITEM]:
        content['token_id'] = data[ITEM].token_id.cpu()
    content['item_ids'] = item_ids.tolist()
    if content['titles'] is not None:
        content['titles'] = [*content['titles'], *([None] * len(new_ids))]

    user_ids, fresh, known = dataset.user_ids, np.empty(0, str), 0
    count, edge_index = 0, content['edge_index'].cpu()
    if everything:
        edge_index = known_pairs(run, 'all').cpu()
        none = torch.empty(2, 0, dtype=torch.long)
        content['held_out'] = {split: none for split in content['held_out']}
        content['dropped'] = none
    if interactions is not None:
        users = read_users(run, interactions, item_ids)
        place = {str(raw): i for i, raw in enumerate(user_ids.tolist())}
        fresh = np.array([raw for raw in users.ids.tolist() if raw not in place], dtype=str)
        place.update({raw: len(user_ids) + i for i, raw in enumerate(fresh.tolist())})
        if len(fresh):
            user_ids = np.concatenate([user_ids.astype(str), fresh])
        index = torch.tensor([place[raw] for raw in users.ids.tolist()], dtype=torch.long)
        pairs = torch.stack([index[users.pairs[0]], users.pairs[1]])
        old, size = known_pairs(run, 'all').cpu(), len(item_ids)
        again = torch.isin(pairs[0] * size + pairs[1], old[0] * size + old[1])
        known = int(again.sum())
        edge_index = torch.cat([edge_index, pairs[:, ~again]], dim=1)
        count = int((~again).sum())
    size = len(item_ids)
    key = (edge_index[0] * size + edge_index[1]).unique()
    content['edge_index'] = torch.stack([key // size, key % size])
    content['user_ids'] = user_ids.tolist()
    flags = []
    for old_flag, total in zip(content['known'], (len(user_ids), size)):
        more = torch.ones(total - len(old_flag), dtype=torch.bool)
        flags.append(torch.cat([old_flag, more]))
    content['known'] = tuple(flags)
    content['fingerprint'] = None
    return BundledDataset.of(**content), Change(fresh, new_ids, count, known)


def warm_start(run: LoadedRun, model: nn.Module) -> None:
    r"""Copies the weights of a run to a model with more users and items. New
    rows of a table get the mean of the existing rows.

    Args:
        run: The run.
        model: The new model.

    Raises:
        ConfigError: If the shapes of a weight differ by more than new rows.
    """
    import torch

    old, new = run.model.state_dict(), model.state_dict()
    with torch.no_grad():
        for name, value in new.items():
            if name not in old:
                continue
            source: Tensor = old[name].to(value.device)
            if source.shape == value.shape:
                value.copy_(source)
            elif source.shape[1:] == value.shape[1:] and len(source) < len(value):
                value[: len(source)] = source
                if value.is_floating_point():
                    value[len(source) :] = source.mean(dim=0)
            else:
                raise ConfigError(
                    f"The weights '{name}' cannot be extended to more users or items "
                    f'({list(source.shape)} before, {list(value.shape)} now); use --refit'
                )
    model.load_state_dict(new)


if __name__ == '__main__':
    sys.exit(main())
