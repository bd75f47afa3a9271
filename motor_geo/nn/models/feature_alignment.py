from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from motor_geo.nn.functional.distinct import Distinct
from motor_geo.nn.loss import batch_contrast
from motor_geo.nn.name_dict import NameDict


class FeatureAlignment(nn.Module):
    r"""The fine-and-coarse feature alignment task (FAC) of
    :class:`~motor_geo.nn.models.SLMRec`. For the items of a batch and with
    inner products, it contrasts

    .. math::
        \mathbf{a}_1 = g_{\textrm{id}}(\mathbf{i}^{\textrm{id}})
        \;\textrm{with}\; g_1(\mathbf{i}^1), \qquad
        \mathbf{a}_{k} = h_k(\mathbf{a}_{k-1})
        \;\textrm{with}\; g_k(\mathbf{i}^{k})

    for one modality after the other. All maps are affine, and the last space has
    :math:`d / 2` dimensions. With two modalities, the task keeps all maps of
    the paper, which has three modalities: the stage between the two has a map
    and a head, but no loss term.

    Args:
        names: Ordered names of modalities.
        channels: Size :math:`d` of item vectors.
        temperature: Temperature that divides inner products.

    Shapes:
        - **input:** vectors :math:`(D, n + 1, d)` of the distinct items of a
          batch
        - **output:** a scalar per modality
    """

    def __init__(self, names: Sequence[str], channels: int, temperature: float):
        super().__init__()
        self.temperature = temperature
        d, n = channels, len(names)
        widths = [d] if n == 1 else [d] * (n - 1) + [d // 2]
        self.head_id = nn.Linear(d, d)
        self.heads = NameDict({m: nn.Linear(d, w) for m, w in zip(names, widths)})
        self.chain = nn.ModuleList([nn.Linear(d, w) for w in widths[1:]])
        self.stage: nn.ModuleDict | None = None
        if n == 2:  # The head is unused, as in the reference.
            self.stage = nn.ModuleDict({'map': nn.Linear(d, d), 'head': nn.Linear(d, d)})

    def forward(self, item: Tensor, items: Distinct) -> dict[str, Tensor]:
        r"""The contrastive losses by modality, from the vectors of distinct items."""
        anchor, losses = self.head_id(item[:, 0]), {}
        for k, (modality, head) in enumerate(self.heads.items()):
            if k > 0:
                anchor = anchor if self.stage is None else self.stage['map'](anchor)
                anchor = self.chain[k - 1](anchor)
            losses[modality] = batch_contrast(
                anchor / self.temperature, head(item[:, k + 1]), pairs=(items, items)
            )
        return losses
