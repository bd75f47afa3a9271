import yaml

from motor_geo.utils.model_card import Section, Training, model_card

SECTION = Section('A', 'a', ('a.json', 'a.safetensors'), {'b': 'x|y'}, 1234, {'torch': '2.0'})
TRAINING = Training(
    {'name': 'a|b\n\nc'},
    {'seed': '3'},
    {'validation': {}, 'test': {'recall@20': 0.25}, 'new': {'recall@20': 0.5, 'ndcg@20': 1 / 3}},
    {'torch': '2.1'},
)


def test_a_new_card():
    text = model_card('me/a', SECTION)
    _, head, body = text.split('---\n', 2)
    assert 'license' not in yaml.safe_load(head) and '# license: add' in head
    headings = [line for line in body.splitlines() if line.startswith('#')]
    assert headings == ['# me/a', '## Intended use', '## Limits', '## Data and license', '## A']
    assert 'Saved with torch 2.0.\n' in body and '| `b` | `"x\\|y"` |\n' in body


def test_the_section_of_a_run():
    text = model_card('me/a', TRAINING, model_card('me/a', SECTION))
    assert (
        '| data |  |\n|---|---|\n| name | a\\|b c |\n\n| run |  |\n|---|---|\n| seed | 3 |' in text
    )
    assert '| metric | test | new |\n|---|---|---|\n| recall@20 | 0.2500 | 0.5000 |\n' in text
    assert '| ndcg@20 |  | 0.3333 |\n\nTrained with torch 2.1.\n<!-- end of run -->\n' in text
    again = model_card('me/a', TRAINING._replace(metrics={}), text + 'My words.\n')
    assert again.count('## Training and evaluation') == again.count('## A') == 1
    assert 'Not evaluated.' in again and 'recall' not in again and again.endswith('My words.\n')
