# Mistake: compares models with different numbers of settings
# Message: more settings than the other
r"""Assignment 5: an honest comparison of two models."""

import numpy as np
from scipy.stats import wilcoxon


def best_epoch(curve: list[float]) -> int:
    r"""The first epoch with the highest validation metric."""
    return int(np.argmax(curve))


def select_setting(val: np.ndarray, test: np.ndarray) -> int:
    r"""The setting to report."""
    return int(val.mean(axis=(1, 2)).argmax())


def user_values(test: np.ndarray, setting: int) -> np.ndarray:
    r"""A value for every user."""
    return test[setting].mean(axis=0)


def paired_test(a: np.ndarray, b: np.ndarray) -> dict[str, float]:
    r"""Mean difference, p-value and number of users."""
    difference = a.mean(axis=0) - b.mean(axis=0)
    p = float(wilcoxon(difference).pvalue) if difference.any() else 1.0
    return {'difference': float(difference.mean()), 'p': p, 'users': difference.size}


def benjamini_hochberg(p: list[float]) -> list[float]:
    r"""Corrected p-values, in the same order."""
    values = np.array(p)
    order = values.argsort()
    scaled = np.minimum(1, values[order] * len(p) / np.arange(1, len(p) + 1))
    out = np.empty(len(p))
    out[order] = np.minimum.accumulate(scaled[::-1])[::-1]
    return out.tolist()


def report(names: list[str], val: list[np.ndarray], test: list[np.ndarray]) -> str:
    r"""A table of two models in Markdown."""
    lines = ['| model | settings | selected | seeds | test |', '|---|---|---|---|---|']
    chosen = []
    for name, v, t in zip(names, val, test):
        setting = select_setting(v, t)
        seeds = t[setting].mean(axis=1)
        value = f'{seeds.mean():.4f} ± {seeds.std(ddof=1):.4f}'
        lines.append(f'| {name} | {len(v)} | {setting} | {len(seeds)} | {value} |')
        chosen.append(t[setting])
    out = paired_test(*chosen)
    text = f'{out["difference"]:+.4f}, p = {out["p"]:.4f}, {out["users"]} users'
    return '\n'.join([*lines, '', f'{names[0]} - {names[1]}: {text}'])
