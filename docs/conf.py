import os.path as osp
import sys

sys.path.insert(0, osp.join(osp.dirname(__file__), '..'))

import motor_geo  # noqa: E402

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
exclude_patterns = ['_build', 'reproduction']
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
