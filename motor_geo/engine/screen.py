r"""Finds the users for whom a full ranking can change a metric."""

from __future__ import annotations

import torch
from torch import Tensor

from motor_geo.typing import Embeddings, EvalTargets
from motor_geo.utils.seen import SeenItems

#: The share of the candidates that are probes, and the minimum number of probes per list entry.
SHARE, PER_ENTRY = 8, 4
#: Number of scores per block of users.
BLOCK = 2**22


class Screen:
    r"""Finds the users whose lists may contain a held-out item.

    The *probes* are the candidates with the most training interactions. If at least
    :math:`k` probes that are not excluded score higher than all held-out items of a
    user, then the list of length :math:`k` contains none of these items. All
    metrics of hits are zero for this user, whatever the order of the other items.
    The comparison leaves a margin above the rounding error of inner products, so
    that it never misses a user.

    Args:
        targets: The held-out interactions, each pair once.
        count: Number of training interactions of every item, **[N]**.
        k: Length of the lists.
        exclude: Items that are never recommended to their users.
        first_user: The user of the first vector.
    """

    def __init__(
        self, targets: EvalTargets, count: Tensor, k: int, exclude: SeenItems, first_user: int = 0
    ):
        candidates = targets.candidates
        if candidates is None:
            candidates = torch.arange(count.numel(), device=count.device)
        size = max(candidates.numel() // SHARE, PER_ENTRY * k)
        order = count[candidates].argsort(descending=True, stable=True)
        self.probes = candidates[order[:size]]
        #: Whether the probes are few enough to save time.
        self.pays = 2 * size <= candidates.numel()
        self._user = targets.user - first_user
        self._row, self._item = targets.index
        probe = torch.zeros(count.numel(), dtype=torch.bool, device=count.device)
        probe[self.probes] = True
        row, item = exclude.of(targets.user)
        #: Excluded items may be among the probes that score higher.
        self._needed = k + row[probe[item]].bincount(minlength=len(targets))

    @torch.no_grad()
    def __call__(self, emb: Embeddings) -> Tensor:
        r"""Returns the positions of the users to rank.

        Args:
            emb: User and item vectors.

        Shapes:
            - **input:** :math:`(M, d)` and :math:`(N, d)`
            - **output:** positions in :obj:`targets.user` in ascending order :math:`(n)`
        """
        user, item = emb.user.float()[self._user], emb.item.float()
        score = (user[self._row] * item[self._item]).sum(1)
        best = score.new_full((user.size(0),), -torch.inf)
        best.scatter_reduce_(0, self._row, score, 'amax')
        # Twice the bound of the error of an inner product in single precision.
        unit = 2 * item.size(1) * torch.finfo(torch.float).eps
        best += unit * user.norm(dim=1) * item.norm(dim=1).max()
        probes = item[self.probes].t()
        size = max(1, BLOCK // probes.size(1))
        above = [
            (torch.matmul(rows, probes) > level.view(-1, 1)).sum(1)
            for rows, level in zip(*(x.split(size) for x in (user, best)))
        ]
        # A NaN is above nothing, so its user is ranked.
        return (torch.cat(above) < self._needed).nonzero().view(-1)
