import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
#: A module imports from its own group and from groups of lower levels.
LEVELS = [
    [{'typing', 'files', 'memory', 'ranking', 'topk'}],
    [{'nn'}, {'data'}, {'metrics', 'evaluator', 'checkpoint'}],
    [{'trainer'}],
    [{'config'}],
    [{'build'}],
    [
        {
            'run',
            'recommend',
            'space',
            'sweep',
            'contenders',
            'curves',
            'experiments',
            'jobs',
            'reproduce',
            'reproduction',
            'significance',
        }
        | {'scene', 'catalogue', 'views', 'report', 'report_text', 'report_html', 'report_plot'}
    ],
]
LEVEL = {name: i for i, groups in enumerate(LEVELS) for group in groups for name in group}
GROUP = {name: group for groups in LEVELS for group in groups for name in group}
FILES = sorted((ROOT / 'motor_geo').rglob('*.py'))


def imports(source, package):
    r"""Dotted names of everything that is imported, in functions too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package[: len(package) + 1 - node.level] if node.level else []
            base = [*parents, *(node.module or '').split('.')]
            yield from ('.'.join(filter(None, [*base, alias.name])) for alias in node.names)


def violations(source, path):
    *package, module = path.with_suffix('').parts
    own = [*package, module][1]
    for name in imports(source, package):
        other = (name.split('.') + [''])[1] if name.startswith('motor_geo.') else ''
        if other in LEVEL and other not in GROUP[own] and LEVEL[other] >= LEVEL[own]:
            yield name


@pytest.mark.parametrize('file', FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_layers(file):
    path = file.relative_to(ROOT)
    if path.parts[1] == '__init__.py':
        own = [name for name in imports(file.read_text(), ['motor_geo']) if '__' not in name]
        assert own == ['os']
        return
    own = Path(path.parts[1]).stem
    assert own in LEVEL, f"'{own}' has no layer yet: add it to LEVELS"
    assert list(violations(file.read_text(), path)) == []


@pytest.mark.parametrize(
    'source, path, expected',
    [
        ('import motor_geo.data', 'nn/loss.py', ['motor_geo.data']),
        ('def f():\n    from motor_geo.nn import conv', 'data/a.py', ['motor_geo.nn.conv']),
        ('from ...data import graph', 'nn/models/bpr.py', ['motor_geo.data.graph']),
        ('from motor_geo import evaluator', 'nn/loss.py', ['motor_geo.evaluator']),
        ('from motor_geo.trainer import Trainer', 'evaluator.py', ['motor_geo.trainer.Trainer']),
        ('from motor_geo.run import run', 'config.py', ['motor_geo.run.run']),
        ('from motor_geo.run import run\nfrom motor_geo import __version__', 'sweep.py', []),
        ('from .conv import a\nfrom ..nn import b\nimport torch', 'nn/loss.py', []),
    ],
)
def test_violations_are_found(source, path, expected):
    assert list(violations(source, Path('motor_geo', path))) == expected


@pytest.mark.parametrize('module', ['motor_geo', 'motor_geo.nn.models', 'motor_geo.data'])
def test_import_is_light(module):
    heavy = {'faiss', 'jsonargparse', 'pyarrow', 'optuna', 'matplotlib', 'tensorboard'}
    if module == 'motor_geo':  # PyG may import scipy.
        heavy |= {'scipy', 'torch'}
    code = f'import sys, {module}; print(sorted({heavy} & set(sys.modules)))'
    out = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=ROOT)
    assert (out.stdout.strip(), out.returncode) == ('[]', 0), out.stderr
