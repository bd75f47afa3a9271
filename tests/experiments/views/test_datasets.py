import numpy as np
import pytest

from motor_geo.experiments.options import ExperimentOptions
from motor_geo.experiments.registry import EXPERIMENTS
from motor_geo.experiments.results import Results
from motor_geo.experiments.search import override
from motor_geo.experiments.views.datasets import neighbors, read_titles, statistics, tokens
from motor_geo.pipeline.assemble import build_dataset
from motor_geo.pipeline.config import resolve

NUM_USERS, NUM_ITEMS = 12, 32
OPTIONS = {'tokenizer.codebook_size': 4, 'tokenizer.num_tokens': 2, 'tokenizer.cache': False}


@pytest.fixture
def shop(tmp_path):
    r"""Four kinds of items, whose features hardly differ."""
    folder = tmp_path / 'shop'
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name, width in (('text', 6), ('image', 4)):
        kind = 10 * rng.standard_normal((4, width))[np.arange(NUM_ITEMS) % 4]
        x = kind + rng.standard_normal((NUM_ITEMS, width)) / 100
        np.save(folder / f'{name}_feat.npy', x.astype(np.float32))
    lines = [
        f'{user}\t{(5 * user + j) % NUM_ITEMS}\t{max(0, j - 5)}'
        for user in range(NUM_USERS)
        for j in range(8)
    ]
    (folder / 'shop.inter').write_text('\n'.join(['userID\titemID\tx_label', *lines]) + '\n')
    return folder


def make(name, folder):
    options = ExperimentOptions({'shop': str(folder)}, {'shop': ['image', 'text']}, options=OPTIONS)
    return Results(EXPERIMENTS[name], options, [])


def load(folder):
    return build_dataset(resolve(override({}, {'data': str(folder)})))


def test_statistics(shop):
    (table,) = statistics(make('table1', shop))
    here, *papers = table.rows
    assert [cell.mean for cell in here.cells[:3]] == [NUM_USERS, NUM_ITEMS, 96]
    assert here.cells[3:] == ['75.0000 %', '8.0', 'image 4, text 6']  # Of 384 pairs, 96 are known.
    music = next(row for row in papers if row.label == ['Music', 'motor'])
    assert [cell.mean for cell in music.cells[:2]] == [57202, 25717]


def test_titles_go_by_id(shop):
    assert read_titles(str(shop), load(shop))[:2] == ['item 0', 'item 1']
    order = np.random.default_rng(1).permutation(NUM_ITEMS)
    rows = [f'{i}\t{"" if i == 7 else f"thing {i}"}\t"odd' for i in order]
    (shop / 'items.tsv').write_text('\n'.join(['itemID\ttitle\tnote', *rows]) + '\n')
    dataset = load(shop)
    expected = [f'thing {i}' if i != 7 else 'item 7' for i in dataset.item_ids.tolist()]
    assert read_titles(str(shop), dataset) == expected


def test_neighbors_are_of_a_kind(shop):
    (table,) = neighbors(make('figure5', shop))
    assert len(table.rows) == 5
    for row in table.rows:
        first, shared, second, _ = row.cells
        query, one, two = (int(text.split()[1]) for text in (*row.label, first, second))
        assert len({query, one, two}) == 3 and query % 4 == one % 4 == two % 4
        assert shared == '4 of 4'


def test_tokens_are_counted(shop):
    *figures, table = tokens(make('figure6', shop))
    assert [figure.name for figure in figures] == ['figure6-shop-image', 'figure6-shop-text']
    for figure in figures:
        assert [series.label for series in figure.series] == ['slot 1', 'slot 2']
        for series in figure.series:
            assert series.x == [1, 2, 3, 4] and sum(series.y) == NUM_ITEMS
            assert series.y == sorted(series.y, reverse=True)
    assert [row.label for row in table.rows] == [['shop', 'image'], ['shop', 'text']]
    for row, pair in zip(table.rows, (figures[0], figures[1])):
        entropy = [-sum(n / 32 * np.log(n / 32) for n in one.y if n) for one in pair.series]
        most = max(one.y[0] for one in pair.series)
        expected = [4, np.exp(entropy).mean(), most]
        assert [cell.mean for cell in row.cells] == pytest.approx(expected)
