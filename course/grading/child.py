r"""The process of the submission. It answers calls of its functions."""

from __future__ import annotations

import importlib
import importlib.util
import io
import os
import random
import sys
import tempfile
import traceback
from multiprocessing.connection import Connection
from typing import Any

#: Number of characters kept of what a submission prints.
PRINTED = 2000
#: What a submission may not do, by event of :func:`sys.addaudithook`.
FORBIDDEN = {
    'subprocess.Popen': 'start another program',
    'os.system': 'start another program',
    'os.exec': 'start another program',
    'os.posix_spawn': 'start another program',
    'os.fork': 'start another process',
    'os.forkpty': 'start another process',
    'os.kill': 'end a process',
    'os.killpg': 'end a process',
    'socket.connect': 'open a network connection',
}
#: Events that change files, and the number of paths among their arguments.
CHANGES = {
    'os.remove': 1,
    'os.rename': 2,
    'os.rmdir': 1,
    'os.mkdir': 1,
    'os.chmod': 1,
    'os.link': 2,
    'os.symlink': 2,
    'os.truncate': 1,
    'shutil.rmtree': 1,
    'shutil.move': 2,
}
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Printed(io.TextIOBase):
    r"""Keeps the first characters of what is printed."""

    def __init__(self) -> None:
        self.text = ''
        self.total = 0

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self.total += len(text)
        self.text += text[: max(0, PRINTED - len(self.text))]
        return len(text)


class Guard:
    r"""Ends the process if the submission leaves its folder.

    Args:
        conn: The connection, for a last message.
        folder: Folder in which files may change.
        secret: Folders that may not be read.
    """

    def __init__(self, conn: Connection, folder: str, secret: list[str]):
        self.conn = conn
        self.folder = os.path.realpath(folder)
        self.secret = [os.path.realpath(path) for path in secret]
        self.active = True

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if not self.active:
            return
        if event in FORBIDDEN:
            self.end(FORBIDDEN[event])
        elif event == 'open':
            path, _, flags = args
            if isinstance(path, (str, bytes, os.PathLike)):
                path = os.fsdecode(path)
                if (flags or 0) & WRITES:
                    self.change(path)
                else:
                    self.read(path)
        elif event in ('os.listdir', 'os.scandir'):
            if isinstance(args[0], (str, bytes, os.PathLike)):
                self.read(os.fsdecode(args[0]))
        elif event in CHANGES:
            for path in args[: CHANGES[event]]:
                if isinstance(path, (str, bytes, os.PathLike)):
                    self.change(os.fsdecode(path))

    def read(self, path: str) -> None:
        path = os.path.realpath(path)
        if any(_inside(path, folder) for folder in self.secret):
            self.end('read the files of the grader')

    def change(self, path: str) -> None:
        path = os.path.realpath(path)
        if not (_inside(path, self.folder) or path == os.devnull):
            self.end(f"change the file '{os.path.basename(path)}' outside of its folder")

    def end(self, what: str) -> None:
        from course.grading import wire

        self.active = False
        self.conn.send_bytes(wire.dumps({'kind': 'forbidden', 'message': what, 'printed': ''}))
        os._exit(1)


def _inside(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder + os.sep)


def main(conn: Connection, path: str, folder: str, secret: list[str], cpu: int) -> None:
    r"""Loads a submission and answers calls until the connection closes."""
    import numpy as np
    import torch

    from course.grading import wire

    os.chdir(folder)
    os.environ['PYG_HOME'] = os.path.join(folder, 'cache')
    os.environ['TMPDIR'] = tempfile.tempdir = folder
    sys.dont_write_bytecode = True
    torch.set_num_threads(1)
    null = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(null, number)
    printed = Printed()
    sys.stdout = sys.stderr = printed  # type: ignore[assignment]
    sys.addaudithook(Guard(conn, folder, secret))

    def attempt(call: Any) -> dict[str, Any]:
        _limit(cpu)
        random.seed(0)
        np.random.seed(0)
        torch.manual_seed(0)
        try:
            out = {'kind': 'value', 'value': call()}
            wire.dumps(out)
            return out
        except NotImplementedError:
            return {'kind': 'todo'}
        except SystemExit:
            return {'kind': 'exit'}
        except BaseException as error:  # KeyboardInterrupt, too: the grader goes on.
            return {'kind': 'error', 'message': explain(error, path)}

    module: Any = None

    def load() -> None:
        nonlocal module
        spec = importlib.util.spec_from_file_location('submission', path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules['submission'] = module
        spec.loader.exec_module(module)

    def call(name: str, args: list[Any]) -> Any:
        where, _, attribute = name.rpartition(':')
        if where:  # A function of the grader that runs here, such as training.
            return getattr(importlib.import_module(where), attribute)(module, *args)
        return getattr(module, attribute)(*args)

    reply = attempt(load)
    if reply['kind'] == 'value':
        reply['value'] = sorted(name for name in vars(module) if not name.startswith('__'))
    while True:
        reply['printed'] = printed.text
        reply['total'] = printed.total
        conn.send_bytes(wire.dumps(reply))
        try:
            request = wire.loads(conn.recv_bytes())
        except EOFError:
            return
        reply = attempt(lambda request=request: call(request['name'], request['args']))


def _limit(seconds: int) -> None:
    r"""Ends the process after so many further seconds of computing."""
    try:
        import resource
    except ImportError:  # Windows; the limit of the grader remains.
        return
    usage = resource.getrusage(resource.RUSAGE_SELF)
    used = usage.ru_utime + usage.ru_stime
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (int(used) + seconds + 1, hard))


def explain(error: BaseException, path: str) -> str:
    r"""An exception in one or two lines, with the line of the submission."""
    text = ' '.join(str(error).split())
    if isinstance(error, TypeError) and text.startswith(('a value of', 'an array of', 'a dict')):
        return f'It returned {text}, which the grader cannot read.'
    text = f'{type(error).__name__}: {text[:300]}' if text else type(error).__name__
    if isinstance(error, SyntaxError) and error.filename == path:
        return f'{text.split(" (")[0]} in line {error.lineno} of your file.'
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    if not own:
        return text
    line = (own[-1].line or '').strip()
    return f'{text}, in line {own[-1].lineno} of your file: `{line}`'
