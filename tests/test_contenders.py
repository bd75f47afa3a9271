import pytest

from motor_geo.contenders import IDS, Setup, in_words
from motor_geo.experiments import EXPERIMENTS
from motor_geo.nn import TokenCrossEncoder

NAMES = {'shop': ['image', 'text'], 'bare': []}


def make_setup(tmp_path):
    folders = {}
    for name in NAMES:
        (tmp_path / name).mkdir()
        folders[name] = str(tmp_path / name)
    return Setup(folders, NAMES, effort=2, options={'trainer.epochs': 7})


@pytest.fixture
def setup(tmp_path):
    return make_setup(tmp_path)


def test_as_much_is_tried_for_everyone(setup):
    for name in ('table2', 'table4', 'controls', 'quantizers', 'lirdrec-table2'):
        contenders = EXPERIMENTS[name].contenders(setup._replace(effort=3))
        if name == 'controls':
            contenders = EXPERIMENTS[name].contenders(setup)
        assert len({len(contender.settings) for contender in contenders}) == 1
    for models in (None, ('BPR',)):
        wide = setup._replace(effort=9, models=models)
        contenders = EXPERIMENTS['recommended'].contenders(wide)
        assert {len(contender.settings) for contender in contenders} == {6}


def test_tokens_have_the_regulariser_of_ids(setup):
    for name in ('table2', 'table3', 'lirdrec-figure4'):
        found = {c.label: c for c in EXPERIMENTS[name].contenders(setup._replace(effort=1))}
        for (data, model, form), contender in found.items():
            (setting,) = contender.settings
            options = {**contender.options, **setting}
            assert IDS[model][0].items() <= options.items(), (data, model, form)


def test_averages_have_the_parameters_of_a_full_network(setup):
    found = {
        c.label[2]: c for c in EXPERIMENTS['controls'].contenders(setup) if c.label[0] == 'shop'
    }
    for mean, full in zip(found['mean'].settings, found['full'].settings):
        size = []
        for mode, setting in (('mean', mean), ('specific', full)):
            count = setting['tokenizer.num_tokens']
            encoder = TokenCrossEncoder({'image': count, 'text': count}, 256, 64, mode=mode)
            size.append(sum(parameter.numel() for parameter in encoder.parameters()))
        assert size[0] == pytest.approx(size[1], rel=2e-3)


def test_backbones_without_features_are_left_out(setup):
    labels = [c.label for c in EXPERIMENTS['table2'].contenders(setup)]
    assert [label[1] for label in labels if label[0] == 'bare'] == ['BPR', 'LightGCN', 'LayerGCN']
    labels = [c.label for c in EXPERIMENTS['table2'].contenders(setup._replace(models=('MICRO',)))]
    assert labels == [('shop', 'MICRO', form) for form in ('id', 'specific', 'agnostic')]


def test_settings_in_words():
    setting = {'model.reg_weight': 0.1, 'items.init': 'xavier'}
    assert in_words(setting) == 'reg_weight 0.1, init xavier' and in_words({}) == ''
