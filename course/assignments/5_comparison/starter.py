r"""Assignment 5: an honest comparison of two models."""

import numpy as np


def best_epoch(curve: list[float]) -> int:
    r"""The first epoch with the highest validation metric."""
    raise NotImplementedError


def select_setting(val: np.ndarray, test: np.ndarray) -> int:
    r"""The setting to report.

    Shapes:
        - **input:** metrics by setting, seed and user :math:`(S, R, U)`, :math:`(S, R, V)`
    """
    raise NotImplementedError


def user_values(test: np.ndarray, setting: int) -> np.ndarray:
    r"""A value for every user.

    Shapes:
        - **input:** metrics by setting, seed and user :math:`(S, R, V)`
        - **output:** :math:`(V)`
    """
    raise NotImplementedError


def paired_test(a: np.ndarray, b: np.ndarray) -> dict[str, float]:
    r"""Mean difference, p-value and number of users.

    Shapes:
        - **input:** metrics by seed and user :math:`(R, U)`, for both models
    """
    raise NotImplementedError


def benjamini_hochberg(p: list[float]) -> list[float]:
    r"""Corrected p-values, in the same order."""
    raise NotImplementedError


def report(names: list[str], val: list[np.ndarray], test: list[np.ndarray]) -> str:
    r"""A table of two models in Markdown."""
    raise NotImplementedError


if __name__ == '__main__':
    values = np.load('values.npz')
    names = ['tokens', 'ids']
    val, test = ([values[f'{name}_{part}'] for name in names] for part in ('val', 'test'))
    print(report(names, val, test))
