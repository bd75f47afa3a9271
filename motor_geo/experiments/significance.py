r"""Paired tests of per-user metrics."""

from __future__ import annotations

import math
import warnings
from collections.abc import Hashable, Mapping
from typing import NamedTuple, TypeVar

import numpy as np

K = TypeVar('K', bound=Hashable)

#: Differences are rounded to this many decimals. In single precision, means over seeds of equal
#: values may differ in the eighth digit, which would break ties between users.
DECIMALS = 6


class Paired(NamedTuple):
    r"""The comparison of two variants. All p-values are two-sided.

    Args:
        difference: Mean of the first minus mean of the second.
        p_wilcoxon: p-value of the Wilcoxon signed-rank test.
        p_t: p-value of the paired t-test.
        corrected_wilcoxon: :obj:`p_wilcoxon` corrected over all pairs.
        corrected_t: :obj:`p_t` corrected over all pairs.
        n: Number of users.
        effect_size: Cohen's :math:`d` of the differences, their mean divided by
            their standard deviation. It is zero without differences, and infinite
            if all differences are the same.
    """

    difference: float
    p_wilcoxon: float
    p_t: float
    corrected_wilcoxon: float
    corrected_t: float
    n: int
    effect_size: float


def paired_tests(pairs: Mapping[K, tuple[np.ndarray, np.ndarray]]) -> dict[K, Paired]:
    r"""Tests pairs of variants on the same users. The Benjamini-Hochberg
    procedure, which controls the false discovery rate, corrects the p-values
    over all pairs of the call.

    The Wilcoxon test drops users with equal values, as in the original
    procedure. If all users have equal values, or there is only one user, all
    p-values of the pair are one.

    Args:
        pairs: For each key, the values of a metric for the two variants,
            **[U]** each and in the same order of users. Average the values of
            several seeds before.

    Raises:
        ValueError: If the arrays of a pair have different lengths, no users,
            or NaN or infinite values. The message names the key.
    """
    from scipy.stats import false_discovery_control

    if not pairs:
        return {}
    differences = {key: _difference(key, *pair) for key, pair in pairs.items()}
    raw = np.array([_p_values(difference) for difference in differences.values()])
    corrected = false_discovery_control(raw, axis=0, method='bh')
    return {
        key: Paired(
            difference=float(d.mean()),
            p_wilcoxon=float(p[0]),
            p_t=float(p[1]),
            corrected_wilcoxon=float(q[0]),
            corrected_t=float(q[1]),
            n=d.size,
            effect_size=_effect_size(d),
        )
        for (key, d), p, q in zip(differences.items(), raw, corrected)
    }


def _difference(key: Hashable, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if a.ndim != 1 or a.shape != b.shape or a.size == 0:
        raise ValueError(
            f"The pair '{key}' must hold one value per user for both variants, "
            f'got arrays of shapes {list(a.shape)} and {list(b.shape)}.'
        )
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError(f"The pair '{key}' holds NaN or infinite values.")
    return a - b


def _effect_size(difference: np.ndarray) -> float:
    difference = difference.round(DECIMALS)
    mean, std = float(difference.mean()), float(difference.std(ddof=min(1, difference.size - 1)))
    if std > 10**-DECIMALS:
        return mean / std
    return math.copysign(math.inf, mean) if mean else 0.0


def _p_values(difference: np.ndarray) -> tuple[float, float]:
    from scipy.stats import ttest_1samp, wilcoxon

    difference = difference.round(DECIMALS)
    if difference.size == 1 or not difference.any():
        return 1.0, 1.0
    with warnings.catch_warnings():  # SciPy warns if all differences are equal (p is 0).
        warnings.simplefilter('ignore', RuntimeWarning)
        return float(wilcoxon(difference).pvalue), float(ttest_1samp(difference, 0).pvalue)
