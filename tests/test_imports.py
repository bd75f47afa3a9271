r"""Which room may import which; `python -m tests.test_imports` prints the rooms and the arrows
between them.
"""

import ast
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
#: Rooms by floor. A module imports from its own room and from rooms of lower floors.
FLOORS = [
    {'typing'},
    {'utils'},
    {'parallel'},
    {'data', 'nn', 'report'},
    {'engine'},
    {'pipeline', 'testing'},
    {'run', 'recommend', 'experiments'},
    {'sweep', 'reproduce'},
]
#: The same inside of `nn`; a room is a module or a folder of modules.
NN = [
    {'memo'},
    {'graph'},
    {'functional', 'name_dict', 'pruning'},
    {'item_encoder', 'loss'},
    {'objective'},
    {'token_cross', 'conv'},
    {'token_interaction', 'soft_tokens', 'unseen', 'user_encoder'},
    {'models'},
    {'fold_in'},
]
FILES = sorted((ROOT / 'motor_geo').rglob('*.py'))


def floors(rooms):
    return {name: level for level, names in enumerate(rooms) for name in names}


def imports(source, package):
    r"""Dotted names of everything that is imported, in functions too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package[: len(package) + 1 - node.level] if node.level else []
            base = [*parents, *(node.module or '').split('.')]
            yield from ('.'.join(filter(None, [*base, alias.name])) for alias in node.names)


def room(name, depth):
    r"""The part of a dotted name at some depth, if it lies in the package."""
    parts = name.split('.')
    inside = parts[0] == 'motor_geo' and (depth == 1 or parts[1:2] == ['nn'])
    return parts[depth] if inside and len(parts) > depth else ''


def violations(source, path):
    r"""What a module imports from its own or a higher floor, but not from its own room."""
    *package, module = path.with_suffix('').parts
    own = '.'.join([*package, module])
    for name in imports(source, package):
        for depth, rooms in ((1, FLOORS), (2, NN)):
            level, here, there = floors(rooms), room(own, depth), room(name, depth)
            if here in level and there in level and here != there and level[there] >= level[here]:
                yield name


def modules():
    r"""Every module of the package, and the modules that it imports."""
    names = {}
    for file in FILES:
        parts = file.relative_to(ROOT).with_suffix('').parts
        names['.'.join(parts[:-1] if parts[-1] == '__init__' else parts)] = file
    graph = {}
    for name, file in names.items():
        package = name.split('.') if file.name == '__init__.py' else name.split('.')[:-1]
        found = set()
        for target in imports(file.read_text(), package):
            while target and target not in names:
                target = target.rpartition('.')[0]
            found |= {target} - {'', 'motor_geo', name}
        graph[name] = found
    return graph


def cycles(graph):
    r"""Groups of modules that import each other (Tarjan's algorithm)."""
    index, low, stack, found = {}, {}, [], []

    def visit(node):
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in graph.get(node, ()):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            group = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(group) > 1:
                found.append(sorted(group))

    for node in graph:
        if node not in index:
            visit(node)
    return found


@pytest.mark.parametrize('file', FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_layers(file):
    path = file.relative_to(ROOT)
    own = Path(path.parts[1]).stem
    assert own in {'__init__', '__main__', *floors(FLOORS)}, f"'{own}' is no room: see FLOORS"
    if path.parts[1] == 'nn' and len(path.parts) > 2:
        own = Path(path.parts[2]).stem
        assert own in {'__init__', *floors(NN)}, f"'nn/{own}' is no room: see NN"
    assert list(violations(file.read_text(), path)) == []


def test_no_cycle():
    assert cycles(modules()) == []


def test_cycles_are_found():
    graph = {'a': {'b'}, 'b': {'c'}, 'c': {'b', 'd'}, 'd': set()}
    assert cycles(graph) == [['b', 'c']]


@pytest.mark.parametrize(
    'source, path, expected',
    [
        ('import motor_geo.data', 'nn/loss.py', ['motor_geo.data']),
        ('def f():\n    from motor_geo.nn import conv', 'data/a.py', ['motor_geo.nn.conv']),
        ('from ...data import sampler', 'nn/models/bpr.py', ['motor_geo.data.sampler']),
        ('from motor_geo import engine', 'nn/loss.py', ['motor_geo.engine']),
        ('from motor_geo.run import main', 'pipeline/train.py', ['motor_geo.run.main']),
        ('from motor_geo.pipeline.train import run\nfrom motor_geo import nn', 'sweep.py', []),
        ('from .conv import a', 'nn/loss.py', ['motor_geo.nn.conv.a']),
        ('from ..loss import a\nfrom .light import b', 'nn/conv/a.py', []),
        ('from ..conv import a', 'nn/functional/a.py', ['motor_geo.nn.conv.a']),
    ],
)
def test_violations_are_found(source, path, expected):
    assert list(violations(source, Path('motor_geo', path))) == expected


@pytest.mark.parametrize('modules', ['motor_geo', 'motor_geo.nn.models, motor_geo.data'])
def test_import_is_light(modules):
    heavy = {'faiss', 'jsonargparse', 'pyarrow', 'optuna', 'matplotlib', 'tensorboard'}
    if modules == 'motor_geo':  # PyG may import scipy.
        heavy |= {'scipy', 'torch'}
    code = f'import sys, {modules}; print(sorted({heavy} & set(sys.modules)))'
    out = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=ROOT)
    assert (out.stdout.strip(), out.returncode) == ('[]', 0), out.stderr


def draw():
    r"""Rooms from the top floor down, each with the rooms that it imports."""
    lines = []
    for depth, rooms in ((1, FLOORS), (2, NN)):
        arrows = defaultdict(set)
        for name, targets in modules().items():
            own = room(name, depth)
            arrows[own] |= {room(target, depth) for target in targets} - {own, ''}
        for level, names in reversed(list(enumerate(rooms))):
            lines += [f'{level}  {name:13s} -> {", ".join(sorted(arrows[name]))}' for name in names]
        lines.append('')
    return '\n'.join(lines)


if __name__ == '__main__':
    print(draw())
