import ast
import os.path as osp
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(osp.dirname(__file__)).parent
LAYERS = [
    {'typing', 'files', 'ranking'},
    {'nn', 'data'},
    {'metrics', 'evaluator', 'checkpoint'},
    {'trainer'},
    {'config'},
    {'run', 'recommend', 'sweep', 'reproduce', 'report'},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
FILES = sorted(
    path for path in (ROOT / 'motor_geo').rglob('*.py') if path.parent != path.parents[2]
)


def imported(path):
    r"""Dotted names of all modules that a file imports, in functions too."""
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) + 1 - node.level] if node.level else ()
            base = '.'.join([*start, *([node.module] if node.module else [])])
            yield base
            yield from (f'{base}.{alias.name}' for alias in node.names)


def layer_of(module):
    parts = module.split('.')
    return parts[1] if parts[0] == 'motor_geo' and len(parts) > 1 else None
