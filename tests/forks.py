r"""Starts Python without importing PyTorch anew: processes are forks of one that has imported the
package.
"""

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

ROOT = Path(__file__).parents[1]
METHODS = multiprocessing.get_all_start_methods()
CONTEXT = multiprocessing.get_context('forkserver' if 'forkserver' in METHODS else 'spawn')
CONTEXT.set_forkserver_preload(
    [
        *('motor_geo.run', 'motor_geo.nn.models', 'motor_geo.experiments.runner'),
        *('motor_geo.experiments.sweep', 'motor_geo.pipeline.train', 'motor_geo.pipeline.update'),
        *(
            'motor_geo.report.plot',
            'motor_geo.parallel',
            'motor_geo.recommend',
            'torch.distributed',
        ),
        *('faiss', 'matplotlib.figure', 'scipy.stats', 'scipy.sparse.linalg', 'yaml'),
    ]
)


def _main(files, command, cwd, env):
    for number, path in enumerate(files, start=1):
        os.dup2(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND), number)
    sys.stdout, sys.stderr = (open(number, 'w', buffering=1, closefd=False) for number in (1, 2))
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.path[:0] = [str(cwd), *env.get('PYTHONPATH', '').split(os.pathsep)]
    command = [str(word) for word in command]
    sys.argv = command if command[0] not in ('-c', '-m') else command[:1] + command[2:]
    if command[0] == '-c':
        exec(compile(command[1], '<string>', 'exec'), {'__name__': '__main__'})
    elif command[0] != '-m':
        runpy.run_path(command[0], run_name='__main__')
    else:
        with warnings.catch_warnings():
            warnings.filterwarnings('ignore', '.*found in sys.modules', RuntimeWarning)
            runpy.run_module(command[1], run_name='__main__', alter_sys=True)


class Fork:
    r"""A process that was started.

    Args:
        command: Arguments of :obj:`python`: :obj:`'-c'` and code, :obj:`'-m'` and a module, or a
            file, and then those of the program.
        cwd: Its folder.
        env: Its environment.
    """

    def __init__(self, *command, cwd=ROOT, env=None):
        self.folder = tempfile.TemporaryDirectory()
        self.files = [os.path.join(self.folder.name, name) for name in ('stdout', 'stderr')]
        args = (self.files, command, cwd, dict(os.environ if env is None else env))
        self.process = CONTEXT.Process(target=_main, args=args, daemon=True)
        self.process.start()
        self.pid, self.kill, self.args = self.process.pid, self.process.kill, command

    def poll(self):
        r"""Its exit status, or :obj:`None` if it still runs."""
        return self.process.exitcode

    def wait(self, timeout=300):
        r"""Its exit status. After the timeout, it is killed."""
        self.process.join(timeout)
        if self.process.exitcode is None:
            self.process.kill()
            raise subprocess.TimeoutExpired(self.args, timeout)
        return self.process.exitcode

    def end(self, timeout=300):
        r"""Its exit status and what it wrote."""
        status = self.wait(timeout)
        texts = [Path(path).read_text() if os.path.exists(path) else '' for path in self.files]
        return subprocess.CompletedProcess(self.args, status, *texts)


def run(*command, timeout=300, **options):
    r"""Starts a process and waits for it."""
    return Fork(*command, **options).end(timeout)
