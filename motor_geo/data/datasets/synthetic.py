r"""A small synthetic shop that needs no download."""

from __future__ import annotations

from itertools import combinations as pairs_of

import numpy as np
import torch

from motor_geo.data.datasets.base import RecommendationDataset, Transform
from motor_geo.data.datasets.choices import (
    MIN_PER_USER,
    draw_counts,
    numbered,
    sample_interactions,
)
from motor_geo.data.datasets.split import SPLITS, cold_items, held_out_sizes, split_interactions
from motor_geo.data.datasets.synthetic_catalog import ATTRIBUTES, draw_catalog
from motor_geo.data.encoders import hashed_ngrams, image_statistics

COMBINED = ('kind', 'color', 'pattern', 'material')
OPENING, SEASON, YEAR = 1_400_000_000, 7_776_000, 31_536_000  # Seconds.


class SyntheticMultimodal(RecommendationDataset):
    r"""A synthetic shop: items with titles and images, and customers who prefer
    combinations of item attributes.

    An item has a kind, a color, a pattern, a material and a brand,
    :math:`a_{i1}, \ldots, a_{i5}`. Its utility for customer :math:`u` is

    .. math::
        U_{ui} = \log \pi_i + s \, \mathbf{t}_u^{\top} \left( \sqrt{1 - c} \;
        \mathbf{m}_i + \sqrt{c} \; \mathbf{n}_i \right) + \epsilon_{ui}.

    * The popularity :math:`\pi_i \propto (r_i + 10)^{-b}` decays with the
      random rank :math:`r_i` of the item.
    * :math:`\mathbf{m}_i = \sum_k \boldsymbol{\alpha}^k_{a_{ik}}` is linear in
      the attributes: a customer who likes red likes anything red.
    * :math:`\mathbf{n}_i = \sum_{k < l \leq 4}
      \boldsymbol{\beta}^{kl}_{a_{ik} a_{il}}` has a term for each pair of
      attributes other than the brand: a customer may like red sneakers, but
      not red shirts. Least squares removes the part that a sum over single
      attributes explains.
    * :math:`\mathbf{t}_u`, :math:`\boldsymbol{\alpha}` and
      :math:`\boldsymbol{\beta}` are standard normal vectors. Both parts are
      centered and scaled to a mean squared length of one, so :math:`c` is the
      share of taste that depends on combinations.
    * :math:`\epsilon_{ui}` is Gumbel noise. Equivalently, customers draw items
      sequentially without replacement. Each draw picks one of the remaining
      items with probability proportional to
      :math:`\exp(U_{ui} - \epsilon_{ui})`.

    During the first year, customers draw their training interactions from the
    initial items. Then new items arrive. In the season that follows, customers
    draw the held-out interactions from all remaining items, old and new.

    Features come from titles
    (:func:`~motor_geo.data.encoders.hashed_ngrams`) and images
    (:func:`~motor_geo.data.encoders.image_statistics`). A model needs both:
    titles omit attributes, some images are missing, and no image shows the
    material or the brand.

    :obj:`item_titles` contains the titles, **[N]**, :obj:`item_images` the
    images, uint8 **[N, 24, 24, 3]** (zeros where missing), and
    :obj:`new_items` marks the items that arrived late, **[N]**. All randomness
    derives from :obj:`seed`: the same arguments give the same data.

    Args:
        num_users: Number of users :math:`M`.
        num_items: Number of items :math:`N`.
        num_interactions: Number of interactions in all splits, at least three
            per user.
        combinations: Share :math:`c` of taste that depends on combinations,
            from 0 (linear in the attributes) to 1.
        affinity: Strength :math:`s` of taste.
        popularity: Exponent :math:`b` of the popularity.
        num_factors: Size of :math:`\mathbf{t}_u`.
        new_items: Fraction of items that arrive after training.
        missing_images: Fraction of items without an image. They get the mean
            image features of the others, and :obj:`data['item'].mask_image` is
            :obj:`False` for them.
        text_channels: Width of the text features.
        split: A key of :obj:`motor_geo.data.datasets.split.SPLITS`.
            :obj:`"temporal"` holds out the draws of the last season.
        seed: Seed of the data and the split.
        transform: A function that transforms the graph on every access
            (:obj:`dataset[0]`).
        pre_transform: A function that transforms the graph once.

    Raises:
        ValueError: If a size is out of range or the split is unknown.
    """

    def __init__(
        self,
        num_users: int = 2000,
        num_items: int = 1500,
        num_interactions: int = 20_000,
        combinations: float = 0.75,
        affinity: float = 2.0,
        popularity: float = 0.8,
        num_factors: int = 16,
        new_items: float = 0.2,
        missing_images: float = 0.1,
        text_channels: int = 64,
        split: str = 'temporal',
        seed: int = 0,
        transform: Transform | None = None,
        pre_transform: Transform | None = None,
    ) -> None:
        super().__init__(transform, pre_transform)
        for name, fraction in (('new_items', new_items), ('missing_images', missing_images)):
            if not 0 <= fraction < 1:
                raise ValueError(f"Expected '{name}' in [0, 1), got {fraction}.")
        if not 0 <= combinations <= 1:
            raise ValueError(f"Expected 'combinations' in [0, 1], got {combinations}.")
        for name, size, least in (
            ('num_users', num_users, 1),
            ('num_items', num_items, 8),
            ('num_factors', num_factors, 1),
            ('text_channels', text_channels, 1),
        ):
            if size < least:
                raise ValueError(f"Expected '{name}' to be at least {least}, got {size}.")
        if split not in SPLITS:
            raise ValueError(f"Unknown split '{split}'; expected one of {sorted(SPLITS)}.")
        num_new = int(new_items * num_items)
        limit = (num_items - num_new) // 2  # Maximum number of items per user.
        if not MIN_PER_USER * num_users <= num_interactions <= limit * num_users:
            raise ValueError(
                f"Expected 'num_interactions' from {MIN_PER_USER * num_users} to "
                f'{limit * num_users} ({MIN_PER_USER} to {limit} per user), got {num_interactions}.'
            )

        # One random stream per part, so that items do not depend on tastes or users.
        rngs = [np.random.default_rng([seed, part]) for part in range(4)]
        catalog = draw_catalog(rngs[0], num_items)
        self.item_titles, self.item_images = catalog.titles, catalog.images
        mask = np.ones(num_items, bool)
        mask[rngs[1].permutation(num_items)[: int(missing_images * num_items)]] = False
        self.item_images[~mask] = 0
        new = np.zeros(num_items, bool)
        new[rngs[1].permutation(num_items)[:num_new]] = True
        self.new_items = torch.from_numpy(new)
        weight = rngs[1].permutation((np.arange(num_items) + 11.0) ** -popularity)

        items = affinity * item_tastes(rngs[2], catalog.attributes, combinations, num_factors)
        users = rngs[3].standard_normal((num_users, num_factors))
        counts = draw_counts(rngs[3], num_users, num_interactions, limit)
        val, test = held_out_sizes(counts)
        later = val + test
        first = sample_interactions(rngs[3], users, items, weight * ~new, counts - later)
        then = sample_interactions(rngs[3], users, items, weight, later, taken=first)
        user, item = (np.concatenate(part) for part in zip(first, then))
        time = np.concatenate(
            [
                _times(rngs[3], first[0], OPENING, YEAR),
                _times(rngs[3], then[0], OPENING + YEAR, SEASON),
            ]
        )

        label = split_interactions(user, item, split, seed, time)
        candidates = None
        if split == 'cold_item':
            candidates = dict(zip(('val', 'test'), cold_items(item, seed)))
        self._build(
            'synthetic',
            user,
            item,
            label,
            {
                'image': image_statistics(catalog.images),
                'text': hashed_ngrams(catalog.titles, text_channels),
            },
            numbered('user', num_users),
            numbered('item', num_items),
            candidates,
            {'image': mask},
            rule=split,
        )


def item_tastes(
    rng: np.random.Generator, attributes: np.ndarray, combinations: float, num_factors: int
) -> np.ndarray:
    r"""Draws the vectors
    :math:`\sqrt{1 - c} \; \mathbf{m}_i + \sqrt{c} \; \mathbf{n}_i` of items.

    Args:
        rng: The random number generator.
        attributes: The attributes of each item, **[N, 5]**.
        combinations: Share :math:`c` of taste that depends on combinations.
        num_factors: Size of the vectors.

    Returns:
        The vectors, **[N, num_factors]**.
    """
    codes = dict(zip(ATTRIBUTES, attributes.T))
    sizes = {name: len(values) for name, values in ATTRIBUTES.items()}
    single = np.zeros((len(attributes), num_factors))
    double = np.zeros_like(single)
    for name, code in codes.items():
        single += rng.standard_normal((sizes[name], num_factors))[code]
    for one, other in pairs_of(COMBINED, 2):
        table = rng.standard_normal((sizes[one], sizes[other], num_factors))
        double += table[codes[one], codes[other]]
    design = np.concatenate([np.eye(sizes[name])[code] for name, code in codes.items()], axis=1)
    double -= design @ np.linalg.lstsq(design, double, rcond=None)[0]
    single -= single.mean(axis=0)
    parts = [x / max(np.sqrt((x**2).sum(axis=1).mean()), 1e-12) for x in (single, double)]
    return np.sqrt(1 - combinations) * parts[0] + np.sqrt(combinations) * parts[1]


def _times(rng: np.random.Generator, user: np.ndarray, start: int, length: int) -> np.ndarray:
    r"""Draws random times that keep the order of each user's draws. Expects
    :obj:`user` in ascending order.
    """
    time = start + rng.integers(length, size=len(user))
    return time[np.lexsort((time, user))]
