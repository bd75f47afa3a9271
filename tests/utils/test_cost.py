import warnings

import pytest
import torch

from motor_geo.utils.cost import LONG, SPEED, warn_of_time


def test_warning_of_time(monkeypatch):
    monkeypatch.setattr(torch, 'get_num_threads', lambda: 2)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        warn_of_time('It', 2 * SPEED * LONG, 'wait')
    with pytest.warns(UserWarning, match=r'^It takes about 601.0 seconds on this CPU; wait$'):
        warn_of_time('It', 2 * SPEED * (LONG + 1), 'wait')
    with pytest.warns(UserWarning, match=r'^It takes about 2,000.0 hours'):
        warn_of_time('It', 2 * SPEED * 7.2e6, 'wait')
    with pytest.warns(UserWarning, match=r'11.0 seconds'):
        warn_of_time('It', 22 * SPEED, 'wait', most=10)
