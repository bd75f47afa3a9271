import functools
import json

import numpy as np
import pytest

from motor_geo import run
from motor_geo.engine.sharded import META
from motor_geo.pipeline import shard
from tests.parallel.held import RUNS, SMALL
from tests.parallel.test_run import assert_close
from tests.parallel.torchrun import torchrun

pytest.importorskip('pyarrow')
pytest.importorskip('safetensors')
NUM_USERS, NUM_ITEMS = 301, 150


@functools.cache
def shop(folder):
    r"""A data set, and the same in shards: the last users have more interactions."""
    path, rng = folder / 'shop', np.random.default_rng(0)
    path.mkdir()
    chance = np.linspace(0.05, 0.9, NUM_USERS)[:, None]
    pairs = np.stack((rng.random((NUM_USERS, NUM_ITEMS)) < chance).nonzero(), axis=1)
    rows = [f'{user},{item}' for user, item in pairs]
    (path / 'shop.csv').write_text('\n'.join(['userID,itemID', *rows]))
    for name in ('image', 'text'):
        x = rng.normal(size=(NUM_ITEMS, 12)).astype(np.float32)
        np.save(path / f'{name}_feat.npy', x)
    assert shard.main([str(path), str(folder / 'shards'), '--shards', '3']) == 0
    return path, folder / 'shards', len(pairs)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp('held')


@functools.cache
def held(folder):
    r"""What two processes hold, by the name of the run."""
    done = torchrun(2, 'tests.parallel.held', shop(folder)[1], folder)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{')]
    return {name: [line for line in lines if line['name'] == name] for name in RUNS}


def read(out, name='result.json'):
    return json.loads((out / name).read_text())


@pytest.mark.parametrize('name', RUNS)
def test_processes_hold_the_interactions_of_their_users(folder, name):
    path, _, rows = shop(folder)
    lines = held(folder)[name]
    assert len(lines) == 2
    train = read(folder / name, 'data.json')['train']
    for line in lines:
        assert 'reads' not in line or name in ('behavior', 'users')
        assert line.get('reads') == (line['first'] or None)  # Only before training.
        if name == 'columns':
            assert line['edges'] == train
            continue
        assert line['edges'] < 0.7 * train and line['total'] == train
        if name == 'users':  # The graph of users is on every process.
            continue
        # Interactions with users of all processes and of this one, and excluded items with their
        # places in the scores, for validation and for test.
        limit = (16 + 16 + 2 * (8 + 8)) * line['edges']
        limit += 24 * (rows - train) + 128 * (NUM_USERS + NUM_ITEMS)
        assert limit - 16 * (train - line['edges']) < line['bytes'] < limit


@pytest.mark.parametrize('name', RUNS)
def test_processes_equal_one(folder, name):
    path = shop(folder)[0]
    flags = RUNS['ids' if name == 'columns' else name]
    out = folder / f'{name} of one'
    assert run.main(['--data', str(path), *SMALL, *flags, '--out', str(out)]) == 0
    one = read(out)
    for line in held(folder)[name]:
        assert line['hashes'] == one['hashes']
        assert line['test'] == pytest.approx(one['test'], abs=1e-10)
    several = read(folder / name)
    for key in ('val', 'slices', 'popularity'):
        assert_close(one[key], several[key], 1e-10)
    assert read(folder / name, 'data.json') == {**read(out, 'data.json'), 'name': 'shards'}


def test_one_process_goes_on(folder):
    held(folder)
    out = folder / 'ids'
    assert (out / 'last' / '1' / META).exists()
    flags = [*SMALL, *RUNS['ids'], '--epochs', '2', '--out', str(out)]
    assert run.main(['--data', str(shop(folder)[0]), *flags]) == 0  # With the same graphs.
    assert read(out)['epochs'] == 2 and not (out / 'last').exists()
