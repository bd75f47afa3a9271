import json
import os
import shutil
import sys

import pytest
import torch

from motor_geo.pipeline.folder import LoadedRun, load_run, read_config
from motor_geo.pipeline.train import default_folder, run
from motor_geo.typing import ITEM
from motor_geo.utils.errors import ConfigError
from tests.pipeline.shop import SMALL, make_shop

CONFIG = {
    'data': {'num_users': 40, 'num_items': 30, 'num_interactions': 200},
    'model': {'name': 'FREEDOM', 'channels': 8},
    'items': 'specific',
    'tokenizer': {'num_tokens': 2, 'codebook_size': 4, 'cache': False},
    'graph': {'k': 3, 'cache': False},
    'trainer': {'epochs': 1, 'batch_size': 64, 'progress': False},
    'device': 'cpu',
}


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    out = str(tmp_path_factory.mktemp('runs') / 'a')
    run({**CONFIG, 'out': out}, progress=False)
    return out


def test_a_loaded_run(folder):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    loaded = load_run(folder, 'cpu')
    assert torch.equal(torch.get_rng_state(), before)
    assert isinstance(loaded, LoadedRun) and not loaded.model.training
    assert loaded.config == read_config(folder) and loaded.config.out == folder
    assert loaded.tokenizer.is_fitted and loaded.data[ITEM].token_id.shape == (30, 4)
    state = torch.load(f'{folder}/best.pt', weights_only=True)['state']['model']
    own = loaded.model.state_dict()
    assert all(torch.equal(value, own[key]) for key, value in state.items())


def test_a_finished_run_is_read_back_from_a_configuration(folder):
    first = run({**CONFIG, 'out': folder}, progress=False)
    assert run(read_config(folder), progress=False) == first


def test_no_run(tmp_path, folder):
    with pytest.raises(FileNotFoundError, match='is not a run folder: it has no config'):
        load_run(str(tmp_path))
    shutil.copytree(folder, tmp_path / 'a')
    (tmp_path / 'a' / 'config.yaml').write_text('model: FREDOM')
    with pytest.raises(ConfigError, match="config.yaml': --model: unknown model 'FREDOM'; did"):
        load_run(str(tmp_path / 'a'))


def test_default_folder(tmp_path):
    def name(data, model='BPR', items='id', **more):
        sections = {'data': data, 'model': {'name': model}, 'items': {'name': items}}
        return default_folder({**sections, 'seed': 3})

    assert name({'name': 'synthetic'}) == 'runs/synthetic-BPR-id-seed3'
    assert name({'name': '/a/last.fm', 'path': '/a/last.fm'}) == 'runs/last.fm-BPR-id-seed3'
    found = name({'name': 'my_package.data.Shop'}, 'my_package.MyGNN', 'my_package.Mean')
    assert found == 'runs/Shop-MyGNN-Mean-seed3'


def test_data_that_moved(tmp_path):
    shop, out = tmp_path / 'shop', tmp_path / 'out'
    make_shop(shop)
    run({**SMALL, 'data': str(shop), 'out': str(out)}, progress=False)
    text = (out / 'config.yaml').read_text()
    assert text.count(str(shop)) == 1  # The path is written once.
    before = load_run(str(out))
    moved = str(shop.rename(tmp_path / 'moved'))
    (tmp_path / 'moved' / 'shop.inter').rename(tmp_path / 'moved' / 'moved.inter')
    with pytest.raises(ConfigError, match=f"the data '{shop}' do not exist; if they have moved"):
        load_run(str(out))
    with pytest.raises(ConfigError, match="--data: 'none' does not exist; expected the data of"):
        load_run(str(out), data='none')

    def check(loaded):
        assert loaded.config.data['name'] == moved
        assert loaded.dataset.fingerprint == before.dataset.fingerprint
        state = before.model.state_dict()
        assert all(torch.equal(v, state[k]) for k, v in loaded.model.state_dict().items())

    check(load_run(str(out), data=moved))
    (out / 'config.yaml').write_text(text.replace(f'name: {shop}', f'name: {moved}'))
    check(load_run(str(out)))
    # Older versions wrote the path twice.
    old = text.replace(f'name: {shop}\n', f'name: {moved}\n  path: {shop}\n')
    assert old != text
    (out / 'config.yaml').write_text(old)
    check(load_run(str(out)))


def test_data_in_no_folder_do_not_move(folder, tmp_path):
    with pytest.raises(ConfigError, match="'synthetic', are not read from a folder"):
        load_run(folder, data=str(tmp_path))


SOURCE = """
import torch
from motor_geo.nn.models import LightGCN


class Mine(LightGCN):
    def __init__(self, data, item_encoder=None, channels: int = 64):
        super().__init__(data, item_encoder, channels)
        self.scale = torch.nn.Parameter(torch.ones(SIZE))
"""


@pytest.fixture
def write(tmp_path, monkeypatch):
    def write(size, more=''):
        (tmp_path / 'outside.py').write_text(SOURCE.replace('SIZE', size) + more)
        sys.modules.pop('outside', None)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'dont_write_bytecode', True)
    write('2')
    yield write
    sys.modules.pop('outside', None)


def test_another_version_of_a_class(write, recwarn):
    config = {**CONFIG, 'model': {'name': 'outside.Mine', 'channels': 8}, 'out': 'st'}
    result = run(config, progress=False)
    assert list(result['sources']) == ['outside.Mine']
    with open('st/data.json') as file:
        assert json.load(file)['sources'] == result['sources']
    assert run(config, progress=False) == result
    load_run('st', 'cpu')
    assert len(recwarn) == 0

    write('2', '\n    # Another comment.\n')
    version = "'st' was trained with another version of outside.Mine"
    with pytest.raises(ConfigError, match=f'^{version}; choose another --out or delete it$'):
        run(config, progress=False)
    os.remove('st/result.json')  # So does a run that has begun.
    with pytest.raises(ConfigError, match=f'^{version}; '):
        run(config, progress=False)
    with pytest.warns(UserWarning, match=f'^{version}; its rankings may differ$'):
        load_run('st', 'cpu')

    write('3')
    trained = "^'st' was trained with another version of outside.Mine "
    with pytest.warns(UserWarning), pytest.raises(ConfigError, match=trained) as error:
        load_run('st', 'cpu')
    assert str(error.value).endswith(' (scale is [2], expected [3])')
    write('2', '        self.other, self.scale = self.scale, None\n')
    with pytest.warns(UserWarning), pytest.raises(ConfigError, match=trained) as error:
        load_run('st', 'cpu')
    assert str(error.value).endswith(' (missing other, unknown scale)')


def test_classes_of_this_package_have_no_sources(folder):
    assert 'sources' not in run({**CONFIG, 'out': folder}, progress=False)
    with open(f'{folder}/data.json') as file:
        assert 'sources' not in json.load(file)
