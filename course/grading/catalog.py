r"""Finds assignments and their tests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

COURSE = Path(__file__).resolve().parents[1]
#: Absent from what students get.
INSTRUCTORS = COURSE / 'instructors'
#: Slow imports of submissions, by assignment. They are done once, before any submission starts.
PRELOAD = {
    '5_comparison': ('scipy.stats',),
    '6_backbone': ('motor_geo.testing', 'course.grading.contract'),
}


class WrongSolution(NamedTuple):
    r"""A solution with a mistake.

    Args:
        name: Its name.
        mistake: What is wrong.
        message: Words of the message that it gets.
        text: Its code.
    """

    name: str
    mistake: str
    message: str
    text: str


@dataclass(frozen=True)
class Assignment:
    r"""An assignment.

    Args:
        name: Name of its folder, *e.g.*, :obj:`"1_lightgcn"`.
    """

    name: str

    @property
    def folder(self) -> Path:
        return COURSE / 'assignments' / self.name

    @property
    def starter(self) -> Path:
        return self.folder / 'starter.py'

    @property
    def public(self) -> Path:
        return self.folder / 'test_public.py'

    @property
    def hidden(self) -> Path:
        return INSTRUCTORS / 'hidden' / self.name / 'test_hidden.py'

    @property
    def tests(self) -> list[Path]:
        r"""Existing test files; a copy for students has no hidden ones."""
        return [path for path in (self.public, self.hidden) if path.is_file()]

    @property
    def solution(self) -> Path:
        return INSTRUCTORS / 'solutions' / f'{self.name}.py'

    @property
    def wrong(self) -> list[WrongSolution]:
        r"""Wrong solutions that look right: the reference solution with edits.

        Raises:
            ValueError: If an edit does not fit the reference solution.
        """
        import yaml  # Students do not need it.

        out = []
        path, solution = INSTRUCTORS / 'wrong' / f'{self.name}.yaml', self.solution.read_text()
        for name, entry in yaml.safe_load(path.read_text()).items():
            text = solution
            for edit in entry['edits']:
                if text.count(edit['old']) != 1:
                    raise ValueError(
                        f"'{path}', '{name}': expected the text to replace once in the solution, "
                        f'found it {text.count(edit["old"])} times'
                    )
                text = text.replace(edit['old'], edit['new'])
            out.append(WrongSolution(name, entry['mistake'], entry['message'], text))
        return out


def assignments() -> list[Assignment]:
    r"""All assignments, in order."""
    folder = COURSE / 'assignments'
    return [Assignment(path.parent.name) for path in sorted(folder.glob('*/starter.py'))]


def find(name: str) -> Assignment:
    r"""Finds an assignment by its number, its name, or both (:obj:`"1"`,
    :obj:`"lightgcn"` or :obj:`"1_lightgcn"`).

    Raises:
        ValueError: If there is no such assignment.
    """
    for assignment in assignments():
        number, _, rest = assignment.name.partition('_')
        if name in (number, rest, assignment.name):
            return assignment
    names = ', '.join(assignment.name for assignment in assignments())
    raise ValueError(f"Unknown assignment '{name}'; expected one of {names}.")
