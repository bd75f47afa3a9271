import hashlib
import importlib
import os
import os.path as osp
import pkgutil
import re
import sys

from docutils import nodes
from docutils.utils import unescape
from sphinx.domains.python import PyXRefRole

HERE = osp.dirname(osp.abspath(__file__))
sys.path[:0] = [osp.dirname(HERE), osp.join(HERE, '_ext')]

import inventories  # noqa: E402

import motor_geo  # noqa: E402
from motor_geo import report  # noqa: E402
from motor_geo.nn import functional  # noqa: E402
from motor_geo.nn.functional.kernel import has_kernel  # noqa: E402
from motor_geo.report.write import render_folder  # noqa: E402


def package_hash():
    r"""A hash of the sources of the package."""
    top = osp.dirname(osp.abspath(motor_geo.__file__))
    names = [osp.join(base, n) for base, _, ns in os.walk(top) for n in ns if n.endswith('.py')]
    out = hashlib.sha256()
    for name in sorted(names):
        with open(name, 'rb') as file:
            out.update(osp.relpath(name, top).encode() + file.read())
    return out.hexdigest()[:16]


project = 'motor_geo'
author = 'motor_geo contributors'
project_copyright = f'2026, {author}'
version = release = motor_geo.__version__

extensions = [
    'myst_nb',
    'sphinx.ext.autodoc',
    'sphinx.ext.autosummary',
    'sphinx.ext.intersphinx',
    'sphinx.ext.napoleon',
    'sphinx_copybutton',
    'sphinx_design',
    'check_links',
    'gallery',
    'mathml',
]
exclude_patterns = ['_build', '_pages']
templates_path = ['_templates']
html_extra_path = ['_pages']
html_static_path = ['_static']
html_css_files = ['site.css']
html_theme = 'furo'
html_title = f'motor_geo {version}'
html_math_renderer = 'mathml'
html_theme_options = {'navigation_with_keys': True}
html_copy_source = False
copybutton_prompt_text = r'>>> |\.\.\. |\$ '
copybutton_prompt_is_regexp = True
myst_heading_anchors = 3
myst_enable_extensions = ['dollarmath']

# Notebooks run when the site is built, and their outputs are kept until they or the package change.
nb_execution_mode = 'cache'
nb_execution_cache_path = osp.join(HERE, '_build', '.jupyter_cache', package_hash())
nb_execution_timeout = 600
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_output_stderr = 'remove'  # Progress bars and warnings of other packages.
nb_merge_streams = True
os.environ.pop('MPLBACKEND', None)  # Any other backend than that of the kernel shows no figure.

autodoc_member_order = 'bysource'
autodoc_typehints = 'description'  # Signatures would be longer than docstrings.
autosummary_generate = True
napoleon_custom_sections = ['Shapes']
# What the pages refer to, in files of this repository: the documentation builds without a network.
intersphinx_mapping = inventories.mapping(
    osp.join(HERE, 'inventories.txt'), osp.join(HERE, '_pages', '_inventories')
)

# Every class, function and method that is referred to exists. In the style of PyG, :obj: is also
# for code that is no reference.
nitpicky = True
nitpick_ignore_regex = [
    ('py:obj', '.*'),
    ('py:class', r'~P|(motor_geo\.[\w.]+\.)?[A-Z]'),  # Variables of types.
    ('py:class', r'EdgeType|Config|Metric|markupsafe\.Markup|motor_geo\.[\w.]+\._\w+'),
    ('py:class', r'torch_geometric\.(typing|data\.storage)\.\w+'),  # Not documented by PyG.
    ('py:class', r'torch_sparse\.[\w.]+'),  # Seen where torch-sparse is installed.
    (
        'py:class',
        r'motor_geo\.nn\.models\.\w+\.\w*(Views|Parts)|motor_geo\.nn\.conv\.\w+\.LightBatch',
    ),
]

# A formula with a kernel is documented by its plain form.
for info in pkgutil.iter_modules(functional.__path__, 'motor_geo.nn.functional.'):
    module = importlib.import_module(info.name)
    for name, value in list(vars(module).items()):
        if isinstance(value, has_kernel) and value.__module__ == info.name:
            setattr(module, name, value.reference)


class Object(PyXRefRole):
    r"""Code such as `x_<modality>` and `.csv`, which is no reference, stays whole."""

    def __call__(self, name, rawtext, text, *args, **kwargs):
        if re.search(r'\S<|<\w+>\S|^<|^\.', text):
            return [nodes.literal(rawtext, unescape(text), classes=['xref', 'py', 'py-obj'])], []
        return super().__call__(name, rawtext, text, *args, **kwargs)


LINKS = (
    # What is kept of a report leads to its page, a backbone to its reference. Both work on the web.
    (r'\[([^\]]+)\]\(((?:reproduction/)?[\w-]+)\.jsonl\)', r'<a href="\2.html">\1</a>'),
    (r'\[([^\]]+)\]\(api/models\.rst#([\w.]+)\)', r'{py:class}`\1 <\2>`'),
)


def link_pages(app, docname, source):
    r"""Links of Markdown that lead to sources on the web lead to pages here."""
    if os.fspath(app.env.doc2path(docname)).endswith('.md'):
        for pattern, link in LINKS:
            source[0] = re.sub(pattern, link, source[0])


def skip_member(app, what, name, obj, skip, options):
    r"""The fields of a named tuple are listed with its parameters."""
    return skip or str(getattr(obj, '__doc__', '')).startswith('Alias for field number')


def one_list(app, domain, objtype, content):
    r"""Types stand in the first list of parameters alone. A section between the arguments and what
    is raised makes two lists, and autodoc puts all types into both.
    """
    seen = set()
    for fields in [node for node in content if isinstance(node, nodes.field_list)]:
        names = set()
        for field in list(fields):
            kind, *words = field[0].astext().split()
            if kind in ('param', 'type') and words and words[-1] in seen:
                fields.remove(field)
            elif kind in ('param', 'type') and words:
                names.add(words[-1])
        seen |= names


def render_reports():
    r"""Renders what is kept of reports, unless nothing has changed since."""
    kept, pages = osp.join(HERE, 'reproduction'), osp.join(HERE, '_pages', 'reproduction')
    code = osp.dirname(osp.abspath(report.__file__))
    sources = [
        osp.join(base, name)
        for top in (kept, code)
        for base, _, names in os.walk(top)
        for name in names
    ]
    built = osp.join(pages, 'table1.html')
    if not osp.exists(built) or max(map(osp.getmtime, sources)) > osp.getmtime(built):
        render_folder(kept, pages)


def setup(app):
    render_reports()
    app.connect('source-read', link_pages)
    app.connect('autodoc-skip-member', skip_member)
    app.connect('object-description-transform', one_list, priority=900)
    app.add_role_to_domain('py', 'obj', Object(), override=True)
