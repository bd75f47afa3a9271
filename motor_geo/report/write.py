r"""Writes the files of a report."""

from __future__ import annotations

import os.path as osp
from contextlib import ExitStack

from motor_geo.report import html as report_html
from motor_geo.report import layout as report_text
from motor_geo.report import plot as report_plot
from motor_geo.report.document import Figure, Report, check
from motor_geo.utils.files import atomic_write


def write(report: Report, folder: str) -> list[str]:
    r"""Writes a report as :obj:`<name>.md`, :obj:`.tex` and :obj:`.html`, and
    its figures as :obj:`.svg`. All files are written, or none.

    Args:
        report: The report.
        folder: Where to write, which is made if need be.

    Returns:
        The paths.

    Raises:
        ValueError: If the report is not consistent.
        ImportError: If it has figures and Matplotlib is not installed.
    """
    check(report)
    figures = [block for block in report.blocks if isinstance(block, Figure)]
    svgs = {figure.name: report_plot.svg(figure) for figure in figures}
    files = {
        f'{report.name}.md': report_text.markdown(report),
        f'{report.name}.tex': report_text.latex(report),
        f'{report.name}.html': report_html.html(report, svgs),
        **{f'{name}.svg': text for name, text in svgs.items()},
    }
    paths = [osp.join(folder, name) for name in files]
    with ExitStack() as stack:  # All are complete before the first gets its name.
        for path, text in zip(paths, files.values()):
            temporary = stack.enter_context(atomic_write(path))
            with open(temporary, 'w', encoding='utf-8', newline='\n') as file:
                file.write(text)
    return paths
