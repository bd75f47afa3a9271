r"""Users without a table: a user is what she used."""

from __future__ import annotations

from torch import Tensor, nn

from motor_geo.nn.conv import Propagate
from motor_geo.nn.graph import sorted_edge_index
from motor_geo.nn.memo import Memo


class UsedItems(nn.Module):
    r"""User vectors as scaled sums of the vectors of the items that they used,

    .. math::
        \mathbf{u} = \frac{1}{|\mathcal{N}(u)|^p} \sum_{i \in \mathcal{N}(u)}
        \mathbf{v}_i ,

    as in the `"FISM: Factored Item Similarity Models for Top-N Recommender
    Systems" <https://doi.org/10.1145/2487575.2487589>`_ paper, but with the same
    vectors :math:`\mathbf{v}_i` for both sides, and without leaving out the item
    that is scored. It has no parameters: a user who arrives after training gets
    her vector in the same way as all others.

    Args:
        power: The power :math:`p`: 0 adds, 1 averages, and 0.5 keeps the length
            of the sum of independent vectors.

    Shapes:
        - **input:** item vectors :math:`(N, d)`, user-item edge indices
          :math:`(2, |\mathcal{E}|)`, user indices :math:`(B)` *(optional)*
        - **output:** user vectors :math:`(M, d)` or :math:`(B, d)`
    """

    def __init__(self, power: float = 0.5):
        super().__init__()
        self.power = power
        self.conv = Propagate()
        self._graphs = Memo()

    def forward(
        self, item: Tensor, edge_index: Tensor, num_users: int, index: Tensor | None = None
    ) -> Tensor:
        r"""User vectors. Users without interactions are zero.

        Args:
            item: Item vectors :math:`\mathbf{v}_i`.
            edge_index: Interactions, users to items.
            num_users: Number of users :math:`M`.
            index: Users that the vectors are needed for; all if :obj:`None`.
        """
        size, dtype = (item.size(0), num_users), item.dtype

        def build() -> tuple[Tensor, Tensor]:
            graph, _ = sorted_edge_index(edge_index.flip(0), *size)
            degree = graph.get_csc()[0][0].diff()
            weight = degree.clamp(min=1).double().pow(-self.power)
            return graph, weight.to(dtype).repeat_interleave(degree)

        graph, weight = self._graphs(build, edge_index, size, dtype)
        if index is None:
            return self.conv(item, graph, weight)
        return self.conv.rows(item, graph, weight, index)

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}(power={self.power})'
