r"""Checkpoints of several processes: a folder with one safetensors file per process.

Every process writes the rows of its users, and the first one everything else. The folder is
complete or absent: it gets its name, the number of the epoch, when all files are on the disk.
"""

from __future__ import annotations

import json
import os
import os.path as osp
import shutil
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from motor_geo.nn.models import Recommender
from motor_geo.parallel.users import UserShard
from motor_geo.parallel.world import World
from motor_geo.utils.errors import one_line
from motor_geo.utils.extras import needs
from motor_geo.utils.files import finish_folder, read_json, temporary_prefix, writing

FORMAT, VERSION = 'motor_geo', 2
META = 'meta.json'


def check_safetensors() -> None:
    r"""Checks that safetensors is installed.

    Raises:
        ImportError: If it is not.
    """
    try:
        import safetensors  # noqa: F401
    except ModuleNotFoundError as error:
        text = needs('A run on several processes', 'safetensors', extra='distributed')
        raise ImportError(text) from error


def save_folder(
    folder: str,
    epoch: int,
    tensors: Mapping[str, Tensor],
    tables: Sequence[str],
    meta: Mapping[str, Any],
    shard: UserShard,
) -> None:
    r"""Writes the checkpoint of an epoch on all processes, and removes those of
    earlier epochs.

    Args:
        folder: The folder of checkpoints.
        epoch: Number of the epoch, the name of the checkpoint.
        tensors: The tensors of this process.
        tables: Names of the tensors with one row per user.
        meta: Plain values.
        shard: The users of this process.

    Raises:
        OSError: If a file cannot be written.
    """
    from safetensors.torch import save_file

    world = shard.world
    temporary = osp.join(folder, f'{temporary_prefix()}{epoch}')
    temporary = world.share(temporary)
    if world.is_first:
        os.makedirs(temporary)
    world.barrier()
    own = {
        name: tensor.detach().contiguous().cpu()
        for name, tensor in tensors.items()
        if name in tables or world.is_first
    }
    files = [f'{rank}.safetensors' for rank in range(world.size)]
    with writing(osp.join(temporary, files[world.rank])) as path:
        save_file(own, path, {'first': str(shard.first), 'last': str(shard.last)})
    world.barrier()
    if world.is_first:
        content = {'format': FORMAT, 'version': VERSION, 'files': files, 'tables': list(tables)}
        content |= {'num_users': shard.num_users, **meta}
        with writing(osp.join(temporary, META)) as path, open(path, 'w') as file:
            json.dump(content, file)
        finish_folder(temporary)
        os.rename(temporary, osp.join(folder, str(epoch)))
        for name in os.listdir(folder):
            if name != str(epoch):  # Also what killed processes left.
                shutil.rmtree(osp.join(folder, name), ignore_errors=True)
    world.barrier()


def last_folder(folder: str) -> str | None:
    r"""The checkpoint of the last epoch in a folder of checkpoints, if there is one."""
    if not osp.isdir(folder):
        return None
    epochs = [name for name in os.listdir(folder) if name.isdecimal()]
    return osp.join(folder, max(epochs, key=int)) if epochs else None


def load_folder(
    path: str,
    shard: UserShard | None = None,
    map_location: str | torch.device = 'cpu',
    *,
    model: str,
    fingerprint: str,
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    r"""Reads a checkpoint, which any number of processes may have written, without
    executing code from it. Of tables of users, a process reads its own rows only.

    Args:
        path: The checkpoint.
        shard: The users of this process. (default: all users)
        map_location: Device of the tensors.
        model: Expected class name of the model.
        fingerprint: Expected hash of the data.

    Returns:
        The tensors by name, and the plain values.

    Raises:
        ValueError: If a file is damaged, or the checkpoint belongs to another
            model, other data or another number of users.
    """
    from safetensors import SafetensorError, safe_open

    try:
        meta = read_json(osp.join(path, META))
        files, tables, num_users = meta['files'], set(meta['tables']), meta['num_users']
        found = {key: meta[key] for key in ('format', 'version', 'model', 'fingerprint')}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"'{path}' is damaged: {one_line(error)}") from error
    expected = {'format': FORMAT, 'version': VERSION, 'model': model, 'fingerprint': fingerprint}
    for key, value in expected.items():
        if found[key] != value:
            raise ValueError(f"'{path}' has the {key} '{found[key]}', expected '{value}'")
    first, last = (0, num_users) if shard is None else (shard.first, shard.last)
    if shard is not None and shard.num_users != num_users:
        raise ValueError(f"'{path}' has {num_users} users, expected {shard.num_users}")
    tensors: dict[str, Tensor] = {}
    rows: dict[str, list[Tensor]] = {}
    try:
        for name in files:
            with safe_open(osp.join(path, name), framework='pt') as file:
                start, end = (int(file.metadata()[key]) for key in ('first', 'last'))
                begin, stop = max(first, start) - start, min(last, end) - start
                for key in file.keys():
                    if key not in tables:
                        tensors[key] = file.get_tensor(key)
                    elif begin < stop or key not in rows:
                        part = file.get_slice(key)[max(begin, 0) : max(stop, begin, 0)]
                        rows.setdefault(key, []).append(part)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"'{osp.join(path, name)}' is damaged: {one_line(error)}") from error
    tensors |= {key: torch.cat(parts) for key, parts in rows.items()}
    for key in tables:
        count = tensors[key].size(0) if key in tensors else 0
        if count != last - first:
            raise ValueError(f"'{path}' has {count} of {last - first} rows of '{key}'")
    return {key: value.to(map_location) for key, value in tensors.items()}, meta


class SharedState:
    r"""The state of a model and its optimizer, of which every process has the rows of
    its users.

    Args:
        model: The model.
        shard: The users of this process. (default: all users)
    """

    def __init__(self, model: Recommender, shard: UserShard | None = None):
        self.shard = shard
        self.users = model.user_tables()
        self.parameters = [name for name, _ in model.named_parameters()]

    def save(self, folder: str, epoch: int, parts: Mapping[str, Any], meta: Any) -> None:
        r"""Writes a checkpoint, see :func:`save_folder`.

        Args:
            folder: The folder of checkpoints.
            epoch: Number of the epoch.
            parts: The states :obj:`model` and :obj:`optimizer`.
            meta: Plain values.
        """
        assert self.shard is not None
        tensors, plain = self._flatten(parts)
        save_folder(folder, epoch, tensors, self._tables(tensors), {**meta, **plain}, self.shard)

    def load(self, path: str, map_location: torch.device, **expected: str) -> dict[str, Any]:
        r"""Reads a checkpoint of any number of processes, see :func:`load_folder`."""
        check_safetensors()
        tensors, meta = load_folder(path, self.shard, map_location, **expected)
        return {**meta, **self._unflatten(tensors, meta['param_groups'])}

    def part(self, state: dict[str, Any]) -> dict[str, Any]:
        r"""The rows of the users of this process, from the checkpoint of one process."""
        if self.shard is None:
            return state
        tensors, plain = self._flatten(state)
        tensors = self.shard.rows(tensors, self._tables(tensors))
        return {**state, **self._unflatten(tensors, plain['param_groups'])}

    def whole(self, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        r"""The weights of the model with the rows of all users on the first process.
        The others get theirs alone.
        """
        shard = self.shard
        if shard is None:
            return weights
        return {k: shard.collect(x) if k in self.users else x for k, x in weights.items()}

    def _tables(self, names: Iterable[str]) -> list[str]:
        r"""Names of the tensors with one row per user."""
        out = []
        for name in names:
            part, _, rest = name.partition('.')
            owner, _, field = rest.rpartition('.') if part == 'optimizer' else (rest, '', '')
            if owner in self.users and field != 'step':
                out.append(name)
        return out

    def _flatten(self, parts: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
        r"""Tensors by name, and plain values."""
        tensors = {f'model.{name}': value for name, value in parts['model'].items()}
        optimizer = parts['optimizer']
        for i, state in optimizer['state'].items():
            owner = f'optimizer.{self.parameters[i]}'
            tensors |= {f'{owner}.{field}': value for field, value in state.items()}
        return tensors, {'param_groups': optimizer['param_groups']}

    def _unflatten(self, tensors: Mapping[str, Tensor], groups: Any) -> dict[str, Any]:
        model: dict[str, Tensor] = {}
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            part, _, rest = name.partition('.')
            owner, _, field = rest.rpartition('.')
            if part == 'model':
                model[rest] = value
            else:
                state.setdefault(self.parameters.index(owner), {})[field] = value
        return {'model': model, 'optimizer': {'state': state, 'param_groups': groups}}


def world_of(shard: UserShard | None) -> World:
    r"""The processes that share the users, or a world of one."""
    return World() if shard is None else shard.world
