import pytest

from motor_geo.experiments import options as module
from motor_geo.experiments.options import ExperimentOptions, backbone, in_words, settings_of, short
from motor_geo.experiments.registry import EXPERIMENTS
from motor_geo.nn.models import FITTED, MODELS, LightGCN
from motor_geo.utils.errors import ConfigError


def test_settings_of_backbones():
    assert settings_of('LightGCN') == [{'model.reg_weight': w} for w in (1e-4, 0.1, 0.5)]
    assert settings_of('MMGCN') == [{'trainer.lr': lr} for lr in (1e-3, 1e-2, 1e-4)]
    assert all(len(settings_of(name)) == 3 for name in MODELS)
    assert settings_of('Popularity') == [{}]
    fitted = set(FITTED) - {'Popularity', 'TokenALS'}
    assert all(len(settings_of(name)) in (3, 12) for name in fitted)
    assert len(settings_of('TokenALS')) == 12
    with pytest.raises(ConfigError, match="unknown model 'Pop'"):
        settings_of('Pop')


class Mine(LightGCN):
    pass


class FREEDOM(LightGCN):
    r"""Of another package than the one whose settings there are."""


@pytest.mark.parametrize('kind', [Mine, FREEDOM])
def test_backbones_of_other_packages_run(monkeypatch, kind):
    path = f'{__name__}.{kind.__name__}'
    monkeypatch.setattr(module, 'backbone', lambda name: kind if name == path else MODELS[name])
    assert settings_of(path) == [{}]
    options = ExperimentOptions({'shop': 'shop'}, {'shop': ['text']}, (path, 'BPR'))
    found = {variant.label: variant for variant in EXPERIMENTS['table2'].variants(options)}
    own = found['shop', kind.__name__, 'specific']
    assert own.options['model'] == path and own.settings == [{}]
    assert len(found) == 8 and len(found['shop', 'BPR', 'id'].settings) == 3


def test_names():
    assert short('my.package.Mine') == 'Mine' and short('BPR') == 'BPR'
    assert backbone('BPR') is MODELS['BPR']
    setting = {'model.reg_weight': 0.1, 'items.init': 'xavier'}
    assert in_words(setting) == 'reg_weight 0.1, init xavier' and in_words({}) == ''


def test_baselines_are_no_backbones():
    data = {'data': {'shop': 'shop'}, 'modalities': {'shop': []}}
    options = ExperimentOptions(**data)
    assert options.baselines(('Popularity',)) == ['Popularity']
    assert options.choose(('BPR', 'VBPR'), 'shop') == ['BPR']  # Without features.
    options = ExperimentOptions(**data, models=('BPR', 'ItemKNN'), grid=({'model.reg_weight': 1},))
    assert options.baselines() == ['ItemKNN'] and options.choose((), 'shop') == ['BPR']
    assert options.settings('ItemKNN') == settings_of('ItemKNN')
    assert options.settings('BPR') == [{'model.reg_weight': 1}]


def test_what_is_given_for_all_runs_is_not_tried():
    data = {'data': {'shop': 'shop'}, 'modalities': {'shop': []}, 'effort': 9}
    options = ExperimentOptions(**data, options={'model.reg_weight': 0.3})
    variant = options.variant(('shop', 'LightGCN'), 'LightGCN', 'id')
    assert variant.settings == [{}] and variant.options['model.reg_weight'] == 0.3
    tried = [{'model.reg_weight': 1, 'trainer.lr': lr} for lr in (0.1, 0.2)]
    variant = options.variant(('shop', 'LightGCN'), 'LightGCN', 'id', {}, tried)
    assert variant.settings == [{'trainer.lr': 0.1}, {'trainer.lr': 0.2}]
