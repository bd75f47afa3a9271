import csv
import os

import numpy as np
import pytest
import torch

from motor_geo import recommend as command
from motor_geo import run as run_module
from motor_geo.data import OPQTokenizer
from motor_geo.pipeline import new_items as module
from motor_geo.pipeline.assemble import encode_items
from motor_geo.pipeline.folder import load_run
from motor_geo.pipeline.recommend import Recommendations, recommend
from motor_geo.pipeline.write_lists import write
from motor_geo.typing import ITEM

NUM_USERS, NUM_ITEMS, NUM_COLD, K = 25, 40, 4, 7
SMALL = [
    *('--tokenizer.num_tokens', '2', '--tokenizer.codebook_size', '16', '--graph.k', '4'),
    *('--svd.channels', '8'),
    *(
        '--model.channels',
        '16',
        '--epochs',
        '3',
        '--batch_size',
        '32',
        '--trainer.progress',
        'false',
    ),
    *('--tokenizer.cache', 'false', '--graph.cache', 'false', '--threads', '1'),
]
RUNS = {
    'BPR': ('--model', 'BPR', '--items', 'specific'),
    'LightGCN': ('--model', 'LightGCN', '--items', 'agnostic'),
    'FREEDOM': ('--model', 'FREEDOM', '--items', 'specific'),
    'features': ('--model', 'LightGCN', '--items', 'features'),
    'behavior': ('--model', 'LightGCN', '--behavior', 'true', '--svd.channels', '4'),
    'id': ('--model', 'BPR', '--items', 'id'),
}


@pytest.fixture(scope='module')
def shop(tmp_path_factory):
    r"""A folder with string ids; the last items have no interaction."""
    path = tmp_path_factory.mktemp('data') / 'shop'
    path.mkdir()
    rng = np.random.default_rng(0)
    rows = []
    for user in range(NUM_USERS):
        items = rng.permutation(NUM_ITEMS - NUM_COLD)[:8]
        rows += [(f'00{user}', f'ä {item}', max(0, j - 5)) for j, item in enumerate(items)]
    rows += [('00greedy', f'ä {item}', 0) for item in range(3, NUM_ITEMS - 3)]
    with open(path / 'shop.inter', 'w', encoding='utf-8') as file:
        file.write('userID\titemID\tx_label\n')
        file.writelines('\t'.join(map(str, row)) + '\n' for row in rows)
    with open(path / 'items.tsv', 'w', encoding='utf-8') as file:
        file.write('itemID\n' + ''.join(f'ä {item}\n' for item in range(NUM_ITEMS)))
    for name, width in (('text', 8), ('image', 12)):
        x = rng.standard_normal((NUM_ITEMS, width)).astype(np.float32)
        np.save(path / f'{name}_feat.npy', x)
    return path


@pytest.fixture(scope='module')
def runs(shop, tmp_path_factory):
    folder = tmp_path_factory.mktemp('runs')
    for name, flags in RUNS.items():
        out = str(folder / name)
        assert run_module.main(['--data', str(shop), '--out', out, *SMALL, *flags]) == 0
    return folder


@pytest.fixture(scope='module')
def seen(shop):
    out = {}
    with open(shop / 'shop.inter', encoding='utf-8') as file:
        for row in csv.DictReader(file, delimiter='\t'):
            if row['x_label'] == '0':
                out.setdefault(row['userID'], set()).add(row['itemID'])
    return out


def read(path, delimiter=','):
    with open(path, encoding='utf-8', newline='') as file:
        return list(csv.DictReader(file, delimiter=delimiter))


@torch.no_grad()
def brute_force(run, user, seen):
    r"""All items that a user has not seen, best first, with scores."""
    embeddings = run.model(run.data)
    row = list(run.dataset.user_ids).index(user)
    score = embeddings.item.double() @ embeddings.user[row].double()
    pairs = [(float(s), str(item)) for s, item in zip(score, run.dataset.item_ids)]
    trained = set.union(*seen.values())  # The others have a random vector where IDs are read.
    pairs = [pair for pair in pairs if pair[1] in trained or run.config.items['name'] != 'id']
    return sorted((pair for pair in pairs if pair[1] not in seen[user]), reverse=True)


@pytest.mark.parametrize('name', list(RUNS))
def test_lists_equal_brute_force(runs, seen, name, capsys):
    assert command.main([str(runs / name), '--k', str(K), '--exclude', 'train']) == 0
    text = capsys.readouterr().out
    run = load_run(str(runs / name))
    rows = read(runs / name / 'recs.csv')
    assert f"{len(rows)} rows for {NUM_USERS + 1} users written to '" in text
    by_user = {}
    for row in rows:
        by_user.setdefault(row['userID'], []).append(row)
    assert list(by_user) == list(run.dataset.user_ids)  # Raw ids, leading zeros too.
    for user, found in by_user.items():
        expected = brute_force(run, user, seen)[:K]
        assert [int(row['rank']) for row in found] == list(range(1, len(expected) + 1))
        assert [row['itemID'] for row in found] == [item for _, item in expected]
        scores = [float(row['score']) for row in found]
        assert scores == pytest.approx([score for score, _ in expected], abs=1e-5)
    assert len(by_user['00greedy']) == (3 if name == 'id' else 6)  # Nothing else is left.


def test_validation_and_test_items_are_recommended_on_demand(runs, seen, shop):
    result = recommend(load_run(str(runs / 'BPR')), ['000'], k=NUM_ITEMS, exclude='train')
    valid = np.isfinite(result.score[0])
    assert set(result.item[0][valid]) == {f'ä {i}' for i in range(NUM_ITEMS)} - seen['000']


def test_users_of_a_file(runs, tmp_path, capsys):
    users = tmp_path / 'users.txt'
    users.write_text('\ufeff007\n\n0011 \n007\n', encoding='utf-8')
    out = tmp_path / 'new' / 'r.csv'
    flags = ['--users', str(users), '--k', '2', '--out', str(out)]
    assert command.main([str(runs / 'BPR'), *flags]) == 0
    assert [row['userID'] for row in read(out)] == ['007', '007', '0011', '0011']
    users.write_text('007\n\nnobody\n')
    assert command.main([str(runs / 'BPR'), *flags]) == 2
    error = capsys.readouterr().err
    assert f"'{users}', line 3: the user 'nobody' is not in 'shop'" in error and "'000'" in error
    with pytest.raises(ValueError, match="'nobody' is not in 'shop'"):
        recommend(load_run(str(runs / 'BPR')), ['nobody'])


def test_paths_in_the_home_folder(runs, tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'BPR').symlink_to(runs / 'BPR')
    (tmp_path / 'users').write_text('007\n')
    flags = ['--users', '~/users', '--out', '~/r.csv', '--exclude', 'all', '--k', '1']
    assert command.main(['~/BPR', *flags]) == 0
    assert [row['userID'] for row in read(tmp_path / 'r.csv')] == ['007']
    assert '~' not in os.listdir(tmp_path)


def test_data_that_moved(runs, shop, tmp_path, capsys):
    (tmp_path / 'moved').symlink_to(shop)
    out = tmp_path / 'r.csv'
    flags = ['--data', str(tmp_path / 'moved'), '--k', '2', '--out', str(out)]
    assert command.main([str(runs / 'BPR'), *flags]) == 0
    found = read(out)
    assert command.main([str(runs / 'BPR'), '--k', '2', '--out', str(out)]) == 0
    assert read(out) == found and len(found) == 2 * (NUM_USERS + 1)
    capsys.readouterr()
    assert command.main([str(runs / 'BPR'), '--data', 'none']) == 2
    assert "error: --data: 'none' does not exist" in capsys.readouterr().err


def test_interrupted(runs, monkeypatch, capsys):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr('motor_geo.pipeline.folder.load_run', interrupt)
    assert command.main([str(runs / 'BPR')]) == 130
    assert tuple(capsys.readouterr()) == ('\ninterrupted\n', '')


def test_formats_are_equal(runs, tmp_path):
    parquet = pytest.importorskip('pyarrow.parquet')
    for ending in ('csv', 'tsv', 'parquet'):
        out = str(tmp_path / f'r.{ending}')
        assert command.main([str(runs / 'LightGCN'), '--k', '3', '--out', out]) == 0
    rows = read(tmp_path / 'r.csv')
    assert rows == read(tmp_path / 'r.tsv', '\t') and len(rows) == 3 * (NUM_USERS + 1)
    table = parquet.read_table(tmp_path / 'r.parquet').to_pylist()
    assert [{key: str(value) for key, value in row.items() if key != 'score'} for row in table] == [
        {key: value for key, value in row.items() if key != 'score'} for row in rows
    ]
    assert [row['score'] for row in table] == [np.float32(row['score']) for row in rows]
    assert b'\r' not in (tmp_path / 'r.csv').read_bytes()


def test_awkward_ids_survive(tmp_path):
    result = Recommendations(
        np.array(['a,"b"', 'c']),
        np.array([['x\ty', 'z'], ["'", '']]),
        np.array([[2.0, 1.0], [0.5, -np.inf]], np.float32),
    )
    for ending, delimiter in (('csv', ','), ('tsv', '\t')):
        path = str(tmp_path / f'r.{ending}')
        assert write(result, path) == 3
        found = [(row['userID'], row['itemID'], row['score']) for row in read(path, delimiter)]
        assert found == [('a,"b"', 'x\ty', '2.0'), ('a,"b"', 'z', '1.0'), ('c', "'", '0.5')]


def arrivals(shop, path, rows, ids=None):
    path.mkdir()
    for name in ('text', 'image'):
        np.save(path / f'{name}_feat.npy', np.load(shop / f'{name}_feat.npy')[rows])
    if ids is not None:
        (path / 'items.tsv').write_text('itemID\n' + ''.join(f'{i}\n' for i in ids))
    return str(path)


def scores(result):
    return {
        (user, item): score
        for user, items, values in zip(result.user, result.item, result.score)
        for item, score in zip(items, values)
    }


@pytest.mark.parametrize('name', ['BPR', 'LightGCN', 'features', 'behavior'])
def test_new_items_score_as_their_twins(runs, shop, tmp_path, name):
    r"""An item without edges gets the score of a catalog item with the same
    features and without edges; in BPR, edges do not matter.
    """
    cold = list(range(NUM_ITEMS - NUM_COLD, NUM_ITEMS))
    cold.remove(NUM_ITEMS - 4)  # The greedy user has an edge to it.
    twins = [0, 5, *cold] if name == 'BPR' else cold
    run = load_run(str(runs / name))
    folder = arrivals(shop, tmp_path / 'new', twins, [f'twin {i}' for i in twins])
    found = scores(recommend(run, k=100, new_items=folder))
    assert len(found) == len(twins) * (NUM_USERS + 1)
    with torch.no_grad():
        embeddings = run.model(run.data)
    expected = (embeddings.user.double() @ embeddings.item.double().t()).detach().numpy()
    for row, user in enumerate(run.dataset.user_ids):
        for twin in twins:
            assert found[user, f'twin {twin}'] == pytest.approx(expected[row, twin], abs=1e-6)


@pytest.mark.parametrize('name', ['BPR', 'FREEDOM'])
def test_new_items_among_all_others(runs, shop, seen, tmp_path, name, capsys):
    run = load_run(str(runs / name))
    folder = arrivals(shop, tmp_path / 'new', [0, 5], ['A', 'B'])

    def finite(**options):
        found = recommend(run, k=100, exclude='train', **options)
        found = scores(found._replace(item=np.where(np.isfinite(found.score), found.item, '')))
        return {pair: value for pair, value in found.items() if np.isfinite(value)}

    expected = {**finite(), **finite(new_items=folder)}
    mixed = finite(new_items=folder, mix=True)
    assert mixed.keys() == expected.keys()
    assert all(mixed[pair] == pytest.approx(value, abs=1e-5) for pair, value in expected.items())
    flags = [str(runs / name), '--new-items', folder, '--mix', '--k', '100']
    assert command.main(flags) == 0
    assert {'A', 'ä 1'} <= {row['itemID'] for row in read(runs / name / 'recs.csv')}
    capsys.readouterr()
    assert command.main([str(runs / name), '--mix']) == 2
    assert "expected 'new_items' (--new-items)" in capsys.readouterr().err


@pytest.mark.parametrize('name', list(RUNS))
def test_new_users_of_a_file(runs, seen, tmp_path, name, capsys):
    run, path, out = load_run(str(runs / name)), tmp_path / 'users.tsv', tmp_path / 'r.csv'
    path.write_text('userID\titemID\nann\tä 1\nann\tä 2\nbob\tä 7\nann\tä 1\n', encoding='utf-8')
    flags = ['--new-users', str(path), '--k', '5', '--out', str(out)]
    assert command.main([str(runs / name), *flags]) == 0
    rows = read(out)
    assert [row['userID'] for row in rows] == ['ann'] * 5 + ['bob'] * 5
    assert {row['source'] for row in rows} == {'fold-in'}
    assert not {'ä 1', 'ä 2'} & {row['itemID'] for row in rows[:5]}
    again = recommend(run, k=5, interactions={'ann': ['ä 1', 'ä 2'], 'bob': ['ä 7']})
    assert [row['itemID'] for row in rows] == again.item.reshape(-1).tolist()
    pairs = recommend(run, k=5, interactions=[('bob', 'ä 7')])
    assert pairs.item[0].tolist() == again.item[1].tolist()
    # Who was there already has what is known of her, too.
    found = recommend(run, k=50, interactions={'000': ['ä 1']})
    assert not (seen['000'] | {'ä 1'}) & set(found.item[0][np.isfinite(found.score[0])])
    path.write_text('userID\titemID\nann\tä 1\nann\twhat\n', encoding='utf-8')
    capsys.readouterr()
    assert command.main([str(runs / name), *flags]) == 2
    error = capsys.readouterr().err
    assert f"'{path}', line 3: the item 'what' is not in 'shop'; expected raw ids such" in error


def test_new_items_of_freedom_have_neighbors(runs, shop, tmp_path):
    run = load_run(str(runs / 'FREEDOM'))
    folder = arrivals(shop, tmp_path / 'new', [1, 38])
    found = recommend(run, ['000'], k=5, new_items=folder)
    assert sorted(found.item[0]) == ['new_0', 'new_1'] and found.score[0, 0] >= found.score[0, 1]
    data, _ = module.with_new_items(run, folder)
    with torch.no_grad():
        before, after = run.model(run.data), run.model(data)
    torch.testing.assert_close(after.item[:NUM_ITEMS], before.item)  # Old items stay.
    torch.testing.assert_close(after.user, before.user)
    # By hand: a new item is itself and its neighbors, and the first of these is its twin.
    encoded = run.model.encode_items(data)
    expected = encoded[41] / 3  # No edges: the mean over three layers.
    for m in ('image', 'text'):
        graph = data['item', f'similar_{m}', 'item']
        mine = graph.edge_index[1] == 41
        assert 38 in graph.edge_index[0, mine] and int(mine.sum()) == 4
        part = graph.edge_weight[mine] @ encoded[graph.edge_index[0, mine]]
        expected = expected + (0.1 if m == 'image' else 0.9) * part
    torch.testing.assert_close(after.item[41], expected)


def test_new_items_without_a_modality_have_its_mean(runs, shop, tmp_path):
    run = load_run(str(runs / 'features'))
    folder = arrivals(shop, tmp_path / 'new', [3, 4])
    np.save(tmp_path / 'new' / 'image_mask.npy', np.array([False, True]))
    data, ids = module.with_new_items(run, folder)
    mean = np.load(shop / 'image_feat.npy').astype(float).mean(0)
    np.testing.assert_allclose(data[ITEM].x_image[40], mean, rtol=1e-5, atol=1e-6)
    assert torch.equal(data[ITEM].x_image[41], data[ITEM].x_image[4])
    assert torch.equal(data[ITEM].x_text[40:], data[ITEM].x_text[3:5])
    assert list(ids) == ['new_0', 'new_1']


def test_new_items_without_a_modality_have_behavior_of_the_other(runs, shop, tmp_path):
    run = load_run(str(runs / 'behavior'))
    rows = list(range(12))
    folder = arrivals(shop, tmp_path / 'new', rows)
    mask = np.arange(12) % 3 > 0
    np.save(tmp_path / 'new' / 'image_mask.npy', mask)
    data, _ = module.with_new_items(run, folder)
    features = {m: data[ITEM][f'x_{m}'][-12:] for m in ('image', 'text')}
    masks = {'image': torch.from_numpy(mask)}
    expected = encode_items(run.config, run.data, run.tokenizer, features, masks)
    assert torch.equal(data[ITEM].token_id[-12:], expected)
    other = encode_items(run.config, run.data, run.tokenizer, features, {})
    assert not torch.equal(expected[:, :2], other[:, :2])


def test_refused_new_items(runs, shop, tmp_path, capsys):
    def message(folder, name='BPR'):
        assert command.main([str(runs / name), '--new-items', str(folder)]) == 2
        error = capsys.readouterr().err
        assert error.startswith('error: ') and error.count('\n') == 1
        return error

    folder = tmp_path / 'new'
    assert 'The folder of new items' in message(folder) and 'image, text' in message(folder)
    arrivals(shop, folder, [0, 1], ['a'])
    assert 'A model with ID embeddings has no vector' in message(folder, 'id')
    assert "items.tsv' has 1 rows, but the features have 2" in message(folder)
    np.save(folder / 'text_feat.npy', np.ones((2, 3)))
    assert "text_feat.npy': expected at least one row of 8 columns" in message(folder)
    np.save(folder / 'text_feat.npy', np.ones((3, 8)))
    assert "text_feat.npy': expected 2 rows" in message(folder)
    np.save(folder / 'text_feat.npy', np.full((2, 8), np.nan))
    assert "text_feat.npy': row 0 holds NaN" in message(folder)
    os.remove(folder / 'text_feat.npy')
    assert "text_feat.npy' is missing; expected features of image, text" in message(folder)


def test_tokenizer_is_loaded_not_fitted(runs, monkeypatch):
    monkeypatch.setattr(OPQTokenizer, 'fit', None)
    run = load_run(str(runs / 'BPR'))
    assert run.tokenizer.is_fitted and not run.model.training


def test_parts_are_the_whole(runs, tmp_path, capsys):
    def rows(name, *flags):
        out = tmp_path / f'{name}.csv'
        assert command.main([str(runs / 'BPR'), '--out', str(out), *flags]) == 0
        with open(out, encoding='utf-8', newline='') as file:
            return [(row['userID'], row['rank'], row['itemID']) for row in csv.DictReader(file)]

    whole = rows('whole')
    parts = [rows(str(i), '--part', f'{i}/4') for i in (1, 2, 3, 4)]
    assert sum(parts, []) == whole and min(map(len, parts)) > 0
    assert len({user for part in parts for user in {row[0] for row in part}}) == sum(
        len({row[0] for row in part}) for part in parts
    )
    for text in ('0/4', '5/4', '4', 'a/b', '1/', '1/4/2'):
        assert command.main([str(runs / 'BPR'), '--part', text]) == 2
        assert 'expected a part such as 3/8' in capsys.readouterr().err
