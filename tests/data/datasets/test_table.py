from __future__ import annotations

import os.path as osp
import warnings

import numpy as np
import pytest
import torch

from motor_geo.data.datasets.split import cold_items
from motor_geo.data.datasets.table import TableDataset
from motor_geo.data.transforms.add_items import add_items
from motor_geo.typing import RATES

REAL = osp.join(osp.dirname(__file__), '..', '..', '..', '..', 'shared', 'data')
ROWS = [(0, 0, 0), (0, 1, 0), (0, 2, 1), (1, 1, 0), (1, 0, 2), (2, 2, 0), (2, 3, 2)]


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        yield


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / 'shop'
    path.mkdir()
    write(path, ROWS)
    np.save(path / 'text_feat.npy', np.arange(8, dtype=np.float32).reshape(4, 2))
    np.save(path / 'image_feat.npy', np.arange(12, dtype=np.float16).reshape(4, 3))
    return path


def write(folder, rows, header='userID\titemID\tx_label', file='shop.inter'):
    lines = ['\t'.join(str(value) for value in row) for row in rows]
    (folder / file).write_text('\n'.join([header, *lines]) + '\n')


def fails(folder, message, error=ValueError, **kwargs):
    with pytest.raises(error, match=message):
        TableDataset(str(folder), **kwargs)


def test_labels_and_features(folder):
    dataset = TableDataset(str(folder))
    assert str(dataset) == (
        'TableDataset(shop, users=3, items=4, train=4, val=1, test=2, modalities=[image, text])'
    )
    assert dataset[0][RATES].edge_index.tolist() == [[0, 0, 1, 2], [0, 1, 1, 2]]
    assert dataset.targets('val').item.tolist() == [2]
    assert dataset.targets('test').item.tolist() == [0, 3]
    assert dataset[0]['item'].x_image.dtype == torch.float
    assert dataset[0]['item'].x_image[3].tolist() == [9, 10, 11]
    assert dataset.item_ids.tolist() == [0, 1, 2, 3]


def test_paths_and_formats(folder):
    expected = TableDataset(str(folder)).fingerprint
    assert TableDataset(str(folder) + '/').fingerprint == expected
    assert TableDataset(folder / 'shop.inter').fingerprint == expected
    write(folder, [(0, 0)], file='other.inter')  # The folder's name decides.
    assert TableDataset(folder).fingerprint == expected
    (folder / 'shop.inter').rename(folder / 'third.inter')
    fails(folder, r"several files of interactions, \['other.inter', 'third.inter'\]")
    (folder / 'other.inter').unlink()
    assert TableDataset(folder).fingerprint == expected
    text = (folder / 'third.inter').read_text().replace('\t', ',')
    (folder / 'third.inter').unlink()
    fails(folder, 'holds no interactions; expected .*shop.inter', FileNotFoundError)
    (folder / 'any.csv').write_text(text)
    assert TableDataset(folder).fingerprint == expected
    fails(folder / 'nowhere', "nowhere' does not exist", FileNotFoundError)


def test_parquet(folder):
    pa = pytest.importorskip('pyarrow')
    pq = pytest.importorskip('pyarrow.parquet')
    expected = TableDataset(folder).fingerprint
    (folder / 'shop.inter').unlink()
    user, item, label = (list(values) for values in zip(*ROWS))
    pq.write_table(
        pa.table({'x_label': label, 'itemID': item, 'userID': user}), folder / 'shop.parquet'
    )
    assert TableDataset(folder).fingerprint == expected
    label[3] = 7
    pq.write_table(
        pa.table({'x_label': label, 'itemID': item, 'userID': user}), folder / 'shop.parquet'
    )
    fails(folder, "shop.parquet', row 3: expected 0 .* got 7")


def test_mmap(folder):
    dataset = TableDataset(folder, mmap=True)
    assert dataset.fingerprint == TableDataset(folder).fingerprint
    assert dataset[0]['item'].x_text.tolist() == [[0, 1], [2, 3], [4, 5], [6, 7]]
    # The tensor is a view of the file.
    array = np.load(folder / 'text_feat.npy', mmap_mode='r+')
    array[0, 0] = 42
    array.flush()
    assert dataset[0]['item'].x_text[0, 0] == 42


def test_half_precision_stays_on_disk(folder):
    x = (np.arange(8).reshape(4, 2) / 3).astype(np.float16)
    np.save(folder / 'text_feat.npy', x)
    dataset, loaded = TableDataset(folder, mmap=True), TableDataset(folder)
    mapped = dataset[0]['item'].x_text
    assert mapped.dtype == torch.half and loaded[0]['item'].x_text.dtype == torch.float
    assert torch.equal(mapped.float(), loaded[0]['item'].x_text)
    assert dataset.fingerprint == loaded.fingerprint
    new = {'text': torch.full((1, 2), 0.1), 'image': torch.zeros(1, 3)}
    more = add_items(dataset[0], new)
    assert more['item'].x_text[4].tolist() == torch.full((2,), 0.1).tolist()
    array = np.load(folder / 'text_feat.npy', mmap_mode='r+')
    array[0, 0] = 42
    array.flush()
    assert dataset[0]['item'].x_text[0, 0] == 42
    np.save(folder / 'text_mask.npy', np.array([True, True, True, False]))
    filled = TableDataset(folder, mmap=True)[0]['item'].x_text
    assert torch.equal(filled, TableDataset(folder)[0]['item'].x_text)


def test_masks(folder):
    np.save(folder / 'text_mask.npy', np.array([True, True, True, False]))
    item = TableDataset(folder)[0]['item']
    assert item.x_text[3].tolist() == [2, 3]
    assert item.mask_text.tolist() == [True, True, True, False]
    assert TableDataset(folder, mmap=True)[0]['item'].x_text[3].tolist() == [2, 3]
    np.save(folder / 'text_mask.npy', np.ones(4))
    fails(folder, "text_mask.npy': expected 4 booleans")
    np.save(folder / 'text_mask.npy', np.array([None, 1]), allow_pickle=True)
    fails(folder, "text_mask.npy' cannot be read as booleans")


def test_more_feature_rows_than_items(folder):
    for name in ('text', 'image'):
        np.save(folder / f'{name}_feat.npy', np.ones((6, 2), np.float32))
    dataset = TableDataset(folder)
    assert dataset.num_items == 6 and dataset[0]['item'].num_nodes == 6


def test_items_without_interactions(folder):
    write(folder, [(0, 0, 0), (0, 3, 1), (1, 2, 0), (1, 0, 2)])  # No row has item 1.
    dataset = TableDataset(folder)
    assert dataset.num_items == 4 and dataset[0][RATES].edge_index.tolist() == [[0, 1], [0, 2]]
    assert dataset.targets('val').item.tolist() == [3]


def test_text_ids(folder):
    rows = [(f'U{u}', f'i-{3 - i}', label) for u, i, label in ROWS]
    write(folder, rows)
    fails(folder, "line 2: 'itemID' is the text 'i-3', so its row .* a file 'items.tsv'")
    write(folder, [*ROWS, (0, 'B7', 0), (0, '007', 0)])
    fails(folder, "line 9: 'itemID' is the text 'B7', so its row")
    write(folder, rows)
    (folder / 'items.tsv').write_text('title\titemID\n"x\ti-3\ny\ti-2\nz\ti-1\nw\ti-0\n')
    dataset = TableDataset(folder)
    (folder / 'items.tsv').unlink()
    write(folder, ROWS)
    assert dataset.fingerprint == TableDataset(folder).fingerprint
    assert dataset.user_ids.tolist() == ['U0', 'U1', 'U2']
    assert dataset.item_ids.tolist() == ['i-3', 'i-2', 'i-1', 'i-0']
    # Without features they are numbered in sorted order.
    for name in ('text', 'image'):
        (folder / f'{name}_feat.npy').unlink()
    write(folder, rows)
    dataset = TableDataset(folder)
    assert dataset.item_ids.tolist() == ['i-0', 'i-1', 'i-2', 'i-3']
    assert dataset[0][RATES].edge_index.tolist() == [[0, 0, 1, 2], [2, 3, 2, 1]]


def test_catalog_of_other_integers(folder):
    write(folder, [(u, 100 * (4 - i), label) for u, i, label in ROWS])
    (folder / 'items.csv').write_text('itemID,title\n400,"a, b"\n300,b\n200,c\n100,d\n')
    dataset = TableDataset(folder)
    assert dataset.item_ids.tolist() == [400, 300, 200, 100]
    assert dataset[0][RATES].edge_index.tolist() == [[0, 0, 1, 2], [0, 1, 1, 2]]
    # Integers in one file, and text in the other.
    (folder / 'items.csv').write_text('itemID\n400\n300\nB0\n200\n100\n')
    fails(folder, "feat.npy': expected 5 rows .* got 4")
    for name in ('text', 'image'):
        (folder / f'{name}_feat.npy').unlink()
    dataset = TableDataset(folder)
    assert dataset.item_ids.tolist() == ['400', '300', 'B0', '200', '100']
    assert dataset[0][RATES].edge_index.tolist() == [[0, 0, 1, 2], [0, 1, 1, 3]]
    (folder / 'items.csv').write_text('itemID\n400\n300\n100\n')
    fails(folder, "line 4: 'itemID' is '200', which is not among the 3 items of '.*items.csv'")
    (folder / 'items.csv').write_text('itemID\n400\n300\n200\n400\n100\n')
    fails(folder, "items.csv', line 5: expected each 'itemID' once, got '400' again")


def test_gaps(folder):
    write(folder, [(3 * u, i, label) for u, i, label in ROWS])
    fails(folder, r"shop.inter', line 5: 'userID' is 3, but no row has the id 1; .*reindex=True")
    dataset = TableDataset(folder, reindex=True)
    assert dataset.user_ids.tolist() == [0, 3, 6] and dataset.num_users == 3
    write(folder, [(u + 1, i, label) for u, i, label in ROWS])
    fails(folder, "line 2: 'userID' is 1, but no row has the id 0")
    write(folder, [(u - 1, i, label) for u, i, label in ROWS])
    fails(folder, "line 2: 'userID' is -1; expected ids from 0")
    # Items are rows of features: gaps are items without interactions.
    write(folder, [(u, i, label) for u, i, label in ROWS if i != 1] + [(1, 3, 0)])
    assert TableDataset(folder).num_items == 4
    for name in ('text', 'image'):
        (folder / f'{name}_feat.npy').unlink()
    fails(folder, "'itemID' is 2, but no row has the id 1")
    assert TableDataset(folder, reindex=True).item_ids.tolist() == [0, 2, 3]


def test_few_missing_ids_stay(tmp_path):
    rows = [(u, u % 7, 0) for u in range(3000) if u != 1234] + [(0, 1, 1), (0, 2, 2)]
    write(tmp_path, rows)
    with pytest.warns(UserWarning, match="1 of the ids 'userID' from 0 to 2999 have no row"):
        dataset = TableDataset(tmp_path)
    assert dataset.num_users == 3000
    assert TableDataset(tmp_path, reindex=True).num_users == 2999


def test_bad_features(folder):
    def check(array, message, name='text'):
        np.save(folder / f'{name}_feat.npy', array, allow_pickle=True)
        fails(folder, message)

    check(np.ones((5, 2)), r"text_feat.npy': expected 4 rows as in 'image_feat.npy', got 5")
    check(np.ones(4), "text_feat.npy': expected a numeric matrix")
    check(np.ones((4, 2, 2)), "text_feat.npy': expected a numeric matrix")
    check(np.array([[None]] * 4), "text_feat.npy' cannot be read as a numeric")
    x = np.ones((4, 2))
    x[2, 1] = np.nan
    check(x, "text_feat.npy': row 2 holds NaN")
    x[2, 1] = -np.inf
    check(x, "text_feat.npy': row 2 holds NaN or infinite")
    (folder / 'image_feat.npy').unlink()
    check(
        np.ones((3, 2)),
        "shop.inter', line 8: 'itemID' is 3, but .*text_feat.npy' only has rows .* 2",
    )
    (folder / 'text_feat.npy').write_bytes(b'nonsense')
    fails(folder, "text_feat.npy' cannot be read")


@pytest.mark.parametrize('label, found', [('3', 'got 3'), ('-1', 'got -1')])
def test_bad_label(folder, label, found):
    write(folder, [*ROWS, (0, 3, label)])
    fails(folder, f"shop.inter', line 9: expected 0 .*column 'x_label', {found}")


def test_bad_columns(folder):
    write(folder, ROWS, 'userID\tthing\tx_label')
    fails(
        folder,
        r"expected a column 'itemID', found the columns \['userID', 'thing', 'x_label'\]; .*"
        'item=NAME .--data.item. selects another one',
    )
    write(folder, ROWS, 'userID\titemID\tlabel')
    fails(folder, "expected a column 'x_label', found", split='column')
    fails(folder, "expected a column 'timestamp', found", split='temporal')
    fails(folder, "Unknown split 'time'; expected 'column' or", split='time')
    write(folder, [*ROWS, (0, 3, 'train')])
    fails(folder, "line 9: expected an integer in column 'x_label', found 'train'")
    write(folder, [*ROWS, (0, '', 0)])
    fails(folder, "line 9: expected an id in column 'itemID', found nothing")
    write(folder, [*ROWS, (0, 1)])
    fails(folder, 'line 9: expected 3 fields')
    (folder / 'shop.inter').write_text('')
    fails(folder, "shop.inter' is empty")


def test_empty_split(folder):
    write(folder, [row for row in ROWS if row[2] != 2])
    fails(folder, "'shop': split 'test' has no interactions")
    write(folder, [row for row in ROWS if row[2] != 0])
    with pytest.warns(UserWarning, match='dropped'), pytest.raises(ValueError, match="'train'"):
        TableDataset(folder)


def test_no_validation(folder):
    write(folder, [row for row in ROWS if row[2] != 1])
    with pytest.warns(UserWarning, match="'shop': no interaction is for validation") as caught:
        dataset = TableDataset(folder)
    assert len(caught) == 1
    assert len(dataset.targets('val')) == 0 and dataset.targets('val').item.numel() == 0
    assert dataset.targets('test').item.tolist() == [0, 3]
    assert dataset.fingerprint and dataset.summary()['val'] == 0


@pytest.mark.parametrize('split', ['random', 'temporal', 'leave_one_out'])
def test_what_a_split_needs(tmp_path, split):
    # Two purchases each, of items that others bought, too.
    rows = [(u, i, 10 * u + i) for u in range(20) for i in (u % 5, 5 + u % 3)]
    write(tmp_path, rows, 'userID\titemID\twhen')
    fails(
        tmp_path,
        f"the split '{split}' leaves no interaction for val: it needs users with 3 interactions"
        '.* the most active user has 2',
        split=split,
        time='when',
    )


def test_duplicates(folder):
    expected = TableDataset(folder).fingerprint
    write(folder, [*ROWS, (0, 1, 0), (1, 1, 2)])
    with pytest.warns(UserWarning, match="removed 2 duplicate interactions .*shop.inter', line 9"):
        assert TableDataset(folder).fingerprint == expected


def test_split_anew(tmp_path):
    rng = np.random.default_rng(0)
    user, item = np.nonzero(rng.random((30, 20)) < 0.5)
    order = rng.permutation(len(user))
    rows = [(u, i, t) for t, (u, i) in enumerate(zip(user[order], item[order]))]
    write(tmp_path, rows, 'userID\titemID\ttimestamp')
    with pytest.warns(UserWarning, match=r"holds times \('timestamp'\).* is random .*'temporal'"):
        default = TableDataset(tmp_path)
    assert default.fingerprint == TableDataset(tmp_path, split='random', seed=0).fingerprint
    assert default.fingerprint != TableDataset(tmp_path, split='random', seed=1).fingerprint
    assert default.summary()['items_without_training'] == 0

    dataset = TableDataset(tmp_path, split='leave_one_out')
    last = {u: i for u, i, _ in rows}
    test = dataset.targets('test')
    assert dict(zip(test.user.tolist(), test.item.tolist())) == last
    assert TableDataset(tmp_path, split='temporal').targets('val').candidates is None

    assert default.first_time is None
    user, item = dataset.data['user', 'rates', 'item'].edge_index.tolist()
    times = {(u, i): t for u, i, t in rows}
    first = [
        min((times[u, i] for u, i in zip(user, item) if i == j), default=-1) for j in range(20)
    ]
    assert dataset.first_time.nan_to_num(-1).tolist() == first
    cold = TableDataset(tmp_path, split='leave_one_out', cold_share=0.2)
    seen = cold.data['user', 'rates', 'item'].edge_index[1].bincount(minlength=20) > 0
    assert cold.first_time.isnan().tolist() == (~seen).tolist() and not seen.all()

    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        dataset = TableDataset(tmp_path, split='cold_item', seed=2)
    val, test = cold_items(item, 2)
    assert dataset.targets('val').candidates.tolist() == val.tolist()
    assert dataset.targets('test').candidates.tolist() == test.tolist()
    assert set(dataset.targets('test').item.tolist()) == set(test.tolist())
    assert not set(dataset[0][RATES].edge_index[1].tolist()) & {*val.tolist(), *test.tolist()}

    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        dataset = TableDataset(tmp_path, split='global_time')
    late = {(u, i) for u, i, t in rows if t >= len(rows) * 9 // 10}
    test = dataset.targets('test')
    assert {
        (int(u), int(i)) for u, i in zip(test.user.repeat_interleave(test.count), test.item)
    } == (late)

    # Of a repeated pair the earliest interaction counts.
    write(tmp_path, [*rows, (*rows[0][:2], len(rows))], 'userID\titemID\ttimestamp')
    with pytest.warns(UserWarning, match='removed 1 duplicate interactions before the split'):
        again = TableDataset(tmp_path, split='leave_one_out')
    test = again.targets('test')
    assert dict(zip(test.user.tolist(), test.item.tolist())) == last


@pytest.mark.parametrize(
    'name, users, items, train, val, test, modalities',
    [
        ('tiktok', 9308, 6710, 59541, 3046, 6125, ['audio', 'image']),  # 10 rows are dropped.
        ('lastfm', 1858, 1425, 44327, 4799, 7219, ['audio', 'text']),
        ('ml1m', 6040, 3260, 721069, 80149, 197321, ['image', 'text']),
        ('sports', 35598, 18357, 218409, 40029, 37899, ['text']),
        ('baby', 19445, 7050, 118546, 21680, 20556, []),  # 4 duplicates between splits.
    ],
)
@pytest.mark.skipif(not osp.isdir(REAL), reason='needs the data sets')
@pytest.mark.filterwarnings('ignore')
def test_real_data(name, users, items, train, val, test, modalities):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        dataset = TableDataset(osp.join(REAL, name))
    summary = dataset.summary()
    assert [summary[key] for key in ('users', 'items', 'train', 'val', 'test')] == [
        users,
        items,
        train,
        val,
        test,
    ]
    assert dataset.modalities == modalities
    edge_index = dataset[0][RATES].edge_index
    assert (edge_index[0] * items + edge_index[1]).diff().min() > 0


def test_some_modalities(folder):
    dataset = TableDataset(str(folder), modalities=['text'])
    assert dataset.modalities == ['text']
    assert dataset.num_items == 4
    assert TableDataset(str(folder), modalities=[]).modalities == []
    fails(
        folder,
        r"no 'txt_feat.npy'; found .*'image', 'text'",
        FileNotFoundError,
        modalities=['txt'],
    )


def test_fewer_training_interactions(folder):
    full = TableDataset(str(folder))
    with pytest.warns(UserWarning, match='without a training interaction'):
        half = TableDataset(str(folder), train_share=0.5)
    pairs = [set(map(tuple, d[0][RATES].edge_index.t().tolist())) for d in (full, half)]
    assert len(pairs[1]) == 2 and pairs[1] < pairs[0]
    assert half.num_users == 3 and half.num_items == 4
    assert half.fingerprint != full.fingerprint
    for share in (0, 1.5):
        fails(folder, 'train_share', train_share=share)


def test_items_without_a_modality(folder):
    full = TableDataset(str(folder))[0]['item']
    data = TableDataset(str(folder), missing_share=0.5)[0]['item']
    lost = 0
    for name in ('text', 'image'):
        mask, x, old = data[f'mask_{name}'], data[f'x_{name}'], full[f'x_{name}']
        torch.testing.assert_close(x[mask], old[mask])
        torch.testing.assert_close(x[~mask], old[mask].mean(0).expand(int((~mask).sum()), -1))
        lost += int((~mask).sum())
    assert lost == 2
    fails(folder, 'missing_share', missing_share=-0.1)


def test_names_of_columns(folder):
    expected = TableDataset(folder).fingerprint
    rows = [(label, i, u) for u, i, label in ROWS]
    write(folder, rows, 'part\tsku_code\twho')
    dataset = TableDataset(folder, user='who', item='sku_code', label='part')
    assert dataset.fingerprint == expected
    fails(folder, "expected a column 'whom', found", user='whom')
    fails(folder, "column 'who' cannot be both 'user' and 'item'", user='who', item='who')
    # A type behind the name is no other name; usual names are announced.
    write(folder, ROWS, 'userID:token\titemID:token\tx_label:float')
    assert TableDataset(folder).fingerprint == expected
    write(folder, ROWS, 'user_id:token\tmovieId\tx_label')
    with pytest.warns(UserWarning, match="'user_id:token' as 'user' and 'movieId' as 'item'"):
        assert TableDataset(folder).fingerprint == expected
    assert TableDataset(folder, user='user_id', item='movieId').fingerprint == expected
    write(folder, [(*row, 0) for row in ROWS], 'user_id\tasin\tx_label\tparent_asin')
    fails(folder, r"columns \['asin', 'parent_asin'\] could each be 'item'; item=NAME")


def test_column_of_items_in_their_list(folder):
    write(folder, [(u, f's{i}', label) for u, i, label in ROWS], 'userID\tsku\tx_label')
    (folder / 'items.tsv').write_text('sku\tprice\ns3\t1\ns2\t1\ns1\t1\ns0\t1\n')
    assert TableDataset(folder, item='sku').item_ids.tolist() == ['s3', 's2', 's1', 's0']
    (folder / 'items.tsv').write_text('itemID\ns3\ns2\ns1\ns0\n')
    assert TableDataset(folder, item='sku').item_ids.tolist() == ['s3', 's2', 's1', 's0']


def test_what_exists(folder):
    # Item 3 loses its rows, item 4 has neither rows nor features, item 5 has features.
    write(folder, [row for row in ROWS if row[1] != 3])
    for name, width in (('text', 2), ('image', 3)):
        x = np.ones((6, width), np.float32)
        x[[3, 4]] = 0
        np.save(folder / f'{name}_feat.npy', x)
    dataset = TableDataset(folder)
    assert dataset.known_items.tolist() == [True, True, True, False, False, True]
    assert dataset.known_users.tolist() == [True, True, True]
    np.save(folder / 'text_mask.npy', np.arange(6) != 5)
    np.save(folder / 'image_mask.npy', np.arange(6) != 5)
    assert TableDataset(folder).known_items.tolist() == [True] * 3 + [False] * 3
    (folder / 'items.tsv').write_text('itemID\n' + ''.join(f'{i}\n' for i in range(6)))
    assert TableDataset(folder).known_items.all()


def test_users_that_are_gaps(tmp_path):
    rows = (
        [(u, u % 7, 0) for u in range(3000) if u != 1234]
        + [(0, 1, 1), (0, 2, 2), (9, 5, 2)]
        + [(8, u, 2) for u in range(2, 7)]
    )
    write(tmp_path, rows)
    with pytest.warns(UserWarning, match='have no row'):
        dataset = TableDataset(tmp_path)
    assert dataset.known_users.logical_not().nonzero().ravel().tolist() == [1234]
    with pytest.warns(UserWarning):  # Users without training are not unknown.
        thin = TableDataset(tmp_path, train_share=0.8, seed=2)
    assert thin.known_users.equal(dataset.known_users)


def test_transforms(folder):
    calls = []

    def mark(data):
        calls.append(data)
        data['item'].mark = torch.ones(4)
        return data

    plain = TableDataset(folder)
    assert plain[0] is plain[0]
    dataset = TableDataset(folder, transform=mark)
    assert 'mark' in dataset[0]['item'] and 'mark' in dataset[-1]['item'] and len(calls) == 2
    assert 'x_text' in dataset.data['item']
    dataset = TableDataset(folder, pre_transform=mark)
    assert len(calls) == 3 and 'mark' in dataset[0]['item'] and len(calls) == 3
    assert dataset.fingerprint == plain.fingerprint

    def other(data):
        data['item'].x_text = torch.zeros(4, 2)
        return data

    assert TableDataset(folder, pre_transform=other).fingerprint == plain.fingerprint
