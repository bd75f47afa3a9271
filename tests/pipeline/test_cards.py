import os
import urllib.error
import warnings
from pathlib import Path

import pytest

from motor_geo.__main__ import main
from motor_geo.data import TableDataset
from motor_geo.data.datasets.cards import CARDS
from motor_geo.utils import download
from tests.pipeline.shop import make_shop

DATA = os.path.join(os.path.dirname(__file__), '..', '..', '..', '..', 'shared', 'data')


def test_cards(capsys):
    assert main(['data']) == 0
    text = capsys.readouterr().out
    assert all(card.name in text for card in CARDS.values())
    assert main(['data', 'Tiktok']) == 0
    text = capsys.readouterr().out
    assert '9,308 users, 6,710 items, 68,712 interactions' in text and 'github.com' in text
    assert main(['data', 'tiktk']) == 2
    assert "there is no card for 'tiktk'; did you mean 'tiktok'?" in capsys.readouterr().err


def test_core_of_the_motor_data(capsys):
    for name, core in (('Music', 2), ('Baby-MOTOR', 2), ('Office', 2), ('Baby', 5)):
        assert main(['data', name]) == 0
        text = capsys.readouterr().out
        assert f'--data.core {core}' in text
    assert 'raw/ratings_Baby.csv' == CARDS['baby'].files[0].path


@pytest.mark.parametrize('card', CARDS.values(), ids=lambda card: card.name)
def test_all_cards(card):
    assert card.url.startswith('https://') and card.license and card.evidence
    assert all(file.url.startswith('https://') for file in card.files)
    assert all(len(file.sha256) in (0, 64) for file in card.files)


def test_download(tmp_path, capsys, monkeypatch):
    def fail(url, path, sha256=None):
        raise urllib.error.URLError('no network')

    def write(url, path, sha256=None):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(url.encode())

    folder = str(tmp_path / 'data')
    monkeypatch.setattr(download, 'download', fail)
    assert main(['data', 'ml1m', '--download', folder]) == 2
    error = capsys.readouterr().err
    url = 'https://files.grouplens.org/datasets/movielens/ml-1m.zip'
    assert f"'{url}' cannot be downloaded (<urlopen error no network>)" in error
    assert error.endswith(f"or save the file as '{folder}/ml-1m.zip'\n")
    assert error.count('\n') == 1
    monkeypatch.setattr(download, 'download', write)
    assert main(['data', 'Office', '--download', folder]) == 0
    text = capsys.readouterr().out
    assert f"'{folder}/raw/meta_Office_Products.json.gz' written (SHA-256 not checked)" in text
    assert 'how to read it: --data amazon --data.category Office_Products --data.core 2' in text
    assert main(['data', 'Office', '--download', folder]) == 0
    assert f"'{folder}/raw/ratings_Office_Products.csv' exists" in capsys.readouterr().out
    write('', f'{folder}/ml-1m.zip')
    assert main(['data', 'ml1m', '--download', folder]) == 2
    assert f"'{folder}/ml-1m.zip' differs from '{url}'" in capsys.readouterr().err
    assert main(['data', 'tiktok', '--download', folder]) == 2
    assert "the card of 'tiktok' has no addresses of files; see https" in capsys.readouterr().err
    assert main(['data', '--download', folder]) == 2
    assert '--download: expected the name of a card' in capsys.readouterr().err


def test_another_release(tmp_path, capsys):
    shop = make_shop(tmp_path / 'shop')
    assert main(['data', 'lastfm', '--check', shop]) == 1
    said = '12 instead of 1,858 users, 20 instead of 1,425 items, 72 instead of 56,345 interactions'
    assert f"'{shop}' is a different release: {said}" in capsys.readouterr().out
    dataset = TableDataset(shop)
    card = CARDS['lastfm']._replace(sizes=(12, 20, 72))
    assert card.differences(dataset) == [
        'the same sizes, but different interactions, splits or features'
    ]
    assert card._replace(hash=dataset.fingerprint).differences(dataset) == []
    assert card._replace(hash='').differences(dataset) == []
    assert main(['data', '--check', shop]) == 2
    assert '--check: expected the name of a card' in capsys.readouterr().err


@pytest.mark.parametrize('name', ['lastfm', 'tiktok', 'baby'])
def test_releases_at_hand(name):
    folder = os.path.join(DATA, name)
    if not os.path.isdir(folder):
        pytest.skip('The data are not here.')
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        assert CARDS[name].differences(TableDataset(folder)) == []
