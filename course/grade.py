r"""Grades a submission: ``python -m course.grade ASSIGNMENT SUBMISSION.py [--json OUT]``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from course.grading.catalog import find
from course.grading.results import VISIBILITIES, as_text, grade


def main(args: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog='python -m course.grade', description=__doc__)
    parser.add_argument('assignment', help='number or name, e.g. 1 or lightgcn')
    parser.add_argument('submission', type=Path, help='the file to grade')
    parser.add_argument('--json', type=Path, help="where to write Gradescope's results.json")
    parser.add_argument('--timeout', type=float, default=600, help='seconds in all (600)')
    parser.add_argument('--call-timeout', type=int, default=20, help='CPU seconds per call (20)')
    parser.add_argument(
        '--hidden',
        choices=VISIBILITIES,
        default='after_due_date',
        help='when students see the results of hidden tests (after_due_date)',
    )
    options = parser.parse_args(args)
    try:
        assignment = find(options.assignment)
    except ValueError as error:
        parser.error(str(error))
    if not options.submission.is_file():
        parser.error(f"'{options.submission}' is not a file; expected a submission.")
    limits = {'cpu': options.call_timeout, 'wall': 6.0 * options.call_timeout}
    jobs = [(assignment, options.submission)]
    (result,) = grade(jobs, options.timeout, options.hidden, limits)
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=2) + '\n')
    print(as_text(result))
    return 0


if __name__ == '__main__':
    sys.exit(main())
