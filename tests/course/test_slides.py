import re
from html.parser import HTMLParser

import pytest

from course import slides
from course.slides.__main__ import main

pytest.importorskip('latex2mathml')
pytest.importorskip('markdown_it')


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def test_every_week(tmp_path):
    assert main([str(tmp_path)]) == 0
    assert [path.stem for path in slides.decks()] == [f'week{i}' for i in range(1, 7)]
    for deck in slides.decks():
        text = (tmp_path / f'{deck.stem}.html').read_text()
        tags = Tags()
        tags.feed(text)
        sections = [attrs for tag, attrs in tags.found if tag == 'section']
        assert 10 <= len(sections) <= 15, deck.name
        for tag, attrs in tags.found:  # Nothing is loaded.
            assert tag not in ('script', 'link', 'iframe')
            assert attrs.get('src', 'data:').startswith('data:')
        assert 'url(' not in text and '@import' not in text
        assert '<math' in text or deck.stem == 'week6'
        assert '$' not in re.sub(r'<pre>.*?</pre>', '', text, flags=re.S), 'a formula is left'


def test_formulas(tmp_path):
    deck = tmp_path / 'week1.md'
    deck.write_text('# Title\n\n$x^2$\n\n---\n\n$$ \\frac{1}{2} $$\n\n```python\na = 1\n```\n')
    text = slides.render(deck)
    assert text.count('<section') == 2 and '<mfrac>' in text and '<msup>' in text
    assert '<title>Title</title>' in text
    deck.write_text('# Title\n\n$\\nonsense x$\n')
    with pytest.raises(ValueError, match='nonsense'):
        slides.render(deck)


def test_errors(tmp_path):
    deck = tmp_path / 'week1.md'
    deck.write_text('no title\n')
    with pytest.raises(ValueError, match="'week1.md' must start with '# '"):
        slides.render(deck)
    deck.write_text('# Title\n\n![a](missing.svg)\n')
    with pytest.raises(ValueError, match="the image 'missing.svg', which is missing"):
        slides.render(deck)


def test_pages_of_the_documentation_exist():
    root = slides.FOLDER.parents[1]
    for path in [*slides.decks(), root / 'course' / 'README.md']:
        for name in re.findall(r'`((?:docs|examples|course)/[^` ]+)`', path.read_text()):
            assert (root / name).exists(), f'{path.name}: {name}'
