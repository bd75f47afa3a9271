r"""What builds the site, and what the site must name."""

import importlib
import inspect
import pkgutil
import re
import sys
import zlib

import pytest
import torch

import motor_geo
from motor_geo.nn import models
from tests.docs.pages import ROOT

sys.path.insert(0, str(ROOT / 'docs' / '_ext'))
check_links = importlib.import_module('check_links')
inventories = importlib.import_module('inventories')
FORMULA = re.compile(r'^( *)\.\. math::\n((?:\1 +.*\n|\n)+)|:math:`([^`]+)`', re.M)


def test_dead_links_are_found(tmp_path):
    (tmp_path / 'sub').mkdir()
    (tmp_path / 'a.html').write_text(
        '<h1 id="top">A</h1><a href="sub/b.html#x">1</a><a href="#top">2</a><img src="c.svg">'
        '<a href="https://example.org/none#y">3</a><a href="sub/b.html#y">4</a>'
        '<a href="d.html">5</a>'
    )
    (tmp_path / 'sub' / 'b.html').write_text('<p id="x"></p><a href="../a.html#bottom">6</a>')
    dead = check_links.dead_links(str(tmp_path))
    assert dead == [
        "a.html: 'c.svg' does not exist",
        "a.html: 'sub/b.html#y' has no such anchor",
        "a.html: 'd.html' does not exist",
        "sub/b.html: '../a.html#bottom' has no such anchor",
    ]


def test_inventories(tmp_path):
    path = tmp_path / 'names.txt'
    path.write_text('# A comment\nx https://x.org\nclass x.A a.html\nclass A b.html#x.A\n')
    assert inventories.mapping(path, tmp_path) == {'x': ('https://x.org', f'{tmp_path}/x.inv')}
    head, body = (tmp_path / 'x.inv').read_bytes().split(b'zlib.\n')
    assert head.startswith(b'# Sphinx inventory version 2\n')
    text = zlib.decompress(body).decode()
    assert text == 'x.A py:class 1 a.html#$ -\nA py:class 1 b.html#x.A -\n'


def formulas():
    sources = [*(ROOT / 'docs').rglob('*.rst'), *(ROOT / 'motor_geo').rglob('*.py')]
    for path in sources:
        if 'generated' not in path.parts:
            for match in FORMULA.finditer(path.read_text()):
                yield path, match[3] or match[2], match[3] is None


def test_every_formula_becomes_mathml():
    to_mathml = pytest.importorskip('mathml', reason='latex2mathml is not installed').to_mathml
    found = list(formulas())
    assert len(found) > 500
    for path, tex, display in {(p, re.sub(r'(?m)^ +', '', t), d) for p, t, d in found}:
        try:
            out = to_mathml(tex, display)
        except ValueError as error:
            raise AssertionError(f'{path}: {error}') from error
        assert out.startswith('<math') and 'merror' not in out


def test_aligned_rows():
    to_mathml = pytest.importorskip('mathml').to_mathml
    out = to_mathml('a &= b\n\nc &= d', True)
    assert (
        out.count('<mtr>') == 2
        and out.count('class="right"') == 2
        and '&amp;' not in out
        and '>&<' not in out
    )
    assert chr(0x1D736) in to_mathml(r'\boldsymbol{\alpha}')
    with pytest.raises(ValueError, match=r"^'\\nonsense' is unknown"):
        to_mathml(r'\nonsense x')


def test_every_figure_has_a_sentence():
    pytest.importorskip('docutils')
    yaml = pytest.importorskip('yaml')
    figures = importlib.import_module('gallery').figures
    names = {block.name for _, _, blocks in figures() for block in blocks}
    assert set(yaml.safe_load((ROOT / 'docs' / 'figures.yaml').read_text())) == names


def test_every_model_has_a_page():
    text = (ROOT / 'docs' / 'api' / 'models.rst').read_text()
    listed = set(re.findall(r'^    (\w+)$', text, re.M))
    assert {name for name in models.__all__ if inspect.isclass(getattr(models, name))} <= listed
    chosen = (ROOT / 'docs' / 'choose_backbone.rst').read_text()
    assert all(name in chosen for name in models.MODELS if name != 'TokenALS')


def modules():
    for info in pkgutil.walk_packages(motor_geo.__path__, 'motor_geo.'):
        if not info.name.startswith('motor_geo.testing'):
            module = importlib.import_module(info.name)
            for value in vars(module).values():
                if inspect.isclass(value) and value.__module__ == info.name:
                    if issubclass(value, torch.nn.Module) and not value.__name__.startswith('_'):
                        yield value


def test_forward_is_documented():
    standard = inspect.getdoc(torch.nn.Module.forward)
    for module in modules():
        if module.forward is torch.nn.Module.forward:
            continue  # A base class.
        assert inspect.getdoc(module.forward) not in (None, standard), module


def test_the_drawing_is_up_to_date():
    names = {'__file__': 'draw.py', '__name__': 'draw'}
    exec((ROOT / 'docs' / 'draw.py').read_text(), names)
    for name in ('light', 'dark'):
        drawn = (ROOT / 'docs' / '_static' / f'method-{name}.svg').read_text()
        assert drawn == names['method'](names[name.upper()])


#: Spelling that is not American.
BRITISH = re.compile(
    r'\b(behaviour|colour|neighbour|favour|centre|modelling|labelled|cancelled|whilst|grey'
    r'|(?:optim|normal|regular|initial|organ|recogn|summar|minim|maxim|general|random)is(?:e|ing))',
    re.I,
)


def test_american_spelling():
    pages = [ROOT / 'README.md', *(ROOT / 'docs').rglob('*.rst'), *(ROOT / 'docs').glob('*.md')]
    for path in pages:
        if 'generated' not in path.parts:
            found = BRITISH.findall(path.read_text())
            assert not found, f'{path}: {found}'
