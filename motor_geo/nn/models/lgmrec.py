from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import HeteroData
from torch_geometric.typing import EdgeType

from motor_geo.nn.conv import LightPropagation, Propagate
from motor_geo.nn.conv.hyperedges import Hyperedges, Hypergraph
from motor_geo.nn.functional.distinct import distinct
from motor_geo.nn.functional.feature_blocks import products
from motor_geo.nn.functional.hyperedges import contrast_all
from motor_geo.nn.graph import BipartiteGraph
from motor_geo.nn.loss import frobenius_reg
from motor_geo.nn.models.item_features import ItemFeatures
from motor_geo.nn.models.recommender import Recommender
from motor_geo.nn.name_dict import NameDict
from motor_geo.typing import RATES, Batch, Embeddings, Rows
from motor_geo.utils.numbers import not_negative


class Parts(NamedTuple):
    r"""The parts of the vectors of :class:`LGMRec`."""

    content: Embeddings  # [M, d], [N, d]: from the training graph
    modal: Embeddings  # [M, n, d], [N, n, d]: from every modality
    hyper: list[Hypergraph]  # n of them


class LGMRec(Recommender):
    r"""LGMRec from the `"LGMRec: Local and Global Graph Learning for
    Multimodal Recommendation" <https://arxiv.org/abs/2312.16400>`_ paper.

    With :math:`\mathbf{C}` the output of LightGCN and :math:`f` the scaling of
    rows to unit length, local vectors are

    .. math::
        \mathbf{C} + \sum_m f(\mathbf{Y}^m), \qquad
        \mathbf{Y}^m = \hat{\mathbf{A}}^{L_{mm}} \begin{bmatrix}
        \mathbf{D}_U^{-1} \mathbf{R} \mathbf{X}^m \mathbf{W}_m \\
        \mathbf{X}^m \mathbf{W}_m \end{bmatrix} .

    Global vectors come from :math:`K_h` hyperedges per modality. The features of
    an item determine its membership in hyperedges, and the features of all
    items of a user determine the membership of the user. Hyperedges aggregate
    item vectors and return them to items, :math:`L_h` times,

    .. math::
        \mathbf{G}^m_I = \textrm{gumbel-softmax}(\mathbf{X}^m \mathbf{H}_m /
        \tau), \qquad
        \mathbf{G}^m_U = \textrm{gumbel-softmax}(\mathbf{R} \mathbf{X}^m
        \mathbf{H}_m / \tau), \qquad
        \mathbf{C}_I \leftarrow \mathbf{G}^m_I {\mathbf{G}^m_I}^{\top}
        \mathbf{C}_I .

    A contrastive loss compares the global vectors of a node from two modalities
    with those of all other nodes. It is summed over the batch and averaged over
    pairs of modalities.

    ID-free: The item rows at the input of LightGCN are computed from tokens, and
    the hypergraphs propagate its output. Raw features are never trained.

    Args:
        data: The user-item graph with features :obj:`x_<modality>`.
        item_encoder: Item encoder; :obj:`None` uses an ID embedding.
        channels: Size :math:`d` of user and item vectors.
        num_layers: Number of hops of LightGCN.
        num_modal_layers: Number of hops :math:`L_{mm}` of modal vectors. Only
            the last hop is used.
        num_hyper_layers: Number of rounds :math:`L_h` through hyperedges.
        num_hyperedges: Number of hyperedges :math:`K_h` per modality.
        keep_rate: Fraction of memberships to keep in training.
        alpha: Weight of the global vectors, which have unit length, relative to
            the local vectors.
        cl_weight: Weight of the contrastive loss.
        reg_weight: Weight of the unsquared Frobenius norms of the final vectors
            in the batch.
        temperature: Temperature :math:`\tau` of memberships and of the
            contrastive loss.
        deterministic: If set to :obj:`False`, evaluation also draws Gumbel
            noise, as the reference implementation does. Scores then differ from
            call to call.
        edge_type: Edge type of the training interactions, from users to items.

    Shapes:
        - **output:** user vectors :math:`(M, d)`, item vectors :math:`(N, d)`

    Raises:
        ValueError: If the graph has no item features, or an argument is out
            of range.
    """

    takes_user_encoder = True
    needs_all_users = None
    min_modalities = 1

    def __init__(
        self,
        data: HeteroData,
        item_encoder: nn.Module | None = None,
        channels: int = 64,
        num_layers: int = 2,
        num_modal_layers: int = 2,
        num_hyper_layers: int = 1,
        num_hyperedges: int = 4,
        keep_rate: float = 0.5,
        alpha: float = 0.3,
        cl_weight: float = 1e-4,
        reg_weight: float = 1e-6,
        temperature: float = 0.2,
        deterministic: bool = True,
        edge_type: EdgeType = RATES,
    ):
        if num_modal_layers < 0:
            raise ValueError(f"'num_modal_layers' must not be negative (got {num_modal_layers})")
        if num_hyper_layers < 1 or num_hyperedges < 1:
            raise ValueError(
                "'num_hyper_layers' and 'num_hyperedges' must be at least 1 "
                f'(got {num_hyper_layers} and {num_hyperedges})'
            )
        super().__init__(data, item_encoder, channels, edge_type)
        self.num_modal_layers = num_modal_layers
        self.alpha = not_negative('alpha', alpha)
        self.cl_weight = cl_weight
        self.reg_weight = reg_weight
        self.temperature = temperature
        self.propagation = LightPropagation(num_layers)
        self.conv = Propagate()
        self.hypergraph = Hyperedges(num_hyper_layers, keep_rate, temperature, deterministic)
        self.features = ItemFeatures(data, None, 'LGMRec', node_type=self.item_type)
        self.projections = matrices(self.features.widths, channels)
        self.hyperedges = matrices(self.features.widths, num_hyperedges)
        self._reset_matrices()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        self._reset_matrices()

    def _reset_matrices(self) -> None:
        for parameter in [*self.projections.values(), *self.hyperedges.values()]:
            nn.init.xavier_uniform_(parameter)

    def propagate_modal(self, x: Tensor, graph: BipartiteGraph) -> Embeddings:
        r"""Vectors :math:`\mathbf{Y}^m` of all modalities side by side, from projected
        features **[N, nd]**.
        """
        mean = graph.to_user.degree().clamp(min=1).to(x.dtype).reciprocal().view(-1, 1)
        user, item = self.conv(x, graph.to_user).mul_(mean), x
        for _ in range(self.num_modal_layers):
            user, item = (
                self.conv(item, graph.to_user, graph.to_user_weight),
                self.conv(user, graph.to_item, graph.to_item_weight),
            )
        return Embeddings(user, item)

    def parts(self, data: HeteroData, training: bool = False) -> Parts:
        r"""Content, modal and global vectors of all nodes. In training, memberships
        have noise and dropout.
        """
        graph = self.graph(data)
        content = self.propagation(*self.encode(data), graph)

        tables = zip(self.features.raw(data), self.projections.values(), self.hyperedges.values())
        x, logits = zip(*(products(table, pair) for table, *pair in tables))
        user_logits = self.conv(torch.cat(logits, dim=1), graph.to_user).chunk(len(x), dim=1)
        modal = self.propagate_modal(torch.cat(x, dim=1), graph)
        shard = self.user_shard(data)
        hyper = [
            self.hypergraph(of_user, of_item, content.item, m, training, shard)
            for m, of_user, of_item in zip(self.features.names, user_logits, logits)
        ]
        shape = (-1, len(x), self.channels)
        return Parts(content, Embeddings(*(y.view(shape) for y in modal)), hyper)

    def fuse(self, content: Tensor, modal: Tensor, share: Tensor, lat: Tensor) -> Tensor:
        r"""Final vectors, row by row.

        Args:
            content: Content vectors.
            modal: Modal vectors.
            share: Memberships in all hyperedges.
            lat: Vectors of all hyperedges.

        Shapes:
            - **input:** content vectors :math:`(*, d)`, modal vectors
              :math:`(*, n, d)`, memberships :math:`(*, n K_h)`, vectors of
              hyperedges :math:`(n K_h, d)`
            - **output:** vectors :math:`(*, d)`
        """
        local = content + F.normalize(modal, dim=-1).sum(dim=-2)
        return local + self.alpha * F.normalize(share @ lat, dim=-1)

    def forward(self, data: HeteroData) -> Embeddings:
        content, modal, hyper = self.parts(data)
        share, lat = Hypergraph.merge(hyper)
        return Embeddings(*(self.fuse(*part, lat) for part in zip(content, modal, share)))

    def loss(self, data: HeteroData, batch: Batch) -> dict[str, Tensor]:
        content, modal, hyper = self.parts(data, self.training)
        share, lat = Hypergraph.merge(hyper)
        parts = zip(batch.rows(content), batch.rows(modal), batch.rows(share))
        rows = Rows(*(self.fuse(*part, lat) for part in parts))
        losses = self.ranking(data, batch, rows)
        pairs = list(combinations(hyper, 2))
        if self.cl_weight > 0 and len(pairs) > 0:
            for side, name, index in ((0, 'user', batch.user), (1, 'item', batch.pos)):
                nodes, total = distinct(index), rows.user.new_zeros(())
                for a, b in pairs:
                    anchor = a.share[side].index_select(0, nodes.node) @ a.lat
                    total = total + contrast_all(
                        anchor, b.share[side], b.lat, nodes, self.temperature
                    )
                losses[f'hcl_{name}'] = self.cl_weight / len(pairs) * total
        if self.reg_weight > 0:
            losses['reg'] = self.reg_weight * frobenius_reg(*rows)
        return losses


def matrices(widths: Mapping[str, int], channels: int) -> NameDict[nn.Parameter]:
    r"""One parameter matrix per modality."""
    return NameDict({m: nn.Parameter(torch.empty(w, channels)) for m, w in widths.items()})
