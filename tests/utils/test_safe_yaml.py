import os
import time

import pytest
import yaml

from motor_geo.utils.errors import ConfigError
from motor_geo.utils.safe_yaml import load_yaml


def bomb(levels, width=9):
    lines = [f'a0: &a0 [{", ".join(["lol"] * width)}]']
    lines += [f'a{i}: &a{i} [{", ".join([f"*a{i - 1}"] * width)}]' for i in range(1, levels)]
    return '\n'.join(lines)


def test_plain_files(tmp_path):
    content = {'a': [1, 2.5, None, True, 'x'], 'b': {'c': 'd'}}
    path = tmp_path / 'a.yaml'
    shared = [1, 2]
    for entry in (content, {'a': shared, 'b': shared}, None, [], 'text'):
        path.write_text(yaml.safe_dump(entry))
        assert load_yaml(str(path)) == entry
    path.write_text('')
    assert load_yaml(str(path)) is None
    path.write_text('a: &a {x: 1}\nb: {<<: *a, y: 2}')
    assert load_yaml(str(path))['b'] == {'x': 1, 'y': 2}


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('a: !!int ""', 'does not fit its tag'),
        ('a: !!bool x', 'does not fit its tag'),
        ('a: !!timestamp x', 'does not fit its tag'),
        ('a: !!float x', 'not valid YAML'),
        ('a: !!python/object/apply:os.system [ls]', 'could not determine a constructor'),
        ('a: 2020-13-45', 'not valid YAML'),
        ('? [1]\n: 2\n? {a: 1}\n: 2', 'not valid YAML'),
        ('[' * 3000 + ']' * 3000, 'nested deeper than 30'),
        ('{a: ' * 200 + '1' + '}' * 200, 'nested deeper than 30'),
        (bomb(9), 'holds more than 100,000 values'),
        (bomb(60, 3), 'holds more than 100,000 values'),
        ('a: &a {<<: *a}', 'not valid YAML'),
        ('a: &a [*a]', 'refers to a value that contains it'),
        (f'a: {"9" * 5000}', 'a number has 5000 characters'),
        (f'a: 0x{"f" * 5000}', 'a number has 5002 characters'),
        ('a: [1', 'line 1, column 6'),
        ('a: *b', 'undefined alias'),
        ('a: 1\n--- \nb: 2', 'not valid YAML'),
        ('a: \x01', 'not valid YAML'),
    ],
)
def test_what_is_no_configuration_is_refused_at_once(tmp_path, text, message):
    path = tmp_path / 'a.yaml'
    path.write_text(text)
    start = time.process_time()
    with pytest.raises(ConfigError, match=message) as error:
        load_yaml(str(path))
    assert str(error.value).startswith(f"'{path}'") and time.process_time() - start < 5


def test_files_that_cannot_be_read(tmp_path):
    path = tmp_path / 'a.yaml'
    for make, message in [
        (lambda: None, 'cannot be read: No such file'),
        (lambda: path.symlink_to('nowhere'), "is a link to 'nowhere', which does not exist"),
        (lambda: os.mkfifo(path), 'is a pipe or a device'),
        (lambda: path.mkdir(), 'is a folder'),
    ]:
        make()
        with pytest.raises(ConfigError, match=message):
            load_yaml(str(path))
        if path.is_dir():
            path.rmdir()
        elif os.path.lexists(path):
            path.unlink()
    path.write_bytes(b'a: \xff')
    with pytest.raises(ConfigError, match='not valid YAML'):
        load_yaml(str(path))
    path.write_bytes(b'a: ' + b'x' * 2**20)
    with pytest.raises(ConfigError, match='larger than 1 MB'):
        load_yaml(str(path))
