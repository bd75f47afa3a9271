r"""Runs on several processes, which share the users of a graph and the columns of vectors."""

from .mesh import Mesh
from .users import ShardError, UserIndex, UserRange, UserShard
from .world import World

__all__ = ['Mesh', 'ShardError', 'UserIndex', 'UserRange', 'UserShard', 'World']
