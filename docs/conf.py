import os.path as osp
import re
import sys

sys.path.insert(0, osp.join(osp.dirname(__file__), '..'))

import motor_geo  # noqa: E402
from motor_geo.report.write import render_folder  # noqa: E402

project = 'motor_geo'
author = 'motor_geo contributors'
project_copyright = f'2026, {author}'
version = release = motor_geo.__version__

extensions = [
    'myst_parser',
    'sphinx.ext.autodoc',
    'sphinx.ext.autosummary',
    'sphinx.ext.mathjax',
    'sphinx.ext.napoleon',
]
exclude_patterns = ['_build', '_pages']
html_extra_path = ['_pages']
html_theme = 'alabaster'
html_theme_options = {'description': 'ID-free multimodal recommendation on graphs'}

autodoc_member_order = 'bysource'
autodoc_typehints = 'none'  # Signatures would be longer than docstrings.
autosummary_generate = False
napoleon_custom_sections = ['Shapes']
suppress_warnings = [
    'myst.xref_missing',
    'myst.header',
]  # Links of generated pages work on the web.


def link_pages(app, docname, source):
    r"""Links to what is kept of a report become links to its page."""
    prefix = {'findings': 'reproduction/', 'reproduction/README': ''}.get(docname)
    if prefix is not None:
        page = r'<a href="\2.html">\1</a>'
        source[0] = re.sub(rf'\[([^\]]+)\]\(({prefix}[\w-]+)\.jsonl\)', page, source[0])


def setup(app):
    here = osp.dirname(osp.abspath(__file__))
    pages = osp.join(here, '_pages', 'reproduction')
    render_folder(osp.join(here, 'reproduction'), pages)
    app.connect('source-read', link_pages)
