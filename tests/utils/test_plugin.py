import sys

import pytest

from motor_geo.utils.plugin import import_class


@pytest.fixture
def module(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)

    def write(name, text):
        path = tmp_path / f'{name}.py'
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)

    yield write
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_from_the_current_folder(module):
    module('plugin_good', 'class Mine(dict): pass\nMine.module = __name__')
    module('plugin_package/inner', 'class Mine(dict): pass')
    path = list(sys.path)
    assert import_class('plugin_good.Mine', dict).module == 'plugin_good'
    assert issubclass(import_class('plugin_package.inner.Mine', dict), dict)
    assert sys.path == path


@pytest.mark.parametrize(
    'path, message',
    [
        (
            'plugin_missing.Mine',
            "^cannot be imported: there is no module 'plugin_missing', neither",
        ),
        ('plugin_bad.no.Mine', "^cannot be imported: there is no module 'plugin_bad.no', neither"),
        ('plugin_bad.Min', "^cannot be imported: the module 'plugin_bad' has no 'Min'; did you me"),
        ('plugin_bad.Other', '^is another class; expected a class derived from dict$'),
        ('plugin_bad.value', '^is a int; expected a class derived from dict$'),
        (
            'plugin_import.Mine',
            "^cannot be imported: 'plugin_import.py', line 2: ModuleNotFoundError: No module named",
        ),
        ('plugin_raise.Mine', "'plugin_raise.py', line 3: ZeroDivisionError: division by zero$"),
        ('plugin_syntax.Mine', "'plugin_syntax.py', line 1: SyntaxError: "),
    ],
)
def test_errors_are_a_sentence(module, path, message):
    module('plugin_bad', 'class Mine(dict): pass\nclass Other: pass\nvalue = 3')
    module('plugin_import', '\nimport plugin_that_is_missing')
    module('plugin_raise', 'def f():\n    # Here.\n    return 1 / 0\nf()')
    module('plugin_syntax', 'class Mine(')
    with pytest.raises(ValueError, match=message) as error:
        import_class(path, dict)
    assert '\n' not in str(error.value)
