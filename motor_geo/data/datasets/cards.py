r"""Facts about public data sets: origin, license, sizes and splits."""

from __future__ import annotations

from typing import NamedTuple

from motor_geo.data.datasets.base import RecommendationDataset


class Card(NamedTuple):
    r"""A public data set.

    Args:
        name: Its common name.
        source: Where the data comes from.
        url: Where it is published.
        license: The permitted uses, as far as its publishers state them.
        sizes: Numbers of users, items and interactions.
        split: How its splits were created.
        content: Its modalities and their features.
        read: How this package reads it.
        hash: :obj:`dataset.fingerprint` of the release behind the numbers of
            this package; empty if that release was not available.
    """

    name: str
    source: str
    url: str
    license: str
    sizes: tuple[int, int, int]
    split: str
    content: str
    read: str
    hash: str = ''

    def __str__(self) -> str:
        users, items, interactions = self.sizes
        rows = {
            'source': self.source,
            'address': self.url,
            'license': self.license,
            'sizes': f'{users:,} users, {items:,} items, {interactions:,} interactions'
            + ('' if self.hash else ' (as published, not checked here)'),
            'split': self.split,
            'content': self.content,
            'reading': self.read,
            'hash': self.hash or 'not known here',
        }
        return '\n'.join([self.name, *(f'  {key:9s}{value}' for key, value in rows.items())])

    def differences(self, dataset: RecommendationDataset) -> list[str]:
        r"""Describes how a data set differs from the card. The list is empty
        if it is the same release.

        Args:
            dataset: The data set.
        """
        if self.hash and dataset.fingerprint == self.hash:
            return []
        sizes = dataset.summary()
        total = sum(sizes[split] for split in ('train', 'val', 'test'))
        found = sizes['users'], sizes['items'], total
        names = 'users', 'items', 'interactions'
        out = [
            f'{now:,} instead of {then:,} {name}'
            for name, now, then in zip(names, found, self.sizes)
            if now != then
        ]
        if not out and self.hash:
            out = ['the same sizes, but different interactions, splits or features']
        return out


RESEARCH = 'research use with a citation; no redistribution'
UNKNOWN = 'not stated by its publishers'
AMAZON = 'https://cseweb.ucsd.edu/~jmcauley/datasets/amazon/links.html'
FIVE = 'random 8:1:1 within each user, released as x_label'
LAYOUT = 'NAME.inter and <modality>_feat.npy: --data FOLDER'
#: Cards by name in lower case.
CARDS = {
    card.name.lower(): card
    for card in (
        Card(
            'lastfm',
            'HetRec 2011, Last.fm: artists that users listened to',
            'https://grouplens.org/datasets/hetrec-2011/',
            RESEARCH,
            (1858, 1425, 56345),
            'released as x_label',
            'text (384) and audio (128), computed from tags and tracks',
            LAYOUT,
            '9ab4a7846faed46f',
        ),
        Card(
            'tiktok',
            'short videos, in the DiffMM release (without its text)',
            'https://github.com/HKUDS/DiffMM',
            UNKNOWN,
            (9308, 6710, 68712),
            'released as x_label',
            'image (128) and audio (128)',
            f'{LAYOUT}; also the lists and matrices of LATTICE and MMSSL',
            '1aa9453889cf6b58',
        ),
        Card(
            'ml1m',
            'MovieLens 1M: ratings as interactions',
            'https://grouplens.org/datasets/movielens/1m/',
            RESEARCH,
            (6040, 3260, 998539),
            'released as x_label',
            'image (1024, posters encoded by MobileNet), text (384, titles, genres and abstracts)',
            LAYOUT,
            '6bb13210cb337ee5',
        ),
        Card(
            'sports',
            'Amazon reviews of 2014, Sports and Outdoors, 5-core',
            AMAZON,
            UNKNOWN,
            (35598, 18357, 296337),
            FIVE,
            'text (384, brands and categories encoded by MiniLM)',
            f'{LAYOUT}; from the raw files --data amazon --data.core 5',
            'cc03d77b64823810',
        ),
        Card(
            'baby',
            'Amazon reviews of 2014, Baby, 5-core',
            AMAZON,
            UNKNOWN,
            (19445, 7050, 160782),
            FIVE,
            'interactions only; the MOTOR paper reports 139,722 users and 28,795 items with about '
            '3.6 interactions per user, which suggests --data.core 2',
            f'{LAYOUT}; from the raw files --data amazon --data.category Baby --data.core 5',
            '6c73e79f52264d60',
        ),
        Card(
            'Clothing',
            'Amazon reviews of 2014, Clothing, Shoes and Jewelry, 5-core',
            AMAZON,
            UNKNOWN,
            (39387, 23033, 278677),
            FIVE,
            'image (4096) and text (384) in the MMRec release',
            '--data amazon --data.category Clothing_Shoes_and_Jewelry --data.core 5',
        ),
        Card(
            'Electronics',
            'Amazon reviews of 2014, Electronics, 5-core',
            AMAZON,
            UNKNOWN,
            (192403, 63001, 1689188),
            FIVE,
            'image (4096) and text (384) in the MMRec release',
            '--data amazon --data.category Electronics --data.core 5',
        ),
        Card(
            'MicroLens',
            'short videos with covers, titles and audio; sizes as in the LIRDRec paper',
            'https://github.com/westlake-repl/MicroLens',
            UNKNOWN,
            (98129, 17228, 705174),
            'random 8:1:1 within each user',
            'covers, titles, audio and video, as raw files and as features',
            f'{LAYOUT}; reads its tables of user, item and timestamp without conversion',
        ),
        Card(
            'Allrecipes',
            'recipes with images and ingredients, in the MMSSL release',
            'https://github.com/HKUDS/MMSSL',
            UNKNOWN,
            (19805, 10067, 58922),
            'released as train.json, val.json and test.json',
            'image (2048) and text (20)',
            'the lists and matrices of MMSSL, without conversion: --data FOLDER',
        ),
    )
}
