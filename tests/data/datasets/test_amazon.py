import gzip
import json
import os
import os.path as osp
import urllib.error
import warnings

import numpy as np
import pytest
import torch
from torch_geometric.transforms import BaseTransform

from motor_geo.data.datasets import amazon, amazon_raw
from motor_geo.data.datasets.amazon import AmazonReviews, find_category
from motor_geo.data.datasets.subsample import core_mask
from motor_geo.data.encoders import hashed_ngrams
from motor_geo.data.media import text_encoder
from motor_geo.typing import RATES
from tests.tiny_models import tiny_text_model

RECORD = 10 + 4 * 4096
# Users and items of the 2-core: A0..A3 x B..0 - B..3; A9 and B..9 fall out one after the other.
PAIRS = [(u, i) for u in range(4) for i in range(4) if u != i] + [(9, 9), (9, 0)]
pytestmark = pytest.mark.filterwarnings('error:.*duplicate interactions')


def asin(i):
    return f'B00000000{i}'


def write_ratings(raw, pairs=PAIRS, category='Baby'):
    with open(osp.join(raw, f'ratings_{category}.csv'), 'w') as file:
        for row, (user, item) in enumerate(pairs):
            file.write(f'A{user},{asin(item)},5.0,{1400000000 + row}\n')


def write_reviews(raw, suffix='', pairs=PAIRS, category='Baby'):
    with gzip.open(osp.join(raw, f'reviews_{category}{suffix}.json.gz'), 'wt') as file:
        for row, (user, item) in enumerate(pairs):
            entry = {
                'reviewerID': f'A{user}',
                'asin': asin(item),
                'reviewText': 'It\'s "fine", é\n',
                'overall': 5.0,
                'unixReviewTime': 1400000000 + row,
            }
            file.write(json.dumps(entry) + '\n')


def write_meta(raw, category='Baby'):
    entries = [
        {
            'asin': asin(0),
            'title': "Bottle\t'A'\n",
            'brand': 'Acme',
            'categories': [['Baby', 'Feeding'], ['Other']],
            'description': 'A\nbottle.',
        },
        {'asin': asin(7), 'title': 'Not kept'},
        {'asin': asin(1), 'description': 'No title "here"'},
        {'asin': asin(2), 'title': 'Toy', 'categories': [['Baby']]},
    ]
    with gzip.open(osp.join(raw, f'meta_{category}.json.gz'), 'wt') as file:
        for number, entry in enumerate(entries):
            file.write((json.dumps(entry) if number == 2 else repr(entry)) + '\n')


def vector(i):
    return np.maximum(np.random.default_rng(i).standard_normal(4096), 0).astype('<f4')


def write_images(raw, items=(7, 2, 0, 3, 9), category='Baby'):
    with open(osp.join(raw, f'image_features_{category}.b'), 'wb') as file:
        for i in items:
            file.write(asin(i).encode() + vector(i).tobytes())


@pytest.fixture
def root(tmp_path):
    raw = tmp_path / 'raw'
    raw.mkdir()
    write_ratings(raw)
    write_meta(raw)
    write_images(raw)
    return str(tmp_path)


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    def fail(url, path):
        raise urllib.error.URLError('no network')

    monkeypatch.setattr(amazon, 'download', fail)


def load(root, **kwargs):
    return AmazonReviews(root, **{'core': 2, 'text': None, **kwargs})


def processed(root):
    folder = osp.join(root, 'processed')
    return sorted(os.listdir(folder)) if osp.isdir(folder) else []


def test_contents(root):
    dataset = load(root)
    assert dataset.user_ids.tolist() == ['A0', 'A1', 'A2', 'A3']
    assert dataset.item_ids.tolist() == [asin(i) for i in range(4)]
    total = dataset[0][RATES].num_edges
    total += sum(dataset.targets(split).item.numel() for split in ('val', 'test'))
    assert total == 12
    assert str(dataset).startswith('AmazonReviews(Baby_2core, users=4, items=4, train=')
    assert dataset.modalities == ['image']
    assert dataset.raw_dir == osp.join(root, 'raw')
    assert dataset.processed_dir == osp.join(root, 'processed')

    item = dataset[0]['item']
    assert item.mask_image.tolist() == [True, False, True, True]
    for i in (0, 2, 3):
        assert torch.equal(item.x_image[i], torch.from_numpy(vector(i)))
    mean = np.mean([vector(0), vector(2), vector(3)], axis=0, dtype=np.float64)
    assert np.allclose(item.x_image[1], mean, atol=1e-6)


def test_layout(root):
    load(root)
    (name,) = processed(root)
    folder = osp.join(root, 'processed', name)
    assert sorted(os.listdir(folder)) == [
        'Baby_2core.inter',
        'image_feat.npy',
        'image_mask.npy',
        'items.tsv',
    ]
    with open(osp.join(folder, 'Baby_2core.inter')) as file:
        assert file.readline() == 'userID\titemID\ttimestamp\n'
        assert file.readline() == f'A0\t{asin(1)}\t1400000000\n'
        assert len(file.readlines()) == 11
    with open(osp.join(folder, 'items.tsv')) as file:
        lines = file.read().split('\n')
    assert lines[0] == 'itemID\ttitle\ttext'
    assert lines[1] == f"{asin(0)}\tBottle 'A'\tBottle 'A' Acme Baby Feeding A bottle."
    assert lines[2] == f'{asin(1)}\t\tNo title "here"'
    assert lines[3].split('\t')[2].split() == ['Toy', 'Baby']
    assert lines[4] == f'{asin(3)}\t\t'
    # The mean is in the file, so that the folder serves others as well.
    x = np.load(osp.join(folder, 'image_feat.npy'))
    assert np.allclose(x[1], x[[0, 2, 3]].mean(axis=0), atol=1e-6)


def test_second_construction_reads_the_result(root):
    first = load(root, split='temporal')
    for name in os.listdir(first.raw_dir):
        os.remove(osp.join(first.raw_dir, name))
    second = load(root, split='temporal')
    assert first.fingerprint == second.fingerprint
    load(root, split='leave_one_out', seed=3)  # Splits share the processed files.
    assert len(processed(root)) == 1
    with pytest.raises(FileNotFoundError):
        load(root, core=1)
    with pytest.raises(FileNotFoundError):
        load(root, force_reload=True)
    assert len(processed(root)) == 1


def test_force_reload(root):
    load(root)
    write_ratings(osp.join(root, 'raw'), PAIRS + [(4, 0), (4, 1), (4, 2)])
    assert load(root).num_users == 4
    assert load(root, force_reload=True).num_users == 5
    assert load(root).num_users == 5
    assert len(processed(root)) == 1


@pytest.mark.parametrize('suffix', ['', '_5'])
def test_reviews_give_the_same_as_ratings(root, suffix):
    raw = osp.join(root, 'raw')
    five = [(u, i) for u in range(6) for i in range(6)]
    write_ratings(raw, five)
    expected = load(root, core=5).fingerprint
    os.remove(osp.join(raw, 'ratings_Baby.csv'))
    write_reviews(raw, suffix, five)
    assert load(root, core=5, force_reload=True).fingerprint == expected
    if suffix:  # The 5-core says nothing about smaller cores.
        with pytest.raises(FileNotFoundError):
            load(root, core=2)


def test_core_1_keeps_all(root):
    dataset = load(root, core=1)
    assert dataset.user_ids.tolist() == ['A0', 'A1', 'A2', 'A3', 'A9']
    assert dataset.item_ids.tolist() == [asin(i) for i in (0, 1, 2, 3, 9)]
    assert dataset[0]['item'].mask_image.tolist() == [True, False, True, True, True]


def test_duplicates(root):
    # Equal rows count once, a pair at two times counts twice and is kept once, at its first time.
    write_ratings(osp.join(root, 'raw'), PAIRS + [(0, 1)])
    path = osp.join(root, 'raw', 'ratings_Baby.csv')
    with open(path, 'a') as file:
        file.write(f'A0,{asin(1)},1.0,1400000000\n' * 3)
        file.write(f'A8,{asin(1)},1.0,1400000000\n' * 5)
    dataset = load(root)
    assert dataset.user_ids.tolist() == ['A0', 'A1', 'A2', 'A3']
    with open(osp.join(root, 'processed', processed(root)[0], 'Baby_2core.inter')) as file:
        rows = [line for line in file if line.startswith(f'A0\t{asin(1)}')]
    assert rows == [f'A0\t{asin(1)}\t1400000000\n']


def test_temporal_split_uses_timestamps(root):
    targets = load(root, split='temporal').targets('test')
    assert targets.item.tolist() == [3, 3, 3, 2]  # Rows are written in the order of items.


def test_without_images(root):
    os.remove(osp.join(root, 'raw', 'image_features_Baby.b'))
    assert load(root, image=False).modalities == []
    with pytest.raises(FileNotFoundError, match='image_features_Baby.b.*image=False'):
        load(root)


def test_text_from_file(root, tmp_path):
    path = str(tmp_path / 'text.npy')
    x = np.random.default_rng(0).standard_normal((4, 5)).astype(np.float32)
    np.save(path, x)
    dataset = load(root, text=path)
    assert dataset.modalities == ['image', 'text']
    assert np.array_equal(dataset[0]['item'].x_text, x)
    np.save(path, x + 1)  # Changed contents are not mistaken for the old ones.
    assert np.array_equal(load(root, text=path)[0]['item'].x_text, x + 1)
    np.save(path, x[:3])
    with pytest.raises(ValueError, match=r'text.npy.: expected 4 rows .* got 3'):
        load(root, text=path)
    assert len(processed(root)) == 2


def count_words(texts):
    return np.array([[len(text.split()), text.startswith('Bottle')] for text in texts])


def texts_of(folder):
    with open(osp.join(folder, 'items.tsv')) as file:
        return [line.rstrip('\n').split('\t')[2] for line in file][1:]


def test_text_by_name(root, monkeypatch):
    dataset = load(root, text='hashed')
    (name,) = processed(root)
    folder = osp.join(root, 'processed', name)
    expected = hashed_ngrams(texts_of(folder), 256)
    np.testing.assert_array_equal(dataset[0]['item'].x_text, expected)
    with open(osp.join(folder, 'text_feat.json')) as file:
        assert json.load(file) == {'encoder': 'hashed', 'dim': 256}
    name = f'{__name__}.count_words'
    assert load(root, text=name)[0]['item'].x_text.tolist() == [[7, 1], [3, 0], [2, 0], [0, 0]]
    with monkeypatch.context() as context:  # Processed files need no encoder.
        context.setattr(amazon, 'text_encoder', None)
        assert torch.equal(load(root, text='hashed')[0]['item'].x_text, dataset[0]['item'].x_text)
    with pytest.raises(ValueError, match="text: 'no_such.thing' cannot be imported"):
        load(root, text='no_such.thing')
    with pytest.raises(FileNotFoundError, match='none.npy'):
        load(root, text='none.npy')


def test_text_by_folder(root, tmp_path):
    folder = tiny_text_model(tmp_path)
    dataset = load(root, text=folder)
    (name,) = processed(root)
    texts = texts_of(osp.join(root, 'processed', name))
    expected = text_encoder(folder).encode(texts)
    np.testing.assert_allclose(dataset[0]['item'].x_text, expected, atol=1e-6)
    load(root, text=folder)
    assert len(processed(root)) == 1
    os.utime(osp.join(folder, 'modules.json'), ns=(1, 1))  # A changed model.
    load(root, text=folder)
    assert len(processed(root)) == 2


def test_text_without_encoder(root, monkeypatch):
    monkeypatch.setattr(amazon.importlib.util, 'find_spec', lambda name: None)
    with pytest.warns(UserWarning, match='out texts, because encoding them needs sentence-tr'):
        assert load(root, text='auto').modalities == ['image']


ENCODER_SOURCE = """
class SentenceTransformer:
    def __init__(self, name):
        if BROKEN:
            raise OSError('unreachable')
        assert name == 'all-MiniLM-L6-v2'
    def encode(self, texts, **kwargs):
        import numpy as np
        return np.array([[len(t.split()), t.startswith('Bottle')] for t in texts], np.float32)
"""


@pytest.mark.parametrize('broken', [False, True])
def test_text_with_encoder(root, tmp_path, monkeypatch, broken):
    source = tmp_path / 'lib' / 'sentence_transformers.py'
    source.parent.mkdir()
    source.write_text(ENCODER_SOURCE.replace('BROKEN', str(broken)))
    monkeypatch.syspath_prepend(str(source.parent))
    monkeypatch.delitem(amazon.importlib.sys.modules, 'sentence_transformers', raising=False)
    if broken:
        with pytest.warns(UserWarning, match="'all-MiniLM-L6-v2' cannot be loaded: unreachable"):
            assert load(root, text='auto').modalities == ['image']
    else:
        for _ in range(2):
            with warnings.catch_warnings():
                warnings.simplefilter('error', UserWarning)
                dataset = load(root, text='auto')
            assert dataset[0]['item'].x_text.tolist() == [[7, 1], [3, 0], [2, 0], [0, 0]]
    monkeypatch.delitem(amazon.importlib.sys.modules, 'sentence_transformers', raising=False)


def test_download(root, monkeypatch):
    raw = osp.join(root, 'raw')
    contents, urls = {}, []
    for name in os.listdir(raw):
        with open(osp.join(raw, name), 'rb') as file:
            contents[name] = file.read()
        os.remove(osp.join(raw, name))

    def download(url, path):
        urls.append(url)
        if url.endswith('.b') and len(urls) == 3:
            raise ConnectionResetError('reset')
        with open(path, 'wb') as file:
            file.write(contents[osp.basename(url)])

    monkeypatch.setattr(amazon, 'download', download)
    with pytest.raises(FileNotFoundError, match='reset'):
        load(root)
    assert sorted(os.listdir(raw)) == ['meta_Baby.json.gz', 'ratings_Baby.csv']
    assert load(root).num_items == 4
    base = 'https://snap.stanford.edu/data/amazon/productGraph'
    assert urls == [
        f'{base}/categoryFiles/ratings_Baby.csv',
        f'{base}/categoryFiles/meta_Baby.json.gz',
        f'{base}/image_features/categoryFiles/image_features_Baby.b',
        f'{base}/image_features/categoryFiles/image_features_Baby.b',
    ]
    assert sorted(os.listdir(raw)) == sorted(contents)


def test_missing_files_are_all_named(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        AmazonReviews(str(tmp_path), 'Musical Instruments', text=None)
    message = str(error.value)
    for name in (
        'ratings_Musical_Instruments.csv',
        'reviews_Musical_Instruments_5.json.gz',
        'reviews_Musical_Instruments.json.gz',
        'meta_Musical_Instruments.json.gz',
        'image_features_Musical_Instruments.b',
        osp.join(str(tmp_path), 'raw'),
    ):
        assert name in message
    assert processed(str(tmp_path)) == [] and not (tmp_path / 'raw').exists()


@pytest.mark.parametrize(
    ('name', 'expected'),
    [
        ('Baby', 'Baby'),
        ('baby', 'Baby'),
        ('Sports', 'Sports_and_Outdoors'),
        ('Clothing, Shoes & Jewelry', 'Clothing_Shoes_and_Jewelry'),
        ('Musical Instruments', 'Musical_Instruments'),
        ('Office_Products', 'Office_Products'),
        ('electronics', 'Electronics'),
    ],
)
def test_categories(name, expected):
    assert find_category(name) == expected


def test_unknown_category(tmp_path):
    with pytest.raises(ValueError, match="Unknown category 'Babi'; did you mean 'Baby'?"):
        AmazonReviews(str(tmp_path), 'Babi')
    with pytest.raises(ValueError, match="Unknown category 'xyz'; expected one of"):
        find_category('xyz')


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        ({'split': 'column'}, "Unknown split 'column'"),
        ({'core': 0}, "'core' to be at least 1, got 0"),
        ({'core': 50}, 'ratings_Baby.csv.: no interaction is left .* at least 50'),
    ],
)
def test_bad_arguments(root, kwargs, message):
    with pytest.raises(ValueError, match=message):
        load(root, **kwargs)
    assert processed(root) == []


def append(path, content, mode='ab'):
    with (gzip.open if path.endswith('.gz') else open)(path, mode) as file:
        file.write(content)


@pytest.mark.parametrize(
    ('content', 'shown'),
    [
        (b'A1,B000000000,5.0\n', 'A1,B000000000,5.0'),
        (b'\nA1,B000000000,5.0,soon\n', 'A1,B000000000,5.0,soon'),
        (b',B000000000,5.0,1\n', ',B000000000,5.0,1'),
        (b'A\t1,B000000000,5.0,1\n', 'A\t1,B000000000,5.0,1'),
        (b'\xff,B000000000,5.0,1\n', '\ufffd,B000000000,5.0,1'),
    ],
)
def test_malformed_ratings(root, content, shown):
    append(osp.join(root, 'raw', 'ratings_Baby.csv'), content)
    line = 16 if content.startswith(b'\n') else 15
    with pytest.raises(ValueError) as error:
        load(root)
    assert f"ratings_Baby.csv', line {line}: expected user,item,rating,timestamp" in str(
        error.value
    )
    assert f"got '{shown}'" in str(error.value)


@pytest.mark.parametrize(
    'content',
    [
        b'{"reviewerID": "A1", "asin": \n',
        b'{"reviewerID": "A1", "asin": "B000000000"}\n',
        b'["reviewerID"]\n',
        b'{"reviewerID": null, "asin": "B000000000", "unixReviewTime": 1}\n',
        b'{"reviewerID": "A1", "asin": "B000000000", "unixReviewTime": null}\n',
        b'{"reviewerID": "A1", "asin": "\xff", "unixReviewTime": 1}\n',
    ],
)
def test_malformed_reviews(root, content):
    raw = osp.join(root, 'raw')
    os.remove(osp.join(raw, 'ratings_Baby.csv'))
    write_reviews(raw)
    append(osp.join(raw, 'reviews_Baby.json.gz'), content)
    with pytest.raises(ValueError, match="reviews_Baby.json.gz', line 15: expected"):
        load(root)


def test_malformed_metadata(root):
    # Neither Python nor JSON; a function call is not evaluated.
    path = osp.join(root, 'raw', 'meta_Baby.json.gz')
    append(path, b"{'asin': 'B000000003', 'title': exit()}\n")
    with pytest.raises(ValueError, match="meta_Baby.json.gz', line 5: expected a JSON object"):
        load(root)
    assert processed(root) == []  # Nor a half of the result.


def test_empty_ratings(root):
    write_ratings(osp.join(root, 'raw'), [])
    with pytest.raises(ValueError, match='ratings_Baby.csv.* is empty'):
        load(root)


def test_truncated_gzip(root):
    path = osp.join(root, 'raw', 'meta_Baby.json.gz')
    os.truncate(path, osp.getsize(path) - 20)
    with pytest.raises(ValueError, match='meta_Baby.json.gz. is truncated or damaged'):
        load(root)
    assert processed(root) == []


def test_truncated_images(root):
    path = osp.join(root, 'raw', 'image_features_Baby.b')
    os.truncate(path, 3 * RECORD - 1)
    with pytest.raises(
        ValueError, match=f'truncated: expected a multiple of {RECORD} .* got {3 * RECORD - 1}'
    ):
        load(root)
    assert processed(root) == []


def test_images_of_other_items_only(root):
    write_images(osp.join(root, 'raw'), items=(7, 9))
    with pytest.raises(ValueError, match='expected an image of at least one of 4 items'):
        load(root)


def test_image_with_nan(root):
    path = osp.join(root, 'raw', 'image_features_Baby.b')
    append(path, asin(1).encode() + np.full(4096, np.nan, '<f4').tobytes())
    with pytest.raises(ValueError, match=f"image of '{asin(1)}' holds NaN"):
        load(root)


def test_repeated_images_and_blocks(root, tmp_path):
    raw = osp.join(root, 'raw')
    write_images(raw, items=(2, 0, 3))
    append(osp.join(raw, 'image_features_Baby.b'), (asin(2).encode() + vector(8).tobytes()) * 2)
    asins, results = np.array([asin(i) for i in range(4)]), []
    for block in (1, 2, 256):
        amazon_raw.write_images(
            osp.join(raw, 'image_features_Baby.b'), asins, str(tmp_path), block=block
        )
        results.append(np.load(tmp_path / 'image_feat.npy'))
    assert np.array_equal(results[0][2], vector(2))  # The first of its product.
    mean = np.mean([vector(0), vector(2), vector(3)], axis=0, dtype=np.float64)
    for result in results:
        assert np.allclose(result, results[0], atol=1e-7) and np.allclose(result[1], mean)


def test_core_mask_is_the_naive_fixed_point():
    rng = np.random.default_rng(0)
    for core in (1, 2, 3, 4):
        user, item = rng.integers(20, size=70), rng.integers(15, size=70)
        rows = set(range(70))
        while True:
            bad = {
                r
                for r in rows
                if sum(user[s] == user[r] for s in rows) < core
                or sum(item[s] == item[r] for s in rows) < core
            }
            if not bad:
                break
            rows -= bad
        assert np.flatnonzero(core_mask(user, item, core)).tolist() == sorted(rows)
    empty = np.zeros(0, np.int64)
    assert core_mask(empty, empty, 2).shape == (0,)


def test_sentence():
    assert amazon_raw.sentence({}).strip() == ''
    entry = {'title': None, 'brand': 'X\r\nY', 'categories': [], 'description': float('nan')}
    assert amazon_raw.sentence(entry).split() == ['X', 'Y']
    assert amazon_raw.sentence({'title': 'a', 'brand': 'b', 'categories': [['c', 'd'], ['e']]})[
        :7
    ] == ('a b c d')
    assert amazon_raw.clean('a\ud83db\0c') == 'a?b c'


def test_products_first(root):
    r"""The ratings of the release of 2018 name the product before the user."""
    expected = load(root, image=False).fingerprint
    path = osp.join(root, 'raw', 'ratings_Baby.csv')
    with open(path, 'w') as file:
        for row, (user, item) in enumerate(PAIRS):
            file.write(f'{asin(item)},A{user},5.0,{1400000000 + row}\n')
    with pytest.warns(UserWarning, match="ratings_Baby.csv': the first column .* 3 of 4 are in"):
        dataset = load(root, image=False, force_reload=True)
    assert dataset.fingerprint == expected
    assert dataset.item_ids.tolist() == [asin(i) for i in range(4)]


def test_metadata_of_other_products(root):
    path = osp.join(root, 'raw', 'meta_Baby.json.gz')
    with gzip.open(path, 'wt') as file:
        file.write(json.dumps({'asin': 'B123456789', 'title': 'x'}) + '\n')
    with pytest.raises(ValueError, match="metadata of the 4 products .* 'B000000000', found none"):
        load(root)
    assert processed(root) == []
    with gzip.open(path, 'at') as file:
        file.write(json.dumps({'asin': asin(2), 'title': 'x'}) + '\n')
    with pytest.warns(UserWarning, match='only 1 of 4 products are in the metadata'):
        load(root)


def write_later(raw, name, lines):
    opened = gzip.open if name.endswith('.gz') else open
    with opened(osp.join(raw, name), 'wt') as file:
        file.writelines(line + '\n' for line in lines)


@pytest.mark.parametrize(
    'kind', ['Video_Games.jsonl.gz', 'Video_Games.jsonl', 'Video_Games.csv.gz']
)
def test_release_of_2023(tmp_path, kind):
    (tmp_path / 'raw').mkdir()
    times = [1400000000000 + row for row in range(len(PAIRS))]
    if '.csv' in kind:
        lines = ['user_id,parent_asin,rating,timestamp,history']
        lines += [f'A{u},{asin(i)},5.0,{t},x y' for (u, i), t in zip(PAIRS, times)]
    else:
        keys = ('user_id', 'parent_asin', 'timestamp', 'asin', 'rating')
        lines = [
            json.dumps(dict(zip(keys, (f'A{u}', asin(i), t, 'B999999999', 5))))
            for (u, i), t in zip(PAIRS, times)
        ]
    write_later(tmp_path / 'raw', kind, lines)
    entry = {'title': 't', 'store': 's', 'categories': ['Toys', 'Cards'], 'features': ['f', 'g']}
    entry |= {'description': ['d', 'e'], 'details': {'asin': 'B111111111'}}
    meta = [
        json.dumps({'main_category': 'Games', **entry, 'parent_asin': asin(i)}) for i in range(4)
    ]
    write_later(tmp_path / 'raw', 'meta_Video_Games.jsonl.gz', meta)
    dataset = load(tmp_path, category='video games', image=False, split='temporal')
    assert dataset.num_users == 4 and dataset.item_ids.tolist() == [asin(i) for i in range(4)]
    folder = osp.join(tmp_path, 'processed', processed(tmp_path)[0])
    with open(osp.join(folder, 'items.tsv')) as file:
        assert file.read().splitlines()[1] == f'{asin(0)}\tt\tt s Toys Cards d e f g'


def test_categories_of_later_releases(tmp_path):
    assert find_category('Baby Products') == 'Baby_Products'
    with pytest.raises(
        FileNotFoundError, match=r"holds none of \['Appliances.csv', .*2014 release"
    ):
        load(tmp_path, category='Appliances')
    (tmp_path / 'raw').mkdir()
    write_ratings(tmp_path / 'raw', category='')
    os.rename(tmp_path / 'raw' / 'ratings_.csv', tmp_path / 'raw' / 'Appliances.csv')
    write_meta(tmp_path / 'raw', category='Appliances')
    with pytest.raises(FileNotFoundError, match="'Appliances' is not in .* expected image=False"):
        load(tmp_path, category='Appliances')
    assert load(tmp_path, category='Appliances', image=False).num_items == 4


def test_texts_of_later_releases():
    entry = {'title': 'a', 'brand': 'b', 'category': ['c', 'd'], 'description': ['e', 'f', 3, None]}
    assert amazon_raw.sentence(entry).split() == list('abcdef')
    assert amazon_raw.sentence({**entry, 'feature': ['g\n h', 'i']}).split() == list('abcdefghi')
    assert amazon_raw.sentence({'category': [], 'description': [], 'feature': []}).strip() == ''


def test_pre_transform_is_kept(root):
    class Count(BaseTransform):
        calls = 0

        def forward(self, data):
            type(self).calls += 1
            data['item'].count = torch.ones(4)
            return data

    for split in ('random', 'random', 'leave_one_out'):
        dataset = load(
            root, pre_transform=Count(), transform=lambda data: data['item'].count, split=split
        )
        assert dataset[0].tolist() == [1] * 4
        assert dataset.fingerprint == load(root, split=split).fingerprint
    assert Count.calls == 2
