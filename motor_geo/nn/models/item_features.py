from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor, nn
from torch_geometric.data import HeteroData

from motor_geo.nn.functional.distinct import Distinct, distinct
from motor_geo.nn.functional.known_features import finite_features, known_features
from motor_geo.nn.functional.rows import project
from motor_geo.nn.name_dict import NameDict
from motor_geo.typing import ITEM, modalities, num_nodes


class ItemFeatures(nn.Module):
    r"""The features of items and a linear map per modality,

    .. math::
        \mathbf{z}^m_i = \mathbf{W}_m \mathbf{x}^m_i + \mathbf{b}_m .

    Every call reads the features from :obj:`data['item'].x_<modality>`, so a
    graph may have more items than in training. With :obj:`train`, features are
    parameters and the number of items is fixed.

    Args:
        data: The user-item graph with features :obj:`x_<modality>`.
        channels: Size :math:`d` of projected vectors; :obj:`None` creates no
            maps.
        model: Name of the backbone, used in error messages.
        at_least: Minimum number of modalities.
        bias: If set to :obj:`False`, the maps have no bias.
        train: If set to :obj:`True`, features are parameters (not ID-free).
        names: Modalities in the order of the maps. :obj:`None` uses all
            modalities of the graph in sorted order.
        node_type: Node type of items.

    Shapes:
        - **input:** item indices :math:`(B)` *(optional)*
        - **output:** vectors :math:`(N, d)` or :math:`(B, d)` per modality

    Raises:
        ValueError: If the graph has too few modalities, features hold NaN or infinite
            values, or features are trained and the number of items differs from
            training.
    """

    def __init__(
        self,
        data: HeteroData,
        channels: int | None,
        model: str,
        at_least: int = 1,
        bias: bool = True,
        train: bool = False,
        names: Sequence[str] | None = None,
        node_type: str = ITEM,
    ):
        super().__init__()
        found = modalities(data, model, at_least, node_type)
        self.names = found if names is None else list(names)
        self.model = model
        self.node_type = node_type
        given = {m: finite_features(data, m, node_type) for m in self.names}
        self.widths = {m: int(x.size(1)) for m, x in given.items()}
        widths = {} if channels is None else self.widths
        self.lins: NameDict[nn.Linear] = NameDict(
            {m: nn.Linear(width, channels or 0, bias=bias) for m, width in widths.items()}
        )
        self.tables: NameDict[nn.Parameter] | None = None
        if train:
            self.tables = NameDict({m: nn.Parameter(x.float().clone()) for m, x in given.items()})

    def reset_parameters(self) -> None:
        r"""Draws new initial weights of the maps. Trained features do not change."""
        for lin in self.lins.values():
            lin.reset_parameters()

    def lin(self, name: str) -> nn.Linear:
        r"""The linear map of a modality."""
        return self.lins[name]

    def __iter__(self) -> Iterator[tuple[str, nn.Linear]]:
        return iter(self.lins.items())

    def __len__(self) -> int:
        return len(self.names)

    def given(self, data: HeteroData, name: str) -> Tensor:
        r"""Features of a modality from the graph, **[N, d_m]**. See
        :func:`~motor_geo.nn.functional.known_features.known_rows` for items that lack it.
        """
        return known_features(data, name, self.node_type)

    def table(self, data: HeteroData, name: str) -> Tensor:
        r"""Raw features of a modality, from the graph or trained, **[N, d_m]**.

        Raises:
            ValueError: If features are trained and the number of items differs
                from training.
        """
        if self.tables is None:
            return self.given(data, name)
        table, num_items = self.tables[name], num_nodes(data, self.node_type)
        if table.size(0) != num_items:
            raise ValueError(
                f"'{self.model}' trained the '{name}' features of {table.size(0)} items but the "
                f'graph has {num_items}: items added after training need '
                "'train_features=False'"
            )
        return table

    def raw(self, data: HeteroData, index: Tensor | None = None) -> list[Tensor]:
        r"""Raw features of all modalities, **[N, d_m]**, or **[B, d_m]** for the items
        in :obj:`index`.
        """
        tables = [self.table(data, name) for name in self.names]
        return tables if index is None else [x.index_select(0, index) for x in tables]

    def project(
        self, data: HeteroData, name: str, index: Tensor | Distinct | None = None
    ) -> Tensor:
        r"""Projected features of all items, **[N, d]**, or of some, **[B, d]**.

        Args:
            data: The user-item graph.
            name: The modality.
            index: The items; :obj:`None` means all items. For a result of
                :func:`~motor_geo.nn.functional.distinct.distinct`, every distinct
                item is projected once.
        """
        x, lin = self.table(data, name), self.lins[name]
        if isinstance(index, Distinct):
            out = project(x.index_select(0, index.node), lin.weight, lin.bias)
            return out.index_select(0, index.inverse)
        return project(x if index is None else x.index_select(0, index), lin.weight, lin.bias)

    def forward(self, data: HeteroData, index: Tensor | None = None) -> dict[str, Tensor]:
        r"""Projected features per modality, of all items or of those in :obj:`index`."""
        items = None if index is None else distinct(index)
        return {name: self.project(data, name, items) for name in self.names}

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}({self.widths}, train={self.tables is not None})'
