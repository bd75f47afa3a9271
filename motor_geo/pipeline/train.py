r"""Trains a recommender and evaluates it: :obj:`python -m motor_geo.run`."""

from __future__ import annotations

import json
import os
import os.path as osp
import platform
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import yaml

from motor_geo.engine.checkpoint import load_checkpoint
from motor_geo.engine.evaluator import Evaluator, popularity_embeddings
from motor_geo.engine.trainer import Trainer
from motor_geo.pipeline.assemble import (
    add_tokens,
    build_dataset,
    build_device,
    build_item_graph,
    build_model,
    build_tokenizer,
    named,
    run_fingerprint,
    tokenizer_fingerprint,
)
from motor_geo.pipeline.config import (
    Config,
    flatten,
    read_yaml,
    write_yaml,
)
from motor_geo.typing import ITEM, RATES
from motor_geo.utils.cache import fingerprint
from motor_geo.utils.errors import ConfigError
from motor_geo.utils.files import atomic_write, check_writable, remove_temporary, writing


def run(config: Config, progress: bool = True) -> dict[str, Any]:
    r"""Trains and evaluates as a configuration says, and writes
    :obj:`config.yaml`, :obj:`metrics.jsonl`, :obj:`best.pt`, :obj:`last.pt`
    and :obj:`result.json` into the folder of the run. A run that was
    interrupted goes on; a finished one is read back.

    Args:
        config: A configuration, as :func:`~motor_geo.pipeline.config.resolve` returns
            it.
        progress: Whether progress is shown.

    Raises:
        ConfigError: If the configuration cannot be carried out, or the folder
            holds another run.
        OSError: If the folder cannot be written to.
    """
    device = build_device(config['device'])
    if config['threads'] is not None:
        torch.set_num_threads(config['threads'])
    out = config['out'] or default_folder(config)
    config = {**config, 'out': out}
    check_folder(config, out)

    dataset = build_dataset(config)
    data = dataset.data
    if progress:
        print(dataset)
    hashes = {'data': dataset.fingerprint, 'run': run_fingerprint(config, dataset.fingerprint)}
    path = osp.join(out, 'result.json')
    result = read_result(path, hashes['run'], config)
    if result is not None:
        if progress:
            print(f"'{out}' is finished; delete it to run anew")
        return result

    # Every setting is checked before tokens are fitted and anything is written.
    tokenizer = build_tokenizer(config, data)
    data = build_item_graph(config, data)
    hashes['graphs'] = fingerprint([data[edge_type].edge_index for edge_type in data.edge_types])
    torch.manual_seed(config['seed'])
    model = build_model(config, data, tokenizer).to(device)
    data = data.to(device)
    edge_index, num_items = data[RATES].edge_index, int(data[ITEM].num_nodes)
    parameters = {name: p.numel() for name, p in model.named_parameters() if p.requires_grad}
    num_item_parameters = sum(parameters[name] for name in model.item_parameters(num_items))

    def evaluator(split: str, exclude: str | None = None) -> Evaluator:
        return Evaluator(
            dataset.targets(split).to(device),
            edge_index,
            num_items,
            exclude=None if exclude is None else dataset.targets(exclude).to(device),
            **config['evaluator'],
        )

    writer = tensorboard_writer(out) if config['tensorboard'] else None
    options = {key: value for key, value in config['trainer'].items() if key != 'progress'}
    with named('evaluator'):
        validation = evaluator('val')
    with named('trainer'):
        trainer = Trainer(
            model,
            data,
            validation,
            seed=config['seed'],
            out=out,
            fingerprint=hashes['run'],
            progress=progress and config['trainer']['progress'],
            callbacks=[] if writer is None else [writer],
            user_names=dataset.user_ids,
            **options,
        )
    if tokenizer is not None:
        with named('tokenizer'):
            data = trainer.data = add_tokens(config, data, tokenizer)
        hashes['tokens'] = fingerprint(data[ITEM].token_id)
        hashes['tokenizer'] = tokenizer_fingerprint(tokenizer)
    claim_folder(config, out)
    if tokenizer is not None:
        with writing(osp.join(out, 'tokenizer.pt')) as file:
            tokenizer.save(file)
    fit = trainer.fit()

    best = load_checkpoint(
        osp.join(out, 'best.pt'),
        model=type(model).__name__,
        fingerprint=hashes['run'],
        map_location=device,
    )
    model.load_state_dict(best['model'])
    model.eval()
    test = evaluator('test', exclude='val' if config['mask_validation'] else None)
    with torch.no_grad():
        measured = test.evaluate(model(data))
        popularity = test.evaluate(popularity_embeddings(edge_index, *sizes(dataset)))
    per_user = {key: value.cpu().numpy() for key, value in measured.per_user.items()}
    # With the ranks of held-out items, so that any group of items can be told apart later.
    targets = dataset.targets('test')
    per_user |= {key: getattr(targets, key).numpy() for key in ('user', 'ptr', 'item')}
    per_user['rank'] = measured.rank.cpu().numpy()
    with writing(osp.join(out, 'per_user.npz')) as file, atomic_write(file) as temporary:
        np.savez_compressed(temporary, **per_user)  # type: ignore

    result = {
        'data': dataset.name,
        'model': config['model']['name'],
        'items': config['items']['name'],
        'seed': config['seed'],
        'epochs': fit.epochs,
        'best_epoch': fit.best_epoch,
        'seconds': round(fit.seconds, 3),
        'seconds_per_epoch': round(fit.seconds / fit.epochs, 4),
        'num_parameters': sum(parameters.values()),
        'num_item_parameters': num_item_parameters,
        'val': fit.best,
        'test': measured.metrics,
        'slices': measured.slices(),
        'popularity': popularity.metrics,
        'hashes': hashes,
        'versions': versions(),
        'machine': {'device': str(device), 'threads': torch.get_num_threads()},
    }
    with writing(path), atomic_write(path) as temporary, open(temporary, 'w') as stream:
        json.dump(result, stream, indent=1)
    return result


def default_folder(config: Config) -> str:
    r"""Folder of a run, by data, model, items and seed."""
    data = osp.basename(osp.normpath(config['data']['name']))
    name = f'{data}-{config["model"]["name"]}-{config["items"]["name"]}-seed{config["seed"]}'
    return osp.join('runs', name)


def check_folder(config: Config, out: str) -> None:
    r"""Checks that the folder of the run can be written to, and that it holds
    no other run.

    Raises:
        ConfigError: If it does or cannot.
    """
    check_writable(out)
    path = osp.join(out, 'config.yaml')
    if osp.exists(path):
        old, new = flatten(read_yaml(path)), flatten(yaml.safe_load(yaml.safe_dump(config)))
        free = {'out', 'threads', 'tensorboard', 'device', 'trainer.epochs', 'trainer.progress'}
        for key in sorted(set(old) | set(new)):
            if key not in free and old.get(key) != new.get(key):
                raise ConfigError(
                    f"'{out}' holds another run ({key} is {old.get(key)} there, "
                    f'{new.get(key)} here); give another --out or delete it'
                )


def claim_folder(config: Config, out: str) -> None:
    r"""Writes the configuration into the folder of the run."""
    with writing(osp.join(out, 'config.yaml')) as path:
        os.makedirs(out, exist_ok=True)
        remove_temporary(out)
        write_yaml(config, path)


def read_result(path: str, run: str, config: Config) -> dict[str, Any] | None:
    r"""The result of a finished run, unless more epochs are wanted now."""
    if not osp.exists(path):
        return None
    try:
        with open(path) as file:
            result = json.load(file)
        found, epochs, best_epoch = result['hashes']['run'], result['epochs'], result['best_epoch']
        stopped = epochs - best_epoch > config['trainer']['patience']
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"'{path}' is damaged: expected the result of a run; delete it to evaluate anew"
        ) from error
    if found != run:
        raise ConfigError(
            f"'{path}' was made from other data or settings; give another --out or delete it"
        )
    return result if stopped or epochs >= config['trainer']['epochs'] else None


def sizes(dataset: Any) -> tuple[int, int]:
    return dataset.num_users, dataset.num_items


def versions() -> dict[str, str]:
    r"""What a result depends on beside data and settings."""
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


def tensorboard_writer(out: str) -> Callable[[dict[str, Any]], None]:
    r"""A callback that writes every epoch for TensorBoard."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ConfigError("--tensorboard needs 'pip install motor-geo[tensorboard]'") from error
    writer: SummaryWriter | None = None

    def write(entry: dict[str, Any]) -> None:
        nonlocal writer
        writer = writer or SummaryWriter(out)
        for name, value in {**entry['losses'], **entry['val']}.items():
            writer.add_scalar(name, value, entry['epoch'])
        writer.add_scalar('seconds', entry['seconds'], entry['epoch'])
        writer.flush()

    return write
