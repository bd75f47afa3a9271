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
    r"""Base class of models that are fitted in closed form or by their own
    solver, without gradient steps.

    A subclass in closed form only implements :meth:`forward`, which computes
    everything from the graph. A subclass with a solver also implements
    :meth:`fit`, a generator that runs one iteration at a time. It keeps its
    state in parameters or buffers and sets :attr:`iterative`:

    .. code-block:: python

        model = IALS(data)
        for _ in zip(range(15), model.fit(data)):
            pass
        embeddings = model(data)

    The constructor may have an argument :obj:`item_encoder`. For a model
    without it, the item representation cannot be chosen.

    Args:
        data: The user-item graph. Only its sizes are read here.
        edge_type: Edge type of the training interactions, from users to items.
    """

    #: Transforms that add the graphs that the model reads, in order.
    transforms: ClassVar[tuple[BaseTransform, ...]] = ()
    #: Minimum number of modalities with raw features; zero if the model reads none.
    min_modalities: ClassVar[int] = 0
    #: Whether :meth:`fit` can run any number of iterations.
    iterative: ClassVar[bool] = False

    def __init__(self, data: HeteroData, edge_type: EdgeType = RATES):
        super().__init__()
        self.edge_type = edge_type
        self.user_type, _, self.item_type = edge_type
        self.num_users = num_nodes(data, self.user_type)
        self.num_items = num_nodes(data, self.item_type)

    def fit(self, data: HeteroData) -> Iterator[dict[str, float]]:
        r"""Fits the model, one iteration at a time, so that it can be validated after
        every iteration. An iteration depends only on the state of the module, the
        graph and the global random state, so a saved model can resume.

        Yields:
            Values to report, such as the loss.
        """
        self(data)
        yield {}

    def forward(self, data: HeteroData) -> Embeddings | Scores:
        r"""User and item vectors, or a function that maps users **[B]** to their
        scores of all items **[B, N]** if the model has no vectors.
        """
        raise NotImplementedError

    def interactions(self, data: HeteroData) -> csr_matrix:
        r"""The training interactions as a matrix of zeros and ones,
        **[M, N]**. Repeated interactions count once.

        Raises:
            ValueError: If the number of items differs from the number at
                construction.
        """
        from scipy.sparse import csr_matrix

        size = num_nodes(data, self.user_type), num_nodes(data, self.item_type)
        if size[1] != self.num_items:
            raise ValueError(
                f"'{self.__class__.__name__}' knows {self.num_items} items but the graph has "
                f'{size[1]}: it cannot score items added after training'
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
        r"""Recommends the :obj:`k` items with the highest scores, without the
        training items of a user.

        Args:
            data: The user-item graph.
            user: Users; :obj:`None` means all users.
            k: Number of items per user.

        Shapes:
            - **input:** user indices :math:`(U)` *(optional)*
            - **output:** scores :math:`(U, k)`, item indices :math:`(U, k)`
        """
        edge_index = find_edges(data, self.edge_type)
        if user is None:
            user = torch.arange(num_nodes(data, self.user_type), device=edge_index.device)
        return top_k(self(data), user, k, exclude=edge_index)

    def fitted_sizes(self) -> dict[str, tuple[int, ...]]:
        r"""Names and shapes of the fitted arrays. By default, these are the
        parameters.
        """
        return {name: tuple(parameter.shape) for name, parameter in self.named_parameters()}

    def num_parameters(self) -> dict[str, int]:
        r"""Number of fitted values, by name."""
        return {name: math.prod(size) for name, size in self.fitted_sizes().items()}

    def item_parameters(self, num_items: int) -> list[str]:
        r"""Names of fitted arrays with a dimension equal to the number of items. The
        list is empty if the model is ID-free.
        """
        return [name for name, size in self.fitted_sizes().items() if num_items in size]

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}({self.num_users}, {self.num_items})'
