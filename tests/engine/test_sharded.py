import json

import pytest
import torch

from motor_geo.engine import sharded
from motor_geo.engine.sharded import META, last_folder, load_folder
from motor_geo.parallel import UserShard, World
from motor_geo.testing.graphs import small_graph

pytest.importorskip('safetensors')
OF = {'model': 'BPR', 'fingerprint': 'abc'}


class Part(World):
    r"""One of several processes that write one after another, the first one last."""

    def barrier(self):
        pass

    def share(self, value):
        return 'ok'


@pytest.fixture
def path(tmp_path, monkeypatch):
    data, size = small_graph(), 3
    table = torch.arange(211 * 2.0).view(211, 2)
    shared = tmp_path / 'part'
    shared.mkdir()
    monkeypatch.setattr(Part, 'share', lambda self, value: str(shared))
    monkeypatch.setattr(sharded.os, 'makedirs', lambda path: None)
    for rank in reversed(range(size)):
        shard = UserShard(Part(rank, size), data)
        tensors = {'model.user': table[shard.first : shard.last], 'model.bias': torch.ones(3)}
        args = tensors, ['model.user'], {**OF, 'history': '[]'}, shard
        sharded.save_folder(str(tmp_path / 'last'), 7, *args)
    return tmp_path / 'last' / '7'


@pytest.fixture(autouse=True)
def last(tmp_path):
    (tmp_path / 'last' / '6').mkdir(parents=True)
    (tmp_path / 'last' / '.tmp-1-abc').mkdir()


def test_any_number_of_processes_reads_its_rows(path):
    assert last_folder(str(path.parent)) == str(path) and len(list(path.parent.iterdir())) == 1
    table = torch.arange(211 * 2.0).view(211, 2)
    data = small_graph()
    for size in (1, 2, 3, 4, 300):
        for rank in (0, size // 2, size - 1):
            shard = UserShard(World(rank, size), data)
            tensors, meta = load_folder(str(path), shard, **OF)
            assert tensors['model.user'].equal(table[shard.first : shard.last])
            assert tensors['model.bias'].equal(torch.ones(3)) and meta['history'] == '[]'
    assert load_folder(str(path), **OF)[0]['model.user'].equal(table)


@pytest.mark.parametrize('key', OF)
def test_another_run_is_refused(path, key):
    with pytest.raises(ValueError, match=f"has the {key} '{OF[key]}', expected 'other'"):
        load_folder(str(path), **{**OF, key: 'other'})


def test_damaged_files_are_named(path):
    file = path / '1.safetensors'
    content = file.read_bytes()
    for damaged in (b'', content[:100], content[:-1], b'\xff' * 8 + content[8:]):
        file.write_bytes(damaged)
        with pytest.raises(ValueError, match="1.safetensors' is damaged"):
            load_folder(str(path), **OF)
    file.unlink()
    with pytest.raises(ValueError, match="1.safetensors' is damaged"):
        load_folder(str(path), **OF)
    file.write_bytes(content)
    meta = json.loads((path / META).read_text())
    (path / META).write_text(json.dumps({**meta, 'files': meta['files'][:2]}))
    with pytest.raises(ValueError, match="has 284 of 422 numbers of 'model.user'"):
        load_folder(str(path), **OF)
    for text in ('', '[]', '{}'):
        (path / META).write_text(text)
        with pytest.raises(ValueError, match="7' is damaged"):
            load_folder(str(path), **OF)


def test_no_checkpoint(tmp_path):
    assert last_folder(str(tmp_path / 'none')) is None
    assert last_folder(str(tmp_path / 'last')) == str(tmp_path / 'last' / '6')
