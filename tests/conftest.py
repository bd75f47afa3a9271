r"""Writes deviations from the golden cases to the JSON file that the
environment variable `GOLDEN_DEVIATIONS` names, for `benchmarks/backbones.py`.
"""

import json
import os

from tests.golden_case import DEVIATIONS


def pytest_sessionfinish():
    path = os.environ.get('GOLDEN_DEVIATIONS')
    if path is not None:
        with open(path, 'w') as file:
            json.dump([[*key, value] for key, value in DEVIATIONS.items()], file)
