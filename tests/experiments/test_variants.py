import pytest

from motor_geo.data import OPQTokenizer
from motor_geo.experiments.registry import EXPERIMENTS
from motor_geo.experiments.search import override
from motor_geo.experiments.variants import TRIED, Setup, in_words
from motor_geo.nn import TokenCrossEncoder
from motor_geo.pipeline.config import resolve

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


@pytest.mark.parametrize(
    'name', ['table2', 'table4', 'figure4', 'controls', 'quantizers', 'sparsity', 'recommended']
)
def test_the_same_is_tried_for_everyone(setup, name):
    for models in (None, ('BPR',)):
        wide = setup._replace(effort=9, models=models)
        contenders = EXPERIMENTS[name].contenders(wide)
        size = 6 if name == 'recommended' else 3
        for contender in contenders:
            assert contender.settings[:3] == TRIED[contender.options['model']]
            distinct = {str(sorted(setting.items())) for setting in contender.settings}
            assert len(distinct) == len(contender.settings) == size


def test_a_grid_takes_the_place_of_the_own_ones(setup):
    grid = ({'model.reg_weight': 0.5}, {'model.reg_weight': 0.25})
    setup = setup._replace(grid=grid, effort=9)
    for name in ('table2', 'recommended'):
        for contender in EXPERIMENTS[name].contenders(setup):
            assert contender.settings[:2] == list(grid)
            assert TRIED[contender.options['model']] != list(grid)
    for contender in EXPERIMENTS['lirdrec-figure4'].contenders(setup):  # Where nothing is tried.
        assert contender.options['model.reg_weight'] == 0.5


def test_tokens_have_the_regulariser_of_ids(setup):
    for name in ('table2', 'table3', 'lirdrec-figure4'):
        found = {c.label: c for c in EXPERIMENTS[name].contenders(setup._replace(effort=1))}
        for (data, model, form), contender in found.items():
            (setting,) = contender.settings
            options = {**contender.options, **setting}
            assert TRIED[model][0].items() <= options.items(), (data, model, form)


def test_averages_have_the_parameters_of_a_full_network(setup):
    found = {
        c.label[2]: c for c in EXPERIMENTS['controls'].contenders(setup) if c.label[0] == 'shop'
    }
    size = []
    for name, mode in (('mean', 'mean'), ('full', 'specific')):
        options = resolve(override({}, found[name].options))['tokenizer']
        count = options.get('num_tokens', OPQTokenizer().num_tokens)
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


def test_variations_differ_in_one_option(setup):
    found = {c.label: c.options for c in EXPERIMENTS['sparsity'].contenders(setup)}
    base = found['shop', 'LightGCN', 'specific', '0.25']
    varied = {
        label[2]: {key: value for key, value in options.items() if base.get(key) != value}
        for label, options in found.items()
        if label[0] == 'shop' and label[3] == '0.25' and ', ' in label[2]
    }
    assert varied == {
        'specific, 2 tokens': {'tokenizer.num_tokens': 2},
        'specific, 16 tokens': {'tokenizer.num_tokens': 16},
        'specific, image': {'tokenizer.modalities': ['image']},
        'specific, text': {'tokenizer.modalities': ['text']},
    }
    # Without content there is nothing to vary.
    forms = {label[2] for label in found if label[0] == 'bare'}
    assert forms == {'id', 'mean + behavior', 'recommended'}
