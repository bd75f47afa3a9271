import re

import pytest
import torch

from motor_geo.data import SyntheticMultimodal
from motor_geo.data.datasets.bundle import BundledDataset, content_of, write_bundle


@pytest.fixture(scope='module')
def content():
    dataset = SyntheticMultimodal(num_users=30, num_items=20, num_interactions=150)
    tokens = torch.arange(40).view(20, 2) % 4
    edge_index = dataset.data['user', 'rates', 'item'].edge_index
    return content_of(dataset, tokens, (30, 20, edge_index), ['a'] * 20)


def test_a_bundle_restores_the_data_set(content, tmp_path):
    write_bundle(content, str(tmp_path))
    dataset = BundledDataset(str(tmp_path))
    assert (dataset.num_users, dataset.num_items) == (30, 20)
    assert torch.equal(dataset[0]['user', 'rates', 'item'].edge_index, content['edge_index'])
    assert torch.equal(dataset.token_id, content['token_id'])
    assert dataset.fingerprint == content['fingerprint']


NAMES = {
    'an unknown item': lambda c: {'edge_index': c['edge_index'] + 20},
    'a negative user': lambda c: {'edge_index': c['edge_index'] - 30},
    'floats as edges': lambda c: {'edge_index': c['edge_index'].float()},
    'transposed pairs': lambda c: {'dropped': torch.zeros(3, 2, dtype=torch.long)},
    'floats as held-out pairs': lambda c: {'held_out': {**c['held_out'], 'val': torch.zeros(3)}},
    'a missing split': lambda c: {'held_out': {'val': c['held_out']['val']}},
    'too few users': lambda c: {'user_ids': c['user_ids'][:5]},
    'too few features': lambda c: {'features': {m: x[:5] for m, x in c['features'].items()}},
    'NaN': lambda c: {'features': {m: x * torch.nan for m, x in c['features'].items()}},
    'too few tokens': lambda c: {'token_id': c['token_id'][:5]},
    'floats as tokens': lambda c: {'token_id': c['token_id'].float()},
    'too few flags': lambda c: {'known': (c['known'][0], c['known'][1][:3])},
    'a missing flag': lambda c: {'known': c['known'][:1]},
    'too few titles': lambda c: {'titles': ['a']},
    'a missing tensor': lambda c: {'edge_index': None},
    'too many fitted users': lambda c: {'fitted': (31, 20, c['edge_index'])},
    'unknown candidates': lambda c: {'candidates': {'val': torch.tensor([20]), 'test': None}},
    'an unknown key': lambda c: {'more': 1},
}


@pytest.mark.parametrize('name', NAMES)
def test_parts_that_do_not_match_are_refused(content, tmp_path, name):
    write_bundle({**content, **NAMES[name](content)}, str(tmp_path))
    path = re.escape(f"'{tmp_path / 'bundle.pt'}'")
    with pytest.raises(ValueError, match=f'{path} is damaged: expected the data of a run'):
        BundledDataset(str(tmp_path))
