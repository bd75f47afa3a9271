r"""The cells of every notebook run, and what they assert holds."""

import re

import pytest

from tests.docs.pages import ROOT, cells
from tests.docs.test_site import BRITISH

FOLDER = ROOT / 'docs' / 'notebooks'
NOTEBOOKS = sorted(path.stem for path in FOLDER.glob('*.md'))
#: Notebooks that the ordinary tests run. Every build of the documentation runs all of them.
FAST = ('token_network', 'tokens_by_hand', 'your_own_gnn')


def names():
    for name in NOTEBOOKS:
        marks = () if name in FAST else pytest.mark.notebooks
        yield pytest.param(name, marks=marks)


@pytest.mark.parametrize('name', list(names()))
def test_cells(name, tmp_path, monkeypatch):
    matplotlib = pytest.importorskip('matplotlib', reason='matplotlib is not installed')
    matplotlib.use('Agg')
    from matplotlib import pyplot

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('PYG_HOME', str(tmp_path / 'pyg'))
    monkeypatch.setattr(pyplot, 'show', lambda: pyplot.close('all'))
    namespace = {'__name__': 'notebook'}
    for number, cell in enumerate(cells(f'docs/notebooks/{name}.md'), start=1):
        exec(compile(cell, f'{name}, cell {number}', 'exec'), namespace)


@pytest.mark.parametrize('name', NOTEBOOKS)
def test_form(name):
    text = (FOLDER / f'{name}.md').read_text()
    assert text.startswith('---\njupytext:\n') and 'format_name: myst' in text
    assert not BRITISH.findall(text)
    assert '## Exercises' in text and 'plt.show()' in text and 'assert' in text
    assert max(map(len, text.splitlines())) <= 120
    # Cells are found by both MyST-NB and this test.
    found = cells(f'docs/notebooks/{name}.md')
    assert len(re.findall(r'^```\{code-cell\}', text, re.M)) == len(found)


def test_index():
    text = (FOLDER / 'index.rst').read_text()
    assert sorted(re.findall(r'^    (\w+)$', text, re.M)) == NOTEBOOKS
    assert sorted(re.findall(r':doc:`(\w+)`', text)) == NOTEBOOKS
