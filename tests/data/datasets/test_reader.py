from __future__ import annotations

import csv
import re
import warnings

import numpy as np
import pytest
import torch_geometric
from hypothesis import example, given, settings
from hypothesis import strategies as st

from motor_geo.data.datasets import reader
from motor_geo.data.datasets.reader import read_table


def write(path, text):
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return str(path)


def column(table, name):
    values, codes = table.ids[name]
    return values[codes].tolist()


def test_integers_and_text(tmp_path):
    text = 'userID\titemID\tx_label\ttimestamp\n3\tb\t0\t1.5\n0\t\u00e9\t2\t-2\n3\ta b\t1\t1e3\n'
    path = write(tmp_path / 'a.inter', text)
    for variant in (text, text.rstrip('\n'), text.replace('\n', '\r\n') + '\r\n', '\ufeff' + text):
        write(tmp_path / 'a.inter', variant)
        table = read_table(path, ['userID', 'itemID'], ['x_label'], ['timestamp'])
        assert table.ids['userID'].values.dtype == np.int64
        assert table.ids['userID'].values.tolist() == [0, 3]
        assert column(table, 'userID') == [3, 0, 3]
        assert column(table, 'itemID') == ['b', '\u00e9', 'a b']
        assert table.ids['itemID'].values.tolist() == ['a b', 'b', '\u00e9']
        assert table.numbers['x_label'].tolist() == [0, 2, 1]
        assert table.numbers['timestamp'].tolist() == [1.5, -2, 1000]
        assert table.locate(1) == f"'{path}', line 3"


@pytest.mark.parametrize('value', ['007', '+1', '-0', ' 1', '1.0', '1_0', '1e3', '1' * 19, '--1'])
@pytest.mark.filterwarnings('ignore:.*looks like the integer')
def test_unusual_integers_are_text(tmp_path, value):
    path = write(tmp_path / 'a.csv', f'id,x\n{value},1\n12,2\n')
    assert column(read_table(path, ['id']), 'id') == [value, '12']
    with pytest.raises(ValueError, match=re.escape("line 2: expected an integer in column 'id'")):
        read_table(path, [], ['id'])


def test_large_integers(tmp_path):
    path = write(tmp_path / 'a.csv', f'id\n{"9" * 18}\n-{"9" * 18}\n0\n-7\n')
    assert column(read_table(path, ['id']), 'id') == [10**18 - 1, 1 - 10**18, 0, -7]


def test_quotes(tmp_path):
    text = 'title,id\n"a, ""b""\nc",x\nplain,"y"\n'
    path = write(tmp_path / 'a.csv', text)
    table = read_table(path, ['title', 'id'])
    assert column(table, 'title') == ['a, "b"\nc', 'plain']
    assert column(table, 'id') == ['x', 'y']
    assert table.locate(0).endswith('line 2') and table.locate(1).endswith('line 4')
    # A quote is an ordinary character in tab-separated files.
    path = write(tmp_path / 'a.tsv', 'title\tid\n"a\tx\n')
    assert column(read_table(path, ['title']), 'title') == ['"a']


cell = st.text(st.characters(exclude_characters='\t\n\r\0', exclude_categories=['Cs']), min_size=1)
identifier = st.one_of(st.integers(-(10**18) + 1, 10**18 - 1).map(str), cell)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(identifier, st.integers(-9, 9)), min_size=1, max_size=30))
def test_round_trip(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp('round')
    plain = write(folder / 'a.tsv', 'id\tn\n' + ''.join(f'{a}\t{b}\n' for a, b in rows))
    with open(folder / 'a.csv', 'w', newline='', encoding='utf-8') as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        writer.writerows([('id', 'n'), *rows])
    tables = [read_table(plain, ['id'], ['n'])]
    tables.append(read_table(str(folder / 'a.csv'), ['id'], ['n']))
    for table in tables:
        assert [str(value) for value in column(table, 'id')] == [a for a, _ in rows]
        assert table.numbers['n'].tolist() == [b for _, b in rows]
        assert (table.ids['id'].values == tables[0].ids['id'].values).all()
        assert table.ids['id'].values.dtype == tables[0].ids['id'].values.dtype


@pytest.mark.parametrize('seed', range(3))
def test_plain_quoted_and_parquet_agree(tmp_path, seed):
    rng = np.random.default_rng(seed)
    user, item = rng.integers(0, 50, 200), rng.integers(0, 10**12, 200)
    rows = [(f'u{u}' if seed else u, i, i / 8) for u, i in zip(user.tolist(), item.tolist())]
    body = '\n'.join(f'{a},{b},{c!r}' for a, b, c in rows)
    paths = [write(tmp_path / 'a.csv', f'u,i,t\n{body}\n')]
    paths.append(write(tmp_path / 'b.csv', f'"u",i,t\n{body}\n'))
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        pass
    else:
        paths.append(str(tmp_path / 'c.parquet'))
        columns = [pa.array(list(values)) for values in zip(*rows)]
        if seed == 2:
            columns[0] = columns[0].dictionary_encode()
        pq.write_table(pa.table(columns, names=['u', 'i', 't']), paths[-1])
    tables = [read_table(path, ['u', 'i'], numbers=['t']) for path in paths]
    for table in tables[1:]:
        for name in ('u', 'i'):
            assert table.ids[name].values.dtype == tables[0].ids[name].values.dtype
            for ours, theirs in zip(table.ids[name], tables[0].ids[name]):
                assert (ours == theirs).all()
        assert (table.numbers['t'] == tables[0].numbers['t']).all()
        assert table.numbers['t'].tolist() == [row[2] for row in rows]


@pytest.mark.parametrize(
    'text, message',
    [
        ('', 'is empty; expected a header with the columns'),
        ('\n\n', 'is empty'),
        ('u,i,n\n', 'holds only a header'),
        ('u,item,n\n1,2,0\n', r"expected a column 'i', found the columns \['u', 'item', 'n'\]"),
        ('u;i;n\n1;2;0\n', r"expected a column 'u', found the columns \['u;i;n'\]"),
        ('u,i,n,u\n1,2,0,1\n', "column 'u' occurs 2 times"),
        ('u,i,n\n1,2,0\n1,2\n', 'line 3: expected 3 fields as in the header, found 2'),
        ('u,i,n\n1,2,0,4\n1,2\n', 'line 2: expected 3 fields as in the header, found 4'),
        ('u,i,n\n1,2,0\n\n1,2,0\n', 'line 3: expected 3 fields'),
        ('u,i,n\n1,2,0\n"1,2,0\n', 'line 3'),
        ('u,i,n\n1,2,0\n"1",2\n', 'line 3: expected 3 fields as in the header, found 2'),
        ('u,i,n\n1,2,0\n,2,0\n', "line 3: expected an id in column 'u', found nothing"),
        ('u,i,n\n1,2,0\n1,"",0\n', "line 3: expected an id in column 'i', found nothing"),
        ('u,i,n\n1,2,0\n1,2,x\n', "line 3: expected an integer in column 'n', found 'x'"),
        ('u,i,n\n1,2,0\n1,2,\n', "line 3: expected an integer in column 'n', found ''"),
        ('u,i,n\n1,2,0\n1,2,1.0\n', "line 3: expected an integer in column 'n', found '1.0'"),
        (b'u,i,n\n1,2\0,0\n', 'expected UTF-8 text, found binary data'),
        (b'u,i,n\n1,\xff,0\n', "ids 'i' are not UTF-8"),
        (b'u,i,n\n1,"\xff",0\n', 'expected UTF-8 text'),
    ],
)
def test_errors(tmp_path, text, message):
    path = write(tmp_path / 'bad.csv', text)
    with pytest.raises(ValueError, match=message) as error:
        read_table(path, ['u', 'i'], ['n'])
    assert f"'{path}'" in str(error.value)


@pytest.mark.parametrize('value', ['2018-01-01', 'nan', 'inf', ''])
def test_numbers_are_finite(tmp_path, value):
    path = write(tmp_path / 'a.csv', f'u,t\n1,0.5\n1,{value}\n')
    with pytest.raises(
        ValueError, match=f"line 3: expected a number in column 't', found '{value}'"
    ):
        read_table(path, ['u'], numbers=['t'])


@pytest.mark.parametrize('batch', [1, 3, 100])
def test_parquet_in_batches(tmp_path, monkeypatch, batch):
    pa = pytest.importorskip('pyarrow')
    pq = pytest.importorskip('pyarrow.parquet')
    monkeypatch.setattr('motor_geo.data.datasets.reader.BATCH', batch)
    path = str(tmp_path / 'a.parquet')
    u, text = [7, 3, 7, 900, 3, 5, 3, 7], ['b', 'a', 'ü', 'b', '', 'c', 'a', 'b']
    n, t = [0, 1, 2, 0, 1, 2, 0, 1], [0.5, 1.5, 2, 3, 4, 5, 6, 7]
    for kind in (pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())):
        words = [word or 'd' for word in text]
        columns = {'u': pa.array(u, pa.int32()), 's': pa.array(words).cast(kind), 'n': n, 't': t}
        pq.write_table(pa.table(columns), path, row_group_size=5)
        table = read_table(path, ['u', 's'], ['n'], ['t'])
        assert column(table, 'u') == u and column(table, 's') == words
        assert table.numbers['n'].tolist() == n and table.numbers['t'].tolist() == t
        assert table.ids['u'].values.tolist() == sorted(set(u))
        assert table.ids['s'].values.tolist() == sorted(set(words))
    pq.write_table(pa.table({'u': text, 'n': n}), path)
    with pytest.raises(ValueError, match="a.parquet', row 4: expected an id in column 'u'"):
        read_table(path, ['u'], ['n'])
    pq.write_table(pa.table({'u': u, 'n': [*n[:6], None, None]}), path, row_group_size=2)
    with pytest.raises(ValueError, match="a.parquet', row 6: expected a value in 'n', found none"):
        read_table(path, ['u'], ['n'])


def test_parquet_errors(tmp_path):
    pa = pytest.importorskip('pyarrow')
    pq = pytest.importorskip('pyarrow.parquet')
    path = str(tmp_path / 'a.parquet')

    def check(message, **columns):
        pq.write_table(pa.table(columns), path)
        with pytest.raises(ValueError, match=message):
            read_table(path, ['u'], ['n'])

    check("a.parquet', row 1: expected a value in 'u', found none", u=[1, None], n=[0, 0])
    check("ids 'u' are float64", u=[1.0, 2.0], n=[0, 0])
    check("column 'n' is float64, not an integer", u=[1, 2], n=[0.0, 1.0])
    check("column 'u' is bool", u=[True, False], n=[0, 1])
    check("expected a column 'n', found the columns", u=[1, 2])
    check('holds no rows', u=pa.array([], pa.int64()), n=pa.array([], pa.int64()))
    write(tmp_path / 'a.parquet', 'not parquet')
    with pytest.raises(ValueError, match="a.parquet' cannot be read as Parquet"):
        read_table(path, ['u'], ['n'])


@pytest.mark.parametrize('quote', ['', '"'])
def test_large_files_are_kept(tmp_path, monkeypatch, quote):
    monkeypatch.setattr(torch_geometric, 'get_home_dir', lambda: str(tmp_path / 'home'))
    text = f'u,i,n,t\n{quote}\u00e9{quote},7,0,1.5\nabc,-3,1,2\n\u00e9,7,0,-1\n'
    path = write(tmp_path / 'a.csv', text)
    arguments = (path, ['u', 'i'], ['n', 'm'], ['t'], ['m'])
    expected = read_table(*arguments)
    assert not (tmp_path / 'home').exists()
    monkeypatch.setattr('motor_geo.data.datasets.reader.CACHED_SIZE', 0)
    tables = [read_table(*arguments)]
    (entry,) = (tmp_path / 'home' / 'motor_geo').iterdir()

    def broken(*args):
        raise AssertionError

    with monkeypatch.context() as patch:
        patch.setattr('motor_geo.data.datasets.reader._read_text', broken)
        tables.append(read_table(*arguments))
        with pytest.raises(AssertionError):
            read_table(path, ['u'])
    entry.write_bytes(b'')
    tables.append(read_table(*arguments))
    for table in tables:
        assert [table.locate(row) for row in range(3)] == [expected.locate(row) for row in range(3)]
        for name, (values, codes) in expected.ids.items():
            assert table.ids[name].values.dtype == values.dtype
            assert (table.ids[name].values == values).all()
            assert table.ids[name].codes.dtype == codes.dtype
            assert (table.ids[name].codes == codes).all()
        for name, numbers in expected.numbers.items():
            assert table.numbers[name].dtype == numbers.dtype
            assert (table.numbers[name] == numbers).all()
        assert set(table.numbers) == {'n', 't'}
    write(tmp_path / 'a.csv', text.replace('abc', 'abd'))
    assert 'abd' in column(read_table(*arguments), 'u')
    write(tmp_path / 'a.csv', text.replace(',0,', ',x,'))
    with pytest.raises(ValueError, match='line 2: expected an integer'):
        read_table(*arguments)


def test_optional_column(tmp_path):
    path = write(tmp_path / 'a.csv', 'u,i\n1,2\n')
    table = read_table(path, ['u'], ['n'], optional=['n'])
    assert 'n' not in table.numbers


@pytest.mark.parametrize('odd, plain', [('12.0', '12'), ('-3.00', '-3'), (' 7', '7'), ('7 ', '7')])
def test_two_spellings_of_one_number(tmp_path, odd, plain):
    path = write(tmp_path / 'a.csv', f'id\n5\n{odd}\n{odd}\n')
    with pytest.warns(UserWarning, match=f"line 3: 'id' is '{odd}', which looks like the integer"):
        table = read_table(path, ['id'])
    assert column(table, 'id') == ['5', odd, odd]
    path = write(tmp_path / 'a.csv', f'id\n5\n{odd}\nB\n{plain}\n')
    with pytest.raises(ValueError, match=f"line 3: 'id' is '{odd}', and '{plain}' in .*, line 5"):
        read_table(path, ['id'])


def test_text_that_only_resembles_numbers(tmp_path):
    path = write(tmp_path / 'a.csv', 'id\n1.5\n007\n7\nv2.0\nv2\n.0\n10.0.0\n1e3\n1000\n')
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        read_table(path, ['id'])


def test_unsigned_ids(tmp_path):
    pa = pytest.importorskip('pyarrow')
    pq = pytest.importorskip('pyarrow.parquet')
    ids = [2**64 - 1, 7, 2**63, 10**18, 7]
    path = str(tmp_path / 'a.parquet')
    pq.write_table(pa.table({'id': pa.array(ids, pa.uint64())}), path)
    table = read_table(path, ['id'])
    assert column(table, 'id') == [str(value) for value in ids]
    assert (table.ids['id'].values == np.sort(table.ids['id'].values)).all()
    # The same as text, and small ones stay numbers.
    text = write(tmp_path / 'a.csv', '\n'.join(['id', *map(str, ids)]))
    assert (read_table(text, ['id']).ids['id'].codes == table.ids['id'].codes).all()
    pq.write_table(pa.table({'id': pa.array([2**63 - 1, 7], pa.uint64())}), path)
    assert column(read_table(path, ['id']), 'id') == [2**63 - 1, 7]


DATES = ['2020-01-31 10:00:00', '2020-01-31T10:00:01', '2019-12-31', '2020-01-31 10:00:00.25']


def test_dates(tmp_path):
    path = write(tmp_path / 'a.tsv', '\n'.join(['t\tx', *(f'{date}\t1' for date in DATES)]))
    time = read_table(path, [], times=['t']).numbers['t']
    expected = [np.datetime64(date).astype('M8[us]').astype(int) for date in DATES]
    assert time.tolist() == expected
    zones = ['2020-01-31T12:00:00+02:00', '2020-01-31 10:00:01Z', '2019-12-31', DATES[3] + '+00:00']
    write(tmp_path / 'a.tsv', '\n'.join(['t', *zones]))
    assert read_table(path, [], times=['t']).numbers['t'].tolist() == expected
    for bad in ('2020-13-01', '31.01.2020', '20200131', 'now', '2020-01-31 25:00:00', '12'):
        write(tmp_path / 'a.tsv', '\n'.join(['t', DATES[0], bad]))
        with pytest.raises(ValueError, match=f"line 3: expected a number or a date .*'{bad}'"):
            read_table(path, [], times=['t'])
    with pytest.raises(ValueError, match="expected a number in column 't', found '2020-01"):
        read_table(path, [], numbers=['t'])
    write(tmp_path / 'a.tsv', 't\n5\n1e3\n')
    assert read_table(path, [], times=['t']).numbers['t'].tolist() == [5, 1000]


def test_parquet_dates(tmp_path):
    pa = pytest.importorskip('pyarrow')
    pq = pytest.importorskip('pyarrow.parquet')
    days = np.array(['2020-01-31', '1969-12-31', '2020-02-01'], 'M8[D]')
    path = str(tmp_path / 'a.parquet')
    for kind in (pa.date32(), pa.date64(), pa.timestamp('ms'), pa.timestamp('us', 'UTC'), None):
        column = pa.array(days.astype(str)) if kind is None else pa.array(days).cast(kind)
        pq.write_table(pa.table({'t': column}), path)
        time = read_table(path, [], times=['t']).numbers['t']
        assert time.argsort().tolist() == [1, 0, 2]


def test_large_files_are_questioned_each_time(tmp_path, monkeypatch):
    monkeypatch.setattr('motor_geo.data.datasets.reader.CACHED_SIZE', 0)
    monkeypatch.setattr(torch_geometric, 'get_home_dir', lambda: str(tmp_path))
    path = write(tmp_path / 'a.tsv', 'id\tt\n1.0\t2020-01-31\n')
    for _ in range(2):
        with pytest.warns(UserWarning, match='looks like the integer 1'):
            table = read_table(path, ['id'], times=['t'])
        assert table.numbers['t'].tolist() == [1580428800000000]


odd = st.sampled_from(
    ['', '007', '-0', 'é', '"', ' 1', '1,2', '\r', 'x' * 30, '9' * 19, '1.0', '\x00']
)


@settings(max_examples=60, deadline=None)
@example([('0', '')], '\t', b'')  # A column without a byte.
@example([('', '')], ',', b'\n')
@given(
    st.lists(st.tuples(st.one_of(identifier, odd), st.one_of(st.integers(0, 9).map(str), odd))),
    st.sampled_from(['\t', ',']),
    st.sampled_from([b'', b'\n', b'\n\n', b'\xff', b'x', b'\n1\t2\t3']),
)
@pytest.mark.filterwarnings('ignore:.*looks like the integer')
def test_arrow_reads_the_same(tmp_path_factory, rows, delimiter, end):
    pytest.importorskip('pyarrow')
    text = '\n'.join(['id' + delimiter + 'n', *(delimiter.join(row) for row in rows)])
    path = write(tmp_path_factory.mktemp('arrow') / 'a.csv', text.encode() + end)

    def read(size):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(reader, 'CACHED_SIZE', size)
            patch.setattr('motor_geo.data.datasets.arrow_text.BLOCK', 48)  # Several batches.
            patch.setattr(reader, 'cached', lambda kind, key, compute, fits: compute())
            try:
                return read_table(path, ['id'], numbers=['n'])
            except ValueError as error:
                return str(error)

    plain, fast = read(2**30), read(0)
    if isinstance(plain, str):
        assert fast == plain
        return
    for a, b in ((plain.ids['id'].values, fast.ids['id'].values),) + tuple(
        zip((plain.ids['id'].codes, plain.numbers['n']), (fast.ids['id'].codes, fast.numbers['n']))
    ):
        assert a.dtype == b.dtype and a.tolist() == b.tolist()
