import pytest

from motor_geo.report.document import Column, Row, Value
from motor_geo.report.layout import escape_latex, escape_markdown, format_value, grid
from tests.report.examples import table


@pytest.mark.parametrize(
    'mean, std, kind, expected',
    [
        (0.08974, 0.00123, 'metric', '0.0897 ± 0.0012'),
        (0.5, None, 'metric', '0.5000'),
        (-0.00001, None, 'metric', '0.0000'),
        (0.123, None, 'percent', '+12.3 %'),
        (-0.05, 0.012, 'percent', '-5.0 ± 1.2 %'),
        (-0.0001, None, 'percent', '+0.0 %'),
        (1234567, None, 'count', '1,234,567'),
        (1234.5, 10, 'count', '1,234 ± 10'),
        (0.01234, None, 'seconds', '0.012 s'),
        (12.34, 0.5, 'seconds', '12.3 ± 0.5 s'),
        (4321.4, None, 'seconds', '4,321 s'),
        (0.25, None, 'text', '0.25'),
        (3.0, 0.5, 'text', '3 ± 0.5'),
        (None, None, 'metric', '–'),
    ],
)
def test_format_value(mean, std, kind, expected):
    assert format_value(mean, std, kind) == expected


def test_best():
    values = [[0.1, 0.3], [0.20001, 0.1], [0.2, None], [0.9, 0.5]]
    labels = ['a', 'a', 'a', 'b']
    rows = [Row([x, ''], [Value(v) for v in vs]) for x, vs in zip(labels, values)]
    columns = [Column('x'), Column('y')]
    layout = grid(table(columns=columns, rows=rows))
    # Equal as printed: both. Alone in its group: none.
    best = [[cell.best for cell in row[2:]] for row in layout.rows]
    assert best == [[False, True], [True, False], [True, False], [False, False]]
    layout = grid(table(columns=[Column('x', 'seconds'), Column('y', 'count')], rows=rows))
    assert not any(cell.best for row in layout.rows for cell in row)


def test_escape_markdown():
    assert escape_markdown('a|b_c *d*\n[e] <f> `g` \\h $i$ ~j & k') == (
        r'a\|b\_c \*d\* \[e\] \<f\> \`g\` \\h \$i\$ \~j \& k'
    )
    assert [escape_markdown(x) for x in ('- a', '1. b', '# c', '-1 d')] == [
        '\\- a',
        '1\\. b',
        '\\# c',
        '-1 d',
    ]


def test_escape_latex():
    assert escape_latex('50% of a_b & c#1 $x$ {y} ~^\\') == (
        r'50\% of a\_b \& c\#1 \$x\$ \{y\} \textasciitilde{}\textasciicircum{}\textbackslash{}'
    )
    assert escape_latex('[a]* <b> – ±') == r'{[}a{]}{*} \textless{}b\textgreater{} -- $\pm$'
