r"""Assignment 6: a new backbone. LightGCN that returns to its input, as personalized PageRank."""

from motor_geo.nn.conv import LightPropagation
from motor_geo.nn.loss import bpr_loss
from motor_geo.nn.models import Recommender
from motor_geo.typing import Embeddings


class MyBackbone(Recommender):
    r"""Propagation with teleport,

    .. math::
        \mathbf{X}^{(l+1)} = (1 - \alpha) \, \hat{\mathbf{A}} \mathbf{X}^{(l)}
        + \alpha \, \mathbf{X}^{(0)} .

    Args:
        data: The user-item graph.
        item_encoder: What yields item vectors; :obj:`None` is an ID embedding.
        channels: Size of user and item vectors.
        num_layers: Number of hops.
        alpha: Weight of the input in every hop.
    """

    def __init__(
        self,
        data,
        item_encoder=None,
        channels: int = 64,
        num_layers: int = 3,
        alpha: float = 0.3,
    ):
        super().__init__(data, item_encoder, channels)
        self.num_layers = num_layers
        self.alpha = alpha
        self.sum = LightPropagation(1, readout='sum')  # X + A X.

    def forward(self, data):
        first = x = Embeddings(self.user_embedding, self.encode_items(data))
        graph = self.graph(data)
        for _ in range(self.num_layers):
            both = self.sum(*x, graph)
            x = Embeddings(
                *((1 - self.alpha) * (b - a) + self.alpha * f for a, b, f in zip(x, both, first))
            )
        return x

    def loss(self, data, batch):
        return {'bpr': bpr_loss(*batch.scores(self(data)))}
