import pytest

from motor_geo.report.document import Column, Row, Series, Text, Value, check, from_rows, to_rows
from tests.report.examples import bar, heat, line, report, table


def row(value):
    return [Row(['a', 'b'], [value, '', ''])]


@pytest.mark.parametrize(
    'block, message',
    [
        (table(name='a/b'), "Names: expected letters, digits, '_' and '-', got 'a/b'."),
        (table(columns=[Column('c', 'x')]), "The kind of 'c' must be one of metric, "),
        (table(columns=[]), r"A row of 'main' does not match its columns: \['GRCN', 'ids'\]."),
        (table(head=['a']), "A row of 'main' does not match its columns"),
        (table(rows=row(Value(float('nan')))), r"'main' holds NaN or infinity at \['a', 'b'\]."),
        (table(rows=row(Value(1, p=float('inf')))), "'main' holds NaN or infinity"),
        (
            table(rows=row(Value(1, runs=['r9']))),
            "'Main' refers to the run 'r9', which is missing.",
        ),
        (line(kind='pie'), "The kind of 'curve' must be line, bar or heat."),
        (line(series=[]), "'curve' has no series."),
        (line(series=[Series('s', [1], [1], runs=['r9'])]), "'Curve' refers to the run 'r9'"),
        (
            line(series=[Series('s', [1, 2], [1])]),
            "'s' of 'curve' does not have one value per position.",
        ),
        (line(series=[Series('s', [1], [1], [1, 2])]), "'s' of 'curve' does not have one value"),
        (bar(categories=['A']), "'ids' of 'bars' does not have one value per position"),
        (heat(categories=None), "'ids' of 'map' does not have one value per position"),
        (line(series=[Series('s', [0], [1])], logx=True), 'has a logarithmic axis and x = 0.'),
        (line(fill=('ids', 'x')), "The 'fill' of 'curve' needs two lines at equal positions."),
        (bar(fill=('ids', 'tokens')), "The 'fill' of 'bars' needs two lines"),
    ],
)
def test_errors(block, message):
    with pytest.raises(ValueError, match=message):
        check(report(block))


def test_equal_names():
    with pytest.raises(ValueError, match="Two blocks have the name 'curve'."):
        check(report(line(), line()))


def test_rows_hold_the_report():
    value = report(table(), line(fill=('ids', 'tokens'), panels='x'), bar(), heat(), Text('a', 'b'))
    rows = list(to_rows(value, [{'run': f'r{i + 1}', 'epochs': i} for i in range(4)]))
    assert [next(iter(row)) for row in rows] == [
        *('report', 'table', 'figure', 'figure', 'figure', 'text'),
        *['run'] * 4,
    ]
    assert rows[1]['rows'][0]['cells'][0] == {
        'mean': 0.08,
        'std': 0.001,
        'published': 0.081,
        'runs': [1, 2],
    }
    assert rows[6] == {'run': 'r1', **value.runs['r1']._asdict(), 'epochs': 0}
    again = from_rows(rows)
    # Two variants may share a run.
    shared = [
        {'run': name, 'label': [label]} for name, label in (('r2', 'b'), ('r1', 'a'), ('r1', 'c'))
    ]
    found = list(to_rows(value, shared))[6:]
    assert [(row['run'], row.get('label')) for row in found] == [
        *(('r1', ['a']), ('r1', ['c']), ('r2', ['b'])),
        *(('r3', None), ('r4', None)),
    ]
    assert from_rows([*rows[:6], *found]) == again
    assert list(to_rows(again)) == list(to_rows(value))
    assert again.blocks[1].fill == ('ids', 'tokens') and again.blocks[1].panels == 'x'
    assert again.blocks[1].series[2].published and not again.blocks[1].series[0].published
    assert again.blocks[4] == value.blocks[4] and again.runs == value.runs
