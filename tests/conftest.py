import os

import pytest
from hypothesis import HealthCheck, settings

if 'PYTEST_XDIST_WORKER' in os.environ:  # Each process has a core.
    os.environ.setdefault('OMP_NUM_THREADS', '1')

# How long a loaded machine takes to draw examples says nothing about the tests.
settings.register_profile('any speed', deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile('any speed')


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    r"""Tests of a file or a class stay together, since they share fixtures."""
    from xdist.scheduler import LoadScopeScheduling

    return LoadScopeScheduling(config, log) if config.option.dist == 'load' else None
