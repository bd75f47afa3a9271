r"""Runs on several processes, which share the users of a graph among them."""

from .users import ShardError, UserIndex, UserShard
from .world import World

__all__ = ['ShardError', 'UserIndex', 'UserShard', 'World']
