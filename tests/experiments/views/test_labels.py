import numpy as np
import pytest
import torch

from motor_geo.experiments.views.labels import labels, read_labels, shared_labels
from tests.experiments.views.test_datasets import NUM_ITEMS, load, make, shop  # noqa: F401


def write(folder, text, column='genres'):
    rows = [f'{item}\t{text(item)}' for item in range(NUM_ITEMS)]
    (folder / 'items.tsv').write_text('\n'.join([f'itemID\t{column}', *rows]) + '\n')


def test_labels_equal_a_loop():
    rng = np.random.default_rng(0)
    matrix = torch.from_numpy(rng.random((40, 6)) < 0.3)
    x = torch.from_numpy(rng.standard_normal((40, 3)))
    found = shared_labels(matrix, lambda query: (x[query] @ x.t()).float())
    sets = [set(row.nonzero().view(-1).tolist()) for row in matrix]
    known = [item for item, own in enumerate(sets) if own]
    some, jaccard = [], []
    for query in known:
        order = sorted((i for i in known if i != query), key=lambda i: -float(x[query] @ x[i]))
        for item in order[:10]:
            some.append(bool(sets[query] & sets[item]))
            jaccard.append(len(sets[query] & sets[item]) / len(sets[query] | sets[item]))
    assert found == pytest.approx((np.mean(some), np.mean(jaccard)))


def test_equally_similar_items_are_in_random_order():
    matrix = torch.zeros(400, 2, dtype=torch.bool)
    matrix[:40, 0], matrix[40:, 1] = True, True
    share, _ = shared_labels(matrix, lambda query: torch.zeros(query.numel(), 400))
    assert share == pytest.approx(0.1 * 39 / 399 + 0.9 * 359 / 399, abs=0.03)


@pytest.fixture(autouse=True)
def few_tokens(monkeypatch):
    monkeypatch.setitem(labels.__globals__, 'TOKENS', ((2, 4),))


def test_items_of_a_kind_share_labels(shop):  # noqa: F811
    write(shop, lambda item: f'kind {item % 4}|all' if item != 5 else '')
    (table,) = labels(make('labels', shop))
    values = {row.label[1]: [cell.mean for cell in row.cells] for row in table.rows}
    assert values.pop('random')[0] < 0.5
    assert values.pop('behavior')[0] < 0.8
    assert list(values) == [
        'raw features: image',
        'raw features: text',
        '2 tokens per modality, 4 per codebook',
    ]
    for value in values.values():
        assert value == pytest.approx([7 / 10, 7 / 10], abs=0.06)  # Eight items of a kind.


def test_labels_of_some_items_count(shop):  # noqa: F811
    dataset = load(shop)
    assert read_labels(str(shop), dataset) == ('', None)
    write(shop, lambda item: 'name', column='title')
    assert read_labels(str(shop), load(shop)) == ('', None)
    write(shop, lambda item: f'brand {item}, all, {"few" if item < 5 else "rare"}, half', 'text')
    column, matrix = read_labels(str(shop), load(shop))
    assert column == 'text' and matrix.sum(dim=0).tolist() == [5]
    assert list(labels(make('labels', shop)))[0].rows
