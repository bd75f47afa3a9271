r"""Results of a submission, as JSON and as text."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from course.grading.catalog import COURSE, INSTRUCTORS, Assignment

VISIBILITIES = ('visible', 'after_due_date', 'after_published', 'hidden')
KEPT = ('.py', '.md', '.ini')


def grade(
    jobs: Sequence[tuple[Assignment, str | Path]],
    timeout: float = 600.0,
    hidden: str = 'after_due_date',
    limits: dict[str, float] | None = None,
) -> list[dict[str, Any]]:
    r"""Grades submissions, one after the other, in one subprocess.

    Args:
        jobs: Pairs of an assignment and a submission.
        timeout: Time on the clock for all of them, in seconds.
        hidden: Visibility of hidden tests, one of :obj:`VISIBILITIES`.
        limits: Limits of a call, see :class:`course.grading.student.Limits`.

    Returns:
        The content of :obj:`results.json` for each of them.
    """
    start = time.monotonic()
    messages, problem, changed = _run(jobs, timeout, limits or {})
    seconds = time.monotonic() - start
    out = []
    for number in range(len(jobs)):
        own = [message for message in messages if message.get('job') == number]
        out.append(_result(own, problem, changed, hidden, seconds / len(jobs)))
    return out


def _run(
    jobs: Sequence[tuple[Assignment, str | Path]], timeout: float, limits: dict[str, float]
) -> tuple[list[dict[str, Any]], str, list[str]]:
    r"""The messages of the worker, what went wrong with it, and which of its files were changed.
    The worker runs in a copy of the course, so that a submission cannot reach the next grading.
    """
    with tempfile.TemporaryDirectory(prefix='grader') as root:
        copy = Path(root) / 'course'
        ignore = shutil.ignore_patterns('__pycache__', 'slides', 'wrong', 'solutions')
        shutil.copytree(COURSE, copy, ignore=ignore)
        before = _files(copy)
        request = [
            {
                'assignment': job.name,
                'submission': os.path.abspath(path),
                'limits': limits,
                'secret': [str(INSTRUCTORS), str(copy / INSTRUCTORS.name)],
            }
            for job, path in jobs
        ]
        messages, problem = _start(request, timeout, root)
        after = _files(copy)
    changed = [path.name for path in before if after.get(path) != before[path]]
    return messages, problem, changed


def _start(
    request: list[dict[str, Any]], timeout: float, root: str
) -> tuple[list[dict[str, Any]], str]:
    env = os.environ | {
        'OMP_NUM_THREADS': '1',
        'PYTEST_DISABLE_PLUGIN_AUTOLOAD': '1',
        'PYTHONDONTWRITEBYTECODE': '1',
        'PYTHONHASHSEED': '0',
        'PYTHONPATH': os.pathsep.join(
            filter(None, [root, os.environ.get('PYTHONPATH', ''), str(COURSE.parent)])
        ),
    }
    for name in ('PYTEST_ADDOPTS', 'PYTEST_PLUGINS'):
        env.pop(name, None)
    problem = ''
    with tempfile.TemporaryFile('w+') as out, tempfile.TemporaryFile('w+') as err:
        process = subprocess.Popen(
            [sys.executable, '-m', 'course.grading.worker'],
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=err,
            text=True,
            env=env,
            cwd=root,
            start_new_session=True,
        )
        try:
            process.communicate(json.dumps(request), timeout=timeout)
        except subprocess.TimeoutExpired:
            problem = f'Grading took more than {timeout:g} seconds and was ended.'
        finally:
            _end(process)
        out.seek(0)
        err.seek(0)
        messages = [json.loads(line) for line in out if line.endswith('\n')]
        broken = any(message['type'] == 'broken' for message in messages)
        if not problem and (process.returncode != 0 or broken):
            text = err.read()[-2000:]
            problem = f'The grader itself failed. Tell your instructor:\n{text}'
    return messages, problem


def _end(process: subprocess.Popen) -> None:
    r"""Ends a worker and the processes that it started."""
    if os.name == 'nt':
        process.kill()
    else:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    process.wait()


def _result(
    messages: Iterable[dict[str, Any]],
    problem: str,
    changed: list[str],
    hidden: str,
    seconds: float,
) -> dict[str, Any]:
    collected: list[dict[str, Any]] = []
    done, end = {}, None
    for message in messages:
        if message['type'] == 'collected':
            collected = message['tests']
        elif message['type'] == 'test':
            done[message['id']] = message
        elif message['type'] == 'end':
            end = message
    cheated = ''
    if end is not None and end['forbidden']:
        cheated = f'The submission tried to {end["forbidden"]}. This is not allowed.'
    elif changed:
        names = ', '.join(changed[:3])
        cheated = f'Files of the course changed while the submission ran ({names}).'
    tests = []
    for test in collected:
        one = done.get(test['id'], {'passed': False, 'output': 'Not run. ' + problem})
        passed = one['passed'] and not cheated
        output = 'Passed.' if passed else one['output'] or 'Counted as failed, see above.'
        tests.append(
            {
                'name': ('hidden: ' if test['hidden'] else 'public: ') + test['name'],
                'score': float(test['max_score']) if passed else 0.0,
                'max_score': float(test['max_score']),
                'status': 'passed' if passed else 'failed',
                'output': output,
                'visibility': hidden if test['hidden'] else 'visible',
            }
        )
    score = sum(test['score'] for test in tests)
    total = sum(test['max_score'] for test in tests)
    lines = [f'{score:g} of {total:g} points.']
    if tests and not any(test['hidden'] for test in collected):
        lines.append('This copy has no hidden tests.')
    if cheated:
        lines.append(f'{cheated} All tests count as failed.')
    if problem:
        lines.append(problem)
    if end is not None and end['num_printed']:
        text, number = end['printed'], end['num_printed']
        cut = f', cut from {number} characters' if number > len(text) else ''
        lines.append(f'Your program printed{cut}:\n{text}')
    return {
        'score': score,
        'max_score': total,
        'execution_time': round(seconds, 2),
        'output': '\n'.join(lines),
        'stdout_visibility': 'hidden',
        'tests': tests,
    }


def _files(folder: Path) -> dict[Path, bytes]:
    paths = (path for path in sorted(folder.rglob('*')) if path.suffix in KEPT)
    return {path: path.read_bytes() for path in paths if path.is_file()}


def as_text(result: dict[str, Any]) -> str:
    r"""A result for the terminal."""
    lines = []
    for test in result['tests']:
        mark = 'ok  ' if test['status'] == 'passed' else 'FAIL'
        lines.append(f'{mark} {test["score"]:g}/{test["max_score"]:g}  {test["name"]}')
        if test['status'] != 'passed':
            lines.append(f'           {test["output"]}')
    return '\n'.join([*lines, '', result['output']])
