from motor_geo.report.document import (
    Column,
    Figure,
    Report,
    Row,
    RunInfo,
    Series,
    Table,
    Text,
    Value,
)

NASTY = 'a|b <i>&"c" $x_1$ [d](e) *f* `g` \\h #1 ~ % {}'
RUNS = {
    f'r{i}': RunInfo(f'runs/{i}', f'python -m m --seed {i} | tee "<{i}>"', i, 61.25, 7)
    for i in range(1, 5)
}


def table(**kwargs):
    default = {
        'name': 'main',
        'title': 'Main',
        'head': ['Backbone', 'Items'],
        'columns': [Column('recall@20'), Column('gain', 'percent'), Column('size', 'count')],
        'rows': [
            Row(['GRCN', 'ids'], [Value(0.08, 0.001, 0.081, None, ('r1', 'r2')), '', Value(12345)]),
            Row(
                ['GRCN', 'tokens'],
                [Value(0.0897, 0.0012, p=0.049, runs=('r3',)), Value(0.121), 'many'],
            ),
            Row(['BPR', 'ids'], [Value(0.05, p=0.05), Value(-0.02), Value(None)]),
        ],
    }
    return Table(**{**default, **kwargs})


def line(**kwargs):
    series = [
        Series('ids', [1, 2, 4], [0.1, 0.2, 0.5], [0.01, 0.02, None], ('r1',)),
        Series('tokens', [1, 2, 4], [0.3, 0.3, 0.3], None, ('r4',)),
        Series('ids', [1, 2, 4], [0.1, None, 0.3], published=True),
    ]
    default = {'name': 'curve', 'title': 'Curve', 'kind': 'line', 'series': series}
    return Figure(**{**default, 'xlabel': 'epoch', 'ylabel': 'recall@20', **kwargs})


def bar(**kwargs):
    series = [Series('ids', [], [1.0, 2.0], [0.1, 0.2]), Series('tokens', [], [2.0, None])]
    return line(
        **{'name': 'bars', 'kind': 'bar', 'series': series, 'categories': ['A', 'B'], **kwargs}
    )


def heat(**kwargs):
    return bar(**{'name': 'map', 'kind': 'heat', **kwargs})


def report(*blocks, **kwargs):
    default = {
        'name': 'results',
        'title': 'Results',
        'intro': 'First\nparagraph with `code`.\n\n- one\n- two\n  more',
        'command': 'python -m m \\\n  --out x',
        'machine': {'CPU': 'fast & small'},
        'blocks': blocks
        or [Text('How', 'So.'), table(), line(panels='x'), bar(panels='x'), heat()],
        'runs': RUNS,
    }
    return Report(**{**default, **kwargs})
