import copy
import io
import pickle

import pytest
import torch
from torch import nn

from motor_geo.nn.name_dict import NameDict

#: What dictionaries of modules refuse, and names that a careless escape would make one.
NAMES = [
    'image',
    'clip.vit-b32',
    'clip#vit-b32',
    'clip%2Evit-b32',
    'clip%252Evit-b32',
    'type',
    '<type>',
    '%type',
    'keys',
    'items',
    'float',
    'training',
    'forward',
    '_modules',
    '_attributes',
    'a<b',
    'ä b',
    '',
    '%',
    '.',
]


def modules():
    return NameDict({name: nn.Linear(k + 1, 2) for k, name in enumerate(NAMES)})


def parameters():
    return NameDict({name: nn.Parameter(torch.rand(k + 1)) for k, name in enumerate(NAMES)})


@pytest.mark.parametrize('build', [modules, parameters])
def test_any_name(build):
    entries = build()
    assert list(entries) == NAMES and len(entries) == len(NAMES)
    assert [name for name, _ in entries.items()] == NAMES
    assert len(set(map(id, entries.values()))) == len(NAMES)
    assert all(entries[name] is value for name, value in entries.items())
    assert 'type' in entries and 'text' not in entries
    with pytest.raises(KeyError):
        entries['text']
    assert entries.train() is entries and entries.training  # A module like any other.


def test_values_stay_with_their_names():
    for k, (name, lin) in enumerate(modules().items()):
        assert lin.in_features == k + 1, name
    for k, (name, value) in enumerate(parameters().items()):
        assert value.numel() == k + 1, name


@pytest.mark.parametrize('build', [modules, parameters])
def test_state_dict_copies_and_pickles(build):
    entries, other = build(), build()
    file = io.BytesIO()
    torch.save(entries.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    for clone in (other, copy.deepcopy(entries), pickle.loads(pickle.dumps(entries))):
        assert list(clone) == NAMES
        for a, b in zip(clone.parameters(), entries.parameters()):
            assert a is not b and torch.equal(a, b)
    assert len(list(entries.parameters())) == len(set(entries.state_dict()))


def test_plain_names_are_attributes():
    entries = NameDict({'image': nn.Linear(3, 2), 'clip.vit': nn.Linear(4, 2)})
    assert list(entries.state_dict()) == [
        'image.weight',
        'image.bias',
        'clip%2Evit.weight',
        'clip%2Evit.bias',
    ]
    assert entries.image is entries['image']
