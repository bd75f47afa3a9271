from __future__ import annotations

from itertools import combinations
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import HeteroData

from motor_geo.nn.conv import LightPropagation, Propagate
from motor_geo.nn.functional.contrast import log_sum_exp
from motor_geo.nn.functional.distinct import Distinct, distinct
from motor_geo.nn.functional.rows import project
from motor_geo.nn.loss import bpr_loss, frobenius_reg
from motor_geo.nn.models.recommender import Recommender, modalities
from motor_geo.typing import ITEM, USER, Batch, Embeddings


class Hypergraph(NamedTuple):
    r"""What a hypergraph says of a node is its shares times the vectors of
    hyperedges.
    """

    share: Embeddings  # [M, K_h], [N, K_h]: in hyperedges
    lat: Tensor  # [K_h, d]: vectors of hyperedges


class Parts(NamedTuple):
    r"""What an :class:`LGMRec` adds up, node by node."""

    content: Embeddings  # [M, d], [N, d]: from the training graph
    modal: Embeddings  # [M, n, d], [N, n, d]: from every modality
    hyper: list[Hypergraph]  # n of them


class LGMRec(Recommender):
    r"""LGMRec from the `"LGMRec: Local and Global Graph Learning for
    Multimodal Recommendation" <https://arxiv.org/abs/2312.16400>`_ paper.

    Local: with :math:`\mathbf{C}` the outcome of LightGCN and :math:`f` the
    scaling of rows to unit length,

    .. math::
        \mathbf{C} + \sum_m f(\mathbf{Y}^m), \qquad
        \mathbf{Y}^m = \hat{\mathbf{A}}^{L_{mm}} \begin{bmatrix}
        \mathbf{D}_U^{-1} \mathbf{R} \mathbf{X}^m \mathbf{W}_m \\
        \mathbf{X}^m \mathbf{W}_m \end{bmatrix} .

    Global: items belong to the :math:`K_h` hyperedges of every modality by
    their features and users by the sum of their items, and hyperedges collect
    and return item vectors, :math:`L_h` times,

    .. math::
        \mathbf{G}^m_I = \textrm{gumbel-softmax}(\mathbf{X}^m \mathbf{H}_m /
        \tau), \qquad
        \mathbf{G}^m_U = \textrm{gumbel-softmax}(\mathbf{R} \mathbf{X}^m
        \mathbf{H}_m / \tau), \qquad
        \mathbf{C}_I \leftarrow \mathbf{G}^m_I {\mathbf{G}^m_I}^{\top}
        \mathbf{C}_I .

    What the hypergraphs of two modalities say of a node is contrasted with
    what they say of all other nodes, summed over the batch; with more
    modalities, this is the mean over pairs, and with one there is no such
    loss.

    ID-free: the item rows that LightGCN starts from are computed from tokens;
    their outcome is what the hypergraphs spread. Raw features are never
    trained.

    Args:
        data: The user-item graph with features :obj:`x_<modality>`.
        item_encoder: What yields item vectors; :obj:`None` is an ID embedding.
        channels: Size :math:`d` of user and item vectors.
        num_layers: Number of hops of LightGCN.
        num_modal_layers: Number of hops :math:`L_{mm}` of modal vectors, of
            which the last counts.
        num_hyper_layers: Number of rounds :math:`L_h` through hyperedges.
        num_hyperedges: Number of hyperedges :math:`K_h` per modality.
        keep_rate: Share of memberships that training keeps.
        alpha: Weight of global vectors, of unit length, beside local ones.
        cl_weight: Weight of the contrastive loss.
        reg_weight: Weight of the unsquared Frobenius norms of final vectors in
            the batch.
        temperature: Temperature :math:`\tau` of memberships and of the
            contrastive loss.
        deterministic: If set to :obj:`False`, ranking draws Gumbel noise like
            training does, as in the reference implementation: scores then
            differ from call to call. By default, ranking leaves the noise
            away.

    Shapes:
        - **output:** user vectors :math:`(M, d)`, item vectors :math:`(N, d)`

    Raises:
        ValueError: If the graph has no item features, or an argument is out
            of range.
    """

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
    ):
        if num_modal_layers < 0:
            raise ValueError(f"'num_modal_layers' must not be negative (got {num_modal_layers})")
        if num_hyper_layers < 1 or num_hyperedges < 1:
            raise ValueError(
                "'num_hyper_layers' and 'num_hyperedges' must be at least 1 "
                f'(got {num_hyper_layers} and {num_hyperedges})'
            )
        if not 0 < keep_rate <= 1:
            raise ValueError(f"'keep_rate' must lie in (0, 1] (got {keep_rate})")
        if temperature <= 0:
            raise ValueError(f"'temperature' must be positive (got {temperature})")
        super().__init__(data, item_encoder, channels)
        self.num_modal_layers = num_modal_layers
        self.num_hyper_layers = num_hyper_layers
        self.num_hyperedges = num_hyperedges
        self.keep_rate = keep_rate
        self.alpha = alpha
        self.cl_weight = cl_weight
        self.reg_weight = reg_weight
        self.temperature = temperature
        self.deterministic = deterministic
        self.modalities = modalities(data, 'LGMRec')
        self.propagation = LightPropagation(num_layers)
        self.conv = Propagate()
        width = {m: data[ITEM][f'x_{m}'].size(1) for m in self.modalities}
        self.projections = nn.ParameterDict({m: torch.empty(w, channels) for m, w in width.items()})
        self.hyperedges = nn.ParameterDict(
            {m: torch.empty(w, num_hyperedges) for m, w in width.items()}
        )
        self._reset_matrices()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        self._reset_matrices()

    def _reset_matrices(self) -> None:
        for parameter in [*self.projections.values(), *self.hyperedges.values()]:
            nn.init.xavier_uniform_(parameter)

    def draw(
        self, logits: Tensor, modality: str, node_type: str, training: bool
    ) -> tuple[Tensor | None, Tensor | None]:
        r"""Draws the Gumbel noise of membership logits and the factors (zero,
        or one over the share that is kept) of memberships; :obj:`None` stands
        for neither.

        Args:
            logits: Membership logits.
            modality: Their modality.
            node_type: Whose memberships they are, users or items.
            training: Whether the loss asks, in training mode.

        Shapes:
            - **input:** logits :math:`(*, K_h)`
            - **output:** noise :math:`(*, K_h)`, factors :math:`(*, K_h)`
        """
        noise = factor = None
        if training or not self.deterministic:
            # Zeros do occur among exponential float32 numbers.
            tiny = torch.finfo(logits.dtype).tiny
            noise = -torch.empty_like(logits).exponential_().clamp_(min=tiny).log_()
        if training and self.keep_rate < 1:
            factor = torch.empty_like(logits).bernoulli_(self.keep_rate).div_(self.keep_rate)
        return noise, factor

    def membership(self, logits: Tensor, modality: str, node_type: str, training: bool) -> Tensor:
        r"""Shares of nodes in hyperedges.

        Shapes:
            - **input:** logits :math:`(*, K_h)`
            - **output:** shares :math:`(*, K_h)`
        """
        noise, factor = self.draw(logits.detach(), modality, node_type, training)
        logits = logits if noise is None else logits + noise
        # Softmax over few columns is slow, over few rows it is not. Subnormal
        # shares do not count, but every product with them would be slow.
        share = (logits / self.temperature).t().contiguous().softmax(dim=0).t()
        share = F.threshold(share, 1e-20, 0.0)
        return share if factor is None else share * factor

    def parts(self, data: HeteroData, training: bool = False) -> Parts:
        r"""Content, modal and global vectors of all nodes.

        Args:
            data: The user-item graph.
            training: If set to :obj:`True`, memberships are noisy and some
                are dropped.
        """
        graph = self.graph(data)
        content = self.propagation(self.user_embedding, self.encode_items(data), graph)

        item, logits = [], []
        for modality, projection in self.projections.items():
            # One pass over the features yields modal vectors and logits.
            weight = torch.cat([projection, self.hyperedges[modality]], dim=1)
            out = project(data[ITEM][f'x_{modality}'], weight.t())
            value, logit = out.split([self.channels, self.num_hyperedges], dim=1)
            item.append(value)
            logits.append(logit)
        user_logits = self.conv(torch.cat(logits, dim=1), graph.to_user).chunk(len(item), dim=1)
        (colptr, _), _ = graph.to_user.get_csc()
        x_item = torch.cat(item, dim=1)
        mean = colptr.diff().clamp(min=1).to(x_item.dtype).reciprocal().view(-1, 1)
        x_user = self.conv(x_item, graph.to_user).mul_(mean)
        for _ in range(self.num_modal_layers):
            x_user, x_item = (
                self.conv(x_item, graph.to_user, graph.to_user_weight),
                self.conv(x_user, graph.to_item, graph.to_item_weight),
            )
        shape = (-1, len(self.modalities), self.channels)

        hyper = []
        for modality, of_item, of_user in zip(self.modalities, logits, user_logits):
            g_item = self.membership(of_item, modality, ITEM, training)
            g_user = self.membership(of_user, modality, USER, training)
            lat = g_item.t() @ content.item
            if self.num_hyper_layers > 1:
                overlap = g_item.t() @ g_item
                for _ in range(1, self.num_hyper_layers):
                    lat = overlap @ lat
            hyper.append(Hypergraph(Embeddings(g_user, g_item), lat))
        return Parts(content, Embeddings(x_user.view(shape), x_item.view(shape)), hyper)

    def fuse(self, content: Tensor, modal: Tensor, share: Tensor, lat: Tensor) -> Tensor:
        r"""Final vectors, row by row.

        Shapes:
            - **input:** content :math:`(*, d)`, modal vectors
              :math:`(*, n, d)`, shares in the hyperedges of all modalities
              :math:`(*, n K_h)`, vectors of these :math:`(n K_h, d)`
            - **output:** final vectors :math:`(*, d)`
        """
        local = content + F.normalize(modal, dim=-1).sum(dim=-2)
        return local + self.alpha * F.normalize(share @ lat, dim=-1)

    def forward(self, data: HeteroData) -> Embeddings:
        content, modal, hyper = self.parts(data)
        share, lat = merge(hyper)
        return Embeddings(*(self.fuse(*part, lat) for part in zip(content, modal, share)))

    def loss(self, data: HeteroData, batch: Batch) -> dict[str, Tensor]:
        content, modal, hyper = self.parts(data, self.training)
        share, lat = merge(hyper)
        rows = zip(batch.rows(content), batch.rows(modal), batch.rows(share))
        user, pos, neg = (self.fuse(*part, lat) for part in rows)
        losses = {'bpr': bpr_loss((user * pos).sum(dim=-1), (user * neg).sum(dim=-1))}
        pairs = list(combinations(hyper, 2))
        if self.cl_weight > 0 and len(pairs) > 0:
            for side, name, index in ((0, 'user', batch.user), (1, 'item', batch.pos)):
                nodes, total = distinct(index), user.new_zeros(())
                for a, b in pairs:
                    anchor = a.share[side].index_select(0, nodes.node) @ a.lat
                    total = total + contrast_all(
                        anchor, b.share[side], b.lat, nodes, self.temperature
                    )
                losses[f'hcl_{name}'] = self.cl_weight / len(pairs) * total
        if self.reg_weight > 0:
            losses['reg'] = self.reg_weight * frobenius_reg(user, pos, neg)
        return losses


def merge(hyper: list[Hypergraph]) -> tuple[Embeddings, Tensor]:
    r"""One hypergraph with the hyperedges of all.

    Shapes:
        - **output:** shares :math:`(M, n K_h)` and :math:`(N, n K_h)`,
          vectors of hyperedges :math:`(n K_h, d)`
    """
    user, item = (torch.cat(side, dim=1) for side in zip(*(h.share for h in hyper)))
    return Embeddings(user, item), torch.cat([h.lat for h in hyper])


def contrast_all(
    anchor: Tensor, share: Tensor, lat: Tensor, nodes: Distinct, temperature: float
) -> Tensor:
    r"""Contrastive loss of the nodes of a batch against all nodes, by cosine
    similarity and summed,

    .. math::
        - \sum_{b} \log \frac{\exp(\cos(\mathbf{a}_b, \mathbf{p}_b) / \tau)}
        {\sum_{k=1}^{n} \exp(\cos(\mathbf{a}_b, \mathbf{p}_k) / \tau)} .

    Positives are shares in hyperedges times vectors of these. Anchors are
    compared with the latter if they are few,
    :math:`\mathbf{a}_b^{\top} (\mathbf{L}^{\top} \mathbf{g}_k) =
    (\mathbf{L} \mathbf{a}_b)^{\top} \mathbf{g}_k`.

    Shapes:
        - **input:** anchors :math:`(D, d)`, shares of positives
          :math:`(n, K_h)`, vectors of hyperedges :math:`(K_h, d)`
        - **output:** a scalar
    """
    anchor = F.normalize(anchor, dim=-1) / temperature
    vectors = share @ lat
    norm = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True).clamp_min(1e-12)
    if lat.size(0) < lat.size(1):
        anchor, vectors = anchor @ lat.t(), share
    vectors = vectors / norm
    total = log_sum_exp(anchor, vectors, nodes.times, bound=1 / temperature)
    own = (anchor * vectors.index_select(0, nodes.node)).sum(dim=-1)
    return total - own @ nodes.times.to(own.dtype)
