import pytest

from motor_geo.data import OPQTokenizer
from motor_geo.experiments.options import ExperimentOptions, settings_of
from motor_geo.experiments.registry import EXPERIMENTS
from motor_geo.experiments.search import override
from motor_geo.nn import TokenCrossEncoder
from motor_geo.pipeline.assemble import build_item_encoder
from motor_geo.pipeline.config import RunConfig, resolve
from motor_geo.testing.graphs import small_graph

NAMES = {'shop': ['image', 'text'], 'bare': []}


def make_options(tmp_path):
    folders = {}
    for name in NAMES:
        (tmp_path / name).mkdir()
        folders[name] = str(tmp_path / name)
    return ExperimentOptions(folders, NAMES, effort=2, options={'trainer.epochs': 7})


@pytest.fixture
def options(tmp_path):
    return make_options(tmp_path)


@pytest.mark.parametrize(
    'name',
    [
        *('table2', 'table4', 'figure4', 'codebooks', 'controls', 'quantizers', 'interactions'),
        *('recommended', 'sparsity'),
    ],
)
def test_the_same_is_tried_for_everyone(options, name):
    for models in (None, ('BPR',)):
        wide = options._replace(effort=9, models=models)
        variants = EXPERIMENTS[name].variants(wide)
        size = 6 if name == 'recommended' else 3
        for variant in variants:
            assert variant.settings[:3] == settings_of(variant.options['model'])
            distinct = {str(sorted(setting.items())) for setting in variant.settings}
            assert len(distinct) == len(variant.settings) == size


def test_a_grid_takes_the_place_of_the_own_ones(options):
    grid = ({'model.reg_weight': 0.5}, {'model.reg_weight': 0.25})
    options = options._replace(grid=grid, effort=9)
    for name in ('table2', 'recommended'):
        for variant in EXPERIMENTS[name].variants(options):
            assert variant.settings[:2] == list(grid)
            assert settings_of(variant.options['model']) != list(grid)
    for variant in EXPERIMENTS['lirdrec-figure4'].variants(options):  # Where nothing is tried.
        assert variant.options['model.reg_weight'] == 0.5


def test_tokens_have_the_regularizer_of_ids(options):
    for name in ('table2', 'table3', 'lirdrec-figure4'):
        found = {c.label: c for c in EXPERIMENTS[name].variants(options._replace(effort=1))}
        for (data, model, form), variant in found.items():
            (setting,) = variant.settings
            found = {**variant.options, **setting}
            assert settings_of(model)[0].items() <= found.items(), (data, model, form)


def test_averages_have_the_parameters_of_a_full_network(options):
    found = {
        c.label[2]: c for c in EXPERIMENTS['controls'].variants(options) if c.label[0] == 'shop'
    }
    size = []
    for name, mode in (('mean', 'mean'), ('full', 'specific')):
        tokenizer = resolve(override({}, found[name].options))['tokenizer']
        count = tokenizer.get('num_tokens', OPQTokenizer().num_tokens)
        encoder = TokenCrossEncoder({'image': count, 'text': count}, 256, 64, mode=mode)
        size.append(sum(parameter.numel() for parameter in encoder.parameters()))
    assert size[0] == pytest.approx(size[1], rel=2e-3)


def test_networks_have_about_the_same_parameters(options):
    sizes, data = {}, small_graph()
    for variant in EXPERIMENTS['interactions'].variants(options):
        config = RunConfig.of(override({}, variant.options))
        if variant.label[2] != 'id':
            count = config.tokenizer['num_tokens']
            tokenizer = OPQTokenizer({'image': count, 'text': count})
            encoder = build_item_encoder(config, data, tokenizer)
            sizes[variant.label[2]] = sum(p.numel() for p in encoder.parameters())
    assert len(sizes) == 8
    for name, size in sizes.items():
        assert size == pytest.approx(sizes['specific'], rel=0.1), name


def test_quantizers_have_the_same_tokens(options):
    found = {}
    for variant in EXPERIMENTS['quantizers'].variants(options):
        config = RunConfig.of(override({}, variant.options))
        assert config.reads_tokens and config.items.get('mode', variant.label[2]) in (
            'specific',
            'mean',
        )
        keys = ('num_tokens', 'codebook_size', 'center', 'normalize', 'seed')
        same = {key: config.tokenizer[key] for key in keys}
        own = {key: config.tokenizer[key] for key in ('method', 'balance', 'num_near')}
        found.setdefault(str(same), set()).add(str(own))
    assert len(found) == 1 and len(*found.values()) == 8


def test_backbones_without_features_are_left_out(options):
    labels = [c.label for c in EXPERIMENTS['table2'].variants(options)]
    assert [label[1] for label in labels if label[0] == 'bare'] == ['BPR', 'LightGCN', 'LayerGCN']
    labels = [c.label for c in EXPERIMENTS['table2'].variants(options._replace(models=('MICRO',)))]
    forms = ('id', 'specific', 'agnostic', 'recommended')
    assert labels == [('shop', 'MICRO', form) for form in forms]


def test_variations_differ_in_one_option(options):
    found = {c.label: c.options for c in EXPERIMENTS['sparsity'].variants(options)}
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
