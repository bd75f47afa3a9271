r"""Trains a recommender and evaluates it: :obj:`python -m motor_geo.run`."""

from __future__ import annotations

import dataclasses
import inspect
import json
import logging
import os
import os.path as osp
import platform
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
import yaml

from motor_geo.engine.epoch_loop import FitResult
from motor_geo.engine.evaluator import EvalResult, Evaluator
from motor_geo.engine.fitter import Fitter
from motor_geo.engine.loggers import Logger
from motor_geo.engine.metrics import GROUP_METRICS
from motor_geo.engine.sharded import world_of
from motor_geo.engine.trainer import Trainer
from motor_geo.nn.models import FittedRecommender, Recommender
from motor_geo.nn.models.popularity import count_embeddings
from motor_geo.nn.unseen import readout_of
from motor_geo.parallel import Mesh, World
from motor_geo.pipeline.assemble import (
    LATER,
    Assembly,
    assemble,
    build_dataset,
    build_device,
    named,
    run_fingerprint,
)
from motor_geo.pipeline.config import Config, RunConfig, arguments_of, dump, write_yaml
from motor_geo.pipeline.flags import UNHASHED, flatten, read_yaml
from motor_geo.pipeline.folder import (
    DATA,
    FACTOR,
    PLACES,
    begun_tokenizer,
    check_data,
    check_sources,
    describe_data,
    load_weights,
    sources,
)
from motor_geo.pipeline.large_arrays import tune_large_arrays
from motor_geo.pipeline.loggers import build_loggers, closing_all
from motor_geo.pipeline.processes import check_processes, share_users, user_bounds
from motor_geo.typing import ITEM, RATES, Embeddings, EvalTargets, Scores
from motor_geo.utils.errors import ConfigError
from motor_geo.utils.files import (
    atomic_write,
    check_writable,
    read_json,
    remove_temporary,
    writing,
)
from motor_geo.utils.lock import locked

LOG = logging.getLogger(__name__)
#: Files with the test metrics of every user, on all items and on unseen items.
PER_USER, UNSEEN = 'per_user.npz', 'unseen.npz'
#: A factor so small that unseen items barely enter the ranking.
NOTHING = 1e-6
#: Candidate factors for the vectors of unseen items.
FACTORS = (0.5, 0.7, 0.85, 1.0, 1.2, 1.4, 1.7, 2.0, 2.5, 3.0, 4.0, 6.0)
#: Called with the log entry of every epoch.
Callback = Logger | Callable[[dict[str, Any]], None]


def run(
    config: RunConfig | Config,
    progress: bool = True,
    callbacks: Sequence[Callback] = (),
    world: World | None = None,
) -> dict[str, Any]:
    r"""Trains and evaluates a model according to a configuration. Writes
    :obj:`config.yaml`, :obj:`metrics.jsonl`, :obj:`best.pt`, :obj:`last.pt`
    and :obj:`result.json` to the run folder. An interrupted run resumes; the
    result of a finished run is read from disk.

    Args:
        config: The configuration.
        progress: Whether to show progress. (default: :obj:`True`)
        callbacks: Called with the log entry of every epoch, in addition to
            the loggers of the configuration. (default: :obj:`()`)
        world: The processes that share the run. All of them call this function,
            and the first one writes. (default: this process alone)

    Returns:
        The content of :obj:`result.json`.

    Raises:
        ConfigError: If a setting is invalid, or the folder holds another run
            or is not writable.
        OSError: If a file cannot be written.
    """
    config, world = RunConfig.of(config), World() if world is None else world
    world = check_processes(config, world)
    progress = progress and world.is_first
    build_device(config.device)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    out = config.out or default_folder(config)
    # The mesh is not a setting: one process reads the same files.
    mesh = {key: parameter.default for key, parameter in arguments_of(Mesh).items()}
    config = dataclasses.replace(config, out=out, parallel=mesh)
    check_folder(config, out)
    with world.in_turn():
        dataset = build_dataset(config, on_disk=world.size > 1)
    user_bounds(dataset, world)  # Raises errors before the long work.
    if progress:
        LOG.info('%s', dataset)

    def finished() -> dict[str, Any] | None:
        check_data(out, config, dataset)
        check_sources(out, config)
        result = read_result(out, run_fingerprint(config, dataset.fingerprint), config)
        if result is not None and progress:
            LOG.info("'%s' is already finished; delete it to run again", out)
        return world.share(result)

    result = finished()
    if result is not None:
        return result

    # Check every setting before fitting tokens or writing files.
    with world.in_turn():
        assembly = assemble(config, dataset)
    assembly = share_users(assembly, world)
    loggers = build_loggers(config, out) if world.is_first else []
    trainer = build_trainer(
        assembly, out, progress, [*loggers, *callbacks] if world.is_first else []
    )
    test = build_evaluator(assembly, 'test')
    with ExitStack() as stack, closing_all(loggers):
        if osp.isdir(out) and world.is_first:
            hold_folder(stack, out)
        with world.in_turn():
            assembly.add_tokens(begun_tokenizer(out, assembly.tokenizer))
        trainer.data = assembly.part
        if world.is_first:
            hold_folder(stack, out)
        world.barrier()
        check_folder(config, out)  # Another process may have been faster.
        result = finished()
        return train(assembly, trainer, test, out) if result is None else result


def hold_folder(stack: ExitStack, out: str) -> None:
    r"""Acquires the lock of a run folder.

    Raises:
        ConfigError: If another process holds the lock.
    """
    if not stack.enter_context(locked(out)):
        raise ConfigError(f"'{out}' is in use by another process")


def train(
    assembly: Assembly,
    trainer: Trainer | Fitter,
    test: Evaluator | None,
    out: str,
    more: dict[str, Any] | None = None,
) -> dict[str, Any]:
    r"""Trains the model, evaluates the best weights, and writes the result.
    The entries of :obj:`more` are added to it.
    """
    world = world_of(assembly.shard)
    factor_evaluator(assembly)
    if world.is_first:
        claim_folder(assembly, out)
    world.barrier()
    fit = trainer.fit()
    world.barrier()
    load_weights(assembly, out, fit.best_epoch)
    choose_factor(assembly, out)
    measured = popularity = None
    if test is not None:
        with torch.no_grad():
            measured = test.evaluate(vectors(assembly))
            popularity = test.evaluate(popularity_of(assembly))
        if world.is_first:
            write_per_user(assembly.dataset.targets('test'), measured, osp.join(out, PER_USER))
    result = {
        **summarize(assembly, fit, measured, popularity),
        'unseen': unseen(assembly, out),
        **(more or {}),
    }
    if world.is_first:
        write_json(result, osp.join(out, 'result.json'))
    return result


def write_json(content: dict[str, Any], path: str) -> None:
    r"""Writes a dictionary as JSON."""
    with writing(path), atomic_write(path) as temporary, open(temporary, 'w') as stream:
        json.dump(content, stream, indent=1)


def build_evaluator(
    assembly: Assembly, split: str, unseen: bool = False, candidates: str | None = None
) -> Evaluator | None:
    r"""Builds the evaluator of a split. Returns :obj:`None` if the split has no
    held-out interactions.

    Args:
        assembly: The data and the options.
        split: The split, :obj:`'val'` or :obj:`'test'`.
        unseen: Whether to count only items without a training interaction.
            (default: :obj:`False`)
        candidates: Which items to rank if the split holds out whole items:
            :obj:`'unseen'` or :obj:`'all'`. (default: the configured value,
            or :obj:`'unseen'` if :obj:`unseen` is set)
    """
    dataset, shard, device = assembly.dataset, assembly.shard, assembly.device
    targets = dataset.unseen_targets(split) if unseen else dataset.targets(split)
    if (candidates or ('unseen' if unseen else assembly.config.cold_candidates)) == 'all':
        targets = dataclasses.replace(targets, candidates=None)
    if len(targets) == 0:
        return None
    masked = split == 'test' and assembly.config.mask_validation
    options = assembly.config.options('evaluator')
    if split == 'test':
        options['max_users'] = None
    with named('evaluator'):
        return Evaluator(
            targets.to(device),
            assembly.data[RATES].edge_index if shard is None else shard.edge_index,
            int(assembly.data[ITEM].num_nodes),
            exclude=dataset.targets('val').to(device) if masked else None,
            shard=None if shard is None else shard.ranked,
            **options,
        )


@torch.no_grad()
def unseen(assembly: Assembly, out: str) -> dict[str, Any]:
    r"""Computes the test metrics of items without a training interaction,
    ranked among all items (:obj:`all`) and among themselves (:obj:`test`).
    :obj:`popularity` has the metrics of a popularity ranking, which orders
    unseen items at random. Returns an empty dictionary if the test split
    holds out no such item.
    """
    test = build_evaluator(assembly, 'test', unseen=True)
    among = build_evaluator(assembly, 'test', unseen=True, candidates='all')
    if test is None or among is None:
        return {}
    emb, popular = vectors(assembly), popularity_of(assembly)
    measured = test.evaluate(emb)
    targets = assembly.dataset.unseen_targets('test')
    if world_of(assembly.shard).is_first:
        write_per_user(targets, measured, osp.join(out, UNSEEN))
    assert targets.candidates is not None
    return {
        'items': targets.candidates.numel(),
        'all': among.evaluate(emb).metrics,
        'test': measured.metrics,
        'popularity': test.evaluate(popular).metrics,
    }


def factor_evaluator(assembly: Assembly) -> Evaluator | None:
    r"""Builds the evaluator that chooses the factor of unseen-item vectors on
    validation. Returns :obj:`None` if there is nothing to choose.

    Raises:
        ConfigError: If validation does not hold out both items with and items
            without training interactions.
    """
    readout = readout_of(assembly.model)
    if readout is None or readout.chosen:
        return None
    validation = build_evaluator(assembly, 'val', candidates='all')
    if validation is None or 'harmonic' not in validation.mean_metrics:
        raise ConfigError(
            'unseen.factor: expected a number; to choose it, validation must hold out both items '
            'with and items without training interactions (set --data.cold_share)'
        )
    return validation


@torch.no_grad()
def choose_factor(assembly: Assembly, out: str) -> None:
    r"""Chooses the factor of unseen-item vectors on validation, unless it is
    given, and writes it to :obj:`unseen.json`. See
    :class:`~motor_geo.nn.UnseenItems`.
    """
    validation, readout = factor_evaluator(assembly), readout_of(assembly.model)
    if validation is None or readout is None:
        return
    k = assembly.config.trainer['metric'].partition('@')[2]
    tried = {}
    for factor in (NOTHING, *FACTORS):
        readout.factor = factor
        metrics = validation.evaluate(assembly.model(assembly.data)).metrics
        tried[factor] = {f'{name}@{k}': metrics[f'{name}@{k}'] for name in GROUP_METRICS}
    least = tried.pop(NOTHING)[f'warm_recall@{k}'] * (1 - (readout.cost or 0))
    within = [x for x in FACTORS if tried[x][f'warm_recall@{k}'] >= least] or [FACTORS[0]]
    if readout.cost is None:
        best = max(FACTORS, key=lambda x: tried[x][f'harmonic@{k}'])
    else:
        best = max(within, key=lambda x: tried[x][f'unseen_recall@{k}'])
    readout.factor = best
    write_json({'factor': best, 'tried': tried}, osp.join(out, FACTOR))


def build_trainer(
    assembly: Assembly, out: str, progress: bool, loggers: Sequence[Callback] = ()
) -> Trainer | Fitter:
    r"""Builds the trainer of a model, or the fitter of a model without
    gradient steps.

    Args:
        assembly: The data, the model and the options.
        out: The folder that receives checkpoints and metrics.
        progress: Whether to show progress.
        loggers: Called with the log entry of every epoch.
            (default: :obj:`()`)

    Raises:
        ConfigError: If a setting is invalid, or if neither a validation split
            nor a number of epochs determines when to stop.
    """
    config, model = assembly.config, assembly.model
    options = config.options('trainer')
    options['progress'] = progress and options['progress']
    validation = build_evaluator(assembly, 'val')
    most = inspect.signature(Trainer).parameters['epochs'].default
    given = in_closed_form(config) or config.trainer['epochs'] != most
    if validation is None and not given:
        raise ConfigError(
            f"'{assembly.dataset.name}' has no validation interactions, so early stopping is not "
            f'possible; set the number of epochs with --epochs (other than {most})'
        )
    common: dict[str, Any] = {
        'seed': config.seed,
        'out': out,
        'fingerprint': assembly.hashes['run'],
        'callbacks': loggers,
    }
    with named('trainer'):
        if isinstance(model, FittedRecommender):
            options = without_steps(config, options)
            return Fitter(model, assembly.data, validation, **common, **options)
        names = assembly.dataset.user_ids
        trainer = Trainer(model, assembly.part, validation, **common, user_names=names, **options)
    tune_large_arrays(model, trainer.sampler.batch_size)
    return trainer


def without_steps(config: RunConfig, options: Config) -> Config:
    r"""Returns the trainer options that apply without gradient steps.

    Raises:
        ConfigError: If any other option is set.
    """
    defaults, known = arguments_of(Trainer), arguments_of(Fitter)
    for key, value in options.items():
        if key not in known and value != defaults[key].default:
            raise ConfigError(
                f'trainer.{key}: {config.model["name"]} is fitted without gradient steps; remove '
                'this option'
            )
    return {key: value for key, value in options.items() if key in known}


def in_closed_form(config: RunConfig) -> bool:
    r"""Whether the model is fitted in closed form, without iterations."""
    target = config.target('model')
    return issubclass(target, FittedRecommender) and not target.iterative


def vectors(assembly: Assembly) -> Embeddings | Scores:
    r"""What the model ranks items by, for the users that this process ranks items for."""
    emb = assembly.model(assembly.part)
    return emb if assembly.shard is None else Embeddings(*assembly.shard.to_rank(*emb))


def popularity_of(assembly: Assembly) -> Embeddings:
    r"""Returns vectors that rank items by their number of training interactions."""
    dataset = assembly.dataset
    num_users = dataset.num_users if assembly.shard is None else len(assembly.shard.ranked)
    return count_embeddings(dataset.item_count.to(assembly.device), num_users)


def write_per_user(targets: EvalTargets, measured: EvalResult, path: str) -> None:
    r"""Writes the test metrics of every user and the ranks of the held-out
    items, which later analyses can split by any group of items.
    """
    values = {key: value.cpu().numpy() for key, value in measured.per_user.items()}
    values |= {key: getattr(targets, key).numpy() for key in ('user', 'ptr', 'item')}
    values['rank'] = measured.rank.cpu().numpy()
    with writing(path) as file, atomic_write(file) as temporary:
        np.savez_compressed(temporary, **values)  # type: ignore[arg-type]


def summarize(
    assembly: Assembly,
    fit: FitResult,
    measured: EvalResult | None,
    popularity: EvalResult | None,
) -> dict[str, Any]:
    r"""Returns the content of :obj:`result.json`. Metrics of a missing split
    are empty.
    """
    config, model = assembly.config, assembly.model
    outside = sources(config)
    if isinstance(model, FittedRecommender):
        sizes = model.num_parameters()
    else:
        sizes = {name: p.numel() for name, p in model.named_parameters() if p.requires_grad}
    per_item = model.item_parameters(assembly.dataset.num_items)
    if assembly.shard is not None and isinstance(model, Recommender):  # Of all processes.
        state, users, columns = model.state_dict(), model.user_tables(), model.column_tables()
        for name in sizes:
            if name in users:
                sizes[name] = assembly.dataset.num_users * state[name].shape[1:].numel()
            if name in columns:
                sizes[name] *= assembly.shard.columns.size
        per_item = [name for name in per_item if name not in users]
    first = assembly.dataset.first_time
    return {
        'data': assembly.dataset.name,
        'model': config.model['name'],
        'items': config.items['name'],
        'loss': config.loss['name'],
        'seed': config.seed,
        'epochs': fit.epochs,
        'best_epoch': fit.best_epoch,
        'seconds': round(fit.seconds, 3),
        'seconds_per_epoch': round(fit.seconds / fit.epochs, 4),
        'num_parameters': sum(sizes.values()),
        'num_item_parameters': sum(sizes[name] for name in per_item),
        'val': fit.best,
        'test': {} if measured is None else measured.metrics,
        'slices': {} if measured is None else measured.slices(),
        **({} if measured is None or first is None else {'ages': measured.ages(first)}),
        'popularity': {} if popularity is None else popularity.metrics,
        'hashes': assembly.hashes,
        **({'sources': outside} if outside else {}),
        'versions': versions(),
        'machine': {'device': str(assembly.device), 'threads': torch.get_num_threads()},
    }


def default_folder(config: RunConfig | Config) -> str:
    r"""Returns the default run folder, named by data, model, items and seed."""
    if isinstance(config, RunConfig):
        config = config.to_dict()
    data, model, items = (config[section]['name'] for section in ('data', 'model', 'items'))
    # Import paths are shortened to the class name. Folder names may contain dots.
    data = osp.basename(data) if osp.isabs(data) else data.rpartition('.')[2]
    names = data, model.rpartition('.')[2], items.rpartition('.')[2]
    return osp.join('runs', '-'.join([*names, f'seed{config["seed"]}']))


def check_folder(config: RunConfig, out: str) -> None:
    r"""Checks that the run folder is writable and holds no other run.

    Raises:
        ConfigError: If the folder is not writable or holds another run.
    """
    check_writable(out)
    path = osp.join(out, 'config.yaml')
    if osp.exists(path):
        old, new = flatten(read_yaml(path)), flatten(yaml.safe_load(dump(config)))
        old.setdefault('loss.name', 'published')  # Older runs had no choice of losses.
        for key, value in LATER.items():
            old.setdefault(key, value)
            new.setdefault(key, value)
        free = {*UNHASHED, 'trainer.epochs', 'trainer.progress'}
        free |= {f'data.{key}' for key in PLACES}  # `check_data` compares the content.
        if osp.isabs(str(old.get('data.name'))) and osp.isabs(new['data.name']):
            free.add('data.name')
        # If the class differs, report that before any of its options.
        for key in sorted(set(old) | set(new), key=lambda key: (not key.endswith('.name'), key)):
            if key not in free and old.get(key) != new.get(key):
                raise ConfigError(
                    f"'{out}' holds another run ({key} is {old.get(key)} there, "
                    f'{new.get(key)} here); choose another --out or delete the folder'
                )


def claim_folder(assembly: Assembly, out: str) -> None:
    r"""Writes the configuration, a summary of the data and the tokenizer to
    the run folder.
    """
    with writing(osp.join(out, 'config.yaml')) as path:
        os.makedirs(out, exist_ok=True)
        remove_temporary(out)
        write_yaml(assembly.config, path)
    content, outside = describe_data(assembly.dataset), sources(assembly.config)
    write_json({**content, 'sources': outside} if outside else content, osp.join(out, DATA))
    if assembly.tokenizer is not None:
        with writing(osp.join(out, 'tokenizer.pt')) as path:
            assembly.tokenizer.save(path)


def read_result(out: str, run: str, config: RunConfig) -> dict[str, Any] | None:
    r"""Returns the result of a finished run. Returns :obj:`None` if there is
    none, or if the configuration now asks for more epochs.

    Raises:
        ConfigError: If the result is damaged or belongs to another run.
    """
    path = osp.join(out, 'result.json')
    if not osp.lexists(path):
        return None
    try:
        result = read_json(path)
        found, epochs, best_epoch = result['hashes']['run'], result['epochs'], result['best_epoch']
        stopped = epochs - best_epoch > config.trainer['patience']
        stopped = stopped and epochs >= config.trainer['min_epochs']
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"'{path}' is damaged: expected the result of a run; delete it to evaluate again"
        ) from error
    if found != run:
        raise ConfigError(
            f"'{path}' comes from other data or settings; choose another --out or delete it"
        )
    most = 1 if in_closed_form(config) else config.trainer['epochs']
    return result if stopped or epochs >= most else None


def versions() -> dict[str, str]:
    r"""Returns the versions of Python and of the packages that affect a result."""
    import faiss
    import torch_geometric

    from motor_geo import __version__

    return {
        'motor_geo': __version__,
        'python': platform.python_version(),
        'torch': torch.__version__,
        'torch_geometric': torch_geometric.__version__,
        'faiss': faiss.__version__,
        'numpy': np.__version__,
    }
