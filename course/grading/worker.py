r"""Runs pytest on a list of submissions: ``python -m course.grading.worker < jobs.json``.

Every job names an assignment and a submission. Messages are lines of JSON on standard output.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any


def main() -> int:
    import pytest

    from course.grading.catalog import COURSE, PRELOAD, find
    from course.grading.plugin import Plugin
    from course.grading.student import Limits, warm_up

    jobs = json.load(sys.stdin)
    channel = os.fdopen(os.dup(1), 'w', buffering=1)
    os.dup2(2, 1)  # Whatever pytest prints is for those who debug the grader.
    names = {find(job['assignment']).name for job in jobs}
    warm_up([module for name in sorted(names) for module in PRELOAD.get(name, ())])
    ini = str(Path(__file__).with_name('pytest.ini'))
    for number, job in enumerate(jobs):

        def report(message: dict[str, Any], number: int = number) -> None:
            channel.write(json.dumps({'job': number, **message}) + '\n')

        tests = list(map(str, find(job['assignment']).tests))
        limits = Limits(**job['limits'])
        plugin = Plugin(job['submission'], limits, job['secret'], report)
        options = [
            '-q',
            '-c',
            ini,
            f'--rootdir={COURSE}',
            '-p',
            'no:cacheprovider',
            '--import-mode=importlib',
        ]
        code = pytest.main([*options, '--tb=short', '-s', *tests], plugins=[plugin])
        plugin.submission.stop()
        if code not in (0, 1):
            report({'type': 'broken', 'code': int(code)})
    return 0


if __name__ == '__main__':
    sys.exit(main())
