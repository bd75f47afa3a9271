from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from motor_geo.data.datasets.table import TableDataset

USER = [0, 0, 0, 1, 1, 2, 2]
ITEM = [0, 1, 2, 1, 0, 2, 3]
LABEL = [0, 0, 1, 0, 2, 0, 2]
TEXT = np.arange(8, dtype=np.float32).reshape(4, 2)


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        yield


@pytest.fixture
def expected(tmp_path):
    rows = [f'{u}\t{i}\t{label}' for u, i, label in zip(USER, ITEM, LABEL)]
    (tmp_path / 'a.inter').write_text('\n'.join(['userID\titemID\tx_label', *rows]))
    np.save(tmp_path / 'text_feat.npy', TEXT)
    return TableDataset(tmp_path).fingerprint


def columns(user=USER, item=ITEM, label=LABEL):
    return {'userID': user, 'itemID': item, 'x_label': label}


def fails(message, *args, error=ValueError, **kwargs):
    with pytest.raises(error, match=message):
        TableDataset.from_frame(*args, **kwargs)


class Stream:
    r"""Nothing but Arrow's C stream interface."""

    def __init__(self, table):
        self.table = table

    def __arrow_c_stream__(self, schema=None):
        return self.table.__arrow_c_stream__(schema)


class Series:
    def __init__(self, values):
        self.values = values

    def to_numpy(self):
        return np.array(self.values)


class Frame:
    r"""As pandas and polars are used."""

    def __init__(self, **columns):
        self.data, self.columns = columns, list(columns)

    def __getitem__(self, name):
        return Series(self.data[name])


def test_the_same_as_a_folder(expected):
    features = {'text': torch.from_numpy(TEXT)}
    frames = [columns(), columns(np.array(USER), np.array(ITEM, np.int32), torch.tensor(LABEL))]
    frames += [Frame(**columns()), columns([str(u) for u in USER])]
    for frame in frames:
        dataset = TableDataset.from_frame(frame, features, name='shop')
        assert dataset.fingerprint == expected
        assert str(dataset).startswith('TableDataset(shop, users=3, items=4')
    other = dict(zip(('who', 'what', 'part'), (USER, ITEM, LABEL)))
    dataset = TableDataset.from_frame(other, features, 'who', 'what', label='part')
    assert dataset.fingerprint == expected


def test_arrow(expected):
    pa = pytest.importorskip('pyarrow')
    table = pa.table(columns())
    text = table.set_column(0, 'userID', table['userID'].cast(pa.string()).dictionary_encode())
    for frame in (table, Stream(table), Stream(text), table.to_reader()):
        assert TableDataset.from_frame(frame, {'text': TEXT}).fingerprint == expected
    nulls = pa.table(columns(item=[*ITEM[:-1], None]))
    fails("'frame', row 6: expected a value in 'itemID', found none", Stream(nulls))


def test_items_by_name(expected):
    names = np.array(['d', 'b', 'c', 'a'])
    frame = columns([f'u{u}' for u in USER], [names[i] for i in ITEM])
    dataset = TableDataset.from_frame(frame, {'text': TEXT}, items=names)
    assert dataset.fingerprint == expected
    assert dataset.item_ids.tolist() == ['d', 'b', 'c', 'a'] and dataset.known_items.all()
    fails("'itemID' is the text 'd', so its row", frame, {'text': TEXT})
    fails("row 1: 'itemID' is 'b', which is not among the 2 items", frame, items=['d', 'c'])
    fails("expected each 'itemID' once, got 'c' again", frame, items=['c', 'c'])
    frame['itemID'][0] = 'c'
    fails(r"'text': expected 5 rows .*, got 4", frame, {'text': TEXT}, items=[*names, 'e'])
    frame['itemID'][0] = 'd'
    # Without features, names are numbered in sorted order.
    assert TableDataset.from_frame(frame).item_ids.tolist() == ['a', 'b', 'c', 'd']


def test_times():
    rng = np.random.default_rng(0)
    user, item = np.nonzero(rng.random((20, 15)) < 0.5)
    day = rng.permutation(len(user))
    frame = {'userID': user, 'itemID': item}
    dates = np.datetime64('2020-01-31') + day
    text = [str(date) for date in dates]
    prints = {
        TableDataset.from_frame({**frame, 'day': values}, time='day', split='temporal').fingerprint
        for values in (day, day / 2, dates, dates.astype('M8[ns]'), text)
    }
    assert len(prints) == 1
    with pytest.warns(UserWarning, match=r"holds times \('date'\).* is random"):
        TableDataset.from_frame({**frame, 'date': dates})
    dates[3] = np.datetime64('NaT')
    fails("row 3: expected a time in column 'day'", {**frame, 'day': dates}, time='day', **SPLIT)


SPLIT = {'split': 'temporal'}


def test_bad_columns():
    mixed = np.array(['a', 'b', None, 'c', 'd', 'e', 'f'], object)
    fails(r"row 2: column 'itemID' holds 'None' \(NoneType\); expected text", columns(item=mixed))
    mixed = np.array([0, 1, '2', 1, 0, 2, 3], object)
    fails(r"column 'itemID' holds '0' \(int\); expected text in all", columns(item=mixed))
    fails("ids 'userID' are float64; expected integers or text", columns(np.array(USER) + 0.0))
    fails('expected columns of equal length', columns(USER[1:]))
    fails(r"expected a column 'userID', found the columns \['a'\]", {'a': [1]})
    fails('Expected a pandas or polars data frame', [[1, 2]])
    fails("Features 'text': expected a numeric matrix", columns(), {'text': TEXT[0]})
    x = TEXT.copy()
    x[1] = np.nan
    fails("'text': row 1 holds NaN", columns(), {'text': x})
    mask = np.array([True, False, True, True])
    data = TableDataset.from_frame(columns(), {'text': x}, masks={'text': mask})[0]['item']
    assert data.x_text[1].tolist() == TEXT[mask].mean(0).tolist()
    fails("Mask 'text': expected 4 booleans", columns(), {'text': x}, masks={'text': mask[1:]})


@pytest.mark.parametrize('library', ['pandas', 'polars'])
def test_libraries(library, expected):
    frame = pytest.importorskip(library).DataFrame(columns())
    assert TableDataset.from_frame(frame, {'text': TEXT}).fingerprint == expected
