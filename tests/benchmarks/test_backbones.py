import json
import os.path as osp

from benchmarks.backbones import render

ROOT = osp.join(osp.dirname(__file__), '..', '..')


def test_backbones_without_a_golden_case_have_a_row():
    count = {'id': 200, 'specific': 100}
    numbers = {
        'deviations': {'BPR': {'float64': {'outputs': 0.0, 'losses': 2e-9}}},
        'parameters': {'BPR': count, 'Mine': count},
        'cost': {},
    }
    page = render(numbers)
    assert '#motor_geo.nn.models.BPR) | 0 | 2e-09 |  |  |  |  |' in page
    assert '#motor_geo.nn.models.Mine) | 200 | 100 | 50.00 % |' in page


def test_committed_page_is_made_from_the_numbers():
    with open(osp.join(ROOT, 'docs', 'backbones.json')) as file:
        numbers = json.load(file)
    with open(osp.join(ROOT, 'docs', 'backbones.md')) as file:
        assert file.read() == render(numbers)
