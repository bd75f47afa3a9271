r"""Reports as one HTML file, without external resources and scripts."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Mapping
from html import escape
from itertools import groupby

from motor_geo.report.document import Figure, Report, Table, Text
from motor_geo.report.layout import Cell, grid, inline, rich

STYLE = """
:root { color-scheme: light dark; --text: #1b1f24; --back: #fff; --soft: #59636e;
  --line: #d1d9e0; --shade: #f3f5f7; --link: #0757ae; }
@media (prefers-color-scheme: dark) { :root { --text: #e6e9ed; --back: #14171b; --soft: #a3adb8;
  --line: #3a424b; --shade: #1e2329; --link: #79b8ff; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
body { margin: 0 auto; max-width: 70rem; padding: 1rem; color: var(--text);
  background: var(--back); font: 1rem/1.55 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 1rem 0; }
h2 { font-size: 1.2rem; line-height: 1.3; margin: 2.5rem 0 .6rem; }
p, li { max-width: 45rem; }
a { color: var(--link); }
code { font: .875em ui-monospace, monospace; }
pre { padding: .7rem .9rem; background: var(--shade); border-radius: .4rem; white-space: pre-wrap; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; }
dt { color: var(--soft); }
dd { margin: 0; }
nav ol { padding-left: 1.4rem; }
.scroll { overflow-x: auto; border: 1px solid var(--line); border-radius: .4rem; }
.scroll:focus-visible { outline: 2px solid var(--link); }
table { border-collapse: collapse; width: 100%; font-size: .9rem;
  font-variant-numeric: tabular-nums; overflow-wrap: normal; }
th, td { padding: .35rem .7rem; text-align: left; vertical-align: baseline; }
thead th { color: var(--soft); border-bottom: 1px solid var(--line); white-space: nowrap; }
tbody th { font-weight: inherit; }
tbody th:first-child { max-width: 45vw; }
tbody tr.group > * { border-top: 1px solid var(--line); }
tr > :first-child { position: sticky; left: 0; background: var(--back); }
tr:target > * { background: var(--shade); }
.number { text-align: right; white-space: nowrap; }
sup { line-height: 0; margin-left: .25em; }
sup a { display: inline-block; padding: 0 .15em; text-decoration: none; }
abbr { text-decoration: none; }
.note, figcaption { color: var(--soft); font-size: .85rem; }
.command { min-width: 18rem; overflow-wrap: anywhere; }
.panels { display: grid; gap: 0 1.5rem; }
.panels > * { min-width: 0; }
@media (min-width: 56rem) { .panels { grid-template-columns: 1fr 1fr; } }
figure { margin: 0; }
.card { overflow-x: auto; background: #fff; border: 1px solid var(--line); border-radius: .4rem; }
.card svg { display: block; width: 100%; height: auto; margin: 0 auto;
  stroke-linejoin: round; stroke-linecap: butt; }
"""


def _code(text: str) -> str:
    return f'<code>{escape(text)}</code>'


def _inline(text: str) -> str:
    return inline(text, escape, _code)


def _rich(body: str) -> Iterable[str]:
    for kind, parts in rich(body):
        if kind == 'text':
            yield f'<p>{_inline(parts[0])}</p>'
        else:
            yield f'<ul>{"".join(f"<li>{_inline(part)}</li>" for part in parts)}</ul>'


def _links(runs: Iterable[str], report: Report, numbers: Mapping[str, int]) -> str:
    links = [
        f'<a href="#run-{numbers[run]}" title="{escape(report.runs[run].command)}" '
        f'aria-label="run {numbers[run]}">{numbers[run]}</a>'
        for run in runs
    ]
    return f'<sup>{" ".join(links)}</sup>' if links else ''


def _class(number: bool) -> str:
    return ' class="number"' if number else ''


def _cell(cell: Cell, report: Report, numbers: Mapping[str, int]) -> str:
    text = escape(cell.text)
    text = f'<b>{text}</b>' if cell.best else text
    if cell.star:
        text += f'<abbr title="p = {cell.p:.2g}">*</abbr>'
    return f'<td{_class(cell.number)}>{text}{_links(cell.runs, report, numbers)}</td>'


def _head(head: Iterable[tuple[str, bool]]) -> str:
    cells = [f'<th scope="col"{_class(number)}>{escape(name)}</th>' for name, number in head]
    return f'<thead><tr>{"".join(cells)}</tr></thead>'


def _scroll(title: str, head: Iterable[tuple[str, bool]], rows: Iterable[str]) -> list[str]:
    label = f'role="region" tabindex="0" aria-label="{escape(title)}"'
    return [
        f'<div class="scroll" {label}>',
        '<table>',
        _head(head),
        '<tbody>',
        *rows,
        '</tbody>',
        '</table>',
        '</div>',
    ]


def _table(table: Table, report: Report, numbers: Mapping[str, int]) -> list[str]:
    layout, n = grid(table), len(table.head)
    rows, before = [], None
    for row, cells in zip(table.rows, layout.rows):
        first = row.label[0] if n > 1 else None
        group = ' class="group"' if first != before else ''
        labels = ''.join(f'<th scope="row">{escape(cell.text)}</th>' for cell in cells[:n])
        values = ''.join(_cell(cell, report, numbers) for cell in cells[n:])
        rows.append(f'<tr{group}>{labels}{values}</tr>')
        before = first
    notes = [f'<p class="note">{_inline(note)}</p>' for note in layout.notes]
    return [*_scroll(table.title, layout.head, rows), *notes]


def inline_svg(svg: str, prefix: str, label: str) -> str:
    r"""An SVG file as an element of an HTML document.

    Args:
        svg: The file.
        prefix: Put before all identifiers, which several figures share.
        label: What it shows, for those who cannot see it.
    """
    root = ElementTree.fromstring(svg)
    for parent in list(root.iter()):
        for child in list(parent):  # A style sheet would be that of the whole document.
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


def _figure(figure: Figure, svg: str, report: Report, numbers: Mapping[str, int]) -> list[str]:
    label = f'{figure.title}: {figure.ylabel} by {figure.xlabel}'
    runs = [
        f'{escape(series.label)}{_links(series.runs, report, numbers)}'
        for series in figure.series
        if series.runs
    ]
    caption = [f'<figcaption>Runs: {", ".join(runs)}</figcaption>'] if runs else []
    card = f'<div class="card">{inline_svg(svg, f"{figure.name}-", label)}</div>'
    return ['<figure>', card, *caption, '</figure>']


def _runs(report: Report, numbers: Mapping[str, int]) -> list[str]:
    head = [('run', True), ('folder', False), ('seed', True), ('best epoch', True)]
    head += [('seconds', True), ('command', False)]
    rows = [
        f'<tr id="run-{numbers[name]}"><th scope="row" class="number">{numbers[name]}</th>'
        f'<td>{escape(run.folder)}</td><td class="number">{run.seed}</td>'
        f'<td class="number">{run.best_epoch}</td><td class="number">{run.seconds:,.1f}</td>'
        f'<td class="command">{_code(run.command)}</td></tr>'
        for name, run in report.runs.items()
    ]
    return _scroll('Runs', head, rows)


def html(report: Report, svgs: Mapping[str, str]) -> str:
    r"""The report as a document of HTML.

    Args:
        report: The report.
        svgs: The figures by name.
    """
    numbers = report.numbers()
    sections = [f'section-{i}' for i in range(1, len(report.blocks) + 1)]
    contents = [(key, block.title) for key, block in zip(sections, report.blocks)]
    contents += [('runs', 'Runs')] if report.runs else []
    machine = [
        f'<dt>{escape(key)}</dt><dd>{escape(value)}</dd>' for key, value in report.machine.items()
    ]
    out = [
        '<!doctype html>',
        '<html lang="en">',
        '<head>',
        '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f'<title>{escape(report.title)}</title>',
        f'<style>{STYLE}</style>',
        '</head>',
        '<body>',
        f'<header><h1>{escape(report.title)}</h1>',
        *_rich(report.intro),
        f'<pre>{_code(report.command.strip())}</pre>',
        *(['<dl>', *machine, '</dl>'] if machine else []),
        '</header>',
        '<nav aria-label="Contents"><ol>',
        *(f'<li><a href="#{key}">{escape(title)}</a></li>' for key, title in contents),
        '</ol></nav>',
        '<main>',
    ]

    def panels(pair: tuple[str, Table | Figure | Text]) -> str | None:
        return pair[1].panels if isinstance(pair[1], Figure) else None

    for name, group in groupby(zip(sections, report.blocks), panels):
        out += ['<div class="panels">'] if name is not None else []
        for key, block in group:
            out.append(f'<section id="{key}"><h2>{escape(block.title)}</h2>')
            if isinstance(block, Table):
                out += _table(block, report, numbers)
            elif isinstance(block, Figure):
                out += _figure(block, svgs[block.name], report, numbers)
            else:
                out += _rich(block.body)
            out.append('</section>')
        out += ['</div>'] if name is not None else []
    if report.runs:
        out += ['<section id="runs"><h2>Runs</h2>', *_runs(report, numbers), '</section>']
    return '\n'.join([*out, '</main>', '</body>', '</html>']) + '\n'
