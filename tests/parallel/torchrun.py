import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def torchrun(size, *command, timeout=120, cwd=ROOT, **options):
    r"""Starts processes and waits for them. A test never waits longer than the timeout."""
    flags = [f'--{key.replace("_", "-")}={value}' for key, value in options.items()]
    launcher = [sys.executable, '-m', 'torch.distributed.run', '--standalone', *flags]
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get('PYTHONPATH')]))
    return subprocess.run(
        [*launcher, f'--nproc-per-node={size}', '-m', *map(str, command)],
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=cwd,
        env={**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': path, 'GLOO_SOCKET_IFNAME': 'lo'},
    )
