r"""How noisy early stopping was."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from motor_geo.experiments.metrics import spelled
from motor_geo.experiments.results import Results
from motor_geo.report.document import Block, Column, Figure, Row, Series, Table, Value

#: Number of epochs before and after the best one.
AROUND = 10


def around_best(curve: Sequence[float], width: int = AROUND) -> np.ndarray:
    r"""Returns a metric in the epochs around the best one, relative to the best
    value, with NaN for epochs that did not take place.

    .. math::
        r_k = \frac{m_{t + k}}{m_t} - 1, \qquad
        t = \arg\max_s m_s, \quad k = -w, \ldots, w

    Args:
        curve: The metric after every epoch, with a positive maximum.
        width: Number of epochs :math:`w` before and after the best one.
            (default: :obj:`10`)

    **Shapes:** input **[T]**, output **[2w + 1]**
    """
    values = np.asarray(curve, np.float64)
    best = int(values.argmax())
    padded = np.pad(values / values[best] - 1, width, constant_values=np.nan)
    return padded[best : best + 2 * width + 1]


def stopping(results: Results) -> Iterator[Block]:
    r"""Shows how far the best epoch on validation stands out from the epochs
    around it, and how much the metric changes from one epoch to the next.
    """
    metric, rows = results.metrics.main, []
    by_form: dict[str, list[np.ndarray]] = {}
    runs: dict[str, list[str]] = {}
    for label, own in results.variants.items():
        curves = [curve for curve in own.epochs(metric) if len(curve) > 2 and max(curve) > 0]
        if not curves:
            continue
        found = np.stack([around_best(curve) for curve in curves])
        form = label[results.experiment.reference[0] if results.experiment.reference else -1]
        by_form.setdefault(form, []).extend(found)
        runs.setdefault(form, []).extend(job.name for job in own.jobs)
        others = np.delete(found, AROUND, axis=1)
        cells = [
            Value(float(np.mean([max(curve) for curve in curves]))),
            Value(float(np.nanmean(others))),
            Value(float(np.nanmean(np.abs(np.diff(found, axis=1))))),
        ]
        rows.append(Row(list(label), list(cells)))
    if not rows:
        return
    name = f'{results.experiment.name}-stopping'
    yield Table(
        name,
        f'{spelled(metric)} on validation around the best epoch',
        list(results.experiment.head),
        [
            Column('best', 'number'),
            Column(f'the {2 * AROUND} epochs around it', 'percent'),
            Column('change per epoch', 'percent'),
        ],
        rows,
        [
            f'The mean of up to {AROUND} epochs before and after the best one, and the mean '
            'absolute change from one epoch to the next among them, both relative to the best '
            'value. Differences between methods that are much smaller than these may come from '
            'the choice of the epoch.'
        ],
    )
    x = [float(k) for k in range(-AROUND, AROUND + 1)]
    series = []
    for form, lines in by_form.items():
        values = np.array(lines)
        known = ~np.isnan(values).all(axis=0)
        y = 100 * np.nanmean(values[:, known], axis=0)
        at = [k for k, ok in zip(x, known) if ok]
        series.append(Series(form, at, y.tolist(), None, tuple(runs[form])))
    yield Figure(
        f'{name}-plot',
        'Validation around the best epoch, mean over runs',
        'line',
        'epochs after the best one',
        f'{spelled(metric)} relative to the best epoch, %',
        series,
    )
