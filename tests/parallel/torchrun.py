import os
import subprocess
import sys
from pathlib import Path

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
