from __future__ import annotations

import copy
import json
import shutil
import warnings

import numpy as np
import pytest
import torch

from motor_geo.data import TableDataset
from motor_geo.data.datasets.shards import META, find_shards
from motor_geo.data.datasets.write_shards import write_shards
from motor_geo.typing import RATED_BY, RATES, LazyEdges, unread_edges

pytest.importorskip('pyarrow')


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        yield


def write_shop(folder, seed=0):
    rng = np.random.default_rng(seed)
    user, item = np.nonzero(rng.random((50, 30)) < 0.3)
    lines = ['userID,itemID', *(f'{u},{i}' for u, i in zip(user, item))]
    folder.mkdir()
    (folder / 'shop.csv').write_text('\n'.join(lines))
    return folder


@pytest.fixture
def shards(tmp_path):
    path = write_shop(tmp_path / 'shop')
    return write_shards(path, tmp_path / 'shards', 5, seed=2)


def test_a_folder_without_shards(tmp_path):
    path = write_shop(tmp_path / 'shop')
    assert find_shards(str(path)) is None and find_shards(str(path / 'shop.csv')) is None
    for content in ('{}', '[]', 'no json'):  # Other programs have such files, too.
        (path / META).write_text(content)
        assert find_shards(str(path)) is None
    assert find_shards(str(tmp_path / 'missing')) is None
    assert TableDataset(path).shards is None


def test_parts_of_the_shards(shards):
    dataset = TableDataset(shards.folder)
    assert repr(dataset.shards) == repr(shards)
    whole = shards.read()
    for size in (1, 2, 3, 5):
        parts = [shards.part(rank, size) for rank in range(size)]
        assert sum(parts, []) == shards.shards and all(parts)
        bounds = shards.bounds(size)
        assert bounds[0] == 0 and bounds[-1] == dataset.num_users and len(bounds) == size + 1
        read = [shards.read(part) for part in parts]
        for first, last, found in zip(bounds, bounds[1:], read):
            assert ((first <= found['user']) & (found['user'] < last)).all()
        for key, x in whole.items():
            assert np.array_equal(x, np.concatenate([found[key] for found in read]))
    train = whole['label'] == 0
    pairs = np.stack([whole['user'][train], whole['item'][train]])
    assert torch.equal(dataset[0][RATES].edge_index, torch.from_numpy(pairs).long())


@pytest.mark.parametrize(
    'options, message',
    [
        ({'split': 'temporal'}, "'split' is 'temporal', but the shards were made with None"),
        ({'core': 3}, "'core' is 3, but the shards were made with None; write them again"),
        ({'seed': 7}, "'seed' is 7, but the shards were made with 2"),
        ({'per_user': 2.0}, "'per_user' is 2.0, but"),
        ({'user': 'who'}, "'user' is 'who', but"),
    ],
)
def test_other_options_are_refused(shards, options, message):
    with pytest.raises(ValueError, match=message):
        TableDataset(shards.folder, **options)


def test_the_same_options_are_accepted(shards):
    expected = TableDataset(shards.folder).fingerprint
    assert TableDataset(shards.folder, split='random', seed=2).fingerprint == expected


def change(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(bytes(content))


@pytest.mark.parametrize('name', [META, 'shard-00002.parquet', 'user_ids.parquet'])
def test_damage_is_found(shards, tmp_path, name):
    path = tmp_path / 'shards' / name
    content = path.read_bytes()
    for damage in (path.unlink, lambda: path.write_bytes(content[: len(content) // 2])):
        damage()
        with pytest.raises((ValueError, FileNotFoundError), match=name):
            TableDataset(shards.folder)
        path.write_bytes(content)
    expected = TableDataset(shards.folder).fingerprint
    change(path)
    try:  # Some versions of pyarrow do not read this byte: it belongs to statistics.
        assert TableDataset(shards.folder).fingerprint == expected
    except ValueError as error:
        assert name in str(error)


def test_a_shard_of_other_data_is_found(shards, tmp_path):
    other = write_shards(write_shop(tmp_path / 'other', 1), tmp_path / 'others', 5)
    shutil.copy(f'{other.folder}/shard-00001.parquet', shards.folder)
    with pytest.raises(ValueError, match="shard-00001.parquet' does not match 'meta.json'"):
        TableDataset(shards.folder)


def test_shards_are_not_cut_again(shards, tmp_path):
    with pytest.raises(ValueError, match="shards' already holds shards; expected the original"):
        write_shards(shards.folder, tmp_path / 'again')


def test_another_version_is_refused(shards, tmp_path):
    path = tmp_path / 'shards' / META
    path.write_text(json.dumps({**json.loads(path.read_text()), 'version': 9}))
    with pytest.raises(ValueError, match='has the version 9, expected 1; write the shards again'):
        TableDataset(shards.folder)


@pytest.mark.parametrize('split', ['random', 'temporal', 'cold_item', 'column'])
def test_training_interactions_on_disk(tmp_path, split):
    rng = np.random.default_rng(0)
    user, item = np.nonzero(rng.random((50, 30)) < 0.2)
    label = rng.choice(3, len(user), p=[0.6, 0.2, 0.2])
    label[(user == 7) | (user > 47)] = 2  # Users without a training interaction.
    label[item == 3] = 1
    path = tmp_path / 'shop'
    path.mkdir()
    np.save(path / 'text_feat.npy', rng.normal(size=(32, 4)).astype(np.float32))
    columns = zip(user, item, rng.permutation(len(user)), label)
    rows = [','.join(map(str, row[: 4 if split == 'column' else 3])) for row in columns]
    head = 'userID,itemID,timestamp' + (',x_label' if split == 'column' else '')
    (path / 'shop.csv').write_text('\n'.join([head, *rows]))
    write_shards(path, tmp_path / 'shards', 5, split=split)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        whole, lazy = (TableDataset(tmp_path / 'shards', on_disk=x) for x in (False, True))
    assert lazy.fingerprint == whole.fingerprint and str(lazy) == str(whole)
    assert lazy.summary() == whole.summary()
    for name in ('known_users', 'known_items', 'dropped', 'item_count', 'first_time'):
        found, expected = getattr(lazy, name), getattr(whole, name)
        assert (found is expected is None) or found.equal(expected) or name == 'first_time'
    if whole.first_time is not None:
        np.testing.assert_array_equal(lazy.first_time, whole.first_time)
    for part in ('val', 'test'):
        for method in ('targets', 'unseen_targets'):
            found, expected = (vars(getattr(x, method)(part)) for x in (lazy, whole))
            assert found.keys() == expected.keys()
            for key, value in expected.items():
                assert found[key] is value is None or found[key].equal(value)
    edge_index = whole[0][RATES].edge_index
    for first, last in ((0, 50), (0, 13), (13, 31), (31, 31)):
        found, start, size = lazy.part(first, last)
        assert found.equal(edge_index[:, start : start + found.size(1)])
        assert size == edge_index.size(1)
        own = (edge_index[0] >= first) & (edge_index[0] < last)
        assert found.size(1) == int(own.sum())
    assert isinstance(unread_edges(lazy.data[RATES]), LazyEdges)  # Nothing has read them.
    copied = copy.copy(lazy.data)
    assert copied[RATES].edge_index.equal(edge_index)
    assert copied[RATED_BY].edge_index.equal(edge_index.flip(0))
    assert isinstance(unread_edges(lazy.data[RATES]), LazyEdges)


def test_what_stays_in_memory(shards, tmp_path):
    for path, options in ((shards.folder, {'train_share': 0.5}), (tmp_path / 'shop', {})):
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # Users without a training interaction.
            dataset = TableDataset(path, on_disk=True, **options)
        assert isinstance(unread_edges(dataset.data[RATES]), torch.Tensor)


def test_a_damaged_shard_on_disk_is_found(shards, tmp_path):
    other = write_shards(write_shop(tmp_path / 'other', 1), tmp_path / 'others', 5)
    dataset = TableDataset(shards.folder, on_disk=True)
    shutil.copy(f'{other.folder}/shard-00001.parquet', shards.folder)
    first, last = shards.shards[1].first, shards.shards[1].last
    for read in (
        lambda: TableDataset(shards.folder, on_disk=True),
        lambda: dataset.part(first, last),
    ):
        with pytest.raises(ValueError, match="shard-00001.parquet' does not match 'meta.json'"):
            read()
