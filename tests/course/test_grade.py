r"""The grader gives all points to solutions, none to starter code, and says what is wrong with
wrong solutions.
"""

import json
import re
import shutil

import pytest

from course import grade
from course.grading import catalog
from course.grading.catalog import assignments, find
from course.grading.results import grade as grade_all

NAMES = [assignment.name for assignment in assignments()]
WRONG = [(a, wrong) for a in assignments() for wrong in a.wrong]
#: Those of assignment 6 take long, because they train: `pytest -m faults`.
SLOW = [pair for pair in WRONG if pair[0] == find('6')]
WRONG = [pair for pair in WRONG if pair not in SLOW]


def label(value):
    return value.name


def write(folder, wrong):
    path = folder / f'{len(list(folder.iterdir()))}-{wrong.name}.py'
    path.write_text(wrong.text)
    return path


@pytest.fixture(scope='module')
def results(tmp_path_factory):
    r"""All submissions of this repository except for slow ones, graded by one process."""
    folder = tmp_path_factory.mktemp('wrong')
    names = [path for a in assignments() for path in (a.starter, a.solution)]
    jobs = [(a, path) for a in assignments() for path in (a.starter, a.solution)]
    names += [wrong for _, wrong in WRONG]
    jobs += [(a, write(folder, wrong)) for a, wrong in WRONG]
    return dict(zip(names, grade_all(jobs, timeout=3000)))


@pytest.fixture(scope='module')
def slow_results(tmp_path_factory):
    folder = tmp_path_factory.mktemp('slow')
    jobs = [(a, write(folder, wrong)) for a, wrong in SLOW]
    return dict(zip((wrong for _, wrong in SLOW), grade_all(jobs, timeout=3000)))


@pytest.mark.parametrize('name', NAMES)
def test_solution(results, name):
    result = results[find(name).solution]
    failed = [test for test in result['tests'] if test['status'] != 'passed']
    assert not failed and result['score'] == result['max_score'] > 0, failed or result['output']


@pytest.mark.parametrize('name', NAMES)
def test_starter(results, name):
    result = results[find(name).starter]
    assert result['score'] == 0 and result['tests'], result['output']
    assert all('is not written yet' in test['output'] for test in result['tests'])


@pytest.mark.parametrize('assignment, wrong', WRONG, ids=label)
def test_wrong_solution(results, assignment, wrong):
    check_wrong(results[wrong], wrong)


@pytest.mark.faults
@pytest.mark.parametrize('assignment, wrong', SLOW, ids=label)
def test_slow_wrong_solution(slow_results, assignment, wrong):
    check_wrong(slow_results[wrong], wrong)


def check_wrong(result, wrong):
    assert 0 < result['score'] < result['max_score'], result['output']
    outputs = [test['output'] for test in result['tests'] if test['status'] == 'failed']
    assert any(wrong.message in output for output in outputs), outputs


@pytest.mark.parametrize('name', NAMES)
def test_five_wrong_solutions(name):
    assert len(find(name).wrong) >= 5


def test_an_edit_that_does_not_fit(tmp_path, monkeypatch):
    folder = tmp_path / 'instructors'
    shutil.copytree(catalog.INSTRUCTORS, folder)
    path = folder / 'solutions' / '1_lightgcn.py'
    path.write_text(path.read_text().replace('return new_user, new_item', 'return None'))
    monkeypatch.setattr(catalog, 'INSTRUCTORS', folder)
    with pytest.raises(ValueError, match="'self_loops': expected the text .* found it 0 times"):
        list(find('1').wrong)


@pytest.mark.parametrize('name', NAMES)
def test_points_of_the_handout(results, name):
    r"""The handout, the syllabus and the tests agree on points."""
    assignment = find(name)
    text = (assignment.folder / 'README.md').read_text()
    total, public, hidden = map(
        int,
        re.search(
            r'\*\*Points:\*\* (\d+) \(public tests (\d+), hidden tests (\d+)\)', text
        ).groups(),
    )
    tests = results[assignment.solution]['tests']
    sums = dict.fromkeys(('public', 'hidden'), 0)
    for test in tests:
        sums[test['name'].split(':')[0]] += test['max_score']
    assert (total, public, hidden) == (public + hidden, sums['public'], sums['hidden'])
    table = re.search(r'## Points.*?(?=\n## |\Z)', text, re.S)[0]
    rows = re.findall(r'^\| .+ \| ?(\d*) \| ?(\d*) \|$', table, re.M)
    assert sum(int(a or 0) for a, _ in rows) == public
    assert sum(int(b or 0) for _, b in rows) == hidden
    assert '**Time:**' in text and '## What to hand in' in text
    syllabus = (assignment.folder.parents[1] / 'README.md').read_text()
    (line,) = [line for line in syllabus.splitlines() if f'assignments/{name}/' in line]
    assert re.search(rf'\| {total}( \+ \d+)? \|', line)


def test_format(results):
    r"""The format of Gradescope, with visibilities."""
    for result in results.values():
        assert set(result) == {
            *('score', 'max_score', 'execution_time', 'output', 'stdout_visibility', 'tests'),
        }
        assert result['score'] == sum(test['score'] for test in result['tests'])
        for test in result['tests']:
            assert set(test) == {'name', 'score', 'max_score', 'status', 'output', 'visibility'}
            hidden = test['name'].startswith('hidden: ')
            assert test['visibility'] == ('after_due_date' if hidden else 'visible')
            assert test['output'] and 'Traceback' not in test['output']
            assert 'The test itself failed' not in test['output'], test
        names = [test['name'] for test in result['tests']]
        assert len(set(names)) == len(names)
        json.dumps(result)


def test_command(results, tmp_path, capsys):
    r"""The command gives a single submission the same result."""
    wrong = find('2').wrong[0]
    path, file = write(tmp_path, wrong), tmp_path / 'results.json'
    assert grade.main(['bpr', str(path), '--json', str(file), '--hidden', 'visible']) == 0
    result, expected = json.loads(file.read_text()), results[wrong]
    assert {test['visibility'] for test in result['tests']} == {'visible'}
    changed = [{**test, 'visibility': 'visible'} for test in expected['tests']]
    assert result['tests'] == changed and result['output'] == expected['output']
    out = capsys.readouterr().out
    assert f'{result["score"]:g} of {result["max_score"]:g} points.' in out and 'FAIL' in out


@pytest.mark.parametrize(
    'command, words',
    [
        (['7', 'x.py'], "Unknown assignment '7'; expected one of 1_lightgcn, 2_bpr"),
        (['1', 'x.py'], "'x.py' is not a file; expected a submission."),
    ],
)
def test_errors(command, words, capsys):
    with pytest.raises(SystemExit):
        grade.main(command)
    assert words in capsys.readouterr().err
