import ast
import importlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import motor_geo
from motor_geo.nn.models import MODELS

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
    assert yaml.safe_load((ROOT / 'CITATION.cff').read_text())['version'] == motor_geo.__version__
    changes = re.findall(r'^## \[(\S+)\]', (ROOT / 'CHANGELOG.md').read_text(), re.M)
    assert changes[0] == motor_geo.__version__


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


def test_readme_lists_all_backbones():
    rows = re.findall(r'^\| `(\w+)` \| \[', (ROOT / 'README.md').read_text(), re.M)
    assert sorted(rows) == sorted(MODELS)


def test_readme_links_exist():
    for page in ('README.md', 'CONTRIBUTING.md'):
        for target in re.findall(r'\]\(((?!https?:)[^)#]+)', (ROOT / page).read_text()):
            assert (ROOT / target).exists(), f'{page}: {target}'


def test_readme_has_a_place_for_results():
    text = (ROOT / 'README.md').read_text()
    assert re.search(r'<!-- results:start -->\n.*<!-- results:end -->', text, re.S)
