import json

import pytest

from tests.parallel.compare import comparisons
from tests.parallel.torchrun import torchrun


@pytest.fixture(scope='module', params=[2, 3])
def found(request):
    out = torchrun(request.param, 'tests.parallel.compare')
    lines = [json.loads(line) for line in out.stdout.splitlines() if line.startswith('{')]
    return {line.pop('name'): line for line in lines}, out


@pytest.mark.parametrize('name', [name for name, _, _ in comparisons()])
def test_several_processes_equal_one(found, name):
    lines, out = found
    assert name in lines, out.stderr[-3000:]
    values = lines[name]
    assert values.pop('count', 0) in (0, 22)
    assert values and max(values.values()) < 1e-10, values


def test_processes_end_well(found):
    assert found[1].returncode == 0, found[1].stderr[-3000:]
