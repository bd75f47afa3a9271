r"""Public tests of assignment 5."""

import numpy as np

from course.grading import check
from course.grading.check import points

VAL = np.array([[[0.1, 0.3], [0.1, 0.1]], [[0.3, 0.3], [0.2, 0.2]]])  # Two settings, two seeds.
TEST = np.array([[[0.2, 0.4], [0.4, 0.4]], [[0.1, 0.5], [0.3, 0.5]]])


@points(1)
def test_best_epoch(student):
    r"""best_epoch: a tie."""
    check.close('best_epoch', student.best_epoch([0.1, 0.3, 0.2, 0.3]), 1, 'The earliest one.')


@points(1)
def test_select_setting(student):
    r"""select_setting: two settings."""
    out = student.select_setting(VAL, TEST)
    check.close('select_setting', out, 1, 'Means on validation: 0.15 and 0.25.')


@points(1)
def test_user_values(student):
    r"""user_values: two seeds."""
    out = student.user_values(TEST, 1)
    check.that(isinstance(out, np.ndarray) and out.shape == (2,), 'Return an array of two users.')
    check.that(np.allclose(out, [0.2, 0.5]), 'Average the two seeds of every user.')


@points(2)
def test_paired_test(student):
    r"""paired_test: the same model twice."""
    out = student.paired_test(TEST[0], TEST[0])
    check.that(isinstance(out, dict), 'Return a dictionary.')
    check.that(set(out) == {'difference', 'p', 'users'}, 'The keys are difference, p and users.')
    check.close('paired_test', out['difference'], 0, 'There is no difference.')
    check.close('paired_test', out['p'], 1, 'All differences are zero.')
    check.close('paired_test', out['users'], 2, 'There are two users.')


@points(1)
def test_benjamini_hochberg(student):
    r"""benjamini_hochberg: two p-values."""
    out = student.benjamini_hochberg([0.04, 0.01])
    check.that(isinstance(out, list) and len(out) == 2, 'Return a list of two values.')
    check.that(np.allclose(out, [0.04, 0.02]), 'With m = 2: 0.01 * 2 / 1 and 0.04 * 2 / 2.')


@points(2)
def test_report(student):
    r"""report: the form of the table."""
    lines = student.report(['one', 'two'], [VAL, VAL], [TEST, TEST])
    check.that(isinstance(lines, str), 'Return a string.')
    lines = lines.strip().splitlines()
    check.that(len(lines) == 6, f'There are {len(lines)} lines; expected six, one of them empty.')
    head = '| model | settings | selected | seeds | test |'
    check.that(lines[0].strip() == head, f'The first line is `{head}`.')
    row = '| one | 2 | 1 | 2 | 0.3500 ± 0.0707 |'
    check.that(lines[2].strip() == row, f'The third line is `{row}`. You have `{lines[2]}`.')
    last = 'one - two: +0.0000, p = 1.0000, 2 users'
    check.that(lines[5].strip() == last, f'The last line is `{last}`. You have `{lines[5]}`.')
