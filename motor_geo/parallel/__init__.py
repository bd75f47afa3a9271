r"""Runs on several processes, which share the users of a graph and the columns of vectors."""

from .mesh import Mesh
from .users import EdgePart, ShardError, UserIndex, UserRange, UserShard
from .world import World

__all__ = ['EdgePart', 'Mesh', 'ShardError', 'UserIndex', 'UserRange', 'UserShard', 'World']
