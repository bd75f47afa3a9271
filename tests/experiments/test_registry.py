import pytest

from motor_geo.experiments.baselines import BASELINES, applicable
from motor_geo.experiments.registry import ALIASES, EXPERIMENTS
from motor_geo.experiments.search import override
from motor_geo.pipeline.config import resolve
from tests.experiments.test_variants import NAMES, make_options


@pytest.mark.parametrize('name', list(EXPERIMENTS))
def test_variants(tmp_path, name):
    options, experiment = make_options(tmp_path), EXPERIMENTS[name]
    variants = experiment.variants(options)
    labels = [variant.label for variant in variants]
    assert len(set(labels)) == len(labels)
    compared = set()
    for variant in variants:
        data, *_ = variant.label
        assert len(variant.label) == len(experiment.head)
        assert 1 <= len(variant.settings) <= 2
        assert variant.options['trainer.epochs'] == 7
        if variant.options['model'] in BASELINES:  # Which are compared with nothing.
            own = applicable({**variant.options, 'seed': 0})
            assert resolve(override({}, own))['items']['name'] == 'none'
            continue
        for setting in variant.settings:
            config = resolve(override({}, {**variant.options, **setting}))
            assert config['trainer']['epochs'] == 7
        if not NAMES[data] and variant.options['model'] not in BASELINES:
            config = resolve(override({}, variant.options))  # Of items that stand for more.
            assert config['items']['name'] == 'id' or config['behavior']
        if experiment.reference is not None and (name, data) != ('lirdrec-table2', 'bare'):
            index, value = experiment.reference
            compared.add((*variant.label[:index], value, *variant.label[index + 1 :]))
    assert compared <= set(labels)


def test_other_names():
    assert set(ALIASES.values()) <= set(EXPERIMENTS) and not set(ALIASES) & set(EXPERIMENTS)
