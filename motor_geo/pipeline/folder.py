r"""Reads and checks the contents of a run folder."""

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
from motor_geo.engine.sharded import last_folder
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

#: The data set class of runs that include a copy of their data.
BUNDLED = f'{BundledDataset.__module__}.{BundledDataset.__name__}'
#: A summary of the training data.
DATA = 'data.json'
#: The factor of unseen-item vectors, if it was chosen on validation.
FACTOR = 'unseen.json'
#: Arguments of data sets that locate their files.
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
        folder: The run folder.
        device: The device of the model and the graph.
            (default: :obj:`'auto'`)
        data: The location of the data, if they have moved since training.
            (default: :obj:`None`)

    Raises:
        FileNotFoundError: If the folder holds no run.
        ValueError: If the data have changed since training, or a file of the
            run is damaged.
    """
    folder = osp.expanduser(folder)
    config = read_config(folder, data)
    dataset = build_dataset(config)
    check_data(folder, config, dataset)
    changed = changed_source(folder, config)
    if changed is not None:
        warnings.warn(f'{changed}; its rankings may differ', stacklevel=2)
    assembly = assemble(config, dataset, device)
    if assembly.tokenizer is not None:
        assembly.add_tokens(load_tokenizer(folder, assembly.tokenizer))
    load_weights(assembly, folder)
    load_factor(assembly, folder)
    return LoadedRun(
        assembly.config, assembly.dataset, assembly.data, assembly.tokenizer, assembly.model
    )


def read_config(folder: str, data: str | None = None) -> RunConfig:
    r"""Reads the configuration of a run.

    Args:
        folder: The run folder.
        data: The location of the data, if they have moved since training.
            (default: :obj:`None`)

    Raises:
        FileNotFoundError: If the folder holds no run.
        ConfigError: If the configuration is damaged, or the data do not exist.
    """
    path = osp.join(folder, 'config.yaml')
    if not osp.isfile(path):
        raise FileNotFoundError(f"'{folder}' is not a run folder: it has no config.yaml")
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
                f"--data: the data of '{folder}', '{name or CHOICES['data']}', are not read from a "
                'folder, so they cannot have moved'
            )
        config['data'] = {**section, key: moved}
    elif osp.isabs(name) and not osp.exists(name):
        raise ConfigError(
            f"'{path}': the data '{name}' do not exist; if they have moved, pass their new "
            'location with --data FOLDER'
        )
    try:
        return RunConfig.of(config)
    except ConfigError as error:
        raise ConfigError(f"'{path}': {error}") from error


def sources(config: RunConfig) -> dict[str, str]:
    r"""Returns hashes of the source files of classes from other packages, by
    import path.
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
    r"""Returns the source file of a class, if it has one."""
    path = getattr(sys.modules.get(target.__module__), '__file__', None)
    return path if path is not None and osp.isfile(path) else None


def changed_source(folder: str, config: RunConfig) -> str | None:
    r"""Returns a sentence that names a class whose source has changed since the
    run began, or :obj:`None`.
    """
    old = _read_json(osp.join(folder, DATA)) or {}
    known = old.get('sources')
    if not isinstance(known, dict):
        return None  # The run is from an older version, or there is no run.
    for name, value in sources(config).items():
        if known.get(name, value) != value:
            return f"'{folder}' was trained with another version of {name}"
    return None


def check_sources(folder: str, config: RunConfig) -> None:
    r"""Checks that the classes from other packages have not changed since the
    run in a folder began. Accepts folders without a run.

    Raises:
        ConfigError: If a class has changed.
    """
    changed = changed_source(folder, config)
    if changed is not None:
        raise ConfigError(f'{changed}; choose another --out or delete it')


def describe_data(dataset: RecommendationDataset) -> dict[str, Any]:
    r"""Returns the sizes and the hash of a data set, the content of
    :obj:`data.json`.
    """
    sizes = dataset.summary()
    keys = ('name', 'users', 'items', 'train', 'val', 'test', 'modalities')
    return {**{key: sizes[key] for key in keys}, 'hash': dataset.fingerprint}


def check_data(folder: str, config: RunConfig, dataset: RecommendationDataset) -> None:
    r"""Checks that the data are the training data of the run in a folder.
    Accepts folders without a run.

    Raises:
        ConfigError: If the data differ. The message names the differences.
    """
    old = _read_json(osp.join(folder, DATA)) or {}
    known = old.get('hash')
    if known is None:  # The run is from an older version.
        hashes = (_read_json(osp.join(folder, 'result.json')) or {}).get('hashes')
        known = hashes.get('data') if isinstance(hashes, dict) else None
    if known is None or known == dataset.fingerprint:
        return
    name = config.data['name']
    place = name if osp.isabs(name) else dataset.name
    what = ', '.join(_differences(old, describe_data(dataset)))
    raise ConfigError(
        f"The data in '{place}' have changed since training{f' ({what})' if what else ''}; "
        f"expected the data of '{folder}'"
    )


def _differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    r"""Describes the differences between two data sets."""
    try:
        splits = {split: (new[split], old[split]) for split in ('train', 'val', 'test')}
        total = [sum(int(counts[i]) for counts in splits.values()) for i in (0, 1)]
        pairs = {key: (new[key], old[key]) for key in ('users', 'items')}
        pairs['interactions'] = total[0], total[1]
        before, after = dict(old['modalities']), dict(new['modalities'])
    except (KeyError, TypeError, ValueError):
        return []  # The sizes are unknown.
    out = [f'{now} instead of {then} {key}' for key, (now, then) in pairs.items() if now != then]
    if total[0] == total[1]:
        out += [
            f'{now} instead of {then} interactions for {split}'
            for split, (now, then) in splits.items()
            if now != then
        ]
    if before != after:
        out.append(f'features of {_spell(after)} instead of {_spell(before)}')
    return out or ['same sizes, but other interactions or features']


def _spell(widths: dict[str, int]) -> str:
    return ' and '.join(f"'{m}' ({width} columns)" for m, width in widths.items()) or 'no modality'


def _read_json(path: str) -> dict[str, Any] | None:
    r"""Returns the content of a file, or :obj:`None` if it is missing or
    damaged.
    """
    try:
        content = read_json(path)
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def load_weights(assembly: Assembly, folder: str, epoch: int | None = None) -> None:
    r"""Loads the best weights of a run into its model.

    Args:
        assembly: The objects of the run.
        folder: The run folder.
        epoch: The expected epoch of the weights. By default, it is the best
            epoch in :obj:`result.json`, if there is one, and a mismatch only
            causes a warning. (default: :obj:`None`)

    Raises:
        ValueError: If the weights are damaged, or belong to another model or
            epoch.
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
    if assembly.shard is not None and isinstance(assembly.model, Recommender):
        tables = assembly.model.user_tables(), assembly.model.column_tables()
        weights = assembly.shard.parts(weights, *tables)
    found_epoch = state.get('epoch')
    if epoch is not None and found_epoch != epoch:
        raise ConfigError(
            f"'{path}' holds the weights of epoch {found_epoch}, but the best finished epoch is "
            f'{epoch}: training was interrupted there; train for at least {found_epoch} epochs'
        )
    result = (None if epoch is not None else _read_json(osp.join(folder, 'result.json'))) or {}
    if result.get('best_epoch', found_epoch) != found_epoch:
        warnings.warn(
            f"'{path}' holds the weights of epoch {found_epoch}, but 'result.json' holds the "
            f'metrics of epoch {result["best_epoch"]}: training has continued since',
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
    r"""Loads the factor that was chosen on validation into the readout of
    unseen items.

    Raises:
        ValueError: If the factor is missing or damaged.
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
    r"""Returns the tokenizer of an interrupted run, or :obj:`None` if there is
    none.
    """
    last, single, own = (osp.join(folder, name) for name in ('last', 'last.pt', 'tokenizer.pt'))
    begun = last_folder(last) is not None or osp.lexists(single)
    if expected is None or not begun or not osp.lexists(own):
        return None
    return load_tokenizer(folder, expected)


def load_tokenizer(folder: str, expected: OPQTokenizer) -> OPQTokenizer:
    r"""Loads the tokenizer of a run, and checks it against the settings of
    :obj:`expected` and the hash in :obj:`result.json`.

    Raises:
        ValueError: If the tokenizer belongs to another run.
    """
    path = osp.join(folder, 'tokenizer.pt')
    tokenizer = OPQTokenizer.load(path)
    sizes = tokenizer.num_tokens_dict, tokenizer.codebook_size
    wanted = expected.num_tokens_dict, expected.codebook_size
    if sizes != wanted:
        raise ValueError(
            f"'{path}' belongs to another run: it has {sizes[0]} tokens of {sizes[1]} values, but "
            f"'config.yaml' expects {wanted[0]} of {wanted[1]}"
        )
    hashes = (_read_json(osp.join(folder, 'result.json')) or {}).get('hashes')
    # An unfinished run has no hash to compare with.
    known = hashes.get('tokenizer') if isinstance(hashes, dict) else None
    if known is not None and known != tokenizer_fingerprint(tokenizer):
        raise ValueError(f"'{path}' belongs to another run: expected the codebooks of training")
    return tokenizer
