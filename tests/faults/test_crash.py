r"""A process that is killed loses nothing: see :mod:`tests.faults.crash`."""

import json
import sys

import pytest

from tests import forks
from tests.faults.crash import SCENARIOS

pytestmark = pytest.mark.skipif(sys.platform != 'linux', reason='forks and signals of Linux')


def explore(*arguments):
    out = forks.run('-m', 'tests.faults.crash', *arguments, timeout=7200)
    assert out.returncode == 0, out.stderr
    return [json.loads(line) for line in out.stdout.splitlines()]


def test_the_same_command_goes_on_after_a_crash():
    found = explore(*SCENARIOS, '--points', '3')
    assert [(out['bad'], out['points']) for out in found] == [([], 3)] * len(SCENARIOS)


@pytest.mark.faults
@pytest.mark.parametrize('scenario', SCENARIOS)
def test_the_same_command_goes_on_after_any_crash(scenario):
    (out,) = explore(scenario)
    assert out['bad'] == [] and out['points'] >= out['events']
