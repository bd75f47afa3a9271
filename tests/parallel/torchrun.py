import os
import subprocess
import sys
import time
from pathlib import Path

from torch.distributed import TCPStore

from tests.forks import Fork

ROOT = Path(__file__).parents[2]


def torchrun(size, *command, timeout=300, cwd=ROOT, **options):
    r"""Starts processes and waits for them. After the timeout, they are ended."""
    flags = [f'--{key.replace("_", "-")}={value}' for key, value in options.items()]
    launcher = [sys.executable, '-m', 'torch.distributed.run', '--standalone', *flags]
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get('PYTHONPATH')]))
    process = subprocess.Popen(
        [*launcher, f'--nproc-per-node={size}', '-m', *map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env={**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': path},
    )
    try:
        stdout, stderr = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.terminate()  # It ends all processes.
        process.communicate()
        raise
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def forked(size, *command, timeout=300, cwd=ROOT, max_restarts=0):
    r"""The same as :func:`torchrun`, without its start: processes are forks of one that has
    imported the package.
    """
    end = time.monotonic() + timeout
    store = TCPStore('127.0.0.1', 0, is_master=True, wait_for_workers=False)
    env = {
        **os.environ,
        'OMP_NUM_THREADS': '1',
        'WORLD_SIZE': str(size),
        'MASTER_ADDR': '127.0.0.1',
        'MASTER_PORT': str(store.port),
        'TORCHELASTIC_USE_AGENT_STORE': 'True',
    }
    for restart in range(max_restarts + 1):
        env['TORCHELASTIC_RESTART_COUNT'] = str(restart)
        ranks = [{**env, 'RANK': str(i), 'LOCAL_RANK': str(i)} for i in range(size)]
        processes = [Fork('-m', *command, cwd=cwd, env=rank) for rank in ranks]
        while time.monotonic() < end and {process.poll() for process in processes} != {0}:
            if any(process.poll() for process in processes):
                end_all(processes)
                break
            time.sleep(0.01)
        ends = [process.end(1) for process in processes]
        status = next((done.returncode for done in ends if done.returncode), 0)
        if status == 0:
            break
    out, err = (''.join(getattr(done, name) for done in ends) for name in ('stdout', 'stderr'))
    return subprocess.CompletedProcess(command, status, out, err)


def end_all(processes):
    r"""Ends the processes that do not end by themselves after another one has failed."""
    end = time.monotonic() + 2
    while time.monotonic() < end and any(process.poll() is None for process in processes):
        time.sleep(0.01)
    for process in processes:
        process.kill()
