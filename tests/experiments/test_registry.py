import pytest

from motor_geo.experiments.registry import ALIASES, EXPERIMENTS
from motor_geo.experiments.search import override
from motor_geo.pipeline.config import resolve
from tests.experiments.test_variants import NAMES, make_setup


@pytest.mark.parametrize('name', list(EXPERIMENTS))
def test_contenders(tmp_path, name):
    setup, experiment = make_setup(tmp_path), EXPERIMENTS[name]
    contenders = experiment.contenders(setup)
    labels = [contender.label for contender in contenders]
    assert len(set(labels)) == len(labels)
    compared = set()
    for contender in contenders:
        data, *_ = contender.label
        assert len(contender.label) == len(experiment.head)
        assert 1 <= len(contender.settings) <= 2
        assert contender.options['trainer.epochs'] == 7
        for setting in contender.settings:
            config = resolve(override({}, {**contender.options, **setting}))
            assert config['trainer']['epochs'] == 7
        if not NAMES[data]:  # Nothing there but interactions.
            assert contender.options['items'] == 'id' or contender.options['behavior']
        if experiment.reference is not None and (name, data) != ('lirdrec-table2', 'bare'):
            index, value = experiment.reference
            compared.add((*contender.label[:index], value, *contender.label[index + 1 :]))
    assert compared <= set(labels)


def test_other_names():
    assert set(ALIASES.values()) <= set(EXPERIMENTS) and not set(ALIASES) & set(EXPERIMENTS)
