r"""Writes and reads the files of a report: the lines of JSON that store it, and the
pages rendered from them.
"""

from __future__ import annotations

import json
import os
import os.path as osp
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import lru_cache
from itertools import groupby
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from motor_geo.report import layout, plot
from motor_geo.report.document import (
    Block,
    Figure,
    Report,
    Table,
    check,
    from_rows,
    runs_of,
    to_rows,
)
from motor_geo.report.sketch import key, sketch
from motor_geo.utils.files import atomic_write

KINDS = ('md', 'tex', 'html')
#: Significant digits of stored numbers. Means of metrics in single precision hardly have more.
DIGITS = 6
_RUN_COLUMNS = [('run', True), ('folder', False), ('seed', True), ('best epoch', True)]
_RUN_COLUMNS += [('seconds', True), ('command', False)]


@lru_cache
def environment(kind: str) -> Environment:
    r"""Returns the template environment of a format, which escapes everything
    that is not markup.

    Args:
        kind: :obj:`md`, :obj:`tex` or :obj:`html`.
    """
    plain = {'md': layout.escape_markdown, 'tex': layout.escape_latex, 'html': escape}[kind]
    code = {
        'md': layout.code_markdown,
        'tex': layout.code_latex,
        'html': lambda text: f'<code>{escape(text)}</code>',
    }[kind]
    marks: dict[str, Any] = {}
    if kind == 'tex':  # Braces and percent signs have a meaning in LaTeX.
        marks = {'block_start_string': '<%', 'block_end_string': '%>'}
        marks |= {'variable_start_string': '<(', 'variable_end_string': ')>'}
        marks |= {'comment_start_string': '<#', 'comment_end_string': '#>'}
    out = Environment(
        loader=PackageLoader('motor_geo.report'),
        autoescape=True,
        finalize=lambda x: x if isinstance(x, Markup) else Markup(plain(str(x))),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        **marks,
    )
    out.tests['table'] = lambda block: isinstance(block, Table)
    out.tests['figure'] = lambda block: isinstance(block, Figure)
    number = layout.number_latex
    out.filters.update(
        code=lambda text: Markup(code(text)),
        embed=_embed,
        fence=lambda text: Markup(layout.fence_markdown(text)),
        grid=layout.grid,
        inline=lambda text: Markup(layout.inline(text, plain, code)),
        key=key,
        panels=lambda blocks: [(key, list(group)) for key, group in groupby(blocks, _panels)],
        rich=layout.rich,
        runs=runs_of,
        sketch=sketch,
        text=lambda cell: Markup(number(cell.text)) if cell.number else cell.text,
    )
    return out


def _panels(block: Block) -> str | None:
    return block.panels if isinstance(block, Figure) else None


def _embed(svg: str, figure: Figure) -> Markup:
    label = f'{figure.title}: {figure.ylabel} by {figure.xlabel}'
    return Markup(plot.inline_svg(svg, f'{figure.name}-', label))


def render(report: Report, kind: str, svgs: Mapping[str, str] | None = None) -> str:
    r"""Renders a report as GitHub-flavored Markdown, as tables for a LaTeX
    document that loads :obj:`booktabs`, or as a single HTML page without scripts
    or external resources.

    Args:
        report: The report.
        kind: :obj:`md`, :obj:`tex` or :obj:`html`.
        svgs: The SVG of each figure by name, required by :obj:`html` only.
    """
    text = (
        environment(kind)
        .get_template(f'report.{kind}')
        .render(report=report, numbers=report.numbers(), run_columns=_RUN_COLUMNS, svgs=svgs)
    )
    return text.strip('\n') + '\n'


def write(report: Report, folder: str) -> list[str]:
    r"""Writes a report as :obj:`<name>.md`, :obj:`.tex` and :obj:`.html`, and
    its figures as :obj:`.svg`. If an error occurs before all files are complete,
    it writes none of them.

    Args:
        report: The report.
        folder: Folder of the files, which is created if necessary.

    Returns:
        The paths.

    Raises:
        ValueError: If the report is not consistent.
        ImportError: If it has figures and Matplotlib is not installed.
        OSError: If a file cannot be written.
    """
    check(report)
    report = from_rows(map(_rounded, to_rows(report)))  # Equals the report that `read` returns.
    svgs = {block.name: plot.svg(block) for block in report.blocks if isinstance(block, Figure)}
    files = {f'{report.name}.{kind}': render(report, kind, svgs) for kind in KINDS}
    files |= {f'{name}.svg': text for name, text in svgs.items()}
    paths = [osp.join(folder, name) for name in files]
    with ExitStack() as stack:  # Completes all files before renaming the first one.
        for path, text in zip(paths, files.values()):
            temporary = stack.enter_context(atomic_write(path))
            with open(temporary, 'w', encoding='utf-8', newline='\n') as file:
                file.write(text)
    return paths


def save(report: Report, folder: str, measured: Iterable[Mapping[str, Any]] = ()) -> str:
    r"""Stores a report as :obj:`<name>.jsonl`, from which its pages can be
    rendered. The file has one line for the report itself, one line per block,
    and one line per run.

    Args:
        report: The report.
        folder: Folder of the file, which is created if necessary.
        measured: Measurements with the name of their :obj:`run`. (default:
            none)

    Returns:
        The path.

    Raises:
        ValueError: If the report is not consistent.
        OSError: If the file cannot be written.
    """
    check(report)
    path = osp.join(folder, f'{report.name}.jsonl')
    with atomic_write(path) as temporary, open(temporary, 'w', encoding='utf-8') as file:
        for row in to_rows(report, measured):
            file.write(
                json.dumps(
                    _rounded(row), ensure_ascii=False, allow_nan=False, separators=(',', ':')
                )
                + '\n'
            )
    return path


def _rounded(value: Any) -> Any:
    if isinstance(value, float):  # Does not round whole numbers.
        return value if value.is_integer() else float(f'{value:.{DIGITS}g}')
    if isinstance(value, Mapping):
        return {key: _rounded(entry) for key, entry in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_rounded(entry) for entry in value]
    return value


def read_rows(path: str) -> Iterator[dict[str, Any]]:
    r"""Yields the objects in a file of JSON lines.

    Args:
        path: The file.

    Raises:
        ValueError: If a line is not a JSON object; the message names the line.
    """
    with open(path, encoding='utf-8') as file:
        for i, line in enumerate(file, start=1):
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise ValueError(f"'{path}', line {i}: expected JSON ({error})") from error
            if not isinstance(row, dict):
                raise ValueError(f"'{path}', line {i}: expected an object, got {line.strip()}")
            yield row


def read_runs(path: str) -> list[dict[str, Any]]:
    r"""Reads the measurements in a stored report, one row per run.

    Args:
        path: The file of the report.
    """
    return [row for row in read_rows(path) if 'run' in row]


def read(path: str) -> Report:
    r"""Reads a report that :meth:`save` stored.

    Args:
        path: The file.

    Raises:
        ValueError: If the file does not contain a consistent report; the message
            names the file.
    """
    rows = list(read_rows(path))
    if not rows or 'report' not in rows[0]:
        raise ValueError(f"'{path}': expected a report in the first line")
    try:
        report = from_rows(rows)
        check(report)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        what = f'{error} is missing' if isinstance(error, KeyError) else error
        raise ValueError(f"'{path}' holds no valid report: {what}") from error
    return report


def render_folder(folder: str, out: str | None = None) -> list[str]:
    r"""Writes the pages of all reports that are stored in a folder.

    Args:
        folder: The folder with files :obj:`<name>.jsonl`.
        out: Folder of the pages. (default: the folder itself)

    Returns:
        The paths of the pages and figures.

    Raises:
        ValueError: If there is no report, or one is not consistent.
    """
    names = sorted(name for name in os.listdir(folder) if name.endswith('.jsonl'))
    paths = [osp.join(folder, name) for name in names]
    reports = [read(path) for path in paths if 'report' in next(read_rows(path), {})]
    if not reports:
        raise ValueError(f"'{folder}': expected a stored report (NAME.jsonl)")
    return [path for report in reports for path in write(report, out or folder)]
