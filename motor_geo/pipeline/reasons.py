r"""Scores taken apart into the items of a user."""

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

#: Strength of the ridge by which a user is taken apart.
STRENGTH = 0.3


class Reason(NamedTuple):
    r"""An item of a user that speaks for another one.

    Args:
        item: Its raw id.
        title: What it is called.
        share: Its share of the score.
        tokens: By modality, how many tokens both items share, of how many.
    """

    item: str
    title: str
    share: float
    tokens: dict[str, tuple[int, int]]

    @property
    def shared(self) -> list[str]:
        r"""Tokens in common in words, such as "3 of 8 tokens of text"."""
        pairs = self.tokens.items()
        return [f'{same} of {size} tokens of {name}' for name, (same, size) in pairs if same]

    def __str__(self) -> str:
        return f'{self.title} ({", ".join([f"{self.share:.0%}", *self.shared])})'


class Explainer:
    r"""Takes scores apart into the items of a user.

    With item vectors :math:`\mathbf{v}`, a user is taken for what least squares
    makes of her items :math:`\mathcal{N}(u)`, as in the `"Collaborative
    Filtering for Implicit Feedback Datasets"
    <https://doi.org/10.1109/ICDM.2008.22>`_ paper,

    .. math::
        s(u, i) \approx \sum_{j \in \mathcal{N}(u)} \mathbf{v}_i^{\top}
        \Big( \sum_{l \in \mathcal{N}(u)} \mathbf{v}_l \mathbf{v}_l^{\top} +
        \alpha \sum_l \mathbf{v}_l \mathbf{v}_l^{\top} + \lambda \mathbf{I}
        \Big)^{-1} \mathbf{v}_j ,

    and the share of :math:`j` is that of its term among the positive ones. Of
    a model that scores by similarities of items, the terms are these, and
    exact.

    Args:
        run: The run.
        emb: What its model yields.
        data: The graph, maybe with items that are new.
        titles: What items are called, **[N]**.
        item_ids: Raw ids of items, **[N]**.
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
        r"""Shares of the items of a user in the scores of others.

        Shapes:
            - **input:** items of the user :math:`(n)`, other items :math:`(k)`
            - **output:** :math:`(k, n)`, with rows that sum up to one (or to
              zero where nothing speaks for the item)
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
        r"""The items of a user that carry most of the score of another one."""
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
        r"""By modality, how many tokens two items share, of how many."""
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
        r"""Reasons in words for every item of a list; nothing for an item
        :obj:`-1`.
        """
        if len(history) == 0:
            return [''] * len(items)
        shares = self.shares(history, items.clamp(min=0))
        return [
            '; '.join(map(str, self.reasons(history, item, share, size))) if item >= 0 else ''
            for item, share in zip(items.tolist(), shares)
        ]
