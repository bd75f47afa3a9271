import os

if 'PYTEST_XDIST_WORKER' in os.environ:  # Each process has a core.
    os.environ.setdefault('OMP_NUM_THREADS', '1')
