r"""Shows the environment of the package: :obj:`motor-geo doctor`."""

from __future__ import annotations

import argparse
import os
import os.path as osp
import platform
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from motor_geo import __version__
from motor_geo.utils.errors import run_command
from motor_geo.utils.memory import tune_process

REQUIRED = {
    'torch': 'torch',
    'torch-geometric': 'torch_geometric',
    'faiss-cpu': 'faiss',
    'numpy': 'numpy',
    'scipy': 'scipy',
    'jsonargparse': 'jsonargparse',
}
#: For each optional package, its module and its purpose.
OPTIONAL = {
    'torch-sparse': ('torch_sparse', 'layers that take a SparseTensor'),
    'pyarrow': ('pyarrow', 'tables in memory, and .parquet files'),
    'safetensors': ('safetensors', 'export --item-vectors FILE.safetensors'),
    'matplotlib': ('matplotlib', 'figures of reproduce and compare'),
    'implicit': ('implicit', '--model IALS'),
    'optuna': ('optuna', 'sweeps over ranges'),
    'tensorboard': ('tensorboard', '--logger tensorboard'),
    'wandb': ('wandb', '--logger wandb'),
    'mlflow': ('mlflow', '--logger mlflow'),
    'sentence-transformers': ('sentence_transformers', 'text encoders for item features'),
}


def main(arguments: Sequence[str] | None = None) -> int:
    tune_process()
    parser = argparse.ArgumentParser(
        prog='motor-geo doctor',
        description='Shows versions, optional packages, threads, kernels, the device and the '
        'cache of tokens and graphs.',
    )
    parser.add_argument(
        '--clear-cache', action='store_true', help='delete all cached tokens and graphs'
    )
    options = parser.parse_args(arguments)
    return run_command(lambda: command(options.clear_cache))


def command(clear: bool) -> int:
    r"""Clears the cache, or prints the environment."""
    if clear:
        from motor_geo.utils import cache as entries
        from motor_geo.utils.files import remove_temporary

        paths = entries.cache_entries()
        size = sum(map(osp.getsize, paths))
        with suppress(FileNotFoundError):
            remove_temporary(entries.cache_dir())
        for path in paths:
            with suppress(FileNotFoundError):  # Another process may clear it at the same time.
                os.remove(path)
        print(f"deleted cache entries: {len(paths)} ({megabytes(size)}) in '{entries.cache_dir()}'")
        return 0
    titles = {'Versions': versions(), 'Optional packages': optional(), 'Machine': machine()}
    for title, rows in {**titles, 'Cache': cache()}.items():
        print(title)
        for name, text in rows.items():
            print(f'  {name:24s}{text}')
    return 0


def versions() -> dict[str, str]:
    r"""Returns the versions of the required packages."""
    out = {'motor-geo': __version__, 'python': platform.python_version()}
    return out | {name: found(name, module) or 'missing' for name, module in REQUIRED.items()}


def optional() -> dict[str, str]:
    r"""Returns the versions of the optional packages, and their purposes."""
    return {
        name: f'{found(name, module) or "missing":12s}{purpose}'
        for name, (module, purpose) in OPTIONAL.items()
    }


def found(name: str, module: str) -> str | None:
    r"""Returns the version of a package, or :obj:`None` if it is missing."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None if find_spec(module) is None else 'unknown version'


def machine() -> dict[str, str]:
    r"""Returns threads, kernels, and the device that :obj:`auto` selects."""
    import torch
    import torch_geometric.typing

    from motor_geo.pipeline.assemble import build_device

    device = str(build_device('auto'))
    if torch.cuda.is_available():
        device += f' ({torch.cuda.get_device_name()}, CUDA {torch.version.cuda})'
    kernels = {
        'oneDNN': torch.backends.mkldnn.is_available(),
        'MKL': torch.backends.mkl.is_available(),
        'OpenMP': torch.backends.openmp.is_available(),
        'SparseTensor': torch_geometric.typing.WITH_TORCH_SPARSE,
    }
    return {
        'system': platform.platform(),
        'device of auto': device,
        'threads': f'{torch.get_num_threads()} of {os.cpu_count()} cores',
        'vector instructions': torch.backends.cpu.get_cpu_capability(),
        **{name: 'yes' if there else 'no' for name, there in kernels.items()},
    }


def cache() -> dict[str, str]:
    r"""Returns the folder, the contents and the size limit of the cache."""
    from motor_geo.utils import cache

    paths = cache.cache_entries()
    size = megabytes(sum(map(osp.getsize, paths)))
    limit = f'{cache.cache_limit() / 1e9:g} GB ({cache.LIMIT})'
    return {'folder': cache.cache_dir(), 'entries': f'{len(paths)} ({size})', 'limit': limit}


def megabytes(size: int) -> str:
    return f'{size / 1e6:.1f} MB'


if __name__ == '__main__':
    sys.exit(main())
