r"""Formulas as MathML, which browsers render by themselves: no script, no network.

Sphinx's own renderers need LaTeX on the machine that builds, or MathJax from the network (or
two megabytes of it in the site).
"""

import re

from docutils.nodes import SkipNode
from latex2mathml.converter import convert

# latex2mathml marks bold Greek letters by an attribute that browsers ignore.
BOLD_GREEK = {
    **{chr(0x3B1 + i): chr(0x1D736 + i) for i in range(25)},
    **{chr(0x391 + i): chr(0x1D71C + i) for i in range(25)},
}
LETTER = re.compile(r'<mi mathvariant="bold-italic">(?:&#x([0-9A-F]+);|(\w))</mi>')
# Commands that latex2mathml does not know. A test fails for any other.
KNOWN = {r'\arg\min': r'\text{arg min}', r'\arg\max': r'\text{arg max}'}
KNOWN |= {rf'\Big{mark}': rf'\left{mark}' for mark in '(['} | {
    rf'\Big{mark}': rf'\right{mark}' for mark in ')]'
}


def to_mathml(tex, display=False):
    r"""One formula. Lines that end with '\\', or are separated by empty lines, become rows
    that are aligned at '&'.

    Raises:
        ValueError: If a command of LaTeX is left over.
    """
    for old, new in KNOWN.items():
        tex = tex.replace(old, new)
    rows = [row for row in re.split(r'\\\\|\n\s*\n', tex.strip()) if row.strip()]
    if display and (len(rows) > 1 or re.search(r'(?<!\\)&', tex)) and r'\begin' not in tex:
        out = ''.join(_row(row) for row in rows)
        space = 'xmlns="http://www.w3.org/1998/Math/MathML"'
        out = f'<math {space} display="block"><mtable class="aligned">{out}</mtable></math>'
    else:
        out = convert(tex, display='block' if display else 'inline')
    left = re.search(r'<m[ion][^>]*>(\\\w+)', out)
    if left:
        raise ValueError(f"'{left[1]}' is unknown to latex2mathml: {tex}")
    return LETTER.sub(_bold, out)


def _row(tex):
    cells = [
        re.sub(r'^<math[^>]*>|</math>$', '', convert(cell.strip() or '{}', display='block'))
        for cell in re.split(r'(?<!\\)&', tex)
    ]
    sides = ('right', 'left') * len(cells)
    return (
        '<mtr>'
        + ''.join(
            f'<mtd class="{side}"><mstyle displaystyle="true">{cell}</mstyle></mtd>'
            for cell, side in zip(cells, sides)
        )
        + '</mtr>'
    )


def _bold(match):
    letter = chr(int(match[1], 16)) if match[1] else match[2]
    return f'<mi>{BOLD_GREEK.get(letter, letter)}</mi>'


def visit_inline(self, node):
    self.body.append(f'<span class="math">{to_mathml(node.astext())}</span>')
    raise SkipNode


def visit_block(self, node):
    self.body.append(f'<div class="math">{to_mathml(node.astext(), display=True)}</div>')
    raise SkipNode


def setup(app):
    app.add_html_math_renderer('mathml', (visit_inline, None), (visit_block, None))
    return {'parallel_read_safe': True, 'parallel_write_safe': True}
