r"""The Python of the README and of pages of the documentation runs."""

import re
import textwrap
from functools import partial
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]


def blocks(page):
    text = (ROOT / page).read_text()
    if page.endswith('.md'):
        return re.findall(r'^```python\n(.*?)^```', text, re.M | re.S)
    found = re.findall(r'^\.\. code-block:: python\n\n((?:    .*\n|\n)+)', text, re.M)
    return [textwrap.dedent(block) for block in found]


@pytest.fixture
def execute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('PYG_HOME', str(tmp_path))

    def run(page, *without):
        names = {'__name__': 'page'}
        for number, block in enumerate(blocks(page), start=1):
            if any(word in block for word in without):
                continue
            exec(compile(block, f'{page}, block {number}', 'exec'), names)
        return names

    return run


def test_readme(execute):
    names = execute('README.md')
    assert names['score'].shape == (2000, 1500)
    assert names['unseen'].shape == (1, 64)
    parameters = [p for part in ('user', 'item', 'conv') for p in names[part].parameters()]
    assert not any(1500 in p.shape for p in parameters)
    assert len([line for line in blocks('README.md')[0].splitlines() if line]) <= 14
    names['score'].sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in parameters)


def test_readme_commands():
    text = (ROOT / 'README.md').read_text()
    assert text.count('pip install -e . && python -m motor_geo.run\n') == 1
    assert text.count('pip install -e ".[dev]" && pytest -n auto\n') == 1


def test_quickstart(execute):
    names = execute('docs/quickstart.rst')
    assert 0 < names['measured'].metrics['recall@20'] < 1
    assert names['item'].shape == (3, 5)
    assert names['x'].shape == (32, 64)
    assert names['x_new'].shape == (1, 64)


def test_new_backbone(execute):
    model, data = (execute('docs/backbone.rst', 'my_package')[name] for name in ('model', 'data'))
    assert model(data).item.shape == (400, 64)


def test_export(execute):
    names = execute('docs/export.rst', 'torch.compile', 'onnx')
    assert names['best'].shape == (2, 20)
    assert names['x'].shape == (3, 32)
    torch.testing.assert_close(names['x_exported'], names['x'])
    for n in (0, 1, 1000):
        token_id = torch.randint(64, (n, 8), dtype=torch.uint8)
        expected = names['encoder'](token_id)
        torch.testing.assert_close(names['exported'](token_id), expected)
    loaded = names['empty'].eval()(names['data'])
    torch.testing.assert_close(loaded.item, names['item'].clone())


def test_compile(execute, monkeypatch):
    # Without code generation, which needs a C++ compiler and takes long.
    monkeypatch.setattr(torch, 'compile', partial(torch.compile, backend='aot_eager'))
    names = execute('docs/export.rst', 'onnx')
    torch.testing.assert_close(names['x_compiled'], names['x'])


def test_onnx(execute):
    for package in ('onnx', 'onnxscript', 'onnxruntime'):
        pytest.importorskip(package, reason=f'{package} is not installed')
    names = execute('docs/export.rst', 'torch.compile')
    torch.testing.assert_close(torch.from_numpy(names['x_onnx']), names['x'].clone())
    for n in (0, 1, 1000):
        token_id = torch.randint(64, (n, 8), dtype=torch.uint8)
        (x,) = names['session'].run(['x'], {'token_id': token_id.numpy()})
        torch.testing.assert_close(torch.from_numpy(x), names['encoder'](token_id).detach())
