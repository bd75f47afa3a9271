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


def mesh(rank, columns, users, kind=World):
    r"""A process of a mesh."""
    parts = World(rank // users, columns), World(rank % users, users)
    return kind(rank, columns * users, None, *parts)


def part(shard, tensors):
    return shard.parts(tensors, ['model.user'], ['model.user', 'model.item'])


TENSORS = {
    'model.user': torch.arange(211 * 12.0).view(211, 12),
    'model.item': torch.rand(5, 12),
    'model.bias': torch.ones(3),
}


@pytest.fixture(params=[(1, 3), (2, 2), (3, 1)])
def path(request, tmp_path, monkeypatch):
    data = small_graph()
    columns, users = request.param
    shared = tmp_path / 'part'
    shared.mkdir()
    monkeypatch.setattr(Part, 'share', lambda self, value: str(shared))
    monkeypatch.setattr(sharded.os, 'makedirs', lambda path: None)
    for rank in reversed(range(columns * users)):
        shard = UserShard(mesh(rank, columns, users, Part), data)
        args = part(shard, TENSORS), ['model.user'], {**OF, 'history': '[]'}, shard
        args = *args, ['model.user', 'model.item']
        sharded.save_folder(str(tmp_path / 'last'), 7, *args)
    return tmp_path / 'last' / '7'


@pytest.fixture(autouse=True)
def last(tmp_path):
    (tmp_path / 'last' / '6').mkdir(parents=True)
    (tmp_path / 'last' / '.tmp-1-abc').mkdir()


def test_any_mesh_reads_its_part(path):
    assert last_folder(str(path.parent)) == str(path) and len(list(path.parent.iterdir())) == 1
    data = small_graph()
    for columns, users in ((1, 1), (1, 2), (1, 300), (2, 1), (2, 3), (3, 2), (4, 1), (12, 1)):
        for rank in {0, columns * users // 2, columns * users - 1}:
            shard = UserShard(mesh(rank, columns, users), data)
            tensors, meta = load_folder(str(path), shard, **OF)
            expected = part(shard, TENSORS)
            assert tensors.keys() == expected.keys() and meta['history'] == '[]'
            assert all(value.equal(expected[key]) for key, value in tensors.items())
    whole = load_folder(str(path), **OF)[0]
    assert all(value.equal(TENSORS[key]) for key, value in whole.items())


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
    with pytest.raises(ValueError, match=r"has \d+ of (2532|60) numbers of 'model"):
        load_folder(str(path), **OF)
    for text in ('', '[]', '{}'):
        (path / META).write_text(text)
        with pytest.raises(ValueError, match="7' is damaged"):
            load_folder(str(path), **OF)


def test_no_checkpoint(tmp_path):
    assert last_folder(str(tmp_path / 'none')) is None
    assert last_folder(str(tmp_path / 'last')) == str(tmp_path / 'last' / '6')
