from motor_geo.experiments.baselines import BASELINES, applicable
from motor_geo.experiments.options import BASE
from motor_geo.experiments.search import override
from motor_geo.nn.models import FITTED
from motor_geo.pipeline.config import resolve


def test_baselines_are_the_models_without_an_item_encoder():
    assert set(BASELINES) == {'Popularity', 'ItemKNN', 'ContentKNN', 'RP3beta', 'EASE', 'IALS'}
    assert all(BASELINES[name] is FITTED[name] for name in BASELINES)


def test_options_that_a_baseline_has():
    common = {
        **BASE,
        'data': 'synthetic',
        'items': 'none',
        'seed': 3,
        'mask_validation': True,
        'behavior': True,
        'evaluator.ks': [10, 20],
        'model.channels': 32,
        'model.reg_weight': 7.0,
        'items.num_layers': 0,
        'graph.k': 5,
        'svd.channels': 8,
        'tokenizer.seed': 3,
        'trainer.epochs': 9,
        'trainer.patience': 4,
        'trainer.lr': 0.1,
        'trainer.batch_size': 64,
    }
    rest = {'data': 'synthetic', 'seed': 3, 'mask_validation': True, 'evaluator.ks': [10, 20]}
    rest |= {'trainer.epochs': 9, 'trainer.patience': 4}
    own = {
        'Popularity': {},
        'ItemKNN': {},
        'ContentKNN': {},
        'RP3beta': {},
        'EASE': {'model.reg_weight': 7.0},
        'IALS': {'model.channels': 32, 'model.reg_weight': 7.0},
    }
    for name in BASELINES:
        found = applicable({'model': name, **common})
        assert found == {'model': name, **rest, **own[name]}
        config = resolve(override({}, found))
        assert config['items'] == {'name': 'none'} and config['trainer']['epochs'] == 9
