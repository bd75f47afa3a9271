r"""Product reviews with images and descriptions, from the raw public files."""

from __future__ import annotations

import difflib
import importlib.util
import json
import os
import os.path as osp
import re
import shutil
import warnings
from collections.abc import Callable
from http.client import HTTPException

import numpy as np
from torch_geometric.data import HeteroData

from motor_geo.data.datasets.amazon_raw import (
    clean,
    distinct_rows,
    read_interactions,
    read_metadata,
    sentence,
    write_images,
)
from motor_geo.data.datasets.base import Transform, unique_pairs
from motor_geo.data.datasets.messages import listed
from motor_geo.data.datasets.pre_transform import apply_once
from motor_geo.data.datasets.split import SPLITS
from motor_geo.data.datasets.subsample import core_mask
from motor_geo.data.datasets.table import TableDataset
from motor_geo.data.media import encode_texts, text_encoder, text_key
from motor_geo.utils.arrays import load_array
from motor_geo.utils.cache import fingerprint
from motor_geo.utils.download import download
from motor_geo.utils.extras import needs
from motor_geo.utils.files import finish_folder, temporary_folder

CATEGORIES = (
    'Amazon_Instant_Video Apps_for_Android Automotive Baby Beauty Books CDs_and_Vinyl '
    'Cell_Phones_and_Accessories Clothing_Shoes_and_Jewelry Digital_Music Electronics '
    'Grocery_and_Gourmet_Food Health_and_Personal_Care Home_and_Kitchen Kindle_Store Movies_and_TV '
    'Musical_Instruments Office_Products Patio_Lawn_and_Garden Pet_Supplies Sports_and_Outdoors '
    'Tools_and_Home_Improvement Toys_and_Games Video_Games'
).split()
#: Categories that only the 2018 and 2023 releases have.
LATER_CATEGORIES = (
    'All_Beauty Amazon_Fashion Appliances Arts_Crafts_and_Sewing Baby_Products '
    'Beauty_and_Personal_Care Gift_Cards Handmade_Products Health_and_Household '
    'Industrial_and_Scientific Luxury_Beauty Magazine_Subscriptions Prime_Pantry Software '
    'Subscription_Boxes'
).split()
SHORT_NAMES = {
    'sports': 'Sports_and_Outdoors',
    'clothing': 'Clothing_Shoes_and_Jewelry',
    'office': 'Office_Products',
    'toys': 'Toys_and_Games',
}
ENCODER = 'all-MiniLM-L6-v2'
ARRAYS = ('.npy', '.npz', '.pt')
VERSION = 1  # Version of the processed files.

Encoder = Callable[[list[str]], np.ndarray]


class AmazonReviews(TableDataset):
    r"""A category of the Amazon product data (2014 release) from the
    `"Image-based Recommendations on Styles and Substitutes"
    <https://arxiv.org/abs/1506.04757>`_ paper. It also reads reviews and
    metadata of the 2018 and 2023 releases, which come without image features.

    The dataset repeatedly removes users and products with fewer than
    :obj:`core` reviews until every remaining one has at least that many. Image
    features are the released outputs of a convolutional network. Products
    without an image get the mean of the others, and
    :obj:`data['item'].mask_image` is :obj:`False` for them. Text features
    encode title, brand, category and description.

    Files that are missing from :obj:`root/raw` are downloaded:

    ====================================== ====================================
    :obj:`ratings_<Category>.csv`          or :obj:`reviews_<Category>.json.gz`
                                           or, if :obj:`core` is at least 5,
                                           :obj:`reviews_<Category>_5.json.gz`
    :obj:`meta_<Category>.json.gz`         titles and texts
    :obj:`image_features_<Category>.b`     several gigabytes
    ====================================== ====================================

    Files of later releases (:obj:`<Category>.csv`, :obj:`<Category>.json.gz`,
    :obj:`<Category>.jsonl.gz`, :obj:`meta_<Category>.jsonl.gz`) are recognized
    by their names, but never downloaded.

    The processed data goes to a folder in :obj:`root/processed`, in the layout
    of :class:`TableDataset`, and is read from there the next time. Its
    :obj:`items.tsv` lists the product number (ASIN), the title and the full
    text of each item.

    Args:
        root: Root folder of the raw and the processed files.
        category: Category as in the file names, such as :obj:`'Baby'` or
            :obj:`'Musical Instruments'`; also :obj:`'Sports'`,
            :obj:`'Clothing'`, :obj:`'Office'` and :obj:`'Toys'`.
        core: Minimum number of reviews per user and product; 1 keeps all.
        split: A key of :obj:`motor_geo.data.datasets.split.SPLITS`.
        seed: Seed of the split.
        text: :obj:`'auto'` encodes texts with :obj:`all-MiniLM-L6-v2`. If
            :obj:`sentence-transformers` is not installed or the model cannot
            be loaded, it leaves texts out with a warning. A path names a
            :obj:`.npy` file with one row per line of :obj:`items.tsv`. Any
            other string selects an encoder as in
            :func:`~motor_geo.data.media.text_encoder`: :obj:`'hashed'`, a
            sentence-transformers model (:obj:`NAME`, :obj:`NAME@REVISION`, or a
            folder, which needs no network), or the import path of a function.
            :obj:`None` leaves texts out.
        image: If set to :obj:`False`, leaves images out.
        mmap: If set to :obj:`True`, keeps features on disk where possible.
        force_reload: If set to :obj:`True`, processes the raw files again.
        transform: A function that transforms the graph on every access
            (:obj:`dataset[0]`).
        pre_transform: A function that transforms the graph once. The result is
            stored in :obj:`root/processed` if the arguments of the transform
            determine what it does.

    **STATS:**

    .. list-table::
        :widths: 20 10 10 10 10
        :header-rows: 1

        * - Category
          - core
          - #users
          - #items
          - #interactions
        * - Baby
          - 5
          - 19,445
          - 7,050
          - 160,792
        * - Sports and Outdoors
          - 5
          - 35,598
          - 18,357
          - 296,337
        * - Clothing, Shoes and Jewelry
          - 5
          - 39,387
          - 23,033
          - 278,677
        * - Electronics
          - 5
          - 192,403
          - 63,001
          - 1,689,188
        * - Music (as reported)
          - 1
          - 57,202
          - 25,717
          - 184,556
        * - Baby (as reported)
          - 1
          - 139,722
          - 28,795
          - 501,717
        * - Office (as reported)
          - 1
          - 146,048
          - 38,140
          - 435,675

    The rows with core 1 are the sizes reported by `"MOTOR"
    <https://arxiv.org/abs/2410.19276>`_, which does not explain how to obtain
    them from the raw files. About three interactions per user suggest
    :obj:`core=2`.

    Raises:
        FileNotFoundError: If a file is missing and cannot be downloaded.
        ValueError: If the category or the split is unknown, :obj:`core` is
            below 1, a file is truncated or malformed, or no interaction is
            left.
    """

    url = 'https://snap.stanford.edu/data/amazon/productGraph'

    def __init__(
        self,
        root: str,
        category: str = 'Baby',
        core: int = 5,
        split: str = 'random',
        seed: int = 0,
        text: str | None = 'auto',
        image: bool = True,
        mmap: bool = False,
        force_reload: bool = False,
        transform: Transform | None = None,
        pre_transform: Transform | None = None,
    ) -> None:
        if split not in SPLITS:
            raise ValueError(f"Unknown split '{split}'; expected one of {sorted(SPLITS)}.")
        if core < 1:
            raise ValueError(f"Expected 'core' to be at least 1, got {core}.")
        self.root = osp.abspath(osp.expanduser(root))
        self.category, self.core, self.image = find_category(category), core, image

        encode: Encoder | None = None
        if text == 'auto' and importlib.util.find_spec('sentence_transformers') is None:
            message = needs('encoding them', 'sentence-transformers', extra='text')
            warnings.warn(
                f"'{self.category}': leaving out texts, because {message}; text=PATH reads a .npy "
                f'with one row per line of items.tsv.',
                stacklevel=2,
            )
            text = None
        elif text == 'auto' and (force_reload or not osp.isdir(self._folder(ENCODER))):
            encode = _load_encoder(self.category)
            text = None if encode is None else ENCODER
        elif text == 'auto':
            text = ENCODER
        elif text is not None and _is_file(text):
            path = osp.abspath(osp.expanduser(text))
            given = load_array(path)
            encode, text = _Given(path, given), fingerprint(given)
        elif text is not None:
            name, text = text, text_key(text)
            if force_reload or not osp.isdir(self._folder(text)):
                encode = _Named(name)

        folder = self._folder(text)
        if force_reload or not osp.isdir(folder):
            self._process(folder, encode, force_reload)
        super().__init__(
            folder, split, seed, mmap, transform=transform, pre_transform=pre_transform
        )
        self.name = f'{self.category}_{core}core'

    def _apply(self, pre_transform: Transform) -> HeteroData:
        folder = osp.join(self.processed_dir, 'pre_transformed')
        return apply_once(self.data, pre_transform, folder, self.fingerprint)

    @property
    def raw_dir(self) -> str:
        return osp.join(self.root, 'raw')

    @property
    def processed_dir(self) -> str:
        return osp.join(self.root, 'processed')

    def _folder(self, text: str | None) -> str:
        key = fingerprint(VERSION, self.category, self.core, bool(self.image), text)
        return osp.join(self.processed_dir, f'{self.category}_{self.core}core_{key}')

    def _raw_files(self) -> list[list[str]]:
        r"""Returns the names of the required raw files, with alternatives."""
        reviews = [f'ratings_{self.category}.csv', f'reviews_{self.category}.json.gz']
        if self.core >= 5:  # The k-core of a 5-core is the k-core of the original.
            reviews.insert(1, f'reviews_{self.category}_5.json.gz')
        names = [reviews, [f'meta_{self.category}.json.gz']]
        return names + ([[f'image_features_{self.category}.b']] if self.image else [])

    def _fetch(self) -> list[str]:
        r"""Returns the paths of the raw files, and downloads missing ones."""
        paths = []
        for names, later in zip(self._raw_files(), [*self._later_files(), []]):
            known = [*names, *later]
            found = [name for name in known if osp.isfile(osp.join(self.raw_dir, name))]
            paths.append(osp.join(self.raw_dir, (found or names)[0]))
            if found:
                continue
            if self.category in LATER_CATEGORIES:
                raise FileNotFoundError(
                    f"'{self.raw_dir}' holds none of {listed(later)}, and '{self.category}' is not "
                    f'in the 2014 release, the only one that can be downloaded.'
                    if later
                    else f"'{self.category}' is not in the 2014 release, the only one with image "
                    f'features; expected image=False.'
                )
            self._download(names[0])
        return paths

    def _later_files(self) -> list[list[str]]:
        r"""Returns the names of review and metadata files in the 2018 and 2023
        releases.
        """
        name = self.category
        reviews = [f'{name}.csv', f'{name}.json.gz', f'{name}.csv.gz', f'{name}.jsonl.gz']
        if self.core >= 5:
            reviews.insert(1, f'{name}_5.json.gz')
        return [[*reviews, f'{name}.jsonl'], [f'meta_{name}.jsonl.gz', f'meta_{name}.jsonl']]

    def _download(self, name: str) -> None:
        kind = 'image_features/categoryFiles' if name.endswith('.b') else 'categoryFiles'
        url = f'{self.url}/{kind}/{name}'
        try:
            download(url, osp.join(self.raw_dir, name))
        except (OSError, HTTPException) as error:
            missing = [
                ' or '.join(f"'{name}'" for name in names)
                for names in self._raw_files()
                if not any(osp.isfile(osp.join(self.raw_dir, name)) for name in names)
            ]
            raise FileNotFoundError(
                f"Downloading '{url}' failed ({error}); expected these files in the folder "
                f"'{self.raw_dir}': {', '.join(missing)}"
                f'{" (image=False leaves out images)" if self.image else ""}.'
            ) from error

    def _process(self, folder: str, encode: Encoder | None, replace: bool) -> None:
        name = f'{self.category}_{self.core}core'
        path, meta_path, *image_path = self._fetch()
        user_ids, item_ids, user, item, time = read_interactions(path)
        keep = distinct_rows(user, item, time)
        keep = keep[core_mask(user[keep], item[keep], self.core)]
        if len(keep) == 0:
            raise ValueError(
                f"'{path}': no interaction is left if each user and item must have at least "
                f"{self.core}; expected a smaller 'core'."
            )
        keep = keep[unique_pairs(user[keep], item[keep], time[keep])]
        user, item, time = user[keep], item[keep], time[keep]
        asins = np.sort(item_ids[np.unique(item)])
        items = read_metadata(meta_path, asins)
        if not items:  # The 2018 release lists the product before the user.
            others = np.sort(user_ids[np.unique(user)])
            items = read_metadata(meta_path, others) if '.csv' in osp.basename(path) else {}
            if not items:
                raise ValueError(
                    f"'{meta_path}': expected metadata of the {len(asins)} products in '{path}', "
                    f"such as '{asins[0]}', found none of them."
                )
            warnings.warn(
                f"'{path}': the first column holds products and the second users (2018 release); "
                f'{len(items)} of {len(others)} are in the metadata.',
                stacklevel=3,
            )
            user_ids, item_ids, user, item, asins = item_ids, user_ids, item, user, others
        if len(items) < 0.5 * len(asins):
            warnings.warn(
                f"'{meta_path}': only {len(items)} of {len(asins)} products are in the metadata; "
                f'the texts of the others are empty.',
                stacklevel=3,
            )
        if isinstance(encode, _Given):
            encode.check(len(asins))

        with temporary_folder(self.processed_dir) as temporary:
            rows = np.lexsort((time, user_ids[user]))
            with open(osp.join(temporary, f'{name}.inter'), 'w', encoding='utf-8') as file:
                file.write('userID\titemID\ttimestamp\n')
                columns = (user_ids[user[rows]], item_ids[item[rows]], time[rows].tolist())
                file.writelines(f'{u}\t{i}\t{t}\n' for u, i, t in zip(*columns))
            texts = [sentence(items.get(asin, {})) for asin in asins]
            with open(osp.join(temporary, 'items.tsv'), 'w', encoding='utf-8') as file:
                file.write('itemID\ttitle\ttext\n')
                for asin, text in zip(asins, texts):
                    title = clean(items.get(asin, {}).get('title'))
                    file.write(f'{asin}\t{title}\t{text.strip()}\n')
            if image_path:
                write_images(image_path[0], asins, temporary)
            if encode is not None:
                x = np.asarray(encode(texts), np.float32)
                np.save(osp.join(temporary, 'text_feat.npy'), x)
            if isinstance(encode, _Named):
                with open(osp.join(temporary, 'text_feat.json'), 'w', encoding='utf-8') as file:
                    json.dump(encode.source, file, indent=1)
            _publish(temporary, folder, replace)


class _Given:
    r"""Text features read from a file instead of computed by an encoder."""

    def __init__(self, path: str, x: np.ndarray) -> None:
        self.path, self.x = path, x

    def check(self, num_items: int) -> None:
        if len(self.x) != num_items:
            raise ValueError(
                f"'{self.path}': expected {num_items} rows (one per item, sorted by ASIN as in "
                f"'items.tsv'), got {len(self.x)}."
            )

    def __call__(self, texts: list[str]) -> np.ndarray:
        return self.x


class _Named:
    r"""A text encoder selected by name. Loads the model on construction."""

    def __init__(self, name: str) -> None:
        self.encoder = text_encoder(name, option='text')
        self.source = self.encoder.source

    def __call__(self, texts: list[str]) -> np.ndarray:
        return encode_texts(self.encoder, texts)


def _is_file(text: str) -> bool:
    return osp.isfile(osp.expanduser(text)) or osp.splitext(text)[1] in ARRAYS


def find_category(name: str) -> str:
    r"""Returns a category as spelled in file names.

    Raises:
        ValueError: If the category is unknown.
    """
    categories = [*LATER_CATEGORIES, *CATEGORIES]
    names = {category.lower(): category for category in categories} | SHORT_NAMES
    key = re.sub('[^a-z]+', '_', name.lower().replace('&', 'and')).strip('_')
    if key not in names:
        close = difflib.get_close_matches(key, names, n=1, cutoff=0.5)
        hint = f"did you mean '{names[close[0]]}'?" if close else f'expected one of {CATEGORIES}.'
        raise ValueError(f"Unknown category '{name}'; {hint}")
    return names[key]


def _load_encoder(category: str) -> Encoder | None:
    from sentence_transformers import SentenceTransformer

    try:
        model = SentenceTransformer(ENCODER)
    except OSError as error:
        warnings.warn(
            f"'{category}': leaving out texts because the model '{ENCODER}' cannot be loaded: "
            f'{error}',
            stacklevel=3,
        )
        return None
    return lambda texts: model.encode(texts, batch_size=256, show_progress_bar=True)


def _publish(temporary: str, folder: str, replace: bool) -> None:
    r"""Moves the finished folder into place, unless another process got there
    first.
    """
    finish_folder(temporary)
    if osp.isdir(folder):
        if not replace:
            return
        os.replace(folder, f'{temporary}-old')
    os.replace(temporary, folder)
    shutil.rmtree(f'{temporary}-old', ignore_errors=True)
