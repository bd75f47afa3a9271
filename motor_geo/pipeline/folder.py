r"""What the folder of a run holds."""

from __future__ import annotations

import json
import os.path as osp
from typing import NamedTuple

from torch_geometric.data import HeteroData

from motor_geo.data import OPQTokenizer, RecommendationDataset
from motor_geo.engine.checkpoint import load_checkpoint
from motor_geo.nn.models import Recommender
from motor_geo.pipeline.assemble import (
    add_tokens,
    build_dataset,
    build_device,
    build_item_graph,
    build_model,
    build_tokenizer,
    run_fingerprint,
    tokenizer_fingerprint,
)
from motor_geo.pipeline.config import Config, read_yaml, resolve
from motor_geo.utils.errors import ConfigError


class Run(NamedTuple):
    r"""A finished run, loaded."""

    config: Config
    dataset: RecommendationDataset
    data: HeteroData
    tokenizer: OPQTokenizer | None
    model: Recommender


def load_run(folder: str, device: str = 'auto') -> Run:
    r"""Loads the best weights of a run, and the data they were trained on.

    Args:
        folder: The folder of the run.
        device: Where to put model and graph.

    Raises:
        FileNotFoundError: If the folder holds no run.
        ValueError: If the data have changed since.
    """
    path = osp.join(folder, 'config.yaml')
    if not osp.isfile(path):
        raise FileNotFoundError(f"'{folder}' is not the folder of a run: it has no config.yaml")
    config = read_yaml(path)
    try:
        config = resolve(config)
    except ConfigError as error:
        raise ConfigError(f"'{path}': {error}") from error
    target = build_device(device)
    dataset = build_dataset(config)
    data = dataset.data
    tokenizer = build_tokenizer(config, data)
    if tokenizer is not None:
        tokenizer = load_tokenizer(folder, tokenizer)
        data = add_tokens(config, data, tokenizer)
    data = build_item_graph(config, data)
    model = build_model(config, data, tokenizer).to(target)
    state = load_checkpoint(
        osp.join(folder, 'best.pt'),
        model=type(model).__name__,
        fingerprint=run_fingerprint(config, dataset.fingerprint),
        map_location=target,
    )
    model.load_state_dict(state['model'])
    model.eval()
    return Run(config, dataset, data.to(target), tokenizer, model)


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
    try:
        with open(osp.join(folder, 'result.json')) as file:
            known = json.load(file)['hashes'].get('tokenizer')
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        known = None  # Not finished yet: nothing to compare with.
    if known is not None and known != tokenizer_fingerprint(tokenizer):
        raise ValueError(f"'{path}' belongs to another run: expected the codebooks of training")
    return tokenizer
