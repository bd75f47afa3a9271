from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData
from torch_geometric.transforms import BaseTransform
from torch_geometric.typing import EdgeType

from motor_geo.typing import RATES, Embeddings, Scores, find_edges, num_nodes
from motor_geo.utils.ranking import top_k

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


class FittedRecommender(nn.Module):
    r"""The base of models that are fitted in closed form, or by a solver of
    their own, rather than by gradient steps.

    A subclass in closed form implements :meth:`forward`, which computes what
    it needs from the graph. One with a solver also implements :meth:`fit`, a
    generator of iterations, keeps its state in parameters or buffers, and sets
    :attr:`iterative`:

    .. code-block:: python

        model = IALS(data)
        for _ in zip(range(15), model.fit(data)):
            pass
        embeddings = model(data)

    The constructor may take an :obj:`item_encoder`; a model without this
    argument has no choice of items.

    Args:
        data: The user-item graph, of which the sizes are read.
        edge_type: Edge type of training interactions, from users to items.
    """

    #: What adds the graphs that the model reads to the data, in order.
    transforms: ClassVar[tuple[BaseTransform, ...]] = ()
    #: Whether raw features are read, and how many modalities are needed.
    min_modalities: ClassVar[int] = 0
    #: Whether :meth:`fit` goes on for as many iterations as are wanted.
    iterative: ClassVar[bool] = False

    def __init__(self, data: HeteroData, edge_type: EdgeType = RATES):
        super().__init__()
        self.edge_type = edge_type
        self.user_type, _, self.item_type = edge_type
        self.num_users = num_nodes(data, self.user_type)
        self.num_items = num_nodes(data, self.item_type)

    def fit(self, data: HeteroData) -> Iterator[dict[str, float]]:
        r"""Fits the model, one iteration at a time: after each one, it can be
        validated. An iteration depends on nothing but the state of the module,
        the graph and the global random state, so that a model which was saved
        goes on from there.

        Yields:
            What is worth reporting, such as the loss.
        """
        self(data)
        yield {}

    def forward(self, data: HeteroData) -> Embeddings | Scores:
        r"""User and item vectors, or where there are none a function from
        users **[B]** to their scores of all items **[B, N]**.
        """
        raise NotImplementedError

    def interactions(self, data: HeteroData) -> csr_matrix:
        r"""The training interactions as a matrix of zeros and ones,
        **[M, N]**; how often an item was used does not matter.

        Raises:
            ValueError: If the graph has another number of items than that
                which the model was made with.
        """
        from scipy.sparse import csr_matrix

        size = num_nodes(data, self.user_type), num_nodes(data, self.item_type)
        if size[1] != self.num_items:
            raise ValueError(
                f"'{self.__class__.__name__}' knows {self.num_items} items but the graph has "
                f'{size[1]}: it cannot score an item that was not there in training'
            )
        user, item = find_edges(data, self.edge_type).cpu().numpy()
        out = csr_matrix((np.ones(user.size, np.float32), (user, item)), shape=size)
        out.sum_duplicates()  # Repeated edges count once.
        out.data[:] = 1
        return out

    @torch.no_grad()
    def recommend(
        self, data: HeteroData, user: Tensor | None = None, k: int = 20
    ) -> tuple[Tensor, Tensor]:
        r"""The best :obj:`k` items that a user has no training edge to.

        Args:
            data: The user-item graph.
            user: Users, all of them if :obj:`None`.
            k: Length of the lists.

        Shapes:
            - **input:** user indices :math:`(U)` *(optional)*
            - **output:** scores :math:`(U, k)`, item indices :math:`(U, k)`
        """
        edge_index = find_edges(data, self.edge_type)
        if user is None:
            user = torch.arange(num_nodes(data, self.user_type), device=edge_index.device)
        return top_k(self(data), user, k, exclude=edge_index)

    def fitted_sizes(self) -> dict[str, tuple[int, ...]]:
        r"""Names and sizes of what is fitted: by default, the parameters."""
        return {name: tuple(parameter.shape) for name, parameter in self.named_parameters()}

    def num_parameters(self) -> dict[str, int]:
        r"""How many numbers are fitted, by name."""
        return {name: math.prod(size) for name, size in self.fitted_sizes().items()}

    def item_parameters(self, num_items: int) -> list[str]:
        r"""Names of what is fitted with a dimension equal to the number of
        items: none if the model is ID-free.
        """
        return [name for name, size in self.fitted_sizes().items() if num_items in size]

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}({self.num_users}, {self.num_items})'
