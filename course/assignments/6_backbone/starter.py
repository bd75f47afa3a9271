r"""Assignment 6: a new backbone."""

from motor_geo.nn.models import Recommender


class MyBackbone(Recommender):
    r"""One line about your idea.

    Args:
        data: The user-item graph.
        item_encoder: What yields item vectors; :obj:`None` is an ID embedding.
        channels: Size of user and item vectors.
    """

    def __init__(self, data, item_encoder=None, channels: int = 64):
        super().__init__(data, item_encoder, channels)

    def forward(self, data):
        r"""Vectors of all users and items, as ``Embeddings(user, item)``."""
        raise NotImplementedError

    def loss(self, data, batch):
        r"""Terms of the loss by name. ``batch.scores(self(data))`` returns the scores of positive
        and of negative items.
        """
        raise NotImplementedError
