r"""A process that is killed loses nothing: see :mod:`tests.faults.crash`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.crash import SCENARIOS

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(sys.platform != 'linux', reason='forks and signals of Linux')


def explore(*arguments):
    command = [sys.executable, '-m', 'tests.faults.crash', *arguments]
    out = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return [json.loads(line) for line in out.stdout.splitlines()]


def test_the_same_command_goes_on_after_a_crash():
    found = explore(*SCENARIOS, '--points', '3')
    assert [(out['bad'], out['points']) for out in found] == [([], 3)] * len(SCENARIOS)


@pytest.mark.faults
@pytest.mark.parametrize('scenario', SCENARIOS)
def test_the_same_command_goes_on_after_any_crash(scenario):
    (out,) = explore(scenario)
    assert out['bad'] == [] and out['points'] >= out['events']
