r"""A run on several processes, which :obj:`torchrun` starts."""

from __future__ import annotations

import dataclasses

from motor_geo.data import RecommendationDataset
from motor_geo.engine.checks import shares_columns
from motor_geo.nn import objective
from motor_geo.nn.models import MODELS, Recommender
from motor_geo.nn.unseen import UnseenItems
from motor_geo.parallel import Mesh, UserShard, World
from motor_geo.parallel.edge_part import EdgePart
from motor_geo.pipeline.assemble import Assembly, named
from motor_geo.pipeline.config import RunConfig
from motor_geo.typing import RATES, LazyEdges, unread_edges
from motor_geo.utils.errors import ConfigError

#: Losses that several processes can compute.
LOSSES = ('published', 'bpr', 'whole')


def check_processes(config: RunConfig, world: World) -> World:
    r"""Checks that several processes can share a run, and returns them in the shape of
    its mesh.

    Raises:
        ConfigError: If the run needs all users or all columns on one process, or the
            mesh does not fit.
    """
    try:
        mesh = Mesh(**config.options('parallel'))
        mesh.check(world.size)
    except ValueError as error:
        raise ConfigError(f'--parallel: {error}') from error
    if world.size == 1:
        return world
    _check_users(config, world)
    if mesh.columns > 1:
        _check_columns(config, mesh.columns)
    return mesh.start(world)


def _check_users(config: RunConfig, world: World) -> None:
    target, name = config.target('model'), config.model['name']
    with named('unseen'):
        unseen = UnseenItems(**config.options('unseen')).changes
    found = [
        (f'--model {name}', needs_all_users(target)),
        ('--loss', None if config.loss['name'] in LOSSES else 'all interactions'),
        ('--users items', 'all interactions' if config.users == 'items' else None),
        ('unseen', 'all interactions' if unseen else None),
        ('--trainer.drop_items', 'all interactions' if config.trainer['drop_items'] else None),
    ]
    for option, reason in found:
        if reason is not None:
            raise ConfigError(
                f'{option}: needs {reason} on one process, but torchrun started {world.size}; run '
                f'it without torchrun (several processes train {", ".join(on_processes())} with '
                f'--loss {" or ".join(LOSSES)})'
            )


def _check_columns(config: RunConfig, columns: int) -> None:
    name = config.model['name']
    target, loss = config.target('model'), config.loss['name']
    losses = [name for name in LOSSES if objective.LOSSES[name].columns]
    option, end = f'--parallel.columns {columns}', 'or use --parallel.columns 1'
    if not shares_columns(target):
        raise ConfigError(
            f'{option}: --model {name} is not computed column by column; choose '
            f'{", ".join(by_columns())}, {end}'
        )
    if loss not in losses:
        raise ConfigError(
            f'{option}: --loss {loss} needs all columns on one process; choose --loss '
            f'{" or ".join(losses)}, {end}'
        )
    channels = config.model['channels']
    if channels % columns > 0:
        raise ConfigError(
            f'{option}: --model.channels {channels} cannot be divided by {columns}; expected a '
            f'divisor of {channels}'
        )


def by_columns() -> list[str]:
    r"""Names of the backbones whose columns processes can share."""
    return [name for name, model in MODELS.items() if shares_columns(model)]


def needs_all_users(target: type) -> str | None:
    r"""What a model needs of all users on one process, or :obj:`None` if it can
    share them among several. A subclass may add terms, so it has to declare this
    itself.
    """
    if not issubclass(target, Recommender):
        return 'all interactions'
    return vars(target).get('needs_all_users', Recommender.needs_all_users)


def on_processes() -> list[str]:
    r"""Names of the backbones that can share their users among processes."""
    return [name for name, model in MODELS.items() if needs_all_users(model) is None]


def user_bounds(dataset: RecommendationDataset, world: World) -> list[int] | None:
    r"""The first user of each process, and the number of users. If the data set is
    written in shards, every process gets whole shards, and otherwise this returns
    :obj:`None`.

    Raises:
        ConfigError: If there are fewer shards than processes.
    """
    shards = getattr(dataset, 'shards', None)
    size = world.users.size
    if shards is None or world.size == 1:
        return None
    if len(shards.shards) < size:
        raise ConfigError(
            f"'{shards.folder}' has {len(shards.shards)} shards, but {size} processes share the "
            'users; expected at least one shard per process (motor-geo shard --shards)'
        )
    return shards.bounds(size)


def share_users(assembly: Assembly, world: World) -> Assembly:
    r"""Leaves the users and columns of this process to a model and its graph. In a world
    of one, returns the assembly itself.
    """
    if world.size == 1:
        return assembly
    model = assembly.model
    assert isinstance(model, Recommender)
    dataset, device = assembly.dataset, assembly.device

    def read(first: int, last: int) -> EdgePart:
        part = dataset.part(first, last)  # type: ignore[attr-defined]
        return part._replace(edge_index=part.edge_index.to(device))

    on_disk = isinstance(unread_edges(assembly.data[RATES]), LazyEdges)
    bounds = user_bounds(dataset, world)
    shard = UserShard(world, assembly.data, bounds=bounds, part=read if on_disk else None)
    shard.cut_model(model, model.user_tables(), model.column_tables())
    return dataclasses.replace(assembly, shard=shard)
