r"""A backbone outside of the package, from `docs/backbone.rst` alone."""

import json
import os

import pytest
import torch
from torch_geometric.data import HeteroData

from motor_geo.testing.graphs import NUM_ITEMS, new_items, prepare, small_graph
from tests import forks
from tests.test_readme import blocks


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('outside')
    model, test = blocks('docs/backbone.rst')[:2]
    assert len(test.strip().splitlines()) == 6  # Two imports, two empty lines, and two more.
    (folder / 'my_package.py').write_text(model)
    (folder / 'test_my_package.py').write_text(test)
    return folder


def start(folder, *arguments):
    env = {**os.environ, 'PYG_HOME': str(folder / 'pyg')}
    return forks.run('-m', *arguments, cwd=folder, env=env)


def test_contract(folder):
    # The slowest of them run for the fourteen of the package.
    few = 'not (learns or autocast or every_item_encoder)'
    done = start(folder, 'pytest', '-q', '-p', 'no:cacheprovider', '-k', few)
    assert done.returncode == 0, done.stdout[-2000:]
    assert ' passed' in done.stdout


def test_run_and_recommend(folder):
    size = ['--data.num_users', '60', '--data.num_items', '40', '--data.num_interactions', '400']
    flags = ['--model', 'my_package.MyGNN', '--model.num_layers', '1', '--items', 'specific']
    small = ['--tokenizer.codebook_size', '8', '--epochs', '1', '--out', 'mine']
    done = start(folder, 'motor_geo.run', *flags, *size, *small)
    assert done.returncode == 0, done.stderr
    assert json.loads((folder / 'mine/result.json').read_text())['num_item_parameters'] == 0
    done = start(folder, 'motor_geo.recommend', 'mine', '--k', '3')
    assert done.returncode == 0, done.stderr
    assert len((folder / 'mine/recs.csv').read_text().splitlines()) > 60


def execute(*numbers):
    names = {'__name__': 'page'}
    for number in numbers:
        exec(blocks('docs/backbone.rst')[number], names)
    return names


def test_a_transform_of_ones_own():
    UserCommonItems = execute(0, 3)['UserCommonItems']
    data = HeteroData()
    data['user'].num_nodes, data['item'].num_nodes = 4, 3
    # Users 0 and 1 have two items in common, 1 and 2 one, and 3 has none.
    pairs = [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2), (2, 2)]
    data['user', 'rates', 'item'].edge_index = torch.tensor(pairs).t().contiguous()
    for least, expected in [
        (1, {(0, 1), (1, 0), (1, 2), (2, 1)}),
        (2, {(0, 1), (1, 0)}),
        (3, set()),
    ]:
        out = UserCommonItems(least)(data)['user', 'common_items', 'user'].edge_index
        assert set(map(tuple, out.t().tolist())) == expected
    assert ('user', 'common_items', 'user') not in data.edge_types


def test_a_backbone_with_a_transform_of_ones_own():
    names = execute(0, 3)

    class Both(names['MyGNN']):
        transforms = (*names['MyGNN'].transforms, names['UserCommonItems'](least=2))

    data = prepare(Both, small_graph())
    assert data['user', 'common_items', 'user'].edge_index.size(1) > 0
    more = new_items(Both, data)
    assert Both(more, channels=4)(more).item.shape == (NUM_ITEMS + 4, 4)


def test_memo_follows_the_graph():
    names = execute(0, 2, 4)
    data, ItemMean = names['data'], names['ItemMean']
    model = ItemMean(data, channels=4)
    item = model.encode_items(data)
    user, items = data['user', 'rates', 'item'].edge_index
    expected = model.user_embedding[7] + item[items[user == 7]].mean(dim=0)
    torch.testing.assert_close(model(data).user[7], expected)
    data['item', 'rated_by', 'user'].edge_index = torch.tensor([[3, 5], [7, 7]])
    expected = model.user_embedding[7] + (item[3] + item[5]) / 2
    torch.testing.assert_close(model(data).user[7], expected)
