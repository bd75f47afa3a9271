r"""Draws the figures of reports as SVG with Matplotlib."""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from math import log10
from typing import TYPE_CHECKING, Any

import numpy as np

from motor_geo.report.document import Figure
from motor_geo.report.layout import NONE
from motor_geo.utils.extras import needs

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: The palette of Okabe and Ito, which color-blind readers can distinguish, without yellow.
COLORS = ['#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9', '#4D4D4D']
MARKERS = ['o', 's', '^', 'D', 'v', 'P', 'X', '*']
HATCHES = ['', '//', '\\\\', 'xx', '--', '||', '++', '..']
GAIN, LOSS = '#009E73', '#CC3311'


def svg(figure: Figure) -> str:
    r"""Draws a figure. Equal figures give identical files.

    Args:
        figure: The figure.

    Raises:
        ImportError: If Matplotlib is not installed.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure as Canvas
    except ImportError as error:
        raise ImportError(needs('A figure', 'matplotlib', extra='plot')) from error

    draw = {'line': _lines, 'bar': _bars, 'heat': _heat}[figure.kind]
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # Otherwise, the user's style would change the file.
        matplotlib.rcParams.update(
            {
                'svg.fonttype': 'none',
                'svg.hashsalt': 'motor_geo',
                'text.parse_math': False,
                'axes.spines.top': False,
                'axes.spines.right': False,
                'axes.axisbelow': True,
                'hatch.linewidth': 0.8,
            }
        )
        canvas = Canvas(figsize=_size(figure), layout='constrained', facecolor='white')
        axes = canvas.subplots()
        axes.set_xlabel(figure.xlabel)
        handles = draw(axes, figure)
        if handles:
            labels = [handle.get_label() for handle in handles]
            canvas.legend(
                handles, labels, loc='outside lower center', ncols=_columns(labels), frameon=False
            )
        file = io.StringIO()
        canvas.savefig(file, format='svg', metadata={'Date': None, 'Creator': None})
    return file.getvalue()


def inline_svg(svg: str, prefix: str, label: str) -> str:
    r"""Converts an SVG file to an element of an HTML document.

    Args:
        svg: The content of the file.
        prefix: A prefix that makes identifiers unique among several figures.
        label: A description for screen readers.
    """
    root = ElementTree.fromstring(svg)
    for parent in list(root.iter()):
        for child in list(parent):  # A style sheet would apply to the whole document.
            if child.tag.endswith(('}style', '}metadata')):
                parent.remove(child)
    for node in root.iter():
        node.tag = node.tag.split('}')[-1]
        old = {key.split('}')[-1]: value for key, value in node.attrib.items()}
        node.attrib.clear()
        for key, value in old.items():
            if key == 'id':
                value = prefix + value
            elif key == 'href':
                value = re.sub('^#', f'#{prefix}', value)
            else:
                value = value.replace('url(#', f'url(#{prefix}')
            node.set(key, value)
    width = float(root.attrib.pop('width').removesuffix('pt')) * 4 / 3
    root.attrib.pop('height')
    root.set('style', f'min-width: {0.65 * width:.0f}px; max-width: {width:.0f}px')
    root.set('role', 'img')
    root.set('aria-label', label)
    return ElementTree.tostring(root, encoding='unicode')


def _columns(labels: Sequence[str]) -> int:
    return max(1, min(4, len(labels), 57 // (7 + max(map(len, labels)))))


def _size(figure: Figure) -> tuple[float, float]:
    r"""Returns the size in inches, chosen to keep text readable on a phone."""
    categories = len(figure.categories or ())
    if figure.kind == 'heat':
        return max(4.8, 2.2 + 0.65 * categories), 1.6 + 0.4 * len(figure.series)
    legend = 0.2 * len(figure.series) / _columns([series.label for series in figure.series])
    width = max(4.8, 0.9 + 0.16 * categories * len(figure.series)) if categories else 4.8
    return width, 3.2 + legend


def _array(values: Sequence[float | None] | None) -> np.ndarray:
    return np.array([np.nan if x is None else x for x in values or ()], dtype=float)


def _label(series: Any) -> str:
    return f'{series.label} (published)' if series.published else series.label


def _styles(figure: Figure) -> list[int]:
    r"""Returns the color number of each series. A published series has the same
    color as the measured series with the same label.
    """
    labels = list(dict.fromkeys(series.label for series in figure.series))
    return [labels.index(series.label) for series in figure.series]


def _lines(axes: Axes, figure: Figure) -> list[Any]:
    handles: list[Any] = []
    if figure.logx:
        axes.set_xscale('log')
    for i, series in zip(_styles(figure), figure.series):
        x, y, color = _array(series.x), _array(series.y), COLORS[i % len(COLORS)]
        std = _array(series.std)
        if series.std is not None and figure.fill is not None:  # Bands would resemble the gain.
            axes.errorbar(x, y, std, fmt='none', ecolor=color, elinewidth=1, capsize=3)
        elif series.std is not None:
            axes.fill_between(x, y - std, y + std, color=color, alpha=0.18, linewidth=0)
        handles += axes.plot(
            x,
            y,
            color=color,
            marker=MARKERS[i % len(MARKERS)],
            markevery=max(1, len(x) // 10),
            markersize=5,
            markerfacecolor='white' if series.published else color,
            linestyle='--' if series.published else '-',
            label=_label(series),
        )
    if figure.fill is not None:
        handles += _shade(axes, figure)
    ticks = sorted({x for series in figure.series for x in series.x})
    if figure.categories:
        _name_columns(axes, figure)
    elif len(ticks) <= 8 and _apart(ticks, figure.logx):
        axes.set_xticks(ticks, labels=[f'{tick:g}' for tick in ticks])
        axes.minorticks_off()
    axes.set_ylabel(figure.ylabel)
    axes.grid(color='#DDDDDD', linewidth=0.6)
    return handles


def _apart(ticks: Sequence[float], log: bool) -> bool:
    r"""Returns whether labels at these ticks do not overlap."""
    place = [log10(tick) if log else tick for tick in ticks]
    return all(b - a > 0.08 * (place[-1] - place[0]) for a, b in zip(place, place[1:]))


def _shade(axes: Axes, figure: Figure) -> list[Any]:
    r"""Shades the area between two lines, and splits it where they cross as
    drawn.
    """
    first, second = (
        next(s for s in figure.series if s.label == name) for name in figure.fill or ()
    )
    x, a, b = _array(first.x), _array(first.y), _array(second.y)
    place = np.log10(x) if figure.logx else x
    gain = b - a
    at = np.flatnonzero(gain[:-1] * gain[1:] < 0)
    t = gain[at] / (gain[at] - gain[at + 1])
    cut = place[at] + t * (place[at + 1] - place[at])
    level = a[at] + t * (a[at + 1] - a[at])
    x = np.insert(x, at + 1, 10**cut if figure.logx else cut)
    a, b = np.insert(a, at + 1, level), np.insert(b, at + 1, level)
    handles: list[Any] = []
    for sign, color, word in [(1, GAIN, 'above'), (-1, LOSS, 'below')]:
        if (sign * gain > 0).any():
            label = f'{second.label} {word} {first.label}'
            where = sign * (b - a) >= 0
            handles.append(
                axes.fill_between(
                    x,
                    a,
                    b,
                    where=where,
                    facecolor=color,
                    edgecolor=color,
                    hatch='' if sign > 0 else '///',
                    alpha=0.22,
                    linewidth=0,
                    label=label,
                )
            )
    return handles


def _bars(axes: Axes, figure: Figure) -> list[Any]:
    categories = list(figure.categories or ())
    handles: list[Any] = []
    width = 0.8 / len(figure.series)
    for place, (i, series) in enumerate(zip(_styles(figure), figure.series)):
        color = COLORS[i % len(COLORS)]
        handles.append(
            axes.bar(
                np.arange(len(categories)) + (place + 0.5) * width - 0.4,
                _array(series.y),
                0.92 * width,
                yerr=None if series.std is None else _array(series.std),
                facecolor='white' if series.published else color,
                edgecolor=color if series.published else 'white',
                hatch=HATCHES[i % len(HATCHES)],
                error_kw={'elinewidth': 1, 'capsize': 2, 'ecolor': '#222222'},
                label=_label(series),
            )
        )
    _name_columns(axes, figure)
    axes.axhline(0, color='black', linewidth=0.8)
    axes.set_ylabel(figure.ylabel)
    axes.grid(axis='y', color='#DDDDDD', linewidth=0.6)
    return handles


def _name_columns(axes: Axes, figure: Figure) -> None:
    names = list(figure.categories or ())
    axes.set_xticks(range(len(names)), labels=names)
    if sum(len(name) + 2 for name in names) > 10 * _size(figure)[0]:
        for text in axes.get_xticklabels():
            text.set(rotation=35, ha='right', rotation_mode='anchor')


def _heat(axes: Axes, figure: Figure) -> list[Any]:
    r"""Draws a heat map with one series per row. If values have both signs, it
    uses a diverging color map centered at zero.
    """
    values = np.array([_array(series.y) for series in figure.series])
    known = values[~np.isnan(values)]
    low, high = (known.min(), known.max()) if known.size > 0 else (0.0, 1.0)
    signed = low < 0 < high
    if signed:
        low, high = -max(-low, high), max(-low, high)
    axes.set_facecolor('#DDDDDD')
    image = axes.imshow(
        np.ma.masked_invalid(values),
        cmap='PuOr' if signed else 'cividis',
        vmin=low,
        vmax=high,
        aspect='auto',
    )
    digits = 4 if max(abs(low), abs(high)) < 1 else 2 if max(abs(low), abs(high)) < 100 else 0
    for (i, j), value in np.ndenumerate(values):
        red, green, blue, _ = image.cmap(image.norm(value))
        dark = not np.isnan(value) and 0.3 * red + 0.6 * green + 0.1 * blue < 0.5
        text = NONE if np.isnan(value) else f'{value:.{digits}f}'
        axes.text(
            j, i, text, ha='center', va='center', fontsize=8.5, color='white' if dark else 'black'
        )
    _name_columns(axes, figure)
    axes.set_yticks(range(len(figure.series)), labels=[_label(series) for series in figure.series])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.figure.colorbar(image, ax=axes, label=figure.ylabel, fraction=0.06)
    return []
