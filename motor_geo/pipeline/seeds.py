r"""Runs a configuration with several seeds: :obj:`--seeds 0 1 2`."""

from __future__ import annotations

import dataclasses
import os.path as osp
from collections.abc import Sequence
from typing import Any

import numpy as np

from motor_geo.pipeline.config import Config, RunConfig
from motor_geo.pipeline.train import check_folder, default_folder, run
from motor_geo.utils.errors import ConfigError


def read_seeds(value: str | Sequence[str]) -> list[int]:
    r"""Parses seeds.

    Raises:
        ConfigError: If the seeds are not distinct non-negative integers.
    """
    words = value.replace(',', ' ').split() if isinstance(value, str) else list(value)
    seeds = [int(word) for word in words if word.isdecimal()]
    if len(seeds) < len(words) or len(set(seeds)) < len(seeds) or not seeds:
        raise ConfigError(
            f'--seeds: expected distinct non-negative integers, got {" ".join(words)}'
        )
    return seeds


def run_seeds(
    config: RunConfig | Config, seeds: Sequence[int], progress: bool = True
) -> list[dict[str, Any]]:
    r"""Runs a configuration with several seeds, one after another. The run
    folders are :obj:`OUT/seedN`, or by default those of single runs. Results of
    finished runs are read from disk.

    Args:
        config: The configuration. Its own seed is ignored.
        seeds: The seeds.
        progress: Whether to show progress. (default: :obj:`True`)

    Raises:
        ConfigError: If a setting is invalid, or a folder holds another run.
    """
    config = RunConfig.of(config)
    configs = []
    for seed in seeds:
        own = dataclasses.replace(config, seed=seed)
        out = default_folder(own) if config.out is None else osp.join(config.out, f'seed{seed}')
        configs.append(dataclasses.replace(own, out=out))
        check_folder(configs[-1], out)
    return [run(own, progress) for own in configs]


def seeds_table(results: Sequence[dict[str, Any]]) -> str:
    r"""Formats the mean and the sample standard deviation over seeds of all
    test metrics.
    """
    ks = sorted({int(key.partition('@')[2]) for key in results[0]['test']})
    names = list(dict.fromkeys(key.partition('@')[0] for key in results[0]['test']))
    lines = [f'{"":18s}' + ''.join(f'{f"@{k}":>18s}' for k in ks)]
    for name in names:
        cells = []
        for k in ks:
            values = [result['test'].get(f'{name}@{k}', float('nan')) for result in results]
            std = f' ± {np.std(values, ddof=1):.4f}' if len(values) > 1 else ''
            cells.append(f'{np.mean(values):.4f}{std}'.rjust(18))
        lines.append(f'test {name:13s}' + ''.join(cells))
    first, seeds = results[0], ', '.join(str(result['seed']) for result in results)
    lines.append(
        f'{first["model"]} with {first["items"]} items on {first["data"]}: '
        f'mean{" ± standard deviation" if len(results) > 1 else ""} over seeds {seeds}'
    )
    return '\n'.join(lines)
