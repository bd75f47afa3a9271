r"""Runs on several processes, which share the users of a graph and the columns of vectors."""

from .edge_part import EdgePart
from .mesh import Mesh
from .table_shard import ShardError, TableShard
from .user_index import UserIndex
from .user_range import UserRange
from .user_shard import UserShard
from .world import World

__all__ = [
    'EdgePart',
    'Mesh',
    'ShardError',
    'TableShard',
    'UserIndex',
    'UserRange',
    'UserShard',
    'World',
]
