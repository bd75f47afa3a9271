import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from motor_geo.experiments.significance import Paired, paired_tests

stats = pytest.importorskip('scipy.stats')


def random_pairs(count=4, users=200):
    rng = np.random.default_rng(0)
    return {i: (rng.random(users) + 0.02 * i, rng.random(users)) for i in range(count)}


def test_raw_p_values_and_differences():
    pairs = random_pairs()
    for key, result in paired_tests(pairs).items():
        a, b = pairs[key]
        assert result.difference == pytest.approx(a.mean() - b.mean())
        assert result.p_wilcoxon == pytest.approx(stats.wilcoxon(a, b).pvalue, rel=1e-4)
        assert result.p_t == pytest.approx(stats.ttest_rel(a, b).pvalue, rel=1e-4)
        assert result.n == 200


def test_wilcoxon_by_hand():
    # Of the 2 ** 5 signs of the ranks 1, ..., 5, two are as extreme as all being positive.
    first = np.array([0.1, 0.2, 0.3, 0.4, 0.5])
    assert paired_tests({'a': (first, np.zeros(5))})['a'].p_wilcoxon == pytest.approx(2 / 32)


def test_correction_is_that_of_benjamini_and_hochberg():
    results = list(paired_tests(random_pairs()).values())
    for raw, corrected in [('p_wilcoxon', 'corrected_wilcoxon'), ('p_t', 'corrected_t')]:
        p = np.array([getattr(result, raw) for result in results])
        order = np.argsort(p)
        expected, least = np.empty(4), 1.0
        for rank in (4, 3, 2, 1):
            least = min(least, p[order[rank - 1]] * 4 / rank)
            expected[order[rank - 1]] = least
        assert [getattr(result, corrected) for result in results] == pytest.approx(expected)
        assert (expected > p).any()


def test_a_single_pair_is_not_corrected():
    result = paired_tests({'a': random_pairs()[2]})['a']
    assert result.corrected_wilcoxon == result.p_wilcoxon < 1
    assert result.corrected_t == result.p_t < 1


values = st.lists(
    st.tuples(st.integers(0, 20), st.integers(0, 20)).map(lambda pair: np.array(pair) / 20),
    min_size=1,
    max_size=30,
).map(lambda rows: tuple(np.array(rows).T))


@settings(max_examples=15, deadline=None)
@given(st.dictionaries(st.integers(), values, min_size=1, max_size=4))
def test_properties(pairs):
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        results = paired_tests(pairs)
        swapped = paired_tests({key: (b, a) for key, (a, b) in pairs.items()})
    assert list(results) == list(pairs)
    for key, result in results.items():
        assert 0 <= result.p_wilcoxon <= result.corrected_wilcoxon <= 1
        assert 0 <= result.p_t <= result.corrected_t <= 1
        assert swapped[key].difference == pytest.approx(-result.difference)
        assert swapped[key].effect_size == pytest.approx(-result.effect_size)
        assert swapped[key][1:-1] == pytest.approx(result[1:-1])


def test_no_difference_is_no_evidence():
    a = np.random.default_rng(0).random(50)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert paired_tests({'a': (a, a)})['a'] == Paired(0, 1, 1, 1, 1, 50, 0)


def test_rounding_errors_are_no_differences():
    a = np.random.default_rng(0).random(50).astype(np.float32)
    b = a + np.float32(6e-8)
    assert (a != b).any()
    assert paired_tests({'a': (a, b)})['a'].p_wilcoxon == 1


def test_equal_differences():
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        result = paired_tests({'a': (np.full(20, 0.3), np.full(20, 0.1))})['a']
    assert result.p_t < 1e-12
    assert result.p_wilcoxon < 1e-4
    assert result.effect_size == math.inf


def test_a_single_user_is_no_evidence():
    assert paired_tests({'a': (np.ones(1), np.zeros(1))})['a'] == Paired(1, 1, 1, 1, 1, 1, math.inf)


def test_no_pairs():
    assert paired_tests({}) == {}


@pytest.mark.parametrize(
    'first, second, message',
    [
        (np.ones(3), np.ones(2), r'one value per user for both variants, got .* \[3\] and \[2\]\.'),
        (np.ones((2, 2)), np.ones((2, 2)), 'one value per user'),
        (np.ones(0), np.ones(0), 'one value per user'),
        (np.array([1, np.nan]), np.ones(2), 'NaN or infinite'),
        (np.ones(2), np.array([1, np.inf]), 'NaN or infinite'),
    ],
)
def test_errors_name_the_key(first, second, message):
    pairs = {'good': (np.ones(3), np.zeros(3)), 'bad': (first, second)}
    with pytest.raises(ValueError, match=f"The pair 'bad' .*{message}"):
        paired_tests(pairs)


def test_effect_size():
    # Differences 1, 3 and 5 have the mean 3 and the deviation 2.
    found = paired_tests({'a': (np.array([1.0, 3.0, 5.0]), np.zeros(3))})['a']
    assert found.effect_size == pytest.approx(1.5)
