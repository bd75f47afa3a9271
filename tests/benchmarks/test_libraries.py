import pytest

from tests.shop import make_shop

pytest.importorskip('implicit')

from benchmarks.libraries import libraries  # noqa: E402


def test_libraries(tmp_path):
    make_shop(tmp_path)
    rows = {row['what']: row for row in libraries(str(tmp_path), 'shop', repeats=2)}
    assert [name for name, row in rows.items() if row['plain']] == [
        'LightGCN on shop, an epoch, against edge_index',
        'LightGCN on shop, an epoch, against a CSR tensor',
        'BPR on shop, an epoch',
        'BPR on shop, an epoch with sparse_adam',
    ]
    epoch = rows['BPR on shop, an epoch']['ours']
    parts = [rows[f'BPR on shop, of these for {what}']['ours'] for what in ('sampling', 'Adam')]
    assert 0 < sum(parts) < 2 * epoch
