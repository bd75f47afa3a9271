import json

from benchmarks.readme import of
from benchmarks.results import DOCS, page, summary


def test_summary(tmp_path):
    lines = [
        {'report': 'x', 'title': 'x: Many things'},
        {'run': 'a', 'label': ['tiktok', 'id']},
        {'run': 'b', 'label': ['tiktok', 'id']},
        {'run': 'c', 'label': ['lastfm', 'id']},
    ]
    (tmp_path / 'x.jsonl').write_text('\n'.join(map(json.dumps, lines)))
    expected = {'name': 'x', 'title': 'Many things', 'data': 'tiktok, lastfm', 'seeds': 2}
    assert summary(tmp_path / 'x.jsonl') == expected | {'runs': 3}


def test_reports_of_an_experiment():
    assert of('recipe-lastfm', 'recipe') and of('recipe', 'recipe')
    assert not of('recipes', 'recipe') and not of('recipe-thin-lastfm', 'recipe')


def test_the_page_says_what_was_measured():
    assert (DOCS / 'results.md').read_text() == page()
