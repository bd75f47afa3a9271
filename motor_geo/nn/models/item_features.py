from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

from torch import Tensor, nn
from torch_geometric.data import HeteroData
from torch_geometric.nn.module_dict import ModuleDict
from torch_geometric.nn.parameter_dict import ParameterDict

from motor_geo.nn.functional.rows import project
from motor_geo.typing import ITEM, modalities


class ItemFeatures(nn.Module):
    r"""The features of items and a linear map of each modality,

    .. math::
        \mathbf{z}^m_i = \mathbf{W}_m \mathbf{x}^m_i + \mathbf{b}_m .

    Features are read from :obj:`data['item'].x_<modality>` in every call, so
    that a graph with more items than in training works, or they are trained.

    Args:
        data: The user-item graph with features :obj:`x_<modality>`.
        channels: Size of projected vectors.
        model: Name of the backbone, for messages.
        at_least: Number of modalities that are needed.
        bias: If set to :obj:`False`, the maps have no bias.
        train: If set to :obj:`True`, features are parameters (not ID-free).
        names: Modalities in the order of the maps; by default all of the
            graph in sorted order.

    Shapes:
        - **input:** item indices :math:`(B)` *(optional)*
        - **output:** vectors :math:`(N, d)` or :math:`(B, d)` by modality

    Raises:
        ValueError: If the graph has too few modalities.
    """

    def __init__(
        self,
        data: HeteroData,
        channels: int,
        model: str,
        at_least: int = 1,
        bias: bool = True,
        train: bool = False,
        names: Sequence[str] | None = None,
    ):
        super().__init__()
        found = modalities(data, model, at_least)
        self.names = found if names is None else list(names)
        self.model = model
        self.widths = {m: int(data[ITEM][f'x_{m}'].size(1)) for m in self.names}
        # These escape names that a plain dictionary of modules refuses ('type', 'clip.vit').
        self.lins = ModuleDict(
            {m: nn.Linear(self.widths[m], channels, bias=bias) for m in self.names}
        )
        self.tables: ParameterDict | None = None
        if train:
            tables = {m: nn.Parameter(data[ITEM][f'x_{m}'].float().clone()) for m in self.names}
            self.tables = ParameterDict(tables)

    def reset_parameters(self) -> None:
        for _, lin in self:
            lin.reset_parameters()

    def lin(self, name: str) -> nn.Linear:
        r"""The linear map of a modality."""
        return cast(nn.Linear, self.lins[name])

    def __iter__(self) -> Iterator[tuple[str, nn.Linear]]:
        return ((name, self.lin(name)) for name in self.names)

    def __len__(self) -> int:
        return len(self.names)

    def table(self, data: HeteroData, name: str) -> Tensor:
        r"""Raw features of a modality, **[N, d_m]**.

        Raises:
            ValueError: If features are trained and the graph has other items.
        """
        x: Tensor = data[ITEM][f'x_{name}']
        if self.tables is None:
            return x
        table = cast(Tensor, self.tables[name])
        if table.size(0) != x.size(0):
            raise ValueError(
                f"'{self.model}' trained the '{name}' features of {table.size(0)} items but the "
                f'graph has {x.size(0)}: items that were not there in training need '
                "'train_features=False'"
            )
        return table

    def project(self, data: HeteroData, name: str, index: Tensor | None = None) -> Tensor:
        r"""Projected features of all items or of some, **[N, d]** or
        **[B, d]**.
        """
        x, lin = self.table(data, name), self.lin(name)
        x = x if index is None else x.index_select(0, index)
        return project(x, lin.weight, lin.bias)

    def forward(self, data: HeteroData, index: Tensor | None = None) -> dict[str, Tensor]:
        return {name: self.project(data, name, index) for name in self.names}

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}({self.widths}, train={self.tables is not None})'
