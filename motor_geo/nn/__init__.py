r"""Item encoders, message-passing layers and backbones."""

from .item_encoder import FeatureProjection, IDEmbedding, ItemEncoder
from .soft_tokens import SoftTokenEncoder
from .token_cross import TokenCrossEncoder
from .token_interaction import TokenInteractionEncoder
from .unseen import UnseenItems
from .user_encoder import UsedItems

__all__ = [
    'FeatureProjection',
    'IDEmbedding',
    'ItemEncoder',
    'SoftTokenEncoder',
    'TokenCrossEncoder',
    'TokenInteractionEncoder',
    'UnseenItems',
    'UsedItems',
]
