import os.path as osp

from benchmarks.loading import generated, import_rows, parsing_row, start_row


def test_rows():
    with generated((60, 40, 500)) as folder:
        rows = [parsing_row(folder, repeats=1), start_row(folder, repeats=1)]
    assert not osp.exists(folder)
    rows += import_rows(['json'], repeats=1)
    assert [row['what'] for row in rows] == ['parsing', 'second start', 'import json']
    assert all(row['ours'] > 0 and row['plain'] > 0 and row['unit'] == 's' for row in rows)
