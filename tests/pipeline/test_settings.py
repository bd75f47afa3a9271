import pytest

from motor_geo.nn.models import MODELS, TokenALS
from motor_geo.pipeline.settings import product, settings_of, settings_of_loss


class LightGCN(MODELS['LightGCN']):
    r"""Of another package than the one whose settings there are."""


def test_products_change_the_last_option_first():
    expected = [{'a': 1, 'b': 3}, {'a': 1, 'b': 4}, {'a': 2, 'b': 3}, {'a': 2, 'b': 4}]
    assert product({'a': [1, 2], 'b': [3, 4]}) == expected and product({}) == [{}]


def test_settings_of_classes():
    found = settings_of(TokenALS)
    assert len(found) == 12 and found[0] == {'model.unobserved': 1.0, 'model.reg_weight': 0.03}
    assert len(settings_of(MODELS['LightGCN'])) == 3 and settings_of(LightGCN) == [{}]


@pytest.mark.parametrize('name', ['published', 'bpr', 'softmax', 'directau'])
def test_losses_without_settings(name):
    assert settings_of_loss(name) == [{}]


def test_the_loss_over_all_pairs_has_those_of_its_solver():
    expected = [list(setting.values()) for setting in settings_of(TokenALS)]
    assert [list(setting.values()) for setting in settings_of_loss('whole')] == expected
    assert {*settings_of_loss('whole')[0]} == {'loss.unobserved', 'loss.reg_weight'}
