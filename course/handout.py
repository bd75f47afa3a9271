r"""Writes the part of the course that students get: ``python -m course.handout OUT``."""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from course.grading.catalog import COURSE, INSTRUCTORS
from course.slides import images

#: Not for students.
LEFT_OUT = (INSTRUCTORS.name, '__pycache__', 'handout.py')
SECTION = re.compile(r'<!-- instructors:start -->.*?<!-- instructors:end -->\n?', re.S)


def write(out: Path) -> None:
    r"""Writes the folder :obj:`course` for students.

    Args:
        out: A new or empty folder.

    Raises:
        ValueError: If the folder has files, which could be those of instructors.
    """
    if out.exists() and any(out.iterdir()):
        raise ValueError(f"'{out}' is not empty; expected a new folder.")
    target = out / 'course'
    shutil.copytree(COURSE, target, ignore=shutil.ignore_patterns(*LEFT_OUT))
    for image in images():
        (out / image).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(COURSE.parent / image, out / image)
    for path in target.rglob('*.md'):
        path.write_text(SECTION.sub('', path.read_text()).rstrip() + '\n')


def main(args: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog='python -m course.handout', description=__doc__)
    parser.add_argument('out', type=Path, help='a new folder')
    options = parser.parse_args(args)
    try:
        write(options.out)
    except ValueError as error:
        parser.error(str(error))
    print(options.out / 'course')
    return 0


if __name__ == '__main__':
    sys.exit(main())
