import re

import pytest

from benchmarks.findings import DOCS, Reports
from benchmarks.when import FIGURE, SOURCES, figure, gains, mean, page
from motor_geo.report.plot import svg


def test_means_of_seeds():
    runs = [{'label': ['a', 'id'], 'test': {'recall@20': value}} for value in (0.1, 0.3)]
    assert mean(runs, ['a', 'id']) == pytest.approx(0.2)
    with pytest.raises(ValueError, match=r"no run has the label \['b'\]"):
        mean(runs, ['b'])


def test_the_page_says_what_was_measured():
    found = gains(Reports())
    assert [source for source, *_ in found] == list(SOURCES)
    with open(f'{DOCS}/when_tokens.md') as file:
        assert file.read() == page(found)


def test_the_figure_shows_what_was_measured():
    found = gains(Reports())
    drawn = figure(found)
    assert drawn.series[0].y == [100 * entry.gain['content'] for entry in found]
    with open(f'{DOCS}/{FIGURE}') as file:
        text = file.read()
    for number in re.findall(r'<path d="([^"]+)"', svg(drawn)):
        assert number in text
