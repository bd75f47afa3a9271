r"""The breaks of :mod:`tests.faults.breaks` are of lines that are there; all of them are tried,
in minutes, with ``python -m tests.faults.breaks``.
"""

import os

import pytest

from tests.faults.breaks import BREAKS, ROOT


@pytest.mark.parametrize('name', BREAKS)
def test_breaks_are_of_one_line(name):
    change = BREAKS[name]
    with open(os.path.join(ROOT, change.path)) as file:
        assert file.read().count(change.old) == 1
    for path in change.tests.split():
        assert os.path.exists(os.path.join(ROOT, 'tests', path))
