import ast
import json
import os
import re
import subprocess
import sys

import pytest

from course import handout
from course.grading.catalog import INSTRUCTORS, assignments


@pytest.fixture(scope='module')
def out(tmp_path_factory):
    folder = tmp_path_factory.mktemp('students') / 'new'
    assert handout.main([str(folder)]) == 0
    return folder


def functions(text):
    r"""The bodies of functions, without docstrings, that do something."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            dump = ''.join(map(ast.dump, body))
            if body and 'NotImplementedError' not in dump and len(dump) > 200:
                found.add(dump)
    return found


def test_no_solution_and_no_hidden_test(out):
    given = {path: path.read_text() for path in out.rglob('*') if path.is_file()}
    names = {path.name for path in given}
    assert {'starter.py', 'test_public.py', 'grade.py', 'week1.md', 'README.md'} <= names
    assert 'test_hidden.py' not in names and not list(out.rglob('*instructors*'))
    code = {path: functions(text) for path, text in given.items() if path.suffix == '.py'}
    public = set().union(*(functions(a.starter.read_text()) for a in assignments()))
    for assignment in assignments():
        secret = {path: path.read_text() for path in (assignment.solution, assignment.hidden)}
        assert all(functions(text) - public for text in secret.values())
        secret |= {wrong.name: wrong.text for wrong in assignment.wrong}
        for name, text in secret.items():
            bodies = functions(text) - public
            assert text not in given.values()
            for other, known in code.items():
                assert not bodies & known, f'{other.name} contains {name}'


def test_no_link_to_instructors(out):
    for path in out.rglob('*.md'):
        text = path.read_text()
        assert 'instructors/' not in text and 'instructors:' not in text
        for target in re.findall(r'\]\(((?!https?:)[^)#]+)\)', text):
            assert (path.parent / target).exists(), f'{path.name}: {target}'


def test_students_can_grade_and_render(out, tmp_path):
    r"""With public tests only."""
    env = os.environ | {'PYTHONPATH': str(out)}  # The package itself is not needed here.
    starter = out / 'course' / 'assignments' / '1_lightgcn' / 'starter.py'
    command = [sys.executable, '-m', 'course.grade', '1', starter, '--json', tmp_path / 'r.json']
    done = subprocess.run(command, env=env, cwd=out, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / 'r.json').read_text())
    assert result['score'] == 0 and result['max_score'] == 8
    assert 'no hidden tests' in result['output']
    assert all(test['name'].startswith('public') for test in result['tests'])


def test_a_folder_with_files(tmp_path, capsys):
    (tmp_path / 'file').touch()
    with pytest.raises(SystemExit):
        handout.main([str(tmp_path)])
    assert 'is not empty; expected a new folder' in capsys.readouterr().err


def test_nothing_of_instructors_elsewhere():
    r"""What students must not see is in one folder."""
    for assignment in assignments():
        assert {path.name for path in assignment.folder.glob('*.py')} <= {
            'starter.py',
            'test_public.py',
            'experiment.py',
        }
        assert INSTRUCTORS in assignment.solution.parents
