r"""Submissions that crash, hang, print, exit or tamper get a result that says so."""

import pytest

from course.grading.catalog import find
from course.grading.results import as_text, grade

ASSIGNMENT = find('1')
SOLUTION = ASSIGNMENT.solution.read_text()
FULL = 20


def replaced(body):
    r"""The solution with another body of :obj:`score`, which has three points."""
    return SOLUTION.replace('    return user[index] @ item.t()\n', body)


SUBMISSIONS = {
    'syntax': ('def normalize(:\n', 0, 'cannot be imported. SyntaxError: invalid syntax'),
    'crash': ('import torch\n1 / 0\n', 0, 'ZeroDivisionError: division by zero, in line 2'),
    'missing_import': ('import nonsense\n', 0, "No module named 'nonsense'"),
    'empty': ('', 0, 'Your file has no function `score`'),
    'exit_on_import': ('import sys\nsys.exit(0)\n', 0, 'called sys.exit while it was imported'),
    'loop_on_import': ('while True:\n    pass\n', 0, 'Your file computed for more than 1 seconds'),
    'exit': (replaced('    raise SystemExit(0)\n'), FULL - 3, '`score` called sys.exit'),
    'end': (replaced('    import os\n    os._exit(0)\n'), FULL - 3, 'ended the whole program'),
    'error': (replaced('    return user[None]["a"]\n'), FULL - 3, 'in line 41 of your file'),
    'recursion': (replaced('    return score(user, item, index)\n'), FULL - 3, 'RecursionError'),
    'loop': (replaced('    while True:\n        pass\n'), FULL - 3, '`score` computed for more'),
    'interrupt': (replaced('    raise KeyboardInterrupt\n'), FULL - 3, 'KeyboardInterrupt'),
    'memory': (replaced('    return torch.ones(10**14)\n'), FULL - 3, 'RuntimeError'),
    'none': (replaced('    pass\n'), FULL - 3, 'returned None; expected a tensor'),
    'object': (replaced('    return object()\n'), FULL - 3, "a value of type 'object', which"),
    'prints': (
        "import os\nprint('x' * 10**7)\nos.system\n" + SOLUTION,
        FULL,
        'cut from 10000001 characters',
    ),
    'bytes': ("import os\nos.write(1, b'{}' * 10**5)\n" + SOLUTION, FULL, 'of 20 points'),
    'patches': (
        replaced('    torch.allclose = lambda *args, **kwargs: True\n    return user\n')
        + '\nimport pytest\npytest.fail = print\ntorch.Tensor.__eq__ = lambda a, b: True\n',
        FULL - 3,
        'returned a tensor of shape',
    ),
    'program': ("import os\nos.system('true')\n" + SOLUTION, 0, 'tried to start another program'),
    'kill': (
        replaced('    import os\n    os.kill(os.getppid(), 9)\n'),
        0,
        'tried to end a process',
    ),
    'network': (
        "import socket\nsocket.socket().connect(('127.0.0.1', 9))\n" + SOLUTION,
        0,
        'tried to open a network connection',
    ),
    'reads_tests': (
        f'open({str(ASSIGNMENT.hidden)!r}).read()\n' + SOLUTION,
        0,
        'tried to read the files of the grader',
    ),
    'finds_tests': (
        'import course.grading.catalog as c\nlist(c.INSTRUCTORS.rglob("*"))\n' + SOLUTION,
        0,
        'tried to read the files of the grader',
    ),
    'writes_tests': (
        'import course.grading.catalog as c\n'
        "try:\n    c.find('1').public.write_text('')\nexcept BaseException:\n    pass\n" + SOLUTION,
        0,
        "tried to change the file 'test_public.py' outside of its folder",
    ),
    'own_files': ("open('notes.txt', 'w').write('x')\n" + SOLUTION, FULL, 'of 20 points'),
}


@pytest.fixture(scope='module')
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp('submissions')
    jobs = []
    for name, (text, _, _) in SUBMISSIONS.items():
        path = folder / f'{name}.py'
        path.write_text(text)
        jobs.append((ASSIGNMENT, path))
    out = grade(jobs, timeout=3000, limits={'cpu': 1, 'wall': 300.0})
    return dict(zip(SUBMISSIONS, out))


@pytest.mark.parametrize('name', SUBMISSIONS)
def test_submission(results, name):
    _, score, words = SUBMISSIONS[name]
    result = results[name]
    assert result['score'] == score, as_text(result)
    assert result['max_score'] == FULL and len(result['tests']) == 11
    outputs = [result['output'], *(test['output'] for test in result['tests'])]
    assert any(words in output for output in outputs), outputs
    assert len(result['output']) < 4000
    assert len(ASSIGNMENT.public.read_text()) > 1000  # Nobody has changed it.


def test_waits(tmp_path):
    r"""A function that sleeps, and the limit of the whole grading."""
    path = tmp_path / 'sleeps.py'
    path.write_text(replaced('    import time\n    time.sleep(10000)\n'))
    (result,) = grade([(ASSIGNMENT, path)], limits={'cpu': 5, 'wall': 5.0})
    outputs = [test['output'] for test in result['tests']]
    assert any('`score` did not return within 5 seconds.' in output for output in outputs)
    (result,) = grade([(ASSIGNMENT, path)], timeout=0.1)
    assert result['score'] == 0 and 'took more than 0.1 seconds' in result['output']
