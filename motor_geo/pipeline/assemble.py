r"""From a resolved configuration to objects."""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData

from motor_geo.data import InteractionSVD, ItemKNN, OPQTokenizer, RecommendationDataset
from motor_geo.nn import FeatureProjection, TokenCrossEncoder
from motor_geo.nn.models import MODELS, Recommender
from motor_geo.nn.token_cross import MODES
from motor_geo.pipeline.config import Config, choose
from motor_geo.typing import ITEM
from motor_geo.utils.cache import fingerprint
from motor_geo.utils.errors import ConfigError


@contextmanager
def named(section: str) -> Iterator[None]:
    r"""Puts the section in front of what a constructor says of an argument."""
    try:
        yield
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f'{section}: {error}') from error


def tokenizer_fingerprint(tokenizer: OPQTokenizer) -> str:
    r"""Hash of the fitted codebooks."""
    return fingerprint({m: q.state_dict() for m, q in tokenizer.quantizers.items()})


def run_fingerprint(config: Config, data: str) -> str:
    r"""Hash of the data, given by their own, and of every option that changes
    a result.
    """
    trainer = {k: v for k, v in config['trainer'].items() if k not in ('epochs', 'progress')}
    parts = {
        k: v
        for k, v in config.items()
        if k not in ('data', 'out', 'device', 'threads', 'tensorboard')
    }
    return fingerprint(data, {**parts, 'trainer': trainer})


def build_device(name: str) -> torch.device:
    r"""The device of a name, where :obj:`"auto"` is a GPU if there is one.

    Raises:
        ConfigError: If there is no such device.
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
        raise ConfigError(f"--device: there is no '{name}' here; use cpu or auto")
    return device


def build_dataset(config: Config) -> RecommendationDataset:
    r"""The data set of a resolved configuration."""
    options = {k: v for k, v in config['data'].items() if k != 'name'}
    return choose('data', config['data']['name'])[0](**options)


def build_tokenizer(config: Config, data: HeteroData) -> OPQTokenizer | None:
    r"""A tokenizer if the item encoder reads tokens, else :obj:`None`.

    Raises:
        ConfigError: If the data lack features that the model or the item
            encoder reads.
    """
    model, items = config['model']['name'], config['items']['name']
    found = sorted(key[2:] for key in data[ITEM].keys() if key.startswith('x_'))
    needed = MODELS[model].min_modalities
    if len(found) < needed:
        raise ConfigError(
            f'--model {model}: expected item features of at least {needed} '
            f'modalit{"y" if needed == 1 else "ies"} (<modality>_feat.npy files), the data have '
            f'{", ".join(found) or "none"}'
        )
    if items != 'id' and not found and not (config['behavior'] and items in MODES):
        raise ConfigError(
            f'--items {items}: expected item features (<modality>_feat.npy files), the data have '
            'none; use --items id'
        )
    if items not in MODES:
        if config['behavior']:
            raise ConfigError(f'--behavior: expected items with tokens, got --items {items}')
        return None
    options = dict(config['tokenizer'])
    # Named here, a model can be built before the tokenizer is fitted.
    options['modalities'] = options['modalities'] or found
    if config['behavior']:
        options['modalities'] = [*options['modalities'], build_behavior(config, data).modality]
    options['verbose'] = config['trainer']['progress'] and sys.stderr.isatty()
    with named('tokenizer'):
        return OPQTokenizer(**options)


def build_behavior(config: Config, data: HeteroData) -> InteractionSVD:
    r"""The transform behind the tokens of behavior.

    Raises:
        ConfigError: If the data have a modality of its name.
    """
    with named('svd'):
        transform = InteractionSVD(**config['svd'])
    if f'x_{transform.modality}' in data[ITEM]:
        raise ConfigError(f"--behavior: the data have a modality '{transform.modality}' already")
    return transform


def add_tokens(config: Config, data: HeteroData, tokenizer: OPQTokenizer) -> HeteroData:
    r"""Adds the tokens of all items. Vectors of behavior are no features:
    models do not get to see them.
    """
    out = copy.copy(data)
    if config['behavior']:
        with named('svd'):
            data = build_behavior(config, data)(data)
    out[ITEM].token_id = tokenizer(data)[ITEM].token_id
    return out


def encode_items(
    config: Config,
    data: HeteroData,
    tokenizer: OPQTokenizer,
    features: Mapping[str, Tensor],
    masks: Mapping[str, Tensor],
) -> Tensor:
    r"""Tokens of items that are not in the graph, from their features."""
    features = dict(features)
    if config['behavior']:
        transform = build_behavior(config, data)
        features[transform.modality] = transform.encode(transform(data), features, masks)
    return tokenizer.encode({m: features[m] for m in tokenizer.num_tokens_dict})


def build_item_encoder(
    config: Config, data: HeteroData, tokenizer: OPQTokenizer | None
) -> nn.Module | None:
    r"""The module that stands where the item embedding stood; :obj:`None`
    leaves the backbone its own.
    """
    options = dict(config['items'])
    name, channels = options.pop('name'), config['model']['channels']
    if name == 'features':
        widths = {k[2:]: data[ITEM][k].size(1) for k in data[ITEM].keys() if k.startswith('x_')}
        return FeatureProjection(widths, channels, **options)
    if tokenizer is not None:
        return TokenCrossEncoder(
            tokenizer.num_tokens_dict, tokenizer.codebook_size, channels, mode=name, **options
        )
    return None


def build_model(config: Config, data: HeteroData, tokenizer: OPQTokenizer | None) -> Recommender:
    r"""The backbone, with its item encoder in place."""
    options = {k: v for k, v in config['model'].items() if k != 'name'}
    if options['channels'] < 1:
        raise ConfigError(f'model.channels: expected at least 1, got {options["channels"]}')
    with named('items'):
        encoder = build_item_encoder(config, data, tokenizer)
    with named('model'):
        return MODELS[config['model']['name']](data, item_encoder=encoder, **options)


def build_item_graph(config: Config, data: HeteroData) -> HeteroData:
    r"""Adds the item graphs that the backbone reads."""
    weighting = MODELS[config['model']['name']].item_graph
    if weighting is None:
        return data
    with named('graph'):
        return ItemKNN(weighting=weighting, **config['graph'])(data)
