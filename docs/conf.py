import importlib
import os.path as osp
import pkgutil
import re
import sys

from docutils import nodes
from docutils.utils import unescape
from sphinx.domains.python import PyXRefRole

sys.path.insert(0, osp.join(osp.dirname(__file__), '..'))

import motor_geo  # noqa: E402
from motor_geo.nn import functional  # noqa: E402
from motor_geo.nn.functional.kernel import has_kernel  # noqa: E402
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
autodoc_typehints = 'description'  # Signatures would be longer than docstrings.
autosummary_generate = False
napoleon_custom_sections = ['Shapes']
suppress_warnings = [
    'myst.xref_missing',
    'myst.header',
]  # Links of generated pages work on the web.

# A formula with a kernel is documented by its plain form.
for info in pkgutil.iter_modules(functional.__path__, 'motor_geo.nn.functional.'):
    module = importlib.import_module(info.name)
    for name, value in list(vars(module).items()):
        if isinstance(value, has_kernel) and value.__module__ == info.name:
            setattr(module, name, value.reference)


def link_pages(app, docname, source):
    r"""Links to what is kept of a report become links to its page."""
    prefix = {'findings': 'reproduction/', 'reproduction/README': ''}.get(docname)
    if prefix is not None:
        page = r'<a href="\2.html">\1</a>'
        source[0] = re.sub(rf'\[([^\]]+)\]\(({prefix}[\w-]+)\.jsonl\)', page, source[0])


class Object(PyXRefRole):
    r"""Code such as `x_<modality>` and `.csv`, which is no reference, stays whole."""

    def __call__(self, name, rawtext, text, *args, **kwargs):
        if re.search(r'\S<|<\w+>\S|^<|^\.', text):
            return [nodes.literal(rawtext, unescape(text), classes=['xref', 'py', 'py-obj'])], []
        return super().__call__(name, rawtext, text, *args, **kwargs)


def skip_member(app, what, name, obj, skip, options):
    r"""The fields of a named tuple are listed with its parameters."""
    return skip or str(getattr(obj, '__doc__', '')).startswith('Alias for field number')


def setup(app):
    here = osp.dirname(osp.abspath(__file__))
    pages = osp.join(here, '_pages', 'reproduction')
    render_folder(osp.join(here, 'reproduction'), pages)
    app.connect('source-read', link_pages)
    app.connect('autodoc-skip-member', skip_member)
    app.add_role_to_domain('py', 'obj', Object(), override=True)
