from __future__ import annotations

import gzip

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from motor_geo.data.datasets import blocks
from motor_geo.data.datasets.blocks import read_blocks
from motor_geo.data.datasets.reader import read_table


def column(tables, name):
    parts = [table.ids[name].values[table.ids[name].codes].astype(str) for table in tables]
    return np.concatenate(parts).tolist()


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(['7', '07', 'a"b', 'x\ny', 'é', 'u,1']), st.integers(0, 99)),
        min_size=1,
        max_size=30,
    ),
    st.sampled_from([1, 10, 37, 1000]),
    st.sampled_from(['\n', '\r\n']),
    st.sampled_from(['', '\n', '\n\n\n']),
    st.booleans(),
)
def test_blocks_are_the_file(tmp_path_factory, rows, size, end, tail, quoted):
    path = tmp_path_factory.mktemp('blocks') / 'a.csv.gz'
    if quoted:
        entries = [('"' + user.replace('"', '""') + '"', item) for user, item in rows]
    else:
        rows = [(user[0], item) for user, item in rows]
        entries = [(user.replace('"', ''), item) for user, item in rows]
    text = end.join(['\ufeffuser,item', *(f'{user},{item}' for user, item in entries)]) + tail
    path.write_bytes(gzip.compress(text.encode()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, 'SIZE', size)
        found = list(read_blocks(str(path), ['user', 'item']))
    whole = read_table(str(path), ['user', 'item'])
    for name in ('user', 'item'):
        assert column(found, name) == column([whole], name)
    assert len(found) > 1 or len(text) < 2 * size or len(rows) < 3 or size == 1000
    lines = np.arange(2, 2 + len(rows)) if whole.lines is None else whole.lines
    assert np.concatenate([table.lines for table in found]).tolist() == lines.tolist()


@pytest.mark.parametrize(
    'text, message',
    [
        ('', 'is empty; expected a header'),
        ('user,item\n', 'holds only a header'),
        ('user\n1\n', "expected a column 'item'"),
        ('user,item\r1,2\r3,4', 'lines end with a carriage return alone'),
        ('user,item\n1,2\n' * 9 + 'a\0,3\n', 'found binary data'),
        ('user,item\n' + '1,2\n' * 9 + '3\n', 'line 11: expected 2 fields as in the header'),
        ('user,item\n' + '"1",2\n' * 9 + '3\n', 'line 11: expected 2 fields as in the header'),
        ('user,item\n' + '1,2\n' * 9 + ',3\n', "line 11: expected an id in column 'user'"),
        ('user,item\n1,2\n\n3,4\n', 'line 3: expected 2 fields'),
    ],
)
def test_errors_are_those_of_the_table(tmp_path, monkeypatch, text, message):
    path = tmp_path / 'a.csv'
    path.write_bytes(text.encode())
    monkeypatch.setattr(blocks, 'SIZE', 16)
    for read in (read_table, lambda *args: list(read_blocks(*args))):
        with pytest.raises(ValueError, match=message):
            read(str(path), ['user', 'item'])


def test_parquet(tmp_path, monkeypatch):
    pa = pytest.importorskip('pyarrow')
    pq = pytest.importorskip('pyarrow.parquet')
    path = str(tmp_path / 'a.parquet')
    monkeypatch.setattr(blocks, 'BATCH', 4)
    content = pa.table({'user': [f'u{x % 3}' for x in range(10)], 'item': np.arange(10) % 4})
    pq.write_table(content, path)
    found = list(read_blocks(path, ['user', 'item']))
    assert [len(table) for table in found] == [4, 4, 2]
    assert found[1].locate(1) == f"'{path}', row 5"
    for name in ('user', 'item'):
        assert column(found, name) == list(map(str, content[name].to_pylist()))
    pq.write_table(pa.table({'user': [0] * 6 + [None], 'item': [0] * 7}), path)
    with pytest.raises(ValueError, match="row 6: expected a value in 'user', found none"):
        list(read_blocks(path, ['user', 'item']))
    pq.write_table(content[:0], path)
    with pytest.raises(ValueError, match='holds no rows'):
        list(read_blocks(path, ['user', 'item']))
