import pytest

from motor_geo.experiments.views.curves import ahead, families, gains, lines, shares
from motor_geo.report.document import Figure, Table
from tests.experiments.test_results import make

ID = ('shop', 'LightGCN', 'id')


def values(id, tokens):
    out = {(*ID, share): value for share, value in id.items()}
    return out | {('shop', 'LightGCN', 'mean', share): value for share, value in tokens.items()}


def test_gains_by_share():
    found = values({'0.25': [0.1, 0.3], '1': [0.2]}, {'1': [0.1], '0.25': [0.5, 0.3]})
    assert gains(found, 'mean') == [(0.25, pytest.approx(1)), (1.0, pytest.approx(-0.5))]
    assert gains(found, 'id') == [(0.25, 0), (1.0, 0)]
    assert gains(found, 'specific') == []
    # Nothing can be gained over nothing.
    assert gains(values({'0.25': [0.0], '1': []}, {'0.25': [0.1], '1': [0.1]}), 'mean') == []


@pytest.mark.parametrize(
    'points, expected',
    [
        # Gains of 100 % and -50 % meet zero at two thirds of the way, on a log scale.
        ([(0.25, 1.0), (1.0, -0.5)], 'below 63 %'),
        ([(0.25, -0.5), (1.0, 0.5)], 'above 50 %'),
        ([(0.25, 0.5), (1.0, 0.5)], 'everywhere'),
        ([(0.25, -0.5), (1.0, -0.5)], 'nowhere'),
        ([(0.01, -1), (0.04, 1), (0.16, -1)], '2 to 8 %'),
        ([(0.01, 1), (0.04, -1), (0.16, 1)], 'below 2 %, above 8 %'),
        ([(0.01, -1), (0.04, 1), (0.16, -1), (0.64, 1)], '2 to 8 %, above 32 %'),
        ([(1.0, 0.5)], '–'),
        ([], '–'),
    ],
)
def test_where_tokens_are_ahead(points, expected):
    assert ahead(points) == expected


def test_variations_stand_beside_what_they_vary():
    names = ['id', 'mean', 'specific', 'mean + behavior', 'specific, 2 tokens', 'specific, text']
    assert families(names) == {
        '': ['id', 'mean', 'specific', 'mean + behavior'],
        'specific': ['id', 'specific', 'specific, 2 tokens', 'specific, text'],
    }
    assert families(['LIRDRec']) == {'': ['LIRDRec']}


def test_gains_and_crossings_in_one_table():
    curves = {
        'id': {'1': 0.4, '0.25': 0.1},
        'specific': {'1': 0.2, '0.25': 0.2},
        'specific, 2 tokens': {'1': 0.5, '0.25': 0.2},
        'mean': {'1': 0.2},
    }
    labels = {
        ('shop', 'LightGCN', form, share): [value]
        for form, curve in curves.items()
        for share, value in curve.items()
    }
    blocks = list(shares(make('sparsity', labels)))
    (table,) = (block for block in blocks if isinstance(block, Table) and 'crossings' in block.name)
    names = ['gain at 100 %', 'gain at 25 %', 'ahead', 'ahead tail', 'ahead middle', 'ahead head']
    assert [column.name for column in table.columns] == names
    rows = {row.label[0]: row.cells for row in table.rows}
    assert [cell.mean for cell in rows['specific'][:2]] == pytest.approx([-0.5, 1.0])
    assert rows['specific'][2:4] == ['below 63 %', '–']  # Nothing ran, so no groups are known.
    assert rows['specific, 2 tokens'][2] == 'everywhere'
    assert [cell.mean for cell in rows['mean'][:2]] == [-0.5, None] and rows['mean'][2] == '–'

    figures = {block.name: block for block in blocks if isinstance(block, Figure)}
    labels = [series.label for series in figures['sparsity-shop-gain-plot'].series]
    assert labels == ['id', 'specific', 'mean']
    (_, own, variation) = figures['sparsity-shop-gain-specific-plot'].series
    assert (variation.x, variation.y) == ([0.25, 1.0], pytest.approx([100, 25]))
    assert own.y == pytest.approx([100, -50])
    plain, varied = (figures[f'sparsity-shop-recall-{name}plot'] for name in ('', 'specific-'))
    assert varied.series[2].y == [0.5, 0.2]
    assert plain.panels == varied.panels != figures['sparsity-shop-ndcg-plot'].panels


def test_crossings_by_popularity(monkeypatch):
    r"""Ahead of IDs for the tail at every share, and for the head at none."""
    labels = {
        ('shop', 'LightGCN', form, share): [0.2]
        for form in ('id', 'mean')
        for share in ('1', '0.5')
    }
    results = make('sparsity', labels)

    def groups(own):
        gain = 0.1 if own.variant.label[2] == 'mean' else 0.0
        return [{'tail': {'recall@20': 0.1 + gain}, 'head': {'recall@20': 0.3 - gain}}]

    monkeypatch.setattr(results, 'groups', groups)
    blocks = list(shares(results))
    (table,) = (block for block in blocks if isinstance(block, Table) and 'crossings' in block.name)
    assert table.rows[0].cells[3:] == ['everywhere', '–', 'nowhere']
    figures = {block.name: block for block in blocks if isinstance(block, Figure)}
    assert figures['sparsity-shop-tail-plot'].series[1].y == [0.2, 0.2]
    assert figures['sparsity-shop-head-plot'].series[1].y == pytest.approx([0.2, 0.2])
    assert figures['sparsity-shop-middle-plot'].series[1].y == [None, None]


def test_every_backbone_has_its_own_figure():
    labels = {
        ('shop', model, form, share): [value]
        for model, value in (('LightGCN', 0.25), ('BPR', 0.5))
        for form in ('id', 'mean')
        for share in ('0', '0.5')
    }
    blocks = list(lines(make('missing', labels)))
    figures = {block.name: block for block in blocks if isinstance(block, Figure)}
    for model, value in (('LightGCN', 0.25), ('BPR', 0.5)):
        figure = figures[f'missing-shop-recall-{model}-plot']
        assert {series.label: series.y for series in figure.series} == {
            'id': [value] * 2,
            'mean': [value] * 2,
        }
    tables = [block for block in blocks if isinstance(block, Table)]
    assert [row.label for row in tables[0].rows][2:] == [['BPR', 'id'], ['BPR', 'mean']]
