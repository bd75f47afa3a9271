r"""What the folder of a run holds."""

from __future__ import annotations

import json
import os.path as osp
from typing import NamedTuple

from torch_geometric.data import HeteroData

from motor_geo.data import OPQTokenizer, RecommendationDataset
from motor_geo.engine.checkpoint import load_checkpoint
from motor_geo.nn.models import Recommender
from motor_geo.pipeline.assemble import Assembly, assemble, tokenizer_fingerprint
from motor_geo.pipeline.config import RunConfig
from motor_geo.pipeline.flags import read_yaml
from motor_geo.utils.errors import ConfigError


class LoadedRun(NamedTuple):
    r"""A finished run, loaded."""

    config: RunConfig
    dataset: RecommendationDataset
    data: HeteroData
    tokenizer: OPQTokenizer | None
    model: Recommender


def load_run(folder: str, device: str = 'auto') -> LoadedRun:
    r"""Loads the best weights of a run, and the data they were trained on.

    Args:
        folder: The folder of the run.
        device: Where to put model and graph.

    Raises:
        FileNotFoundError: If the folder holds no run.
        ValueError: If the data have changed since.
    """
    assembly = assemble(read_config(folder), device=device)
    if assembly.tokenizer is not None:
        assembly.add_tokens(load_tokenizer(folder, assembly.tokenizer))
    load_weights(assembly, folder)
    return LoadedRun(
        assembly.config, assembly.dataset, assembly.data, assembly.tokenizer, assembly.model
    )


def read_config(folder: str) -> RunConfig:
    r"""The configuration of a run.

    Raises:
        FileNotFoundError: If the folder holds no run.
        ConfigError: If the configuration is damaged.
    """
    path = osp.join(folder, 'config.yaml')
    if not osp.isfile(path):
        raise FileNotFoundError(f"'{folder}' is not the folder of a run: it has no config.yaml")
    config = read_yaml(path)
    try:
        return RunConfig.of(config)
    except ConfigError as error:
        raise ConfigError(f"'{path}': {error}") from error


def load_weights(assembly: Assembly, folder: str) -> None:
    r"""Puts the best weights of a run into its model."""
    state = load_checkpoint(
        osp.join(folder, 'best.pt'),
        model=type(assembly.model).__name__,
        fingerprint=assembly.hashes['run'],
        map_location=assembly.device,
    )
    assembly.model.load_state_dict(state['model'])
    assembly.model.eval()


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
