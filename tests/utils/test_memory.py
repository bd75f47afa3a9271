import os
import subprocess
import sys

import pytest

from motor_geo.utils.memory import available_memory, keep_freed_memory, keep_large_arrays

# Page faults of making and freeing an array of 4 MB, again and again.
SCRIPT = """
import resource, sys
import torch
from motor_geo.utils.memory import keep_freed_memory, keep_large_arrays
torch.set_num_threads(1)
if sys.argv[1] == 'keep':
    assert keep_freed_memory()
size = 2**20
if len(sys.argv) > 2:
    size = 2**24
    assert sys.argv[2] == 'mapped' or keep_large_arrays()
def step():
    kept = [torch.empty(size)[:: 2**14].fill_(1) for _ in range(6)]
    return len(kept)
for _ in range(100):  # Until the heap has found its size.
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(50):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != 'linux', reason='glibc only')
def test_freed_memory_is_used_again():
    if not keep_freed_memory():
        pytest.skip('no glibc')
    # Where nothing is asked for, glibc adapts to what the process did before;
    # with a fixed threshold it maps every array.
    fixed = {**os.environ, 'MALLOC_MMAP_THRESHOLD_': '131072'}

    def faults(*how):
        command = [sys.executable, '-c', SCRIPT, *how]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=fixed)
        return int(done.stdout)

    assert faults('keep') < 100
    assert faults('plain') > 1000  # 50 x 6 x 64 pages would be 19,200.
    assert faults('keep', 'mapped') > 1000  # Arrays of 64 MB.
    assert faults('keep', 'large') < 100


@pytest.mark.parametrize('given', [None, '0'])
def test_huge_pages_are_asked_for(given):
    code = (
        'import os; from motor_geo.utils.memory import tune_process; tune_process(); '
        'print(os.environ["THP_MEM_ALLOC_ENABLE"])'
    )
    env = {key: value for key, value in os.environ.items() if key != 'THP_MEM_ALLOC_ENABLE'}
    env |= {} if given is None else {'THP_MEM_ALLOC_ENABLE': given}
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, env=env)
    assert done.stdout.strip() == (given or '1')


@pytest.mark.parametrize('platform', ['darwin', 'win32'])
def test_nothing_is_done_elsewhere(monkeypatch, platform):
    monkeypatch.setattr(sys, 'platform', platform)
    assert keep_freed_memory() is False
    assert keep_large_arrays() is False


def test_importing_sets_nothing():
    code = (
        'import os, threadpoolctl, warnings, torch, torch_geometric; before = dict(os.environ), '
        'list(warnings.filters); import motor_geo.data, motor_geo.nn.models, motor_geo.engine, '
        'motor_geo.pipeline.train; print(before == (dict(os.environ), list(warnings.filters)))'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.stdout.strip() == 'True', done.stderr


@pytest.mark.skipif(not os.path.exists('/proc/meminfo'), reason='needs /proc/meminfo')
def test_available_memory():
    with open('/proc/meminfo') as file:
        total = int(file.readline().split()[1]) * 1024
    assert 2**20 < available_memory() < total
