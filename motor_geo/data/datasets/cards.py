r"""Facts about public data sets: origin, license, sizes and splits."""

from __future__ import annotations

from typing import NamedTuple

from motor_geo.data.datasets.amazon import AmazonReviews
from motor_geo.data.datasets.base import RecommendationDataset

NOT_CHECKED = 'not checked'


class RawFile(NamedTuple):
    r"""A file that can be downloaded.

    Args:
        url: Its address.
        path: Its path relative to the download folder.
        sha256: Its SHA-256 as published by others; empty if unknown.
    """

    url: str
    path: str
    sha256: str = ''


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
        evidence: The evidence for the license and the address.
        files: The raw files at the source, if their addresses are known. They
            are not the release of :obj:`hash`.
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
    evidence: str = NOT_CHECKED
    files: tuple[RawFile, ...] = ()

    def __str__(self) -> str:
        users, items, interactions = self.sizes
        rows = {
            'source': self.source,
            'address': self.url,
            'license': self.license,
            'evidence': self.evidence,
            'sizes': f'{users:,} users, {items:,} items, {interactions:,} interactions'
            + ('' if self.hash else ' (as published, not checked here)'),
            'split': self.split,
            'content': self.content,
            'reading': self.read,
            'hash': self.hash or 'not known here',
            'files': ', '.join(file.url for file in self.files) or 'no known addresses',
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


UNKNOWN = 'not stated by its publishers'
GROUPLENS = 'https://files.grouplens.org/datasets'
CITE = f'{UNKNOWN}, who ask for a citation'
AMAZON_EVIDENCE = (
    'third-party descriptions of the data, which name this address and the papers to cite; the '
    'page itself was not read'
)
MOTOR = 'the MOTOR paper states core 1, but {} interactions per user suggest --data.core 2'


def amazon_files(category: str) -> tuple[RawFile, ...]:
    r"""Returns the raw files of a category that
    :class:`~motor_geo.data.AmazonReviews` reads from the folder :obj:`raw`.

    Args:
        category: The category as spelled in file names.
    """
    names = f'ratings_{category}.csv', f'meta_{category}.json.gz'
    image = f'image_features_{category}.b'
    places = [*(f'categoryFiles/{name}' for name in names), f'image_features/categoryFiles/{image}']
    url = AmazonReviews.url
    return tuple(RawFile(f'{url}/{place}', f'raw/{place.split("/")[-1]}') for place in places)


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
            'non-commercial use with a citation',
            (1858, 1425, 56345),
            'released as x_label',
            'text (384) and audio (128), computed from tags and tracks',
            LAYOUT,
            '9ab4a7846faed46f',
            'third-party copies of the readme of hetrec2011-lastfm-2k',
            (
                RawFile(
                    f'{GROUPLENS}/hetrec2011/hetrec2011-lastfm-2k.zip',
                    'hetrec2011-lastfm-2k.zip',
                    '6738f48195667ff03caaab4d32ca9a3133d8cc026b7c3cdaf6ce1010e913c59c',
                ),
            ),
        ),
        Card(
            'tiktok',
            'short videos, in the DiffMM release (without its text), which derives from the MMSSL '
            'release; the site of the original data is closed',
            'https://github.com/HKUDS/DiffMM',
            NOT_CHECKED,
            (9308, 6710, 68712),
            'released as x_label',
            'image (128) and audio (128)',
            f'{LAYOUT}; also the lists and matrices of LATTICE and MMSSL',
            '1aa9453889cf6b58',
            'for the source only: answers by the authors of DiffMM and MMSSL in their repositories',
        ),
        Card(
            'ml1m',
            'MovieLens 1M: ratings as interactions',
            'https://grouplens.org/datasets/movielens/1m/',
            'research use with a citation; redistribution and commercial use only with permission',
            (6040, 3260, 998539),
            'released as x_label',
            'image (1024, posters encoded by MobileNet), text (384, titles, genres and abstracts)',
            LAYOUT,
            '6bb13210cb337ee5',
            'third-party copies of the readme of ml-1m',
            (
                RawFile(
                    f'{GROUPLENS}/movielens/ml-1m.zip',
                    'ml-1m.zip',
                    'a6898adb50b9ca05aa231689da44c217cb524e7ebd39d264c56e2832f2c54e20',
                ),
            ),
        ),
        Card(
            'sports',
            'Amazon reviews of 2014, Sports and Outdoors, 5-core',
            AMAZON,
            CITE,
            (35598, 18357, 296337),
            FIVE,
            'text (384, brands and categories encoded by MiniLM)',
            f'{LAYOUT}; from the raw files --data amazon --data.core 5',
            'cc03d77b64823810',
            AMAZON_EVIDENCE,
            amazon_files('Sports_and_Outdoors'),
        ),
        Card(
            'baby',
            'Amazon reviews of 2014, Baby, 5-core',
            AMAZON,
            CITE,
            (19445, 7050, 160782),
            FIVE,
            'interactions only',
            f'{LAYOUT}; from the raw files --data amazon --data.category Baby --data.core 5',
            '6c73e79f52264d60',
            AMAZON_EVIDENCE,
            amazon_files('Baby'),
        ),
        Card(
            'Clothing',
            'Amazon reviews of 2014, Clothing, Shoes and Jewelry, 5-core',
            AMAZON,
            CITE,
            (39387, 23033, 278677),
            FIVE,
            'image (4096) and text (384) in the MMRec release',
            '--data amazon --data.category Clothing_Shoes_and_Jewelry --data.core 5',
            evidence=AMAZON_EVIDENCE,
            files=amazon_files('Clothing_Shoes_and_Jewelry'),
        ),
        Card(
            'Electronics',
            'Amazon reviews of 2014, Electronics, 5-core',
            AMAZON,
            CITE,
            (192403, 63001, 1689188),
            FIVE,
            'image (4096) and text (384) in the MMRec release',
            '--data amazon --data.category Electronics --data.core 5',
            evidence=AMAZON_EVIDENCE,
            files=amazon_files('Electronics'),
        ),
        Card(
            'Music',
            'Amazon reviews of 2014, Musical Instruments, as in the MOTOR paper',
            AMAZON,
            CITE,
            (57202, 25717, 184556),
            'random 8:1:1 within each user',
            f'image (4096) and text (384); {MOTOR.format(3.2)}',
            '--data amazon --data.category Musical_Instruments --data.core 2',
            evidence=AMAZON_EVIDENCE,
            files=amazon_files('Musical_Instruments'),
        ),
        Card(
            'Baby-MOTOR',
            'Amazon reviews of 2014, Baby, as in the MOTOR paper',
            AMAZON,
            CITE,
            (139722, 28795, 501717),
            'random 8:1:1 within each user',
            f'image (4096) and text (384); {MOTOR.format(3.6)}',
            '--data amazon --data.category Baby --data.core 2',
            evidence=AMAZON_EVIDENCE,
            files=amazon_files('Baby'),
        ),
        Card(
            'Office',
            'Amazon reviews of 2014, Office Products, as in the MOTOR paper',
            AMAZON,
            CITE,
            (146048, 38140, 435675),
            'random 8:1:1 within each user',
            f'image (4096) and text (384); {MOTOR.format(3.0)}',
            '--data amazon --data.category Office_Products --data.core 2',
            evidence=AMAZON_EVIDENCE,
            files=amazon_files('Office_Products'),
        ),
        Card(
            'MicroLens',
            'short videos with covers, titles and audio; sizes as in the LIRDRec paper',
            'https://github.com/westlake-repl/MicroLens',
            f'{CITE} and forbid the redistribution of modified copies',
            (98129, 17228, 705174),
            'random 8:1:1 within each user',
            'covers, titles, audio and video, as raw files and as features',
            f'{LAYOUT}; reads its tables of user, item and timestamp without conversion',
            evidence='the readme of its repository; in 2026, a user reported that the links to its '
            'site had moved',
        ),
        Card(
            'Allrecipes',
            'recipes with images and ingredients, in the MMSSL release',
            'https://github.com/HKUDS/MMSSL',
            NOT_CHECKED,
            (19805, 10067, 58922),
            'released as train.json, val.json and test.json',
            'image (2048) and text (20)',
            'the lists and matrices of MMSSL, without conversion: --data FOLDER',
            evidence='for the address only: questions in the MMSSL repository, including requests '
            'for access to the data',
        ),
    )
}
