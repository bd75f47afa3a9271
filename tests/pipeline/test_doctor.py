import sys
from importlib.metadata import version

import torch

from motor_geo.pipeline import doctor
from motor_geo.utils import cache


def test_what_is_shown(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(cache, 'cache_dir', lambda: str(tmp_path / 'none'))
    monkeypatch.setitem(doctor.OPTIONAL, 'no-such-package', ('no_such_package', 'nothing'))
    monkeypatch.setenv('MOTOR_GEO_CACHE_GB', '2')
    assert doctor.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = {line[2:26].strip(): line[26:] for line in lines if line.startswith('  ')}
    assert rows['torch'] == version('torch') and rows['python'] in sys.version
    assert rows['no-such-package'].split() == ['missing', 'nothing']
    assert rows['threads'].startswith(f'{torch.get_num_threads()} of ')
    assert {'oneDNN', 'MKL', 'SparseTensor', 'device of auto'} <= set(rows)
    assert rows['folder'].endswith('none') and rows['entries'] == '0 (0.0 MB)'
    assert rows['limit'] == '2 GB (MOTOR_GEO_CACHE_GB)'


def test_the_cache_is_cleared(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(cache, 'cache_dir', lambda: str(tmp_path))
    calls = []

    def compute():
        calls.append(1)
        return {'x': torch.zeros(500_000)}

    (tmp_path / 'notes.txt').write_text('not of the cache')
    for _ in range(2):
        cache.cached('tokens', 'key', compute)
    assert len(calls) == 1
    assert doctor.cache()['entries'] == '1 (2.0 MB)'
    assert doctor.main(['--clear-cache']) == 0
    assert 'deleted cache entries: 1 (2.0 MB) in' in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ['notes.txt']
    cache.cached('tokens', 'key', compute)
    assert len(calls) == 2
