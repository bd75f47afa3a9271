r"""Hidden tests of assignment 5."""

import re

import numpy as np
from scipy.stats import mannwhitneyu, ranksums, ttest_ind, ttest_rel, wilcoxon

from course.grading import check
from course.grading.check import Hint, points

UNPAIRED = 'This is an unpaired test. Both values belong to the same user.'
SEEDS = 'You count every seed of a user as another user. Average over seeds first.'


def case(seed=0, num_settings=3, num_seeds=3, num_users=60):
    rng = np.random.default_rng(seed)
    level = rng.random(num_users)  # Users differ much more than models.
    shape = (num_settings, num_seeds, num_users)
    return np.clip(level + 0.1 * rng.standard_normal(shape), 0, 1)


def ordered(seed=0):
    r"""Validation prefers setting 0 and test prefers setting 2. Setting 1 has the best run."""
    val, test = case(seed), case(seed + 1)
    val[0] += 0.05
    val[1, 0] += 0.12
    val[1, 1:] -= 0.08
    test[2] += 0.06
    return val, test


@points(1)
def test_best_epoch(student):
    r"""best_epoch: a late maximum."""
    curve = [0.1, 0.2, 0.2, 0.19, 0.2001, 0.1]
    check.close('best_epoch', student.best_epoch(curve), 4, 'Do not round, and do not stop early.')


@points(3)
def test_select_setting(student):
    r"""select_setting: validation and test disagree."""
    val, test = ordered()
    out = check.number('select_setting', student.select_setting(val, test))
    check.that(
        out != 2, 'You selected the setting with the best test metric. Test selects nothing.'
    )
    check.that(
        out != 1,
        'You selected the setting with the best single seed. A lucky seed is no better setting.',
    )
    check.close('select_setting', out, 0, 'Compare the means of all settings by hand.')


@points(1)
def test_user_values(student):
    r"""user_values: three seeds."""
    test = case(2)
    out = student.user_values(test, 2)
    check.that(isinstance(out, np.ndarray) and out.shape == (60,), 'Return an array of all users.')
    best = test[2].max(axis=0)
    check.that(not np.allclose(out, best), 'This is the best seed of every user, not the mean.')
    check.that(np.allclose(out, test[2].mean(axis=0)), 'It is not the mean over seeds.')


@points(2)
def test_paired_test(student):
    r"""paired_test: a small difference between users who differ a lot."""
    a, b = case(3)[0] + 0.03, case(3)[1]
    x, y = a.mean(axis=0), b.mean(axis=0)
    out = student.paired_test(a, b)
    check.that(isinstance(out, dict) and 'p' in out, 'Return a dictionary with the key p.')
    check.close('paired_test', out['difference'], (x - y).mean(), 'It is the mean of a - b.')
    flat = wilcoxon((a - b).flatten()).pvalue
    typical = {
        UNPAIRED: mannwhitneyu(x, y).pvalue,
        UNPAIRED + ' ': ranksums(x, y).pvalue,
        UNPAIRED + '  ': ttest_ind(x, y).pvalue,
        SEEDS: flat,
        SEEDS + ' ': ttest_rel(a.flatten(), b.flatten()).pvalue,
        'This is a t-test. The Wilcoxon test is asked for.': ttest_rel(x, y).pvalue,
        'Only one seed is tested.': wilcoxon(a[0] - b[0]).pvalue,
    }
    hint = 'Print the number of differences that you test.'
    expected = wilcoxon(x - y).pvalue
    check.close('paired_test', out['p'], expected, hint, typical, atol=1e-9, rtol=1e-4)


@points(1)
def test_number_of_users(student):
    r"""paired_test: the number of users."""
    out = student.paired_test(case(4)[0], case(4)[1])
    check.that(isinstance(out, dict) and 'users' in out, 'Return a dictionary with the key users.')
    check.close('paired_test', out['users'], 60, SEEDS, {SEEDS: 180})


@points(2)
def test_benjamini_hochberg(student):
    r"""benjamini_hochberg: five p-values, not in order."""
    p = [0.04, 0.001, 0.9, 0.011, 0.012]
    out = student.benjamini_hochberg(p)
    check.that(isinstance(out, list) and len(out) == 5, 'Return a list of five values.')
    check.that(
        not np.allclose(out, np.minimum(1, 5 * np.array(p))),
        'This is the Bonferroni correction, which has no ranks.',
    )
    rank = np.argsort(np.argsort(p)) + 1
    check.that(
        not np.allclose(out, np.minimum(1, 5 * np.array(p) / rank)),
        'A larger p-value may not get a smaller corrected one: the outer minimum is missing.',
    )
    expected = [0.05, 0.005, 0.9, 0.02, 0.02]
    check.that(np.allclose(out, expected), 'Is the output in the order of the input?')


def cells(text):
    r"""The cells of both rows, and the last line."""
    check.that(isinstance(text, str), 'Return a string.')
    lines = [line.strip() for line in text.strip().splitlines()]
    check.that(len(lines) == 6, f'There are {len(lines)} lines; expected six.')
    return [[cell.strip() for cell in line.strip('|').split('|')] for line in lines[2:4]], lines[5]


@points(3)
def test_report(student):
    r"""report: settings, seeds and the test."""
    (val, test), (other_val, other_test) = ordered(5), ordered(7)
    rows, last = cells(student.report(['a', 'b'], [val, other_val], [test, other_test]))
    check.that(all(len(row) == 5 for row in rows), 'A row has five cells.')
    check.that(
        rows[0][2] == rows[1][2] == '0',
        'The selected settings are wrong. Is the selection on validation?',
    )
    check.that(rows[0][1] == '3' and rows[0][3] == '3', 'There are three settings and three seeds.')
    means = test[0].mean(axis=1)
    users = f'{test[0].mean():.4f} ± {test[0].mean(axis=0).std(ddof=1):.4f}'
    flat = f'{test[0].mean():.4f} ± {test[0].std(ddof=1):.4f}'
    check.that(
        rows[0][4] not in (users, flat),
        'After ± stands the deviation over users. Which deviation shows the effect of the seed?',
    )
    population = f'{means.mean():.4f} ± {means.std():.4f}'
    check.that(rows[0][4] != population, 'The denominator of the deviation is R - 1.')
    best = f'{means.max():.4f}'
    check.that(not rows[0][4].startswith(best), 'This is the best seed, not the mean over seeds.')
    expected = f'{means.mean():.4f} ± {means.std(ddof=1):.4f}'
    check.that(rows[0][4] == expected, 'Mean or deviation are wrong.')
    x, y = test[0].mean(axis=0), other_test[0].mean(axis=0)
    line = f'a - b: {(x - y).mean():+.4f}, p = {wilcoxon(x - y).pvalue:.4f}, 60 users'
    difference, p = (re.search(r, last) for r in (r'[+-]\d\.\d{4}', r'p = (\d\.\d{4})'))
    check.that(difference and p, 'The last line lacks the difference or the p-value.')
    check.that(last == line, 'The difference, its p-value or the number of users are wrong.')


@points(1)
def test_budgets(student):
    r"""report: different numbers of settings."""
    few, many = case(9, num_settings=2), case(9, num_settings=4)
    try:
        student.report(['a', 'b'], [few, many], [few, many])
    except Hint as error:
        check.that('ValueError' in str(error), str(error))
    else:
        check.fail('One model has more settings than the other. Raise a ValueError.')
