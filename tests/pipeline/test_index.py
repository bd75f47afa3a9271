import json
import os
import shutil

import numpy as np
import pytest
import torch

from motor_geo.pipeline.index import append, build_index, read_index, write_index

pytest.importorskip('faiss')


@pytest.fixture(scope='module')
def tables():
    generator = torch.Generator().manual_seed(0)
    user = torch.randn(50, 8, generator=generator)
    item = torch.randn(3000, 8, generator=generator)
    return user, item, np.array([f'i{i}' for i in range(3000)])


@pytest.mark.parametrize('kind', ['flat', 'hnsw', 'ivf'])
def test_index_finds_what_exact_search_finds(tables, kind):
    user, item, ids = tables
    index = build_index(user, item, ids, kind, k=10)
    expected = (user @ item.t()).topk(10)
    score, row = index.search(user, 10)
    share = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(row, expected.indices.numpy())])
    assert index.recall == pytest.approx(share) and share >= 0.98
    if kind == 'flat':
        np.testing.assert_allclose(score, expected.values.numpy(), rtol=1e-5)
    assert build_index(user, item, ids).kind == 'flat'


def test_items_are_appended(tables, tmp_path):
    user, item, ids = tables
    index = build_index(user, item, ids, 'hnsw')
    larger = append(index, 100 * user[:1], np.array(['new']))
    _, row = larger.search(user[:1], 1)
    assert larger.ids[row[0, 0]] == 'new'
    with pytest.raises(ValueError, match="the item 'new' is already in the index"):
        append(larger, user[:1], np.array(['new']))

    path = str(tmp_path / 'a.index')
    write_index(larger, path)
    again = read_index(path)
    assert (again.ids == larger.ids).all() and again.kind == 'hnsw'
    assert (again.search(user, 5)[1] == larger.search(user, 5)[1]).all()


def test_old_and_new_index_are_never_mixed(tables, tmp_path):
    user, item, ids = tables
    path, kept = str(tmp_path / 'a.index'), str(tmp_path / 'kept')
    write_index(build_index(user, item, ids, run='old'), path)
    new = build_index(user, -item, ids[::-1], run='new')  # As many items.
    before = read_index(path)
    shutil.copy(path, kept)
    write_index(new, path)
    with open(f'{path}.json') as file:
        content = json.load(file)
    write_index(before, path)
    with open(f'{path}.json') as file:
        content['before'] = json.load(file)
    with open(f'{path}.json', 'w') as file:  # Killed before the index was renamed.
        json.dump(content, file)
    found = read_index(path)
    assert (found.run, found.ids.tolist()) == ('old', ids.tolist())
    assert (found.search(user, 5)[1] == before.search(user, 5)[1]).all()
    write_index(new, path)
    assert read_index(path).run == 'new'
    shutil.copy(kept, path)  # Now the two files belong to two runs.
    with pytest.raises(ValueError, match='are damaged or do not belong together'):
        read_index(path)


@pytest.mark.parametrize('name', ['a.index', 'a.index.json'])
def test_damaged_index_files_are_detected(tables, tmp_path, name):
    user, item, ids = tables
    write_index(build_index(user, item, ids), str(tmp_path / 'a.index'))
    content = bytearray((tmp_path / name).read_bytes())
    content[content.index(b'"i7"') + 2 if name.endswith('json') else -3] ^= 1
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match='are damaged or do not belong together'):
        read_index(str(tmp_path / 'a.index'))


def test_refused_files(tables, tmp_path):
    user, item, ids = tables
    path = str(tmp_path / 'a.index')
    with pytest.raises(
        ValueError, match=r"a.index' does not exist; expected a file from motor-geo export"
    ):
        read_index(path)
    write_index(build_index(user, item, ids), path)
    with open(f'{path}.json') as file:
        text = file.read()
    with open(f'{path}.json', 'w') as file:
        file.write(text.replace('"i0", ', ''))
    with pytest.raises(ValueError, match=r"a.index' and .*json' are damaged or do not belong"):
        read_index(path)
    content = json.loads(text)
    del content['checksum'], content['ids'][0]  # As older versions wrote it.
    with open(f'{path}.json', 'w') as file:
        json.dump(content, file)
    with pytest.raises(ValueError, match=r'has 3000 items, but .* 2999 ids: they do not belong'):
        read_index(path)
    with open(f'{path}.json', 'w') as file:
        file.write(text)
    with open(path, 'r+b') as file:
        file.truncate(100)
    with pytest.raises(ValueError, match="a.index' and .*json' are damaged or do not belong"):
        read_index(path)
    os.remove(f'{path}.json')
    with pytest.raises(ValueError, match=r"a.index.json' does not exist"):
        read_index(path)
    os.mkdir(f'{path}.json')
    with pytest.raises(OSError, match=r"^'[^']*a.index.json' cannot be written: Is a directory$"):
        write_index(build_index(user, item, ids), path)
    with pytest.raises(ValueError, match="--kind: expected flat, hnsw, ivf, got 'tree'"):
        build_index(user, item, ids, 'tree')
    with pytest.raises(ValueError, match='are not finite'):
        build_index(user, item * torch.nan, ids)
