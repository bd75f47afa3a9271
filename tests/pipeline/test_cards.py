import os
import warnings

import pytest

from motor_geo.__main__ import main
from motor_geo.data import TableDataset
from motor_geo.data.datasets.cards import CARDS
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
