import json
import os

import numpy as np
import pytest
import torch
import yaml

from motor_geo import run
from motor_geo.data import TableDataset
from motor_geo.engine.checkpoint import load_checkpoint
from motor_geo.engine.sharded import META
from motor_geo.parallel import World
from motor_geo.pipeline import shard
from motor_geo.pipeline.processes import user_bounds
from motor_geo.utils.errors import ConfigError
from tests.parallel.torchrun import forked, torchrun

pytest.importorskip('safetensors')
SMALL = [
    *('--data.num_users', '121', '--data.num_items', '80', '--data.num_interactions', '700'),
    *('--tokenizer.num_tokens', '2', '--tokenizer.codebook_size', '16', '--graph.k', '4'),
    *('--model.channels', '16', '--batch_size', '128', '--threads', '1', '--device', 'cpu'),
    *('--model', 'FREEDOM', '--items', 'specific', '--report', 'false'),
]


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp('runs')


@pytest.fixture(scope='module')
def one(folder):
    r"""A run on one process."""
    out = folder / 'one'
    assert run.main([*SMALL, '--epochs', '4', '--out', str(out)]) == 0
    return out


MESH = ('--parallel.columns', '2')


def run_two(out, *flags):
    done = forked(2, 'motor_geo.run', *SMALL, *flags, '--epochs', '4', '--out', out)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count('test recall') == 1 and done.stdout.count('written to') == 1
    return out


@pytest.fixture(scope='module')
def two(folder):
    r"""The same run on two processes that share the users."""
    return run_two(folder / 'two')


@pytest.fixture(scope='module')
def columns(folder):
    r"""The same run on two processes that share the columns."""
    return run_two(folder / 'columns', *MESH)


def result(out):
    return json.loads((out / 'result.json').read_text())


def weights(out):
    state = load_checkpoint(str(out / 'best.pt'))
    return state['model'], state['epoch']


def checkpoint(out):
    r"""Bytes of all tensors of the last checkpoint, in the order of processes."""
    from safetensors.torch import load_file

    (path,) = (out / 'last').iterdir()
    files = sorted(path.glob('*.safetensors'))
    return [{key: x.numpy().tobytes() for key, x in load_file(file).items()} for file in files]


def assert_close(a, b, atol):
    assert a.keys() == b.keys()
    for key, value in a.items():
        if isinstance(value, dict):
            assert_close(value, b[key], atol)
        elif isinstance(value, float) and key != 'seconds':
            assert value == pytest.approx(b[key], abs=atol), key


@pytest.mark.parametrize('kind', ['two', 'columns'])
def test_two_processes_are_the_same_run(one, kind, request):
    two = request.getfixturevalue(kind)
    files = {path.name for path in one.iterdir()}
    assert {path.name for path in two.iterdir()} == files - {'last.pt'} | {'last'}
    a, b = result(one), result(two)
    for key in ('epochs', 'best_epoch', 'num_parameters', 'num_item_parameters', 'hashes', 'items'):
        assert a[key] == b[key], key
    for key in ('val', 'test', 'popularity', 'slices'):
        assert_close(a[key], b[key], 1e-6)
    for x, y in zip(*((path / 'metrics.jsonl').read_text().splitlines() for path in (one, two))):
        x, y = json.loads(x), json.loads(y)
        assert_close(x['losses'], y['losses'], 1e-6)
        assert_close(x['val'], y['val'], 1e-6)
    configs = [yaml.safe_load((path / 'config.yaml').read_text()) for path in (one, two)]
    assert len({config.pop('out') for config in configs}) == 2 and configs[0] == configs[1]
    (own, epoch), (other, same) = weights(one), weights(two)
    assert epoch == same and own.keys() == other.keys()
    for key, value in own.items():
        torch.testing.assert_close(value, other[key], rtol=0, atol=1e-6)
    with np.load(one / 'per_user.npz') as x, np.load(two / 'per_user.npz') as y:
        assert all(np.array_equal(x[key], y[key]) for key in ('user', 'ptr', 'item', 'rank'))


def test_a_finished_run_is_not_repeated(two):
    before = result(two)
    done = forked(2, 'motor_geo.run', *SMALL, '--epochs', '4', '--out', two)
    assert done.returncode == 0 and 'already finished' in done.stdout
    assert result(two) == before


@pytest.mark.skipif(os.name != 'posix', reason='POSIX signals')
@pytest.mark.parametrize(
    'kind, mesh, death, start',
    [('two', (), (0, 3), torchrun), ('columns', MESH, (1, 2), forked)],
    ids=['two', 'columns'],
)
def test_a_killed_process_is_started_again(folder, kind, mesh, death, start, request):
    r"""Where :obj:`death` is the number of the process and the epoch."""
    out, two = folder / f'killed {kind}', request.getfixturevalue(kind)
    code = (
        'import os, sys; from motor_geo.engine.epoch_loop import EpochLoop\n'
        'from motor_geo import run; save = EpochLoop._save\n'
        'def dying(self, entry):\n'
        "    restarts = os.environ['TORCHELASTIC_RESTART_COUNT']\n"
        f"    dies = (self.world.rank, entry['epoch'], restarts) == {(*death, '0')}\n"
        '    os.kill(os.getpid(), 9) if dies else save(self, entry)\n'
        'EpochLoop._save = dying; sys.exit(run.main())\n'
    )
    (folder / 'dying.py').write_text(code)
    flags = [*SMALL, *mesh, '--epochs', '4', '--out', out]
    options = {'max_restarts': 3, 'timeout': 500, 'cwd': folder}
    done = start(2, 'dying', *flags, **options)
    assert done.returncode == 0, done.stderr[-3000:]
    assert checkpoint(out) == checkpoint(two)
    for key in ('epochs', 'best_epoch', 'val', 'test', 'hashes'):
        assert result(out)[key] == result(two)[key]
    assert sorted(os.listdir(out)) == sorted(os.listdir(two))


def test_another_mesh_goes_on(folder, one):
    out = folder / 'mixed'
    flags = [*SMALL, '--out', out]
    for epochs, size, mesh in ((1, 1, ()), (2, 3, ()), (3, 2, MESH), (4, 1, ())):
        command = [*map(str, (*flags, *mesh, '--epochs', epochs))]
        if size == 1:
            assert run.main(command) == 0
            continue
        done = forked(size, 'motor_geo.run', *command)
        assert done.returncode == 0, done.stderr[-3000:]
    assert (out / 'last.pt').exists() and not (out / 'last').exists()
    assert_close(result(one)['test'], result(out)['test'], 1e-6)
    for key, value in weights(one)[0].items():
        torch.testing.assert_close(value, weights(out)[0][key], rtol=0, atol=1e-6)


def test_nothing_in_a_checkpoint_is_executed(two):
    (path,) = (two / 'last').iterdir()
    assert path.name == '4'
    names = ['0.safetensors', '1.safetensors', META]
    assert sorted(os.listdir(path)) == names
    for name in names[:2]:
        content = (path / name).read_bytes()
        size = int.from_bytes(content[:8], 'little')
        json.loads(content[8 : 8 + size])  # A header of JSON, and then numbers.
    json.loads((path / META).read_text())


def test_processes_of_a_data_set_in_shards(tmp_path):
    pytest.importorskip('pyarrow')
    shop = tmp_path / 'shop'
    shop.mkdir()
    rng = np.random.default_rng(0)
    chance = np.linspace(0.05, 0.6, 61)[:, None]  # Users of one process have more interactions.
    user, item = np.nonzero(rng.random((61, 40)) < chance)
    user = np.unique(user, return_inverse=True)[1]
    rows = ['userID,itemID', *(f'u{u:02},{i}' for u, i in zip(user, item))]
    (shop / 'shop.csv').write_text('\n'.join(rows))
    assert shard.main([str(shop), str(tmp_path / 'shards'), '--shards', '3']) == 0
    flags = ['--model', 'LightGCN', '--items', 'id', '--epochs', '2', '--model.channels', '8']
    flags += ['--batch_size', '128', '--threads', '1', '--device', 'cpu', '--report', 'false']
    runs = [tmp_path / name for name in ('one', 'two')]
    assert run.main(['--data', str(shop), *flags, '--out', str(runs[0])]) == 0
    command = ('motor_geo.run', '--data', tmp_path / 'shards', *flags, '--out', runs[1])
    done = forked(2, *command)
    assert done.returncode == 0, done.stderr[-3000:]
    assert result(runs[0])['hashes'] == result(runs[1])['hashes']
    for key in ('val', 'test', 'popularity', 'slices'):
        assert_close(result(runs[0])[key], result(runs[1])[key], 1e-6)
    for key, value in weights(runs[0])[0].items():
        torch.testing.assert_close(value, weights(runs[1])[0][key], rtol=0, atol=1e-6)
    (last,) = (runs[1] / 'last').iterdir()
    tables = [x['model.user_embedding'].shape[0] for x in map(tensors, sorted(last.glob('*.s*')))]
    shards = json.loads((tmp_path / 'shards' / META).read_text())['shards']
    assert tables == [shards[0]['last'], shards[-1]['last'] - shards[0]['last']]
    message = "shards' has 3 shards, but 4 processes share the users; expected at least one shard"
    with pytest.raises(ConfigError, match=message):
        user_bounds(TableDataset(tmp_path / 'shards'), World(0, 4))


def tensors(path):
    from safetensors.torch import load_file

    return load_file(path)


def test_what_cannot_be_shared_is_refused_once(tmp_path):
    flags = ('--model', 'LATTICE', '--out', tmp_path / 'out')
    done = forked(2, 'motor_geo.run', *SMALL, *flags, timeout=200)
    message = 'error: --model LATTICE: needs similarities of all pairs of items on one process'
    assert done.returncode != 0 and done.stderr.count(message) == 1, done.stderr
    assert not (tmp_path / 'out').exists()
