r"""Decomposes scores into contributions of the items of a user."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from motor_geo.nn.fold_in import fold_in_scores
from motor_geo.pipeline.folder import LoadedRun
from motor_geo.typing import ITEM, RATES, Embeddings, Scores

#: Strength of the ridge regularizer of the decomposition.
STRENGTH = 0.3


class Reason(NamedTuple):
    r"""An item of a user that contributes to the score of another item.

    Args:
        item: Raw id of the item.
        title: Title of the item.
        share: Share of the score.
        tokens: For each modality, the number of tokens that both items share
            and the number of tokens per item.
    """

    item: str
    title: str
    share: float
    tokens: dict[str, tuple[int, int]]

    @property
    def shared(self) -> list[str]:
        r"""The shared tokens in words, such as "3 of 8 tokens of text"."""
        pairs = self.tokens.items()
        return [f'{same} of {size} tokens of {name}' for name, (same, size) in pairs if same]

    def __str__(self) -> str:
        return f'{self.title} ({", ".join([f"{self.share:.0%}", *self.shared])})'


class Explainer:
    r"""Decomposes scores into contributions of the items of a user.

    With item vectors :math:`\mathbf{v}`, the user vector is replaced by the
    least-squares solution for the items :math:`\mathcal{N}(u)` of the user, as
    in the `"Collaborative Filtering for Implicit Feedback Datasets"
    <https://doi.org/10.1109/ICDM.2008.22>`_ paper,

    .. math::
        s(u, i) \approx \sum_{j \in \mathcal{N}(u)} \mathbf{v}_i^{\top}
        \Big( \sum_{l \in \mathcal{N}(u)} \mathbf{v}_l \mathbf{v}_l^{\top} +
        \alpha \sum_l \mathbf{v}_l \mathbf{v}_l^{\top} + \lambda \mathbf{I}
        \Big)^{-1} \mathbf{v}_j ,

    and the share of item :math:`j` is its term divided by the sum of the
    positive terms. For a model that scores by item similarities, the terms are
    these similarities, and the decomposition is exact.

    Args:
        run: The run.
        emb: The output of its model.
        data: The graph, which may include new items.
        titles: Titles of the items, **[N]**.
        item_ids: Raw ids of the items, **[N]**.
    """

    def __init__(
        self,
        run: LoadedRun,
        emb: Embeddings | Scores,
        data: HeteroData,
        titles: Sequence[str],
        item_ids: np.ndarray,
    ):
        self.emb, self.titles, self.item_ids = emb, titles, item_ids
        self.tokens = data[ITEM].get('token_id')
        self.sizes = {} if run.tokenizer is None else dict(run.tokenizer.num_tokens_dict)
        if isinstance(emb, Embeddings):
            item = self.item = emb.item.detach().float().cpu()
            edge_index = run.data[RATES].edge_index.cpu()
            count = edge_index[1].bincount(minlength=len(item)) > 0
            known = item * count.float().view(-1, 1)
            users = edge_index[0].unique().numel()
            alpha = edge_index.size(1) / max(users * int(count.sum()), 1)
            gram = alpha * (known.t() @ known)
            eye = torch.eye(item.size(1))
            self.left = gram + STRENGTH * gram.diagonal().mean() * eye

    def shares(self, history: Tensor, item: Tensor) -> Tensor:
        r"""Computes the shares of the items of a user in the scores of other
        items.

        Shapes:
            - **input:** items of the user :math:`(n)`, other items :math:`(k)`
            - **output:** :math:`(k, n)`, with rows that sum to one (or to zero
              if no item contributes)
        """
        history, item = history.cpu(), item.cpu()
        if isinstance(self.emb, Scores):
            row = torch.arange(len(history))
            single = fold_in_scores(self.emb, row, history, len(history))
            terms = single(row)[:, item].t()
        else:
            own = self.item[history]
            terms = self.item[item] @ torch.linalg.solve(self.left + own.t() @ own, own.t())
        terms = terms.clamp(min=0)
        return terms / terms.sum(dim=1, keepdim=True).clamp(min=1e-12)

    def reasons(self, history: Tensor, item: int, share: Tensor, size: int) -> list[Reason]:
        r"""Returns the items of a user that contribute most to the score of
        another item.
        """
        best = share.argsort(descending=True, stable=True)[:size].tolist()
        out = []
        for place in best:
            if float(share[place]) <= 0:
                continue
            other = int(history[place])
            raw = str(self.item_ids[other])
            tokens = self.shared_tokens(item, other)
            out.append(Reason(raw, self.titles[other], float(share[place]), tokens))
        return out

    def shared_tokens(self, item: int, other: int) -> dict[str, tuple[int, int]]:
        r"""Counts the tokens that two items share, for each modality, and the
        tokens per item.
        """
        if self.tokens is None:
            return {}
        same = self.tokens[item] == self.tokens[other]
        out, start = {}, 0
        for name in sorted(self.sizes):
            size = self.sizes[name]
            out[name] = int(same[start : start + size].sum()), size
            start += size
        return out

    def why(self, history: Tensor, items: Tensor, size: int = 2) -> list[str]:
        r"""Describes the reasons for every item of a list in words. The text is
        empty for an item :obj:`-1`.
        """
        if len(history) == 0:
            return [''] * len(items)
        shares = self.shares(history, items.clamp(min=0))
        return [
            '; '.join(map(str, self.reasons(history, item, share, size))) if item >= 0 else ''
            for item, share in zip(items.tolist(), shares)
        ]
