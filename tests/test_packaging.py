import ast
import re
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
    'pyyaml': 'yaml',
    'torch-geometric': 'torch_geometric',
    'sentence-transformers': 'sentence_transformers',
}


@pytest.fixture(scope='module')
def metadata():
    setuptools = pytest.importorskip('setuptools')
    out = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setuptools, 'setup', lambda **kwargs: out.update(kwargs))
        patch.chdir(ROOT)
        code = compile((ROOT / 'setup.py').read_text(), str(ROOT / 'setup.py'), 'exec')
        exec(code, {'__file__': str(ROOT / 'setup.py')})
    return out


def test_versions_agree(metadata):
    assert metadata['version'] == motor_geo.__version__
    assert yaml.safe_load((ROOT / 'CITATION.cff').read_text())['version'] == motor_geo.__version__
    changes = re.findall(r'^## \[(\S+)\]', (ROOT / 'CHANGELOG.md').read_text(), re.M)
    assert changes[0] == motor_geo.__version__


def test_packages(metadata):
    folders = {path.parent for path in (ROOT / 'motor_geo').rglob('*.py')}
    expected = {'.'.join(folder.relative_to(ROOT).parts) for folder in folders}
    assert set(metadata['packages']) == expected


def test_every_import_is_a_requirement(metadata):
    def modules(requirements):
        names = [re.match(r'[\w-]+', entry).group().lower() for entry in requirements]
        return {MODULES.get(name, name) for name in names}

    required = modules(metadata['install_requires'])
    optional = modules(sum((v for k, v in metadata['extras_require'].items() if k != 'dev'), []))
    for path in (ROOT / 'motor_geo').rglob('*.py'):
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module]
            for name in {name.split('.')[0] for name in names} - {'motor_geo'}:
                if name not in sys.stdlib_module_names:
                    # What is optional is imported where it is needed.
                    known = required if node in tree.body else required | optional
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
