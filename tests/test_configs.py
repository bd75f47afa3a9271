import re
from pathlib import Path

import numpy as np
import pytest
import yaml

from motor_geo.experiments.options import BASE, settings_of
from motor_geo.experiments.search import override, read_space
from motor_geo.experiments.variants import RECOMMENDED
from motor_geo.nn.models import FITTED, MODELS
from motor_geo.pipeline.config import flatten, merge, parse_flags, read_yaml, resolve
from motor_geo.report.write import read_runs

FOLDER = Path(__file__).parents[1] / 'configs'
FILES = sorted(FOLDER.rglob('*.yaml'))


def name(path):
    return str(path.relative_to(FOLDER))


#: Models that have something to search.
SEARCHED = [*MODELS, *(name for name in FITTED if name != 'Popularity')]


def test_every_model_has_a_sweep():
    found = {path.stem for path in FILES if path.parent.name == 'sweep'}
    assert found == {*SEARCHED, 'tokens'}
    assert {path.parent.name for path in FILES} == {'model', 'sweep', 'experiment', 'items'}


@pytest.mark.parametrize('path', [p for p in FILES if p.parent.name != 'sweep'], ids=name)
def test_files_resolve_and_say_what_differs(path):
    written = read_yaml(str(path))
    named = {'name': written.get('model', {}).get('name', 'LightGCN')}
    config, plain = flatten(resolve(written)), flatten(resolve({'model': named}))
    if path.parent.name == 'model':
        assert path.stem.split('-')[0] == config['model.name']
        for key in flatten(written):
            assert key == 'model.name' or config[key] != plain[key], f'{key} is the default'


@pytest.mark.parametrize('path', [p for p in FILES if p.parent.name == 'sweep'], ids=name)
def test_sweeps_search_options_that_exist(path):
    space = read_space([str(path)], parse_flags([]))  # Every choice is resolved.
    assert path.stem in (space.base['model']['name'], 'tokens')
    given = yaml.safe_load(path.read_text())['search']
    assert list(space.search) == list(given)
    for key, entry in given.items():  # The published value may be the default, but not unread.
        assert isinstance(entry, dict) or list(space.search[key]) == entry


@pytest.mark.parametrize('model', SEARCHED)
def test_settings_of_reproductions_exist(model):
    settings = settings_of(model)
    path = FOLDER / 'sweep' / f'{model}.yaml'
    written = yaml.safe_load(path.read_text())['reproduce']
    keys = list(written if isinstance(written, dict) else written[0])
    assert keys and [list(setting) for setting in settings] == [keys] * len(settings)
    for setting in settings:  # Numbers that YAML reads as strings would be told apart here.
        config = flatten(resolve(override({}, {'model': model, **setting})))
        for key in keys:
            assert config[key] == setting[key] and type(config[key]) is type(setting[key])


def test_two_orders_are_what_was_tried():
    options = {**BASE, **RECOMMENDED, 'items': 'specific', 'tokenizer.num_tokens': 4}
    written = read_yaml(str(FOLDER / 'items' / 'two-orders.yaml'))
    strong = {**options, 'model.reg_weight': 0.5}
    assert resolve(written) == resolve(override({}, strong))
    # Another backbone keeps its own regularizer.
    other = merge(written, parse_flags(['--model', 'FREEDOM']))
    assert resolve(other) == resolve(override({}, {**options, 'model': 'FREEDOM'}))


@pytest.mark.parametrize('path', sorted((FOLDER / 'experiment').glob('*.yaml')), ids=name)
def test_experiments_name_their_result_and_their_control(path):
    text = ' '.join(line.lstrip('# ') for line in path.read_text().splitlines())
    number = r'(0\.\d{4} ± 0\.\d{4})'
    found = re.search(
        rf'Recall@20: {number} \((\d) seeds\), with IDs {number} \(docs/reproduction/(\S+)\)', text
    )
    assert found, 'expected the result, its seeds, that of IDs, and the report'
    runs = read_runs(str(FOLDER.parent / 'docs' / 'reproduction' / found[4]))
    config = flatten(read_yaml(str(path)))
    untuned = '' if 'model.reg_weight' in config else ', untuned'
    for label, claimed in ((f'recommended{untuned}', found[1]), (f'id{untuned}', found[3])):
        mine = [run for run in runs if run['label'][-1] == label]
        if len(mine[0]['label']) > 2:  # The backbone is named, too.
            mine = [run for run in mine if run['label'][1] == config['model.name']]
        assert len(mine) == int(found[2])
        values = [run['test']['recall@20'] for run in mine]
        assert f'{np.mean(values):.4f} ± {np.std(values, ddof=1):.4f}' == claimed
        if label == 'recommended':  # The file has the setting that validation chose.
            tried = mine[0]['tried']
            chosen = max(tried, key=lambda entry: entry[1])[0]
            assert all(config[key] == float(value) for key, value in chosen.items())
