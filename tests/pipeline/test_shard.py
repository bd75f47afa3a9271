import json
import os
from pathlib import Path

import numpy as np
import pytest

from motor_geo import run
from motor_geo.data import TableDataset
from motor_geo.parallel import World
from motor_geo.pipeline.catalog import read_catalog
from motor_geo.pipeline.processes import user_bounds
from motor_geo.pipeline.shard import main
from motor_geo.utils.errors import ConfigError

pytest.importorskip('pyarrow')


@pytest.fixture
def shop(tmp_path):
    rng = np.random.default_rng(0)
    user, item = np.nonzero(rng.random((60, 40)) < 0.2)
    rows = [f'{u}\t{i}\t{rng.integers(1, 6)}\t{rng.integers(9)}' for u, i in zip(user, item)]
    (tmp_path / 'shop').mkdir()
    lines = ['userID\titemID\trating\twhen', *rows]
    (tmp_path / 'shop' / 'shop.inter').write_text('\n'.join(lines))
    return str(tmp_path / 'shop')


def test_a_folder_is_written(shop, tmp_path, capsys):
    out = str(tmp_path / 'out')
    options = ['--split', 'temporal', '--time', 'when', '--min-rating', '2', '--core', '3']
    assert main([shop, out, '--shards', '3', *options]) == 0
    dataset = TableDataset(out)
    expected = TableDataset(shop, split='temporal', time='when', min_rating=2, core=3)
    assert dataset.fingerprint == expected.fingerprint
    printed = capsys.readouterr().out
    assert printed.startswith(f"'{out}': 3 shards of ")
    assert f' {dataset.num_users} users, {dataset.num_items} items, ' in printed
    meta = json.loads(Path(out, 'meta.json').read_text())
    assert meta['options']['min_rating'] == 2 and len(meta['shards']) == 3
    assert sorted(os.listdir(out)) == [
        'item_ids.parquet',
        'meta.json',
        *(f'shard-0000{number}.parquet' for number in range(3)),
        'user_ids.parquet',
    ]


@pytest.mark.parametrize(
    'options, message',
    [
        (['--user', 'who'], "expected a column 'who', found the columns"),
        (['--core', '99'], 'no interaction is left with min_rating=None, event=None and core=99'),
        (['--shards', '0'], "'num_shards' must be at least 1, got 0."),
        (['--split', 'x'], "Unknown split 'x'; expected 'column' or"),
    ],
)
def test_errors(shop, tmp_path, capsys, options, message):
    out = tmp_path / 'out'
    assert main([shop, str(out), *options]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith('error: ') and message in error
    assert os.listdir(tmp_path) == ['shop']


def test_an_existing_folder_and_a_missing_one(shop, tmp_path, capsys):
    assert main([shop, shop]) == 2
    assert "shop' already exists; choose another folder or delete it" in capsys.readouterr().err
    assert main([str(tmp_path / 'none'), str(tmp_path / 'out')]) == 2
    assert "none' does not exist; expected a folder with NAME.inter" in capsys.readouterr().err
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'empty' / 'a.csv').write_text('userID,itemID\n')
    assert main([str(tmp_path / 'empty'), str(tmp_path / 'out')]) == 2
    assert 'holds only a header; expected at least one row' in capsys.readouterr().err


def test_processes_get_whole_shards(shop, tmp_path):
    assert main([shop, str(tmp_path / 'out'), '--shards', '3']) == 0
    dataset = TableDataset(str(tmp_path / 'out'))
    first = [shard.first for shard in dataset.shards.shards]
    assert user_bounds(dataset, World(0, 3)) == [*first, 60]
    assert user_bounds(dataset, World(1, 2)) == [0, first[1], 60]
    assert user_bounds(dataset, World()) is user_bounds(TableDataset(shop), World(0, 2)) is None
    message = r"out' has 3 shards, but 4 processes share the users; expected at least one shard"
    with pytest.raises(ConfigError, match=message):
        user_bounds(dataset, World(0, 4))


def test_a_run_has_the_same_result(shop, tmp_path):
    assert main([shop, str(tmp_path / 'out'), '--shards', '4', '--seed', '1']) == 0
    results = []
    for number, data in enumerate(([shop, '--data.seed', '1'], [str(tmp_path / 'out')])):
        out = tmp_path / f'run{number}'
        command = ['--data', *data, '--out', str(out)]
        options = ['--model', 'LightGCN', '--items', 'id', '--epochs', '2', '--threads', '1']
        command += [*options, '--model.channels', '8', '--report', 'false', '--device', 'cpu']
        assert run.main(command) == 0
        results.append(json.loads((out / 'result.json').read_text()))
    for key in ('val', 'test', 'hashes', 'popularity', 'slices'):
        assert results[0][key] == results[1][key], key


def test_titles_are_found_by_the_same_column(tmp_path):
    folder = tmp_path / 'shop'
    folder.mkdir()
    rows = [f'{user},c{(user + step) % 9}' for user in range(20) for step in range(5)]
    (folder / 'shop.csv').write_text('\n'.join(['userID,code', *rows]))
    lines = ['code,title', *(f'c{item},title {item}' for item in range(9))]
    (folder / 'items.csv').write_text('\n'.join(lines))
    assert main([str(folder), str(tmp_path / 'out'), '--item', 'code', '--shards', '2']) == 0
    titles = [read_catalog(TableDataset(tmp_path / 'out')).titles]
    titles.append(read_catalog(TableDataset(folder, item='code'), 'code').titles)
    assert titles[0] == titles[1] == [f'title {item}' for item in range(9)]
