import functools
import json

import pytest

from tests.parallel.compare import MESHES, comparisons
from tests.parallel.torchrun import forked


@functools.cache
def found(size):
    r"""The differences by mesh and name, and the command that printed them."""
    out = forked(size, 'tests.parallel.compare')
    lines = [json.loads(line) for line in out.stdout.splitlines() if line.startswith('{')]
    return {(line.pop('columns'), line.pop('name')): line for line in lines}, out


CASES = [
    (size, columns, name)
    for size, meshes in MESHES.items()
    for columns in meshes
    for name, *_ in comparisons(columns, size // columns)
]


@pytest.mark.parametrize('size, columns, name', CASES)
def test_several_processes_equal_one(size, columns, name):
    lines, out = found(size)
    assert (columns, name) in lines, out.stderr[-3000:]
    values = lines[columns, name]
    assert values.pop('count', 0) in (0, 22)
    limit = 1e-12 if 'evaluation' in name else 1e-10
    assert values and max(values.values()) < limit, values


@pytest.mark.parametrize('size', MESHES)
def test_processes_end_well(size):
    out = found(size)[1]
    assert out.returncode == 0, out.stderr[-3000:]
