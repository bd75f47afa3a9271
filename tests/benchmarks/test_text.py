from benchmarks.text import group, markdown, spread


def test_spread():
    assert spread([0.5]) == '0.5000' and spread([0.1, 0.3]) == '0.2000 ± 0.1414'


def test_tables():
    assert markdown(['a', 'b'], [[1, 'x']]) == '| a | b |\n|---|---|\n| 1 | x |\n'


def test_groups_keep_their_order():
    rows = [{'n': 2}, {'n': 1}, {'n': 2, 'm': 0}]
    assert list(group(rows, lambda row: row['n']).items()) == [
        (2, [rows[0], rows[2]]),
        (1, [rows[1]]),
    ]
