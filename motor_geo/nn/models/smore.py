from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import HeteroData
from torch_geometric.typing import EdgeType

from motor_geo.nn.conv import Hops
from motor_geo.nn.functional.autocast import full_precision
from motor_geo.nn.models.item_features import ItemFeatures
from motor_geo.nn.models.item_graph import ItemGraph
from motor_geo.nn.models.side_views import SideViews
from motor_geo.nn.name_dict import NameDict
from motor_geo.typing import RATES
from motor_geo.utils.lazy import Lazy
from motor_geo.utils.numbers import not_negative


class SMORE(SideViews):
    r"""SMORE from the `"Spectrum-based Modality Representation Fusion Graph
    Convolutional Network for Multimodal Recommendation"
    <https://arxiv.org/abs/2412.14978>`_ paper. It filters projected features
    :math:`\mathbf{y}^m = \mathbf{W}_m \mathbf{x}^m + \mathbf{b}_m` in the
    frequency domain, both individually and as the product of all modalities.
    With :math:`\mathcal{F}` the Fourier transform of every row,

    .. math::
        \mathbf{c}^m = \mathcal{F}^{-1} \left( \boldsymbol{\phi}^m \odot
        \mathcal{F}(\mathbf{y}^m) \right), \qquad
        \mathbf{c}^f = \mathcal{F}^{-1} \left( \boldsymbol{\phi}^f \odot
        \prod_m \mathcal{F}(\mathbf{y}^m) \right) .

    Each result gates item vectors :math:`\mathbf{Q}`, a frozen item graph
    smooths the gated vectors, and users average their items. The item graph of
    :math:`f` has the edges of all modalities, each with its largest weight,

    .. math::
        \mathbf{Z}^n_I = (\mathbf{S}^n)^{L_{ii}} \left( \mathbf{Q} \odot
        \sigma(\mathbf{G}_n(\mathbf{c}^n)) \right), \qquad
        \mathbf{Z}^n_U = \hat{\mathbf{R}} \mathbf{Z}^n_I .

    With :math:`\mathbf{C}` the output of LightGCN, the final vectors are

    .. math::
        \mathbf{X} = \mathbf{C} + \frac{1}{n + 1} \left( \sigma(\mathbf{H}_f
        (\mathbf{C})) \odot \mathbf{Z}^f + \sum_m \sigma(\mathbf{H}_m(\mathbf{C}))
        \odot \textrm{softmax}(\mathbf{q}_m(\mathbf{Z}^f)) \odot \mathbf{Z}^m
        \right) ,

    where the softmax is over the :math:`d` columns, so views of single
    modalities have weights close to :math:`1 / d`.

    ID-free: :math:`\mathbf{Q}` is computed from tokens, both as input of
    LightGCN and of the gates.

    Args:
        data: The user-item graph with features :obj:`x_<modality>` and item
            graphs of :class:`~motor_geo.data.ItemKNN` (cosine weighting).
        item_encoder: Item encoder; :obj:`None` uses an ID embedding.
        channels: Size :math:`d` of user and item vectors.
        num_layers: Number of hops on the user-item graph.
        num_item_layers: Number of hops :math:`L_{ii}` on the item graphs.
        dropout: Dropout probability of the gates
            :math:`\sigma(\mathbf{H}(\mathbf{C}))`.
        reg_weight: Weight of half the sum of squared entries of the final
            vectors in the batch, divided by :obj:`batch_size`.
        batch_size: Divisor of the regularizer. It stays the same for a smaller
            last batch.
        cl_weight: Weight of the contrastive loss between side and content
            vectors.
        temperature: Temperature of the contrastive loss.
        train_features: If set to :obj:`True`, trains the raw features, as the
            reference implementation does. The model is then not ID-free, since
            they enter the score.
        edge_type: Edge type of the training interactions, from users to items.

    Shapes:
        - **output:** user vectors :math:`(M, d)`, item vectors :math:`(N, d)`

    Raises:
        ValueError: If the graph has no item features or no item graph, or an
            argument is out of range.
    """

    transforms = (Lazy('motor_geo.data.ItemKNN', weighting='cosine'),)
    needs_all_users = None

    def __init__(
        self,
        data: HeteroData,
        item_encoder: nn.Module | None = None,
        channels: int = 64,
        num_layers: int = 3,
        num_item_layers: int = 1,
        dropout: float = 0.1,
        reg_weight: float = 1e-4,
        batch_size: int = 2048,
        cl_weight: float = 0.01,
        temperature: float = 0.2,
        train_features: bool = False,
        edge_type: EdgeType = RATES,
    ):
        if not 0 <= dropout < 1:
            raise ValueError(f"'dropout' must lie in [0, 1) (got {dropout})")
        contrast = cl_weight, temperature
        super().__init__(
            data, item_encoder, channels, num_layers, reg_weight, batch_size, *contrast, edge_type
        )
        self.dropout = dropout
        self.hops = Hops(not_negative('num_item_layers', num_item_layers))
        self.features = ItemFeatures(
            data, channels, 'SMORE', train=train_features, node_type=self.item_type
        )
        names = self.features.names
        self.item_graphs = {m: ItemGraph({m: 1.0}, self.item_type) for m in names}
        self.fusion_graph = ItemGraph(dict.fromkeys(names, 1.0), self.item_type, reduce='max')
        self.fusion_graph.check(data, 'SMORE')

        def filters() -> nn.Parameter:
            return nn.Parameter(torch.empty(1, channels // 2 + 1, 2))  # Real and imaginary.

        self.filters: NameDict[nn.Parameter] = NameDict({m: filters() for m in names})
        self.fusion_filter = filters()
        self.gates = NameDict({m: nn.Linear(channels, channels) for m in names})
        self.fusion_gate = nn.Linear(channels, channels)
        self.preference_gates = NameDict({m: nn.Linear(channels, channels) for m in names})
        self.fusion_preference_gate = nn.Linear(channels, channels)
        self.queries: NameDict[nn.Module] = NameDict(
            {
                m: nn.Sequential(
                    nn.Linear(channels, channels),
                    nn.Tanh(),
                    nn.Linear(channels, channels, bias=False),
                )
                for m in names
            }
        )
        self._reset_filters()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        for block in (self.gates, self.preference_gates, self.queries):
            for lin in block.modules():
                if isinstance(lin, nn.Linear):
                    lin.reset_parameters()
        self._reset_filters()

    def _reset_filters(self) -> None:
        for weight in (*self.filters.values(), self.fusion_filter):
            nn.init.normal_(weight)

    def spectra(self, data: HeteroData) -> list[Tensor]:
        r"""Filtered features :math:`\mathbf{c}` of every modality, followed by those
        of their fusion, **[N, d]** each.
        """
        y = torch.stack(list(self.features(data).values()))
        return list(filter_columns(y, *self.filters.values(), self.fusion_filter))

    def modal_items(self, data: HeteroData, item: Tensor) -> Tensor:
        gates = [*self.gates.values(), self.fusion_gate]
        graphs = [*self.item_graphs.values(), self.fusion_graph]
        return torch.stack(
            [
                self.hops(item * torch.sigmoid(gate(c)), *graph(data, item.dtype))
                for c, gate, graph in zip(self.spectra(data), gates, graphs)
            ],
            dim=1,
        )

    def side(self, content: Tensor, modal: Tensor) -> Tensor:
        *own, fusion = modal.unbind(dim=-2)
        total = self.preference(self.fusion_preference_gate, content) * fusion
        for m, z in zip(self.queries, own):
            attention = self.queries[m](fusion).softmax(dim=-1)  # Over columns, as published.
            total = total + self.preference(self.preference_gates[m], content) * attention * z
        return total / (len(own) + 1)

    def preference(self, gate: nn.Linear, content: Tensor) -> Tensor:
        r"""The gate of a view, **[*, d]**."""
        return F.dropout(torch.sigmoid(gate(content)), self.dropout, self.training)


@full_precision  # CPUs have no Fourier transform in half precision.
def filter_columns(y: Tensor, *filters: Tensor) -> Tensor:
    r"""Filters the spectra of views and of their product.

    Args:
        y: Features of every view.
        filters: Complex filters, one for every view and one for the product.

    Shapes:
        - **input:** features :math:`(n, N, d)`, filters
          :math:`(1, \lfloor d / 2 \rfloor + 1, 2)`
        - **output:** filtered features :math:`(n + 1, N, d)`
    """
    spectrum = torch.fft.rfft(y, norm='ortho')
    spectrum = torch.cat([spectrum, spectrum.prod(dim=0, keepdim=True)])
    spectrum = spectrum * torch.view_as_complex(torch.stack(filters))
    return torch.fft.irfft(spectrum, n=y.size(-1), norm='ortho')
