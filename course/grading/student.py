r"""The proxy through which tests call a submission."""

from __future__ import annotations

import multiprocessing
import shutil
import signal
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from course.grading import child, wire
from course.grading.check import Hint

FORKS = 'forkserver' in multiprocessing.get_all_start_methods()


@dataclass(frozen=True)
class Limits:
    r"""Limits of a call, in seconds.

    Args:
        cpu: Computing time.
        wall: Time on the clock, for calls that wait.
    """

    cpu: int = 20
    wall: float = 120.0


def context() -> Any:
    r"""Starts processes that have imported PyTorch and no test. A submission gets a fork of such
    a process, which takes milliseconds.
    """
    return multiprocessing.get_context('forkserver' if FORKS else 'spawn')


def warm_up(modules: Sequence[str] = ()) -> None:
    r"""Starts the process that forks, so that imports count for no submission.

    Args:
        modules: What it imports in addition to PyTorch.
    """
    if FORKS:
        names = ['numpy', 'torch', 'course.grading.wire', *modules]
        context().set_forkserver_preload(names)
    process = context().Process(target=_nothing)
    process.start()
    process.join()


def _nothing() -> None:
    pass


class Student:
    r"""A submission. Its attributes are its functions: :obj:`student.normalize(edge_index, 2, 3)`
    calls :obj:`normalize` in the process of the submission.

    Args:
        path: The submission.
        limits: Limits of a call.
        secret: Folders that it may not read.
    """

    def __init__(self, path: str | Path, limits: Limits | None = None, secret: Sequence[str] = ()):
        self._path = str(path)
        self._limits = limits or Limits()
        self._secret = list(secret)
        self._process: Any = None
        self._conn: Any = None
        self._folder = ''
        self._stuck: dict[str, str] = {}  # Functions that ended the process.
        self._load_error = ''
        self._names: list[str] = []
        self.forbidden = ''
        self.printed = ''
        self.num_printed = 0

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith('__'):
            raise AttributeError(name)
        return partial(self.call, name)

    def call(self, name: str, *args: Any) -> Any:
        r"""Calls a function of the submission. With :obj:`"module:function"`, calls a function of
        the grader in the same process, which gets the submission first.

        Raises:
            Hint: If it raises an error, ends the process or takes too long.
        """
        if self.forbidden:
            raise Hint(f'Not run, because the submission tried to {self.forbidden}.')
        if name in self._stuck:
            raise Hint(f'{self._stuck[name]} The remaining tests of it are not run.')
        self.start()
        if self._load_error:
            raise Hint(self._load_error)
        label = 'The class' if ':' in name else f'`{name}`'
        if ':' not in name and name not in self._names:
            raise Hint(f'Your file has no function `{name}`. Keep the names of the starter code.')
        self._conn.send_bytes(wire.dumps({'name': name, 'args': list(args)}))
        reply = self._receive(name, label)
        kind = reply['kind']
        if kind == 'value':
            return reply['value']
        if kind == 'todo':
            raise Hint(f'{label} is not written yet (NotImplementedError).')
        if kind == 'exit':
            raise Hint(f'{label} called sys.exit. Return a value instead.')
        raise Hint(f'{label} raised an error. {reply["message"]}')

    def start(self) -> None:
        r"""Starts the process unless it runs."""
        if self._load_error or self._process is not None:
            return
        self._folder = tempfile.mkdtemp(prefix='submission')
        path = Path(self._folder) / 'submission.py'
        shutil.copy(self._path, path)
        ctx = context()
        self._conn, other = ctx.Pipe()
        args = (other, str(path), self._folder, self._secret, self._limits.cpu)
        self._process = ctx.Process(target=child.main, args=args, daemon=True)
        self._process.start()
        other.close()
        try:
            reply = self._receive('', 'Your file')
        except Hint as error:
            self._load_error = str(error)
            return
        if reply['kind'] == 'value':
            self._names = reply['value']
        elif reply['kind'] == 'exit':
            self._load_error = 'Your file called sys.exit while it was imported.'
        elif reply['kind'] == 'todo':
            self._load_error = 'Your file raised NotImplementedError while it was imported.'
        else:
            self._load_error = f'Your file cannot be imported. {reply["message"]}'

    def _receive(self, name: str, label: str) -> dict[str, Any]:
        text = ''
        try:
            if self._conn.poll(self._limits.wall):
                reply = wire.loads(self._conn.recv_bytes(wire.LIMIT))
                self.printed = reply.get('printed') or self.printed
                self.num_printed = max(self.num_printed, reply.get('total', 0))
                if reply['kind'] != 'forbidden':
                    return reply
                self.forbidden = reply['message']
                text = f'The submission tried to {self.forbidden}.'
            else:
                text = f'{label} did not return within {self._limits.wall:g} seconds.'
        except (EOFError, OSError, ValueError, KeyError):
            self._process.join(5)
            code = self._process.exitcode
            if code == -getattr(signal, 'SIGXCPU', 0):
                text = f'{label} computed for more than {self._limits.cpu} seconds. Is there a '
                text += 'loop that does not end, or one over all users and items?'
            else:
                text = f'{label} ended the whole program (exit code {code}).'
        self.stop()
        if name:
            self._stuck[name] = text
        raise Hint(text)

    def stop(self) -> None:
        r"""Ends the process."""
        if self._process is not None:
            self._conn.close()
            self._process.kill()
            self._process.join()
            self._process = None
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = ''
