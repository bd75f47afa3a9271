import ast
import importlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from datetime import date
from pathlib import Path

import pytest
import yaml

import motor_geo
from motor_geo.nn.models import FITTED, MODELS
from motor_geo.pipeline.export import ENDINGS
from motor_geo.pipeline.loggers import LOGGERS

ROOT = Path(__file__).parents[1]
#: Names to import, where they differ from the names to install.
MODULES = {
    'faiss-cpu': 'faiss',
    'pillow': 'PIL',
    'pyyaml': 'yaml',
    'torch-geometric': 'torch_geometric',
    'sentence-transformers': 'sentence_transformers',
}


try:
    import tomllib
except ImportError:  # Python 3.10, where pytest itself needs it.
    import tomli as tomllib

PROJECT = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']


@pytest.fixture(scope='module')
def setup_arguments():
    r"""What `setup.py` passes on."""
    setuptools = pytest.importorskip('setuptools')
    out = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setuptools, 'setup', lambda **kwargs: out.update(kwargs))
        patch.chdir(ROOT)
        code = compile((ROOT / 'setup.py').read_text(), str(ROOT / 'setup.py'), 'exec')
        exec(code, {'__file__': str(ROOT / 'setup.py')})
    return out


def test_versions_agree():
    assert PROJECT['dynamic'] == ['version']  # Read from the package.
    citation = yaml.safe_load((ROOT / 'CITATION.cff').read_text())
    assert citation['version'] == motor_geo.__version__
    text = (ROOT / 'CHANGELOG.md').read_text()
    changes = re.findall(r'^## \[([\d.]+)\] - (\S+)$', text, re.M)
    assert changes[0] == (motor_geo.__version__, str(citation['date-released']))
    dates = [date.fromisoformat(day) for _, day in changes]
    assert dates == sorted(dates, reverse=True)


def test_order_of_the_changelog():
    for text in re.split(r'^## ', (ROOT / 'CHANGELOG.md').read_text(), flags=re.M)[1:]:
        kinds = re.findall(r'^### (.*)$', text, re.M)
        assert kinds == [kind for kind in ('Added', 'Changed', 'Removed', 'Fixed') if kind in kinds]


def test_packages(setup_arguments):
    folders = {path.parent for path in (ROOT / 'motor_geo').rglob('*.py')}
    expected = {'.'.join(folder.relative_to(ROOT).parts) for folder in folders}
    assert set(setup_arguments['packages']) == expected | {'motor_geo.configs'}


def test_files_are_shipped(setup_arguments):
    r"""Everything in the package that is no Python, and all configurations."""
    folders = {'motor_geo.configs': ROOT / 'configs'}
    shipped = set()
    for package, patterns in setup_arguments['package_data'].items():
        folder = folders.get(package, ROOT / package.replace('.', '/'))
        shipped |= {path for pattern in patterns for path in folder.glob(pattern)}
    found = {*(ROOT / 'motor_geo').rglob('*'), *(ROOT / 'configs').rglob('*')}
    expected = {p for p in found if p.is_file() and '__pycache__' not in p.parts}
    assert shipped == {path for path in expected if path.suffix != '.py'}


def test_console_script():
    module, name = PROJECT['scripts']['motor-geo'].split(':')
    assert callable(getattr(importlib.import_module(module), name))


#: What a user does with an installed package, from another folder.
JOB = r"""
import sys
from importlib.resources import files
from pathlib import Path

import motor_geo
from motor_geo import __main__ as cli
from motor_geo.pipeline.flags import find_config

small = ['--data.num_users', '60', '--data.num_items', '40', '--data.num_interactions', '400']
small += ['--tokenizer.codebook_size', '8', '--svd.channels', '8', '--epochs', '1']
assert cli.main(['run', '--config', 'recommended', '--print_config']) == 0
assert cli.main(['run', '--config', 'recommended', *small, '--out', 'job']) == 0
assert cli.main(['recommend', 'job', '--k', '3']) == 0
assert cli.main(['reproduce', 'table1', '--out', 'report']) == 0  # Reads what was published.

root, site = map(Path, sys.argv[1:])
assert files('motor_geo').joinpath('py.typed').is_file()
for name in motor_geo.nn.models.MODELS:
    assert site in Path(find_config(name, first='sweep')).parents
modules = {name: module for name, module in sys.modules.items() if name.startswith('motor_geo')}
paths = [getattr(module, '__file__', None) for module in modules.values()]
assert all(site in Path(path).parents for path in paths if path is not None)
assert root not in map(Path, sys.path)
"""


@pytest.fixture(scope='module')
def site(tmp_path_factory):
    r"""A folder into which the wheel is installed."""
    folder = tmp_path_factory.mktemp('wheel')
    source = folder / 'source'
    for name in ('motor_geo', 'configs'):
        ignore = shutil.ignore_patterns('__pycache__')
        shutil.copytree(ROOT / name, source / name, ignore=ignore)
    for name in ('pyproject.toml', 'setup.py', 'README.md', 'LICENSE'):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, '-m', 'pip', '--disable-pip-version-check', '-q']
    options = ['--no-deps', '--no-index']
    build = [*pip, 'wheel', *options, '--no-build-isolation', '-w', folder / 'dist', source]
    out = subprocess.run(build, capture_output=True, text=True)
    if out.returncode != 0 and re.search('No module named|BackendUnavailable', out.stderr):
        pytest.skip('pip or setuptools is not installed')
    assert out.returncode == 0, out.stderr
    (wheel,) = (folder / 'dist').glob('*.whl')
    subprocess.run([*pip, 'install', *options, '--target', folder / 'site', wheel], check=True)
    return folder / 'site'


def test_wheel(site, tmp_path):
    r"""An installed package does what the README says, outside of the
    repository.
    """
    env = os.environ | {'PYTHONPATH': str(site), 'PYG_HOME': str(tmp_path / 'pyg')}

    def run(*command):
        out = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=env)
        assert out.returncode == 0, out.stderr
        return out.stdout

    version = run(sys.executable, '-m', 'motor_geo', '--version')
    assert version == f'motor-geo {motor_geo.__version__}\n'
    script = site / ('Scripts' if os.name == 'nt' else 'bin') / 'motor-geo'
    assert '--tokenizer' in run(script, 'run', '--help')
    out = run(sys.executable, '-c', JOB, ROOT, site)
    assert 'codebook_size: 256' in out
    assert {'config.yaml', 'best.pt', 'result.json', 'recs.csv'} <= set(
        os.listdir(tmp_path / 'job')
    )
    assert len((tmp_path / 'job' / 'recs.csv').read_text().splitlines()) == 1 + 3 * 60
    pages = {path.suffix for path in (tmp_path / 'report').iterdir()}
    assert pages == {'.html', '.jsonl', '.md', '.tex'}


def test_content_of_the_wheel(site):
    (path,) = (site.parent / 'dist').glob('*.whl')
    with zipfile.ZipFile(path) as file:
        names = {name for name in file.namelist() if '.dist-info/' not in name}
        info = {name.rpartition('/')[2] for name in file.namelist()} - {Path(n).name for n in names}
    expected = {path for path in (ROOT / 'motor_geo').rglob('*') if path.is_file()}
    expected = {str(p.relative_to(ROOT)) for p in expected if '__pycache__' not in p.parts}
    configs = {str(path.relative_to(ROOT)) for path in (ROOT / 'configs').rglob('*.yaml')}
    assert names == expected | {f'motor_geo/{name}' for name in configs}
    assert info == {'LICENSE', 'METADATA', 'RECORD', 'WHEEL', 'entry_points.txt', 'top_level.txt'}


#: What only a clone needs.
CLONE = ('.github/', '.gitignore', '.pre-commit-config.yaml')
#: What other tools leave in a clone.
LEFT = (
    'docs/_build/index.html',
    'docs/_pages/a.svg',
    'docs/api/generated/a.rst',
    'docs/reproduction/a.html',
    'tests/__pycache__/a.pyc',
    'runs/a/result.json',
)


def test_content_of_the_sdist(tmp_path):
    r"""What git tracks, so that the tests of an sdist run."""
    pytest.importorskip('setuptools', '77')
    if not (ROOT / '.git').exists():
        pytest.skip('this is no clone')
    listed = subprocess.run(['git', 'ls-files', '-z'], cwd=ROOT, capture_output=True, text=True)
    tracked = {name for name in listed.stdout.split('\0') if name and (ROOT / name).is_file()}
    for name in sorted(tracked):
        (tmp_path / 'source' / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / 'source' / name)
    for name in LEFT:
        (tmp_path / 'source' / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / 'source' / name).touch()
    code = "from setuptools.build_meta import build_sdist; build_sdist('../dist')"
    (tmp_path / 'dist').mkdir()
    subprocess.run(
        [sys.executable, '-c', code], cwd=tmp_path / 'source', capture_output=True, check=True
    )
    (path,) = (tmp_path / 'dist').iterdir()
    assert path.name == f'motor_geo-{motor_geo.__version__}.tar.gz'
    with tarfile.open(path) as file:
        names = {member.name.partition('/')[2] for member in file if member.isfile()}
    made = {name for name in names if name.startswith('motor_geo.egg-info/')}
    expected = {name for name in tracked if not name.startswith(CLONE)}
    assert names - made == expected | {'PKG-INFO', 'setup.cfg'}


def test_publishing():
    r"""Only tags, whose packages were tested, in an environment and without a token."""
    folder = ROOT / '.github' / 'workflows'
    if not folder.exists():
        pytest.skip('this is no clone')
    jobs = yaml.safe_load((folder / 'release.yml').read_text())['jobs']
    job = jobs['publish']
    assert set(job['needs']) == set(jobs) - {'publish'} == {'build', 'check', 'tests'}
    assert "github.ref_type == 'tag'" in job['if'] and "'push'" in job['if']
    assert job['environment'] and job['permissions'] == {'id-token': 'write'}
    for path in folder.glob('*.yml'):
        text = path.read_text()
        assert 'secrets' not in text and 'password' not in text and 'api-token' not in text
        assert text.count('id-token: write') == (path.name == 'release.yml')
        for script in re.findall(r'run: (\.ci/\S+)', text):
            assert os.access(ROOT / script, os.X_OK), script


def requirements(entries):
    r"""Names of modules to import, extras of the package itself resolved."""
    for entry in entries:
        name = re.match(r'[\w-]+', entry).group().lower()
        if name == PROJECT['name']:
            for extra in re.search(r'\[(.*)\]', entry).group(1).split(','):
                yield from requirements(PROJECT['optional-dependencies'][extra])
        else:
            yield MODULES.get(name, name)


def test_extras_exist():
    assert {'pytest', 'optuna', 'sphinx', 'pyarrow', 'ruff'} <= set(
        requirements(PROJECT['optional-dependencies']['dev'])
    )
    pages = [ROOT / 'README.md', *(ROOT / 'docs').glob('*.rst')]
    for path in [*pages, *(ROOT / 'motor_geo').rglob('*.py')]:
        for extras in re.findall(
            r'pip install (?:-e )?"?(?:\.|motor-geo)\[(.*?)\]', path.read_text()
        ):
            assert set(extras.split(',')) <= set(PROJECT['optional-dependencies']), path.name


def entry_of(package, extra):
    r"""The requirement in `pyproject.toml`."""
    extras = PROJECT['optional-dependencies']
    entries = PROJECT['dependencies'] if extra is None else extras[extra]
    return [entry for entry in entries if re.match(r'[\w-]+', entry).group() == package]


def test_messages_name_requirements():
    r"""Each call of `needs` names packages of the extra, and no other message
    names a command that installs something.
    """
    calls = []
    for path in (ROOT / 'motor_geo').rglob('*.py'):
        text = path.read_text()
        assert 'pip install' not in text or path.name == 'extras.py', path.name
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and getattr(node.func, 'id', '') == 'needs':
                extra = [word.value for word in node.keywords if word.arg == 'extra']
                calls += [(package, *(extra or [ast.Constant(None)])) for package in node.args[1:]]
    literal = [[node.value for node in call] for call in calls if is_literal(call)]
    assert len(literal) >= 10 and len(calls) - len(literal) <= 5  # The others are below.
    known = [(logger.package, logger.package) for logger in LOGGERS.values()]
    known += [(package, 'serving') for package in ENDINGS.values()]
    known += [('huggingface_hub', 'hub'), ('safetensors', 'hub')]
    known += [('onnx', 'onnx'), ('onnxscript', 'onnx')]
    for package, extra in [*literal, *known]:
        assert len(entry_of(package, extra)) == 1, (package, extra)


def is_literal(nodes):
    return all(isinstance(node, ast.Constant) for node in nodes)


def test_every_import_is_a_requirement():
    required = set(requirements(PROJECT['dependencies']))
    extras = PROJECT['optional-dependencies']
    optional = set(requirements(sum((extras[name] for name in set(extras) - {'dev'}), [])))
    for path in (ROOT / 'motor_geo').rglob('*.py'):
        # What is optional is imported where it is needed; tests need pytest.
        at_top = required | ({'pytest'} if path.parent.name == 'testing' else set())
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module]
            for name in {name.split('.')[0] for name in names} - {'motor_geo'}:
                if name not in sys.stdlib_module_names:
                    known = at_top if node in tree.body else required | optional
                    assert name in known, f'{path.name} imports {name}'


def test_readme_counts_backbones():
    text = (ROOT / 'README.md').read_text()
    baselines = set(FITTED) - {'TokenALS'}
    assert f'**{len(MODELS)} backbones and {len(baselines)} baselines**' in text


def test_readme_links_exist():
    for page in ('README.md', 'CONTRIBUTING.md'):
        for target in re.findall(r'\]\(((?!https?:)[^)#]+)', (ROOT / page).read_text()):
            assert (ROOT / target).exists(), f'{page}: {target}'


def test_readme_has_a_place_for_results():
    text = (ROOT / 'README.md').read_text()
    assert re.search(r'<!-- results:start -->\n.*<!-- results:end -->', text, re.S)


def pins(name):
    lines = (ROOT / '.ci' / f'{name}.txt').read_text().splitlines()
    return dict(line.split('==') for line in lines if not line.startswith('#'))


#: What the tests of other versions install in addition to extras.
TOOLS = ('hypothesis', 'pytest-xdist')


def test_the_oldest_versions_are_tested():
    extras = [PROJECT['optional-dependencies'][name] for name in ('als', 'parquet', 'plot')]
    extras += [PROJECT['optional-dependencies'][name] for name in ('sweep', 'testing')]
    tools = [entry_of(name, 'dev')[0] for name in TOOLS]
    bounds = {}
    for requirement in [*PROJECT['dependencies'], *sum(extras, []), *tools]:
        name, bound = re.fullmatch(r'([\w-]+)(?:\[\w+\])?>=([\d.]+)(?:,.*)?', requirement).groups()
        bounds[name] = bound
    oldest, newest = pins('oldest'), pins('newest')
    assert oldest.keys() == newest.keys() == bounds.keys()
    for name, bound in bounds.items():
        assert f'{oldest[name]}.'.startswith(f'{bound}.'), name
    script = (ROOT / '.ci' / 'versions').read_text()
    assert (
        min(re.findall(r'number=3\.(\d+)', script), key=int)
        == re.search(r'>=3\.(\d+)', PROJECT['requires-python'])[1]
    )
