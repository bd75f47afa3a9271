from __future__ import annotations

import json
import shutil
import warnings

import numpy as np
import pytest
import torch

from motor_geo.data import TableDataset
from motor_geo.data.datasets.shards import META, find_shards
from motor_geo.data.datasets.write_shards import write_shards
from motor_geo.typing import RATES

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
