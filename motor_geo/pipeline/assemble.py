r"""Builds the objects of a configuration. Runs, recommendations, experiments
and examples all use these functions.
"""

from __future__ import annotations

import copy
import inspect
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData
from torch_geometric.transforms import BaseTransform

from motor_geo.data import InteractionSVD, ItemKNN, OPQTokenizer, RecommendationDataset
from motor_geo.data.transforms.features import MAX_ROWS
from motor_geo.data.transforms.opq_tokenizer import OTHERS
from motor_geo.nn.models import MODELS, FittedRecommender, Recommender
from motor_geo.nn.objective import PublishedLoss
from motor_geo.nn.unseen import UnseenItems
from motor_geo.nn.user_encoder import UsedItems
from motor_geo.parallel.user_shard import UserShard
from motor_geo.pipeline.config import (
    MODE_OF,
    NO_ITEMS,
    Config,
    RunConfig,
    arguments_of,
    takes_items,
)
from motor_geo.pipeline.flags import PRESETS, UNHASHED
from motor_geo.typing import (
    ITEM,
    RATES,
    TOKENS,
    USER,
    LazyEdges,
    edge_blocks,
    modalities,
    num_nodes,
    set_edges,
    unread_edges,
    with_edges,
)
from motor_geo.utils.cache import fingerprint
from motor_geo.utils.errors import ConfigError
from motor_geo.utils.lazy import check_graph, declared_transforms


@dataclass
class Assembly:
    r"""The objects of a configuration.

    Args:
        config: The configuration.
        device: The device of the graph and the model.
        dataset: The data set.
        data: The graph of the data set, including the graphs that the backbone
            reads. :meth:`add_tokens` adds the tokens.
        tokenizer: The tokenizer, or :obj:`None` if the item encoder reads no
            tokens. It is not fitted until :meth:`add_tokens`.
        model: The initialized backbone with its item encoder, or a model that
            is fitted without gradient steps.
        hashes: Hashes of :obj:`data`, :obj:`run` and :obj:`graphs`.
            :meth:`add_tokens` adds those of :obj:`tokens` and
            :obj:`tokenizer`. (default: :obj:`{}`)
        shard: The users of this process, if it is one of several. The model has
            their rows only. (default: :obj:`None`)
    """

    config: RunConfig
    device: torch.device
    dataset: RecommendationDataset
    data: HeteroData
    tokenizer: OPQTokenizer | None
    model: Recommender | FittedRecommender
    hashes: dict[str, str] = field(default_factory=dict)
    shard: UserShard | None = None

    @property
    def part(self) -> HeteroData:
        r"""The graph with the users of this process, for the model."""
        return self.data if self.shard is None else self.shard.cut(self.data)

    def add_tokens(self, tokenizer: OPQTokenizer | None = None) -> None:
        r"""Adds the tokens of all items to the graph. Does nothing if the item
        encoder reads no tokens.

        Args:
            tokenizer: A fitted tokenizer. (default: fit the own tokenizer)
        """
        if self.tokenizer is None:
            return
        self.tokenizer = self.tokenizer if tokenizer is None else tokenizer
        kept = getattr(self.dataset, 'token_id', None)
        if kept is not None and tokenizer is not None:
            self.data = copy.copy(self.data)
            self.data[ITEM].token_id = kept.to(self.device)
        else:
            with named('tokenizer'):
                # A copy, with what it reads from disk, is freed afterwards.
                self.data = add_tokens(self.config, copy.copy(self.data), self.tokenizer)
        self.hashes['tokens'] = fingerprint(self.data[ITEM].token_id)
        self.hashes['tokenizer'] = tokenizer_fingerprint(self.tokenizer)


def assemble(
    config: RunConfig | Config,
    dataset: RecommendationDataset | None = None,
    device: str | None = None,
) -> Assembly:
    r"""Builds everything that a configuration names except the tokens. This
    checks all settings before the expensive :meth:`Assembly.add_tokens`. The
    state of the global random number generator does not change.

    Args:
        config: The configuration.
        dataset: The data set, if it is already loaded. (default: load it)
        device: The device. (default: the one of the configuration)

    Raises:
        ConfigError: If a setting is invalid, or the data lack features that
            the model or the item encoder reads.
    """
    config = RunConfig.of(config)
    target = build_device(config.device if device is None else device)
    dataset = build_dataset(config) if dataset is None else dataset
    data = copy.copy(dataset.data)
    hashes = {'data': dataset.fingerprint, 'run': run_fingerprint(config, dataset.fingerprint)}
    check_features(config, data)
    tokenizer = build_tokenizer(config, data)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(config.seed)
        data = add_graphs(config, data)
        torch.default_generator.manual_seed(config.seed)
        model = build_model(config, data, tokenizer).to(target)
    warn_of_item_tables(config, model, dataset.num_items)
    hashes['graphs'] = fingerprint([unread_edges(data[kind]) for kind in data.edge_types])
    edges = unread_edges(dataset.data[RATES])
    if isinstance(edges, LazyEdges):  # Frees what the above has read.
        data = with_edges(data, edges)
    if target.type != 'cpu':
        data = to_device(data, target)
    return Assembly(config, target, dataset, data, tokenizer, model, hashes)


def to_device(data: HeteroData, device: torch.device) -> HeteroData:
    r"""A shallow copy of a graph on another device, without reading interactions that
    are on disk.
    """
    edges = unread_edges(data[RATES])
    if not isinstance(edges, LazyEdges):
        return copy.copy(data).to(device)
    out = with_edges(data, torch.empty(2, 0, dtype=torch.long)).to(device)
    return with_edges(out, edges.to(device))


@contextmanager
def named(section: str) -> Iterator[None]:
    r"""Prefixes the error message of a constructor with the section name."""
    try:
        yield
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f'{section}: {error}') from error


def tokenizer_fingerprint(tokenizer: OPQTokenizer) -> str:
    r"""Returns a hash of the fitted codebooks."""
    return fingerprint({m: q.state_dict() for m, q in tokenizer.quantizers.items()})


#: Options that older versions did not have, by dotted name, with the value that reproduces the
#: older behavior. Runs without these options are read as if they had these values.
LATER: dict[str, Any] = {
    'model.similarity_weight': 0.0,
    'tokenizer.balance': None,
    'tokenizer.num_near': 1,
    'tokenizer.method_kwargs': None,
    'tokenizer.max_rows': MAX_ROWS,
    'data.cold_share': 0.0,
    'data.per_user': None,
    'cold_candidates': 'unseen',
    'users': 'table',
    'evaluator.max_users': None,
    'graph.method': 'exact',
    'graph.num_probes': 16,
    'trainer.drop_items': 0.0,
    'trainer.min_epochs': 0,
    'trainer.sparse_adam': False,
    'unseen.layers': False,
    'unseen.length': False,
    'unseen.neighbors': 0.0,
    'unseen.virtual_edges': 0,
    'unseen.factor': 1.0,
    'unseen.cost': 0.02,
    'unseen.k': 10,
}


def run_fingerprint(config: RunConfig | Config, data: str) -> str:
    r"""Returns a hash of the data and of every option that affects results.

    Args:
        config: The configuration.
        data: Hash of the data.
    """
    if isinstance(config, RunConfig):
        config = config.to_dict()
    if config['loss']['name'] == 'published':  # Older runs had no choice of losses.
        config = {key: value for key, value in config.items() if key != 'loss'}
    free = ('trainer.epochs', 'trainer.progress', *UNHASHED)
    parts: Config = {}
    for key, value in config.items():
        if key == 'data' or key in free or LATER.get(key, object()) == value:
            continue
        if isinstance(value, dict):
            names = {name: f'{key}.{name}' for name in value}
            value = {
                name: option
                for name, option in value.items()
                if names[name] not in free and LATER.get(names[name], object()) != option
            }
            if not value and key in ('unseen', 'parallel'):
                continue
        parts[key] = value
    return fingerprint(data, parts)


def build_device(name: str) -> torch.device:
    r"""Returns a device by name. :obj:`"auto"` selects a GPU if available.

    Raises:
        ConfigError: If the device is unknown or not available.
    """
    if name == 'auto':
        return torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device('meta')
    if device.type not in ('cpu', 'cuda'):
        raise ConfigError(f"--device: unknown device '{name}'; use auto, cpu or cuda")
    if device.type == 'cuda' and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"--device: '{name}' is not available; use cpu or auto")
    return device


def build_dataset(config: RunConfig | Config, on_disk: bool = False) -> RecommendationDataset:
    r"""Builds the data set of a configuration.

    Args:
        config: The configuration.
        on_disk: Whether to read training interactions only when they are needed, see
            :class:`~motor_geo.data.TableDataset`. (default: :obj:`False`)
    """
    config = RunConfig.of(config)
    target, options = config.target('data'), config.options('data')
    if on_disk and 'on_disk' in arguments_of(target):
        options['on_disk'] = True
    return target(**options)


def check_splits(dataset: RecommendationDataset, *splits: str) -> None:
    r"""Checks that the given splits hold out interactions.

    Raises:
        ConfigError: If one of the splits is empty.
    """
    for split in splits:
        if len(dataset.targets(split)) == 0:
            word = {'val': 'validation', 'test': 'test'}[split]
            raise ConfigError(
                f"'{dataset.name}' has no {word} interactions; expected at least one (try another "
                'split, such as --data.split random)'
            )


def check_features(config: RunConfig, data: HeteroData) -> None:
    r"""Checks that the data have the features that the model and the item
    encoder read.

    Raises:
        ConfigError: If features are missing.
    """
    model, items = config.model['name'], config.items['name']
    found = modalities(data)
    needed = config.target('model').min_modalities
    if len(found) < needed:
        raise ConfigError(
            f'--model {model}: expected item features of at least {needed} '
            f'modalit{"y" if needed == 1 else "ies"} (<modality>_feat.npy files), but the data '
            f'have {", ".join(found) or "none"}'
        )
    if config.behavior and not config.reads_tokens:
        expected = f'--behavior: expected items with tokens, got --items {items}'
    elif not found and not config.behavior and (config.reads_tokens or config.reads('in_channels')):
        expected = (
            f'--items {items}: expected item features (<modality>_feat.npy files), but the data '
            'have none; use --items id'
        )
    else:
        return
    raise ConfigError(expected)


def build_tokenizer(config: RunConfig, data: HeteroData) -> OPQTokenizer | None:
    r"""Builds the tokenizer, or returns :obj:`None` if the item encoder reads
    no tokens.
    """
    if not config.reads_tokens:
        return None
    options = config.options('tokenizer')
    # Setting the modalities here lets us build the model before fitting the tokenizer.
    options['modalities'] = options['modalities'] or modalities(data)
    store = data[ITEM]
    widths = {m: store[f'x_{m}'].size(1) for m in options['modalities'] if f'x_{m}' in store}
    if config.behavior:
        behavior = build_behavior(config, data)
        options['modalities'] = [*options['modalities'], behavior.modality]
        widths[behavior.modality] = behavior.channels
    usual = PRESETS['items'].get(config.items['name'], {}).get('tokenizer', {}).get('num_tokens')
    complete = len(widths) == len(options['modalities'])
    if usual is not None and options['num_tokens'] == usual and complete:
        # A vector cannot be split into more tokens than it has columns.
        options['num_tokens'] = {
            m: min(usual.get(m, usual[OTHERS]), width) for m, width in widths.items()
        }
    options['verbose'] = config.trainer['progress'] and sys.stderr.isatty()
    with named('tokenizer'):
        return OPQTokenizer(**options)


def build_behavior(config: RunConfig, data: HeteroData) -> InteractionSVD:
    r"""Builds the transform that yields the features of behavior.

    Raises:
        ConfigError: If the data already have a modality of the same name.
    """
    options = config.options('svd')
    if config.items['name'] in PRESETS['items']:  # Small data have fewer singular vectors.
        limit = min(_num_used(data, side) for side in (0, 1)) - 1
        options['channels'] = max(1, min(options['channels'], limit))
    with named('svd'):
        transform = InteractionSVD(**options)
    if f'x_{transform.modality}' in data[ITEM]:
        raise ConfigError(f"--behavior: the data already have a modality '{transform.modality}'")
    return transform


def _num_used(data: HeteroData, side: int) -> int:
    r"""Number of users (0) or items (1) with an interaction."""
    used = torch.zeros(num_nodes(data, RATES[2 * side]), dtype=torch.bool)
    for index in edge_blocks(data, RATES, side):
        used[index.cpu()] = True
    return int(used.sum())


def add_tokens(config: RunConfig, data: HeteroData, tokenizer: OPQTokenizer) -> HeteroData:
    r"""Adds the tokens of all items to the graph. The features of behavior are
    not added, so models cannot read them.
    """
    out = copy.copy(data)
    if config.behavior:
        with named('svd'):
            data = build_behavior(config, data)(data)
    store = tokenizer(data)[ITEM]
    for name in TOKENS:
        if name in store:
            out[ITEM][name] = store[name]
    return out


def fitted_graph(dataset: RecommendationDataset, data: HeteroData) -> HeteroData:
    r"""Returns the part of a graph that existed when the tokens were fitted.
    The features of behavior are computed from this part.
    """
    fitted = getattr(dataset, 'fitted', None)
    if fitted is None:
        return data
    num_users, num_items, edge_index = fitted
    out = HeteroData()
    out[USER].num_nodes, out[ITEM].num_nodes = num_users, num_items
    for name in modalities(data):
        out[ITEM][f'x_{name}'] = data[ITEM][f'x_{name}'][:num_items]
    set_edges(out, edge_index.to(data[RATES].edge_index.device))
    return out


def encode_items(
    config: RunConfig,
    data: HeteroData,
    tokenizer: OPQTokenizer,
    features: Mapping[str, Tensor],
    masks: Mapping[str, Tensor],
) -> Tensor:
    r"""Computes the tokens of items outside the graph from their features."""
    return encode_tokens(config, data, tokenizer, features, masks)['token_id']


def encode_tokens(
    config: RunConfig,
    data: HeteroData,
    tokenizer: OPQTokenizer,
    features: Mapping[str, Tensor],
    masks: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    r"""Computes all attributes that the tokenizer adds to a graph, for items
    outside the graph, from their features.
    """
    features = dict(features)
    if config.behavior:
        transform = build_behavior(config, data)
        features[transform.modality] = transform.encode(transform(data), features, masks)
    return tokenizer.encode_tokens({m: features[m] for m in tokenizer.num_tokens_dict})


def build_item_encoder(
    config: RunConfig, data: HeteroData, tokenizer: OPQTokenizer | None
) -> nn.Module | None:
    r"""Builds the item encoder. Returns :obj:`None` if the backbone uses its
    own embedding.

    The constructor receives those of the following arguments that are in its
    signature: :obj:`num_tokens`, :obj:`codebook_size` and :obj:`num_near` of
    the tokenizer, :obj:`in_channels` (the width of every modality),
    :obj:`num_items`, and :obj:`out_channels`.
    """
    name, target = config.items['name'], config.target('items')
    if name in ('id', NO_ITEMS):
        return None
    given = {
        'num_items': int(data[ITEM].num_nodes),
        'in_channels': {m: data[ITEM][f'x_{m}'].size(1) for m in modalities(data)},
        'out_channels': config.model['channels'],
    }
    if tokenizer is not None:
        given['num_tokens'] = tokenizer.num_tokens_dict
        given['codebook_size'] = tokenizer.codebook_size
        given['num_near'] = tokenizer.num_near
    if name in MODE_OF:
        given['mode'] = MODE_OF[name]
    arguments = arguments_of(target)
    given = {key: value for key, value in given.items() if key in arguments}
    return target(**given, **config.options('items'))


def build_model(
    config: RunConfig, data: HeteroData, tokenizer: OPQTokenizer | None
) -> Recommender | FittedRecommender:
    r"""Builds the model, including its item encoder if it takes one.

    Raises:
        ConfigError: If a setting is invalid, or the model ignores the item
            encoder.
    """
    options, target = config.options('model'), config.target('model')
    if options.get('channels', 1) < 1:
        raise ConfigError(f'model.channels: expected at least 1, got {options["channels"]}')
    with named('items'):
        encoder = build_item_encoder(config, data, tokenizer)
    if takes_items(target):
        options['item_encoder'] = encoder
    with named('model'):
        model = target(data, **options)
    with named('loss'):
        objective = config.target('loss')(**config.options('loss'))
    if not isinstance(objective, PublishedLoss):
        if isinstance(model, FittedRecommender):
            raise ConfigError(f'--loss: {config.model["name"]} is fitted without a training loss')
        model.set_objective(objective)
    if config.users == 'items':
        if not getattr(model, 'takes_user_encoder', False):
            raise ConfigError(
                f"users: '{config.model['name']}' needs a table of users; expected one of "
                f'{", ".join(with_user_encoder())}'
            )
        model.set_user_encoder(UsedItems())
    with named('unseen'):
        unseen = UnseenItems(**config.options('unseen'))
    if unseen.changes:
        unseen.attach(model)
    if encoder is not None and not any(module is encoder for module in model.modules()):
        raise ConfigError(
            f"model: '{config.model['name']}' does not use the item encoder of --items "
            f'{config.items["name"]}; pass item_encoder to super().__init__'
        )
    return model


def with_user_encoder() -> list[str]:
    r"""Names of the backbones whose users can be what they used."""
    return [name for name, model in MODELS.items() if model.takes_user_encoder]


def warn_of_item_tables(
    config: RunConfig, model: Recommender | FittedRecommender, num_items: int
) -> None:
    r"""Warns if a backbone of another package has trainable parameters per item
    although its item encoder has none. The backbones of this package document
    such parameters.
    """
    if config.reads('num_items') or not is_outside(type(model)):
        return
    if isinstance(model, FittedRecommender):
        return
    encoder = {id(parameter) for parameter in model.item_encoder.parameters()}
    own = dict(model.named_parameters(remove_duplicate=False))
    # The user table has as many rows as an item table if there are as many users as items.
    names = [
        name
        for name in model.item_parameters(num_items)
        if name != 'user_embedding' and id(own[name]) not in encoder
    ]
    if names:
        warnings.warn(
            f"model: '{config.model['name']}' has trainable parameters with one row per item "
            f'({", ".join(names)}), so it is not ID-free with --items '
            f'{config.items["name"]} and cannot score new items',
            stacklevel=3,
        )


def is_outside(target: type) -> bool:
    r"""Whether a class is defined outside this package."""
    return target.__module__.partition('.')[0] != __name__.partition('.')[0]


def build_transforms(config: RunConfig) -> list[BaseTransform]:
    r"""Builds the transforms that the backbone declares. Options of the section
    :obj:`graph` that differ from their defaults apply to every
    :class:`~motor_geo.data.ItemKNN`.
    """
    with named('model'):
        declared = declared_transforms(config.target('model'))
    return [_configure(t, config.graph) if isinstance(t, ItemKNN) else t for t in declared]


def _configure(transform: ItemKNN, options: Mapping[str, object]) -> ItemKNN:
    defaults = inspect.signature(ItemKNN).parameters
    changed = {key: value for key, value in options.items() if value != defaults[key].default}
    if not changed:
        return transform
    arguments = arguments_of(type(transform))
    own = {key: getattr(transform, key) for key in arguments if hasattr(transform, key)}
    with named('graph'):
        return type(transform)(**{**own, **changed})


def add_graphs(config: RunConfig, data: HeteroData) -> HeteroData:
    r"""Applies the transforms that the backbone declares."""
    name = config.target('model').__name__
    for position, transform in enumerate(build_transforms(config)):
        with named('graph' if isinstance(transform, ItemKNN) else type(transform).__name__):
            out = transform(data)
        with named('model'):
            data = check_graph(out, f'transforms[{position}] of {name}')
    return data
