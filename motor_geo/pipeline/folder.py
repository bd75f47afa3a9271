r"""What the folder of a run holds."""

from __future__ import annotations

import os.path as osp
import sys
import warnings
from typing import Any, NamedTuple

from torch import Tensor
from torch_geometric.data import HeteroData

from motor_geo.data import OPQTokenizer, RecommendationDataset
from motor_geo.data.datasets.bundle import BUNDLE, BundledDataset
from motor_geo.engine.checkpoint import load_checkpoint
from motor_geo.nn.models import FittedRecommender, Recommender
from motor_geo.nn.unseen import readout_of
from motor_geo.pipeline.assemble import (
    Assembly,
    assemble,
    build_dataset,
    is_outside,
    tokenizer_fingerprint,
)
from motor_geo.pipeline.config import RunConfig
from motor_geo.pipeline.flags import CHOICES, read_yaml
from motor_geo.utils.cache import fingerprint
from motor_geo.utils.errors import ConfigError
from motor_geo.utils.files import read_json

#: Where a run carries its data with it.
BUNDLED = f'{BundledDataset.__module__}.{BundledDataset.__name__}'
#: What a run was trained on, in short.
DATA = 'data.json'
#: The factor of vectors of unseen items, where it was chosen on validation.
FACTOR = 'unseen.json'
#: Arguments of data sets that say where their files are.
PLACES = ('path', 'root')


class LoadedRun(NamedTuple):
    r"""A finished run, loaded."""

    config: RunConfig
    dataset: RecommendationDataset
    data: HeteroData
    tokenizer: OPQTokenizer | None
    model: Recommender | FittedRecommender


def load_run(folder: str, device: str = 'auto', data: str | None = None) -> LoadedRun:
    r"""Loads the best weights of a run, and the data they were trained on.

    Args:
        folder: The folder of the run.
        device: Where to put model and graph.
        data: Where the data are now, if they have moved since.

    Raises:
        FileNotFoundError: If the folder holds no run.
        ValueError: If the data have changed since.
    """
    folder = osp.expanduser(folder)
    config = read_config(folder, data)
    dataset = build_dataset(config)
    check_data(folder, config, dataset)
    changed = changed_source(folder, config)
    if changed is not None:
        warnings.warn(f'{changed}, which may rank otherwise', stacklevel=2)
    assembly = assemble(config, dataset, device)
    if assembly.tokenizer is not None:
        assembly.add_tokens(load_tokenizer(folder, assembly.tokenizer))
    load_weights(assembly, folder)
    load_factor(assembly, folder)
    return LoadedRun(
        assembly.config, assembly.dataset, assembly.data, assembly.tokenizer, assembly.model
    )


def read_config(folder: str, data: str | None = None) -> RunConfig:
    r"""The configuration of a run.

    Args:
        folder: The folder of the run.
        data: Where the data are now, if they have moved since.

    Raises:
        FileNotFoundError: If the folder holds no run.
        ConfigError: If the configuration is damaged, or the data are gone.
    """
    path = osp.join(folder, 'config.yaml')
    if not osp.isfile(path):
        raise FileNotFoundError(f"'{folder}' is not the folder of a run: it has no config.yaml")
    config = read_yaml(path)
    section = config.get('data', {})
    name = str(section.get('name', ''))
    if data is None and osp.lexists(osp.join(folder, BUNDLE)):
        section = config['data'] = {'name': BUNDLED, 'path': osp.abspath(folder)}
        name = BUNDLED
    if data is not None:
        moved = osp.abspath(osp.expanduser(data))
        if not osp.exists(moved):
            raise ConfigError(f"--data: '{data}' does not exist; expected the data of '{folder}'")
        key = 'name' if osp.isabs(name) else next((k for k in PLACES if k in section), None)
        if key is None:
            raise ConfigError(
                f"--data: the data of '{folder}', '{name or CHOICES['data']}', are in no folder "
                'that could have moved'
            )
        config['data'] = {**section, key: moved}
    elif osp.isabs(name) and not osp.exists(name):
        raise ConfigError(
            f"'{path}': the data '{name}' do not exist; if they have moved, --data FOLDER says "
            'where they are now'
        )
    try:
        return RunConfig.of(config)
    except ConfigError as error:
        raise ConfigError(f"'{path}': {error}") from error


def sources(config: RunConfig) -> dict[str, str]:
    r"""Hashes of the files of the classes from outside of this package, by
    their import path.
    """
    out = {}
    for section in ('model', 'items'):
        name, target = getattr(config, section)['name'], config.target(section)
        path = module_file(target) if is_outside(target) else None
        if path is not None:
            with open(path, 'rb') as file:
                out[name] = fingerprint(file.read().decode(errors='replace'))
    return out


def module_file(target: type) -> str | None:
    r"""The file that a class is written in, if there is one."""
    path = getattr(sys.modules.get(target.__module__), '__file__', None)
    return path if path is not None and osp.isfile(path) else None


def changed_source(folder: str, config: RunConfig) -> str | None:
    r"""The sentence that names a class which has changed since the run in a
    folder began.
    """
    old = _read_json(osp.join(folder, DATA)) or {}
    known = old.get('sources')
    if not isinstance(known, dict):
        return None  # A run of an older version, or none.
    for name, value in sources(config).items():
        if known.get(name, value) != value:
            return f"'{folder}' was made by another version of {name}"
    return None


def check_sources(folder: str, config: RunConfig) -> None:
    r"""Checks that the classes from outside of this package are those that the
    run in a folder, if there is one, began with.

    Raises:
        ConfigError: If one has changed.
    """
    changed = changed_source(folder, config)
    if changed is not None:
        raise ConfigError(f'{changed}; give another --out or delete it')


def describe_data(dataset: RecommendationDataset) -> dict[str, Any]:
    r"""Sizes and hash of a data set: the content of :obj:`data.json`."""
    sizes = dataset.summary()
    keys = ('name', 'users', 'items', 'train', 'val', 'test', 'modalities')
    return {**{key: sizes[key] for key in keys}, 'hash': dataset.fingerprint}


def check_data(folder: str, config: RunConfig, dataset: RecommendationDataset) -> None:
    r"""Checks that the data are those that the run in a folder, if there is
    one, was trained on.

    Raises:
        ConfigError: If they are not. The message tells what differs.
    """
    old = _read_json(osp.join(folder, DATA)) or {}
    known = old.get('hash')
    if known is None:  # A run of an older version.
        hashes = (_read_json(osp.join(folder, 'result.json')) or {}).get('hashes')
        known = hashes.get('data') if isinstance(hashes, dict) else None
    if known is None or known == dataset.fingerprint:
        return
    name = config.data['name']
    place = name if osp.isabs(name) else dataset.name
    what = ', '.join(_differences(old, describe_data(dataset)))
    raise ConfigError(
        f"The data in '{place}' have changed since training{f' ({what})' if what else ''}; "
        f"expected those of '{folder}'"
    )


def _differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    r"""What differs between two data sets."""
    try:
        splits = {split: (new[split], old[split]) for split in ('train', 'val', 'test')}
        total = [sum(int(counts[i]) for counts in splits.values()) for i in (0, 1)]
        pairs = {key: (new[key], old[key]) for key in ('users', 'items')}
        pairs['interactions'] = total[0], total[1]
        before, after = dict(old['modalities']), dict(new['modalities'])
    except (KeyError, TypeError, ValueError):
        return []  # Sizes are not known.
    out = [f'{now} instead of {then} {key}' for key, (now, then) in pairs.items() if now != then]
    if total[0] == total[1]:
        out += [
            f'{now} instead of {then} interactions for {split}'
            for split, (now, then) in splits.items()
            if now != then
        ]
    if before != after:
        out.append(f'features of {_spell(after)} instead of {_spell(before)}')
    return out or ['of the same sizes, but with other interactions or features']


def _spell(widths: dict[str, int]) -> str:
    return ' and '.join(f"'{m}' ({width} columns)" for m, width in widths.items()) or 'no modality'


def _read_json(path: str) -> dict[str, Any] | None:
    r"""The content of a file, if there is one that is not damaged."""
    try:
        content = read_json(path)
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def load_weights(assembly: Assembly, folder: str, epoch: int | None = None) -> None:
    r"""Puts the best weights of a run into its model.

    Args:
        assembly: The objects of the run.
        folder: Its folder.
        epoch: The epoch that they should be of. By default, that of the
            result, if there is one, and a warning tells if they are not.

    Raises:
        ValueError: If the weights are damaged, or of another model or epoch.
    """
    state = load_checkpoint(
        osp.join(folder, 'best.pt'),
        model=type(assembly.model).__name__,
        fingerprint=assembly.hashes['run'],
        map_location=assembly.device,
    )
    path = osp.join(folder, 'best.pt')
    weights, expected = state.get('model'), assembly.model.state_dict()
    if not isinstance(weights, dict) or not all(isinstance(w, Tensor) for w in weights.values()):
        raise ValueError(f"'{path}' is damaged: expected the weights of a model")
    found_epoch = state.get('epoch')
    if epoch is not None and found_epoch != epoch:
        raise ConfigError(
            f"'{path}' holds the weights of epoch {found_epoch}, but the best finished epoch is "
            f'{epoch}: training was interrupted there; train for at least {found_epoch} epochs'
        )
    result = (None if epoch is not None else _read_json(osp.join(folder, 'result.json'))) or {}
    if result.get('best_epoch', found_epoch) != found_epoch:
        warnings.warn(
            f"'{path}' holds the weights of epoch {found_epoch}, and 'result.json' the metrics of "
            f'epoch {result["best_epoch"]}: training has gone on since',
            stacklevel=3,
        )
    found = [
        *(f'missing {key}' for key in expected if key not in weights),
        *(f'unknown {key}' for key in weights if key not in expected),
        *(
            f'{key} is {list(weights[key].shape)}, expected {list(value.shape)}'
            for key, value in expected.items()
            if key in weights and weights[key].shape != value.shape
        ),
    ]
    if found:
        more = f' and {len(found) - 3} more' if len(found) > 3 else ''
        raise ConfigError(
            f"'{folder}' was trained with another version of {assembly.config.model['name']} "
            f'({", ".join(found[:3])}{more})'
        )
    assembly.model.load_state_dict(weights)
    assembly.model.eval()


def load_factor(assembly: Assembly, folder: str) -> None:
    r"""Puts the factor that was chosen on validation into the readout of unseen
    items.
    """
    readout = readout_of(assembly.model)
    if readout is None or readout.chosen:
        return
    path = osp.join(folder, FACTOR)
    value = (_read_json(path) or {}).get('factor')
    if not isinstance(value, float) or value <= 0:
        raise ValueError(
            f"'{path}' is missing or damaged: expected the factor of unseen items that validation "
            'chose; run the same command again'
        )
    readout.factor = value


def begun_tokenizer(folder: str, expected: OPQTokenizer | None) -> OPQTokenizer | None:
    r"""The tokenizer that a run which was interrupted began with, if there is
    one.
    """
    names = ('last.pt', 'tokenizer.pt')
    if expected is None or not all(osp.lexists(osp.join(folder, name)) for name in names):
        return None
    return load_tokenizer(folder, expected)


def load_tokenizer(folder: str, expected: OPQTokenizer) -> OPQTokenizer:
    r"""The tokenizer of a run, which has the settings of :obj:`expected` and
    the hash that the result names.
    """
    path = osp.join(folder, 'tokenizer.pt')
    tokenizer = OPQTokenizer.load(path)
    sizes = tokenizer.num_tokens_dict, tokenizer.codebook_size
    wanted = expected.num_tokens_dict, expected.codebook_size
    if sizes != wanted:
        raise ValueError(
            f"'{path}' belongs to another run: it has {sizes[0]} tokens of {sizes[1]} values, "
            f"'config.yaml' {wanted[0]} of {wanted[1]}"
        )
    hashes = (_read_json(osp.join(folder, 'result.json')) or {}).get('hashes')
    # Not finished yet: nothing to compare with.
    known = hashes.get('tokenizer') if isinstance(hashes, dict) else None
    if known is not None and known != tokenizer_fingerprint(tokenizer):
        raise ValueError(f"'{path}' belongs to another run: expected the codebooks of training")
    return tokenizer
