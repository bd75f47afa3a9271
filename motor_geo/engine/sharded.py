r"""Checkpoints of several processes: a folder with one safetensors file per process.

Every process writes its users and columns of tables, and the first one everything else. The
folder is complete or absent: it gets its name, the number of the epoch, when all files are on the
disk.
"""

from __future__ import annotations

import json
import os
import os.path as osp
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from motor_geo.nn.models import Recommender
from motor_geo.parallel.user_shard import UserShard
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
    columns: Sequence[str] = (),
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
        columns: Names of the tensors with the columns of vectors.

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
        if (name in tables or world.users.is_first) and (name in columns or world.columns.is_first)
    }
    files = [f'{rank}.safetensors' for rank in range(world.size)]
    with writing(osp.join(temporary, files[world.rank])) as path:
        place = {'first': shard.first, 'last': shard.last}
        place |= {'part': world.columns.rank, 'parts': world.columns.size}
        save_file(own, path, {key: str(value) for key, value in place.items()})
    world.barrier()
    if world.is_first:
        content = {'format': FORMAT, 'version': VERSION, 'files': files, 'tables': list(tables)}
        content |= {'columns': list(columns), 'num_users': shard.num_users, **meta}
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
    executing code from it. Of tables, a process reads its own users and columns only.

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
        columns = set(meta['columns'])
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
    mine = World() if shard is None else shard.columns
    tensors: dict[str, Tensor] = {}
    count: Counter[str] = Counter()
    try:
        for name in files:
            with safe_open(osp.join(path, name), framework='pt') as file:
                place = {key: int(value) for key, value in file.metadata().items()}
                for key in file.keys():
                    if key not in tables and key not in columns:
                        tensors[key] = file.get_tensor(key)
                        continue
                    part, shape = file.get_slice(key), list(file.get_slice(key).get_shape())
                    there, here = [slice(None)], [slice(None)]
                    if key in tables:
                        own = place['first'], place['last']
                        there[0], here[0] = _common(own, (first, last))
                        shape[0] = last - first
                    if key in columns and max(place['parts'], mine.size) > 1:
                        width, size = shape[1], shape[1] * place['parts'] // mine.size
                        own = place['part'] * width, (place['part'] + 1) * width
                        pair = _common(own, (mine.rank * size, (mine.rank + 1) * size))
                        there, here = [*there, pair[0]], [*here, pair[1]]
                        shape[1] = size
                    value = part[tuple(there)]
                    if key not in tensors:
                        tensors[key] = value.new_empty(shape)
                    tensors[key][tuple(here)] = value
                    count[key] += value.numel()
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"'{osp.join(path, name)}' is damaged: {one_line(error)}") from error
    for key in {*tables, *columns}:
        size = tensors[key].numel() if key in tensors else None
        if count[key] != size:
            of = 'no' if size is None else f'{count[key]} of {size}'
            raise ValueError(f"'{path}' has {of} numbers of '{key}'")
    return {key: value.to(map_location) for key, value in tensors.items()}, meta


def _common(own: tuple[int, int], wanted: tuple[int, int]) -> tuple[slice, slice]:
    r"""The common part of two ranges, as positions in each of them."""
    begin = max(own[0], wanted[0])
    end = max(min(own[1], wanted[1]), begin)
    if begin == end:
        return slice(0, 0), slice(0, 0)
    return slice(begin - own[0], end - own[0]), slice(begin - wanted[0], end - wanted[0])


class SharedState:
    r"""The state of a model and its optimizer, of which every process has its users and
    columns.

    Args:
        model: The model.
        shard: The users of this process. (default: all users)
    """

    def __init__(self, model: Recommender, shard: UserShard | None = None):
        self.shard = shard
        self.users, self.columns = model.user_tables(), model.column_tables()
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
        users, columns = self._tables(tensors)
        save_folder(folder, epoch, tensors, users, {**meta, **plain}, self.shard, columns)

    def load(self, path: str, map_location: torch.device, **expected: str) -> dict[str, Any]:
        r"""Reads a checkpoint of any number of processes, see :func:`load_folder`."""
        check_safetensors()
        tensors, meta = load_folder(path, self.shard, map_location, **expected)
        return {**meta, **self._unflatten(tensors, meta['param_groups'])}

    def part(self, state: dict[str, Any]) -> dict[str, Any]:
        r"""The users and columns of this process, from the checkpoint of one process."""
        if self.shard is None:
            return state
        tensors, plain = self._flatten(state)
        tensors = self.shard.parts(tensors, *self._tables(tensors))
        return {**state, **self._unflatten(tensors, plain['param_groups'])}

    def whole(self, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        r"""The weights of the model with all users and columns on the first process. The
        others get a part.
        """
        shard = self.shard
        if shard is None:
            return weights
        return {
            key: shard.collect(x, key in self.users, key in self.columns)
            for key, x in weights.items()
        }

    def _tables(self, names: Iterable[str]) -> tuple[list[str], list[str]]:
        r"""Names of the tensors with one row per user, and of those with columns of
        vectors.
        """
        users, columns = [], []
        for name in names:
            part, _, rest = name.partition('.')
            owner, _, field = rest.rpartition('.') if part == 'optimizer' else (rest, '', '')
            if owner in self.users and field != 'step':
                users.append(name)
            if owner in self.columns and field != 'step':
                columns.append(name)
        return users, columns

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
