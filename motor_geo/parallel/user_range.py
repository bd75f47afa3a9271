from __future__ import annotations

from torch import Tensor

from motor_geo.parallel.world import World


class UserRange:
    r"""Consecutive users of one process.

    Args:
        world: The processes.
        first: The first user.
        last: The user after the last one.
    """

    def __init__(self, world: World, first: int, last: int):
        self.world = world
        #: The users are :obj:`first, ..., last - 1`.
        self.first = first
        self.last = last

    def __len__(self) -> int:
        return self.last - self.first

    def mine(self, user: Tensor) -> Tensor:
        r"""Which of some users are on this process."""
        return (user >= self.first) & (user < self.last)

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}({self.first}, {self.last}, {self.world})'
