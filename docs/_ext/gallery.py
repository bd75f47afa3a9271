r"""The directive :obj:`gallery`: every figure of the reports, with a sentence and a link.

Figures are grouped by report. Their sentences are in a file of YAML, which is the argument.
"""

from html import escape
from pathlib import Path

import yaml
from docutils import nodes
from docutils.parsers.rst import Directive

from motor_geo.report.document import Figure
from motor_geo.report.write import read, read_rows

REPORTS = Path(__file__).parents[1] / 'reproduction'


def figures(folder=REPORTS):
    r"""Name, title and figures of every report that has any."""
    for path in sorted(folder.glob('*.jsonl')):
        if any('figure' in row for row in read_rows(str(path))):
            report = read(str(path))
            blocks = [block for block in report.blocks if isinstance(block, Figure)]
            yield report.name, report.title.split(': ', 1)[-1], blocks


class Gallery(Directive):
    required_arguments = 1

    def run(self):
        path = Path(self.state.document.current_source).parent / self.arguments[0]
        sentences = yaml.safe_load(path.read_text())
        out = []
        for name, title, blocks in figures():
            section = nodes.section(ids=[nodes.make_id(name)], names=[name])
            section += nodes.title(text=title)
            body = ''.join(self.figure(name, block, sentences) for block in blocks)
            section += nodes.raw('', f'<div class="figures">{body}</div>', format='html')
            self.state.document.note_explicit_target(section)
            out.append(section)
        return out

    def figure(self, report, block, sentences):
        if block.name not in sentences:
            raise self.error(f"'{self.arguments[0]}' has no sentence for '{block.name}'.")
        text = escape(sentences[block.name])
        return (
            f'<figure><a href="reproduction/{report}.html">'
            f'<img src="reproduction/{block.name}.svg" loading="lazy" alt="{text}"></a>'
            f'<figcaption><strong>{escape(block.title)}.</strong> {text} '
            f'<a href="reproduction/{report}.html">Report</a></figcaption></figure>'
        )


def setup(app):
    app.add_directive('gallery', Gallery)
    return {'parallel_read_safe': True, 'parallel_write_safe': True}
