from __future__ import annotations

import json
import os
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from motor_geo.data import TableDataset
from motor_geo.data.datasets import blocks, spill, stream_index, write_shards
from motor_geo.data.datasets.write_shards import nth
from motor_geo.typing import ITEM, RATES
from motor_geo.utils.errors import ConfigError

pa = pytest.importorskip('pyarrow')
pq = pytest.importorskip('pyarrow.parquet')
RULES = ('random', 'temporal', 'leave_one_out', 'cold_item', 'global_time')


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    r"""Blocks of a few rows, so that small tables have many."""
    monkeypatch.setattr(blocks, 'SIZE', 100)
    monkeypatch.setattr(blocks, 'BATCH', 7)
    monkeypatch.setattr(stream_index, 'MERGE', 5)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        yield


def write(folder, kind, columns):
    r"""Writes a table as text or Parquet."""
    folder.mkdir(exist_ok=True)
    if kind == 'parquet':
        pq.write_table(pa.table(columns), folder / 'shop.parquet')
        return folder
    delimiter = '\t' if kind == 'tsv' else ','
    quoted = [[f'"{x}"' if kind == 'quoted' else str(x) for x in c] for c in columns.values()]
    lines = [delimiter.join(columns), *map(delimiter.join, zip(*quoted))]
    (folder / f'shop.{"tsv" if kind == "tsv" else "csv"}').write_text('\n'.join(lines) + '\n\n')
    return folder


def outcome(make):
    r"""A data set, or the first words of its error."""
    try:
        return make()
    except ValueError as error:
        return str(error).split(':')[-1][:30]


def same(one, other):
    r"""Compares two data sets bit for bit."""
    assert other.fingerprint == one.fingerprint
    a, b = one[0][RATES].edge_index, other[0][RATES].edge_index
    assert a.dtype == b.dtype and torch.equal(a, b)
    for split in ('val', 'test'):
        for x, y in zip(vars(one.targets(split)).values(), vars(other.targets(split)).values()):
            assert (x is None) == (y is None) and (x is None or torch.equal(x, y))
    for name in ('user_ids', 'item_ids'):
        x, y = getattr(one, name), getattr(other, name)
        assert x.dtype.kind == y.dtype.kind and x.tolist() == y.tolist()
    for name in ('known_users', 'known_items', 'dropped'):
        assert torch.equal(getattr(one, name), getattr(other, name)), name
    assert (one.first_time is None) == (other.first_time is None)
    if one.first_time is not None:
        assert torch.equal(one.first_time.nan_to_num(-1), other.first_time.nan_to_num(-1))


@st.composite
def tables(draw):
    r"""A table with every user and item from 0, repeated pairs and ties in time."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    users, items = draw(st.integers(1, 12)), draw(st.integers(1, 9))
    extra = draw(st.integers(0, 60))
    user = np.concatenate([np.arange(users), rng.integers(0, users, items + extra)])
    item = np.concatenate([rng.integers(0, items, users), np.arange(items)])
    item = np.concatenate([item, rng.integers(0, items, extra)])
    order = rng.permutation(len(user))
    columns = {'userID': user[order], 'itemID': item[order]}
    if draw(st.booleans()):
        mixed = np.array([str(x) if x % 3 else f'u{x:02d}' for x in range(users)])
        columns['userID'] = mixed[columns['userID']]
    columns['rating'] = rng.integers(1, 6, len(user))
    if draw(st.booleans()):
        columns['timestamp'] = rng.integers(0, 20, len(user))
    if draw(st.booleans()):
        columns['x_label'] = rng.choice(3, len(user), p=[0.8, 0.1, 0.1])
    return columns


@settings(max_examples=50, deadline=None)
@given(
    tables(),
    st.sampled_from(['csv', 'tsv', 'quoted', 'parquet']),
    st.sampled_from([1, 2, 5, 30]),
    st.sampled_from([None, *RULES]),
    st.sampled_from([{}, {'core': 2}, {'min_rating': 3}, {'cold_share': 0.4}]),
    st.integers(0, 3),
)
def test_shards_equal_the_table(columns, kind, count, split, options, seed):
    if split == 'cold_item' and 'cold_share' in options:
        options = {}
    options = {**options, 'split': split, 'seed': seed}
    with tempfile.TemporaryDirectory() as place:
        path, out = write(Path(place) / 'shop', kind, columns), Path(place) / 'shards'
        one = outcome(lambda: TableDataset(path, **options))
        shards = outcome(lambda: write_shards.write_shards(path, out, count, **options))
        assert not [name for name in os.listdir(place) if name.startswith('.tmp-')]
        if isinstance(one, str):
            assert shards == one and not out.exists()
            return
        assert len(shards.shards) == count
        rows = shards.read()
        assert (np.diff(rows['user'].astype(int) * 100 + rows['item']) > 0).all()  # Sorted.
        same(one, TableDataset(out))
        if 'x_label' not in columns or split is not None:  # Else, repeated rows count twice.
            one = outcome(lambda: TableDataset(path, **options, train_share=0.5))
            other = outcome(lambda: TableDataset(out, train_share=0.5))
            assert one == other if isinstance(one, str) else same(one, other) is None


def shop(place, **extra):
    rng = np.random.default_rng(1)
    user = np.repeat(np.arange(40), rng.integers(3, 30, 40))
    item = rng.integers(0, 29, len(user))  # Item 29 occurs once.
    item[:30] = np.arange(30)
    return write(place / 'shop', 'csv', {'userID': user, 'itemID': item, **extra})


def test_features_masks_and_titles(tmp_path):
    path = shop(tmp_path)
    rng = np.random.default_rng(0)
    np.save(path / 'image_feat.npy', rng.normal(size=(30, 5)).astype(np.float16))
    text = rng.normal(size=(30, 4))
    text[3] = np.nan
    np.save(path / 'text_feat.npy', text)
    np.save(path / 'text_mask.npy', np.arange(30) != 3)
    (path / 'text_feat.json').write_text('{}')  # The origin of these numbers.
    rows = [f'{item}\ttitle {item}' for item in range(30)]
    (path / 'items.tsv').write_text('\n'.join(['itemID\ttitle', *rows]))
    for number, options in enumerate(({}, {'core': 5})):
        out = tmp_path / f'out{number}'
        write_shards.write_shards(path, out, 3, **options)
        one, other = TableDataset(path, **options), TableDataset(out)
        same(one, other)
        for key in ('x_image', 'x_text', 'mask_text'):
            assert torch.equal(one[0][ITEM][key], other[0][ITEM][key])
        assert other.folder == str(out) and (out / 'items.tsv').exists()
        assert (out / 'text_feat.json').exists() == ('core' not in options)
        missing = {'missing_share': 0.5, 'modalities': ['image']}
        same(TableDataset(path, **options, **missing), TableDataset(out, **missing))
    assert one.num_items < 30


def test_a_file_for_each_split_and_lists(tmp_path):
    rows = {'train': [(0, 0), (0, 1), (1, 1), (2, 2)], 'val': [(0, 2)], 'test': [(1, 0), (2, 0)]}
    tables, lists = tmp_path / 'tables', tmp_path / 'lists'
    tables.mkdir()
    lists.mkdir()
    for name, pairs in rows.items():
        lines = ['userID\titemID', *(f'{u}\t{i}' for u, i in pairs)]
        (tables / f'a.{name}.inter').write_text('\n'.join(lines))
        content = {str(u): [i for v, i in pairs if v == u] for u, _ in pairs}
        (lists / f'{name}.json').write_text(json.dumps(content))
    for path in (tables, lists):
        write_shards.write_shards(path, path / 'out', 2)
        same(TableDataset(path), TableDataset(path / 'out'))


def test_shards_have_about_equal_rows(tmp_path):
    path = shop(tmp_path)
    shards = write_shards.write_shards(path, tmp_path / 'out', 4).shards
    one = TableDataset(path)
    assert shards[0].first == 0 and shards[-1].last == one.num_users
    assert all(a.last == b.first for a, b in zip(shards, shards[1:]))
    rows = [shard.rows for shard in shards]
    assert max(rows) - min(rows) < 60 and len({s.last - s.first for s in shards}) > 1


def test_rows_are_read_in_blocks(tmp_path, monkeypatch):
    sizes, add = [], spill.Spill.add

    def counted(self, block, options):
        sizes.append(len(block.table))
        add(self, block, options)

    monkeypatch.setattr(spill.Spill, 'add', counted)
    path = shop(tmp_path)
    write_shards.write_shards(path, tmp_path / 'out', 3)
    assert len(sizes) > 10 and max(sizes) < 60
    assert sum(sizes) == sum(1 for line in open(path / 'shop.csv') if line.strip()) - 1


@pytest.mark.parametrize(
    'options, message',
    [
        ({'user': 'who'}, "shop.csv': expected a column 'who', found the columns"),
        ({'split': 'temporal'}, "shop.csv': expected a column 'timestamp'"),
        ({'split': 'x'}, "Unknown split 'x'"),
        ({'num_shards': 0}, "'num_shards' must be at least 1, got 0"),
        ({'core': 100}, "'shop': no interaction is left with min_rating=None, event=None and core"),
    ],
)
def test_errors_leave_nothing(tmp_path, options, message):
    path = shop(tmp_path)
    with pytest.raises(ValueError, match=message):
        write_shards.write_shards(path, tmp_path / 'out', **{'num_shards': 2, **options})
    assert os.listdir(tmp_path) == ['shop']


def test_errors_name_the_line(tmp_path):
    path = shop(tmp_path)
    lines = (path / 'shop.csv').read_text().rstrip().split('\n')
    for change, message in (
        (lambda rows: rows.__setitem__(300, '5'), 'line 301: expected 2 fields'),
        (lambda rows: rows.__setitem__(300, '5,'), "line 301: expected an id in column 'itemID'"),
        (lambda rows: rows.append('700,1'), f"line {len(lines) + 1}: 'userID' is 700, but no"),
        (lambda rows: rows.append('"5'), 'unexpected end of data'),
    ):
        rows = list(lines)
        change(rows)
        (path / 'shop.csv').write_text('\n'.join(rows))
        with pytest.raises(ValueError, match=message):
            TableDataset(path)
        with pytest.raises(ValueError, match=message):
            write_shards.write_shards(path, tmp_path / 'out', 2)


def test_an_existing_folder_stays(tmp_path):
    path = shop(tmp_path)
    with pytest.raises(ConfigError, match=r"shop' already exists"):
        write_shards.write_shards(path, path)


@pytest.mark.parametrize('first', ['2020-01-31', '7'])
def test_dates_and_numbers_do_not_mix(tmp_path, first):
    times = [first] * 100 + ['8' if first != '7' else '2020-01-31'] * 100
    ids = np.arange(200) % 10
    path = write(tmp_path / 'shop', 'csv', {'userID': ids, 'itemID': ids, 'timestamp': times})
    for make in (TableDataset, lambda x, **y: write_shards.write_shards(x, tmp_path / 'out', **y)):
        with pytest.raises(ValueError, match='timestamp'):
            make(path, split='temporal')
    assert not (tmp_path / 'out').exists()


@given(st.lists(st.lists(st.integers(0, 20), max_size=8), min_size=1, max_size=4), st.data())
def test_nth(lists, data):
    entries = sorted(sum(lists, []))
    if entries:
        place = data.draw(st.integers(0, len(entries) - 1))
        assert nth([np.sort(np.array(x, int)) for x in lists], place) == entries[place]


def test_events_gaps_and_dates(tmp_path):
    rng = np.random.default_rng(3)
    columns = {
        'user_id:token': rng.integers(0, 20, 400) * 7,
        'item_id:token': [f'item {x}' for x in rng.integers(0, 25, 400)],
        'when:float': [f'2020-01-{x:02d}T10:00:00Z' for x in rng.integers(1, 29, 400)],
        'event:token': rng.choice(['view', 'buy', 'cart'], 400),
    }
    path, options = write(tmp_path / 'shop', 'csv', columns), {'reindex': True, 'time': 'when'}
    options |= {'event': ['buy', 'view'], 'split': 'leave_one_out', 'core': 3}
    write_shards.write_shards(path, tmp_path / 'out', 3, **options)
    one = TableDataset(path, **options)
    same(one, TableDataset(tmp_path / 'out'))
    same(one, TableDataset(tmp_path / 'out', **options))  # The same options are accepted.
    assert one.user_ids.max() > 100 and one.first_time is not None
    for change, message in (
        ({'event': 'click'}, r"the column 'event:token' holds no \['click'\]; found the events"),
        ({'reindex': False}, 'expected ids from 0 without gaps'),
    ):
        with pytest.raises(ValueError, match=message):
            write_shards.write_shards(path, tmp_path / 'none', **{**options, **change})
