import json
import subprocess

from benchmarks import processes
from motor_geo.parallel.cost import exchange
from tests.parallel.torchrun import forked


def start(command, check, timeout, env):
    r"""Starts forks in place of a command."""
    _, *words = command
    size = 1
    if words[:3] == ['-m', 'torch.distributed.run', '--standalone']:
        size, words = int(words[3].removeprefix('--nproc-per-node=')), words[4:]
    assert words[0] == '-m' and env['OMP_NUM_THREADS'] == '1'
    done = forked(size, *words[1:], timeout=timeout)
    assert check and done.returncode == 0, done.stderr
    print(done.stdout)


def test_meshes_are_compared(capfd, monkeypatch):
    monkeypatch.setattr(processes, 'MESHES', [(1, 1), (2, 1)])
    monkeypatch.setattr(subprocess, 'run', start)
    flags = ['--interactions', '5000', '--batch', '100', '--steps', '2', '--timeout', '300']
    assert processes.main(flags) == 0
    lines = [json.loads(x) for x in capfd.readouterr().out.splitlines() if x.startswith('{')]
    assert [(x['columns'], x['users']) for x in lines] == [(1, 1), (2, 1)]
    assert all(line['seconds per step'] > 0 for line in lines)
    one, sent = (line['bytes per step'] for line in lines)
    expected = exchange(50, 64, 2, 100, sent['gradients'] // 4, columns=2, users=1)
    assert one == {} and sent == {key: value for key, value in expected.items() if value}
