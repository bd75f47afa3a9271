from __future__ import annotations

import gzip
import json
import warnings

import numpy as np
import pytest

from motor_geo.data.datasets.table import TableDataset
from motor_geo.typing import RATES

TRAIN = [(0, 0), (0, 1), (1, 1), (2, 2)]
VAL = [(0, 2), (1, 3)]
TEST = [(1, 0), (2, 3)]


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        yield


def lines(rows, header='userID\titemID'):
    return '\n'.join([header, *('\t'.join(map(str, row)) for row in rows)]) + '\n'


@pytest.fixture
def expected(tmp_path):
    folder = tmp_path / 'expected'
    folder.mkdir()
    rows = [(*pair, label) for label, part in enumerate((TRAIN, VAL, TEST)) for pair in part]
    (folder / 'a.inter').write_text(lines(rows, 'userID\titemID\tx_label'))
    return TableDataset(folder).fingerprint


@pytest.fixture
def shop(tmp_path):
    (tmp_path / 'shop').mkdir()
    return tmp_path / 'shop'


def fails(folder, message, error=ValueError, **kwargs):
    with pytest.raises(error, match=message) as caught:
        TableDataset(folder, **kwargs)
    assert len(str(caught.value)) < 500 + 3 * len(str(folder))


def test_a_file_for_each_split(shop, expected):
    header = 'userID:token\titemID:token'
    for name, rows in (('train', TRAIN), ('valid', VAL), ('test', TEST)):
        (shop / f'shop.{name}.inter').write_text(lines(rows, header))
    dataset = TableDataset(shop)
    assert dataset.fingerprint == expected and dataset.name == 'shop'
    # The rows may be split anew, and errors name the file of the row.
    assert TableDataset(shop, split='random').summary()['users'] == 3
    (shop / 'shop.test.inter').write_text(lines([*TEST, (2, 9)], header))
    fails(shop, "shop.test.inter', line 4: 'itemID:token' is 9, but no row has the id 4")
    (shop / 'shop.test.inter').write_text(lines([*TEST, (0, 0)], header))
    with pytest.warns(UserWarning, match="removed 1 duplicate .*shop.test.inter', line 4"):
        assert TableDataset(shop).fingerprint == expected
    (shop / 'shop.test.inter').write_text(lines(TEST, 'userID\titemID'))
    fails(shop, r"test.inter': expected the columns \['userID:token', .* found \['userID'")


def test_text_in_one_of_the_files(shop, expected):
    def named(rows):
        return lines([(u, f'{i}') for u, i in rows])

    (shop / 'train.csv').write_text(named(TRAIN).replace('\t', ','))
    (shop / 'val.csv').write_text(named(VAL).replace('\t', ','))
    (shop / 'test.csv').write_text(named([*TEST, (2, 'x')]).replace('\t', ','))
    dataset = TableDataset(shop)
    assert dataset.item_ids.tolist() == ['0', '1', '2', '3', 'x']
    assert dataset.targets('test').item.tolist() == [0, 3, 4]


def test_without_validation(shop):
    (shop / 'x.train.inter').write_text(lines(TRAIN))
    (shop / 'x.test.inter').write_text(lines(TEST))
    with pytest.warns(UserWarning, match='no interaction is for validation'):
        assert len(TableDataset(shop).targets('val')) == 0
    (shop / 'x.test.inter').unlink()  # Training alone is a table like any other.
    (shop / 'y.test.inter').write_text(lines(TEST))
    fails(shop, r"several files of interactions, \['x.train.inter', 'y.test.inter'\]")


@pytest.mark.parametrize('inside', ['', '5-core'])
def test_lists_by_user(shop, expected, inside):
    np.save(shop / 'text_feat.npy', np.eye(4))
    folder = shop / inside
    folder.mkdir(exist_ok=True)
    for name, rows in (('train', TRAIN), ('val', VAL), ('test', TEST)):
        content = {str(u): [i for v, i in rows if v == u] for u in range(3)}
        (folder / f'{name}.json').write_text(json.dumps(content))
    dataset = TableDataset(shop)
    assert dataset.modalities == ['text'] and dataset.name == 'shop'
    assert dataset[0][RATES].edge_index.t().tolist() == [list(pair) for pair in TRAIN]
    (shop / 'text_feat.npy').unlink()
    assert TableDataset(shop).fingerprint == expected
    (folder / 'val.json').write_text('{}')
    with pytest.warns(UserWarning, match='no interaction is for validation'):
        TableDataset(shop)
    for content, message in (
        ('[1, 2]', 'val.json\': expected lists of items by user, {"0": .*, got'),
        ('{"0": 7}', "val.json', user '0': expected a list of item ids, got '7'"),
        ('{"0": [7.5]}', "user '0': expected a list of item ids"),
        ('{"0": [7', "val.json' cannot be read as JSON"),
        (json.dumps({'0': [[1]] * 10_000}), "user '0': expected a list"),
    ):
        (folder / 'val.json').write_text(content)
        fails(shop, message)


def test_raw_ids_behind_numbers(shop, expected):
    rows = [(*pair, label) for label, part in enumerate((TRAIN, VAL, TEST)) for pair in part]
    (shop / 'shop.inter').write_text(lines(rows, 'userID\titemID\tx_label'))
    (shop / 'u_id_mapping.csv').write_text('user_id\tuserID\nAC\t2\nAA\t0\nAB\t1\n')
    (shop / 'i_id_mapping.csv').write_text(
        'asin\titemID\n' + ''.join(f'B{9 - i}\t{i}\n' for i in range(4))
    )
    dataset = TableDataset(shop)
    assert dataset.user_ids.tolist() == ['AA', 'AB', 'AC']
    assert dataset.item_ids.tolist() == ['B9', 'B8', 'B7', 'B6']
    assert dataset.fingerprint == expected
    path = shop / 'i_id_mapping.csv'
    path.write_text('asin\titemID\nB0\t0\nB1\t1\nB2\t2\n')
    with pytest.warns(UserWarning, match="lacks 1 of the 4 numbers 'itemID', such as 3"):
        assert TableDataset(shop).item_ids.tolist() == [0, 1, 2, 3]
    path.write_text('asin\titemID\nB0\t0\nB1\t1\nB1\t2\nB3\t3\n')
    fails(shop, "line 4: expected each 'asin' once, got 'B1' again")
    path.write_text('asin\titem\nB0\t0\n')
    fails(shop, "expected two columns, one of them 'itemID', found")


def test_packed_text(shop, expected):
    rows = [(*pair, label) for label, part in enumerate((TRAIN, VAL, TEST)) for pair in part]
    text = lines(rows, 'userID\titemID\tx_label').encode()
    (shop / 'shop.inter.gz').write_bytes(gzip.compress(text))
    assert TableDataset(shop).fingerprint == expected
    (shop / 'shop.inter.gz').write_bytes(gzip.compress(text)[:-12])
    fails(shop, "shop.inter.gz' is truncated or damaged")
    (shop / 'shop.inter.gz').write_bytes(gzip.compress(text + b'1\tx\n'))
    fails(shop, "shop.inter.gz', line 10: expected 3 fields")
    (shop / 'shop.inter.gz').unlink()
    pyarrow = pytest.importorskip('pyarrow')
    with pyarrow.output_stream(str(shop / 'a.csv.zst'), compression='zstd') as file:
        file.write(text.replace(b'\t', b','))
    assert TableDataset(shop).fingerprint == expected
    (shop / 'a.csv.zst').write_bytes((shop / 'a.csv.zst').read_bytes()[:20])
    fails(shop, "a.csv.zst' is truncated or damaged")


def test_messages_end(shop):
    pairs = [(u, i) for u in range(300) for i in range(20)]
    (shop / 'shop.inter').write_text(lines(pairs).replace('\n', '\r'))
    fails(shop, 'carriage return alone')
    (shop / 'shop.inter').write_text(json.dumps({str(u): list(range(20)) for u in range(900)}))
    fails(shop, "holds JSON; expected a table with the columns .*'train.json'")
    (shop / 'shop.inter').write_text('a;b;c' * 10_000 + '\n1\n')
    fails(shop, 'expected a column')
    (shop / 'shop.inter').write_text(','.join(f'column {i}' for i in range(9000)) + '\n1\n')
    fails(shop, 'and 8,9.. more]; user=NAME')
    (shop / 'shop.inter').write_text('userID\titemID\tx_label\n1\t2\t' + 'y' * 10_000 + '\n')
    fails(shop, 'expected an integer')
    (shop / 'shop.inter').unlink()
    for i in range(500):
        (shop / f'{i:04d}-vector.bin').write_bytes(b'')
    fails(shop, 'holds no interactions', FileNotFoundError)
    for i in range(500):
        (shop / f'{i:04d}.csv').write_bytes(b'')
    fails(shop, 'several files of interactions')
