r"""The plugin of pytest that collects the points of a submission."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from course.grading.check import Hint
from course.grading.student import Limits, Student


class Plugin:
    r"""Provides the fixture :obj:`student` and reports every test.

    Args:
        path: The submission.
        limits: Limits of a call.
        secret: Folders that it may not read.
        report: Called with every message.
    """

    def __init__(
        self,
        path: str,
        limits: Limits,
        secret: list[str],
        report: Callable[[dict[str, Any]], None],
    ):
        self.submission = Student(path, limits, secret)
        self.report = report

    @pytest.fixture(scope='session')
    def student(self) -> Iterator[Student]:
        yield self.submission
        self.submission.stop()

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        tests = []
        for item in session.items:
            marker = item.get_closest_marker('points')
            if marker is None:
                raise pytest.UsageError(f'{item.nodeid} has no points')
            doc = getattr(item, 'obj', None).__doc__ or item.name
            tests.append(
                {
                    'id': _name(item),
                    'name': doc.strip().splitlines()[0].rstrip('.'),
                    'max_score': marker.args[0],
                    'hidden': item.path.name == 'test_hidden.py',
                }
            )
        self.report({'type': 'collected', 'tests': tests})

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo) -> Any:
        yield
        if call.when == 'call' or (call.when == 'setup' and call.excinfo is not None):
            output = ''
            if call.excinfo is not None:
                error = call.excinfo.value
                output = str(error)
                if not isinstance(error, Hint):
                    text = f'{type(error).__name__}: {output}'
                    output = f'The test itself failed. Tell your instructor: {text[:300]}'
            self.report(
                {'type': 'test', 'id': _name(item), 'passed': not call.excinfo, 'output': output}
            )

    def pytest_sessionfinish(self) -> None:
        student = self.submission
        self.report(
            {
                'type': 'end',
                'forbidden': student.forbidden,
                'printed': student.printed,
                'num_printed': student.num_printed,
            }
        )


def _name(item: pytest.Item) -> str:
    return f'{item.path.name}::{item.name}'  # Names of tests may recur in the other file.
