from __future__ import annotations

import torch.distributed as dist

from motor_geo.parallel.world import World


class Mesh:
    r"""The shape in which the processes of a run share users and columns.

    Process :math:`p` has part :math:`\lfloor p / U \rfloor` of the columns of all
    vectors, and part :math:`p \bmod U` of the users. So processes with successive
    numbers, as on one machine, share the users.

    Args:
        columns: Number :math:`C` of parts of the columns of user and item vectors.
        users: Number :math:`U` of parts of the users. (default: as many as there are
            processes for)

    Raises:
        ValueError: If a number is not positive.
    """

    def __init__(self, columns: int = 1, users: int | None = None):
        for name, value in (('columns', columns), ('users', users)):
            if value is not None and value < 1:
                raise ValueError(f"'{name}' must be positive (got {value})")
        self.columns = columns
        self.users = users

    def check(self, size: int) -> None:
        r"""Checks that the mesh has as many processes as there are.

        Raises:
            ValueError: If it has another number.
        """
        users = size // self.columns if self.users is None else self.users
        if self.columns * users != size:
            shape = f'{self.columns} x {"all" if self.users is None else users}'
            raise ValueError(
                f'columns x users is {shape}, but there {"is" if size == 1 else "are"} {size} '
                f'process{"es" if size > 1 else ""}; expected numbers whose product is {size}, '
                'the number of processes that torchrun starts'
            )

    def start(self, world: World) -> World:
        r"""The same processes in the shape of the mesh. All of them call this method.

        Raises:
            ValueError: If the mesh has another number of processes.
        """
        self.check(world.size)
        if self.columns == 1:
            return world
        users = world.size // self.columns
        all_users = [[c * users + u for u in range(users)] for c in range(self.columns)]
        all_columns = [[c * users + u for c in range(self.columns)] for u in range(users)]
        rows, columns = _join(world, all_users), _join(world, all_columns)
        out = World(world.rank, world.size, world.group, columns, rows)
        out.sent = world.sent
        return out

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}({self.columns}, {self.users})'


def _join(world: World, parts: list[list[int]]) -> World:
    r"""The part of the processes that this one belongs to."""
    out = World()
    for ranks in parts:  # All processes must create all groups.
        group = dist.new_group(ranks) if len(ranks) > 1 else None
        if world.rank in ranks:
            out = World(ranks.index(world.rank), len(ranks), group)
    out.sent = world.sent
    return out
