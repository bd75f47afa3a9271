import os
import warnings

import numpy as np
import pytest
import torch

from motor_geo.pipeline.folder import load_run
from motor_geo.pipeline.new_items import with_new_items
from motor_geo.pipeline.recommend import prepare, recommend
from motor_geo.pipeline.train import run
from motor_geo.pipeline.write_lists import write
from motor_geo.typing import ITEM, RATES
from tests.pipeline.shop import NUM_ITEMS, NUM_USERS, SMALL, make_shop

USERS = [f'u{user}' for user in range(NUM_USERS)]


@pytest.fixture(scope='module')
def shop(tmp_path_factory):
    return make_shop(tmp_path_factory.mktemp('data') / 'shop')


@pytest.fixture(scope='module')
def loaded(shop, tmp_path_factory):
    out = str(tmp_path_factory.mktemp('runs') / 'a')
    run({**SMALL, 'data': shop, 'items': 'specific', 'out': out}, progress=False)
    return load_run(out)


@pytest.fixture(scope='module')
def bought(shop):
    with open(f'{shop}/shop.inter') as file:
        return [tuple(line.split()) for line in file][1:]


def lists(result):
    return {
        user: [item for item, score in zip(items, scores) if np.isfinite(score)]
        for user, items, scores in zip(result.user, result.item, result.score)
    }


def test_excluded_items(loaded, bought):
    for exclude, labels in (('train', '0'), ('all', '012')):
        found = lists(recommend(loaded, k=NUM_ITEMS, exclude=exclude))
        assert list(found) == sorted(USERS)
        for user, items in found.items():
            own = {item for u, item, label in bought if u == user and label in labels}
            assert sorted(items) == sorted({f'i{i:02d}' for i in range(NUM_ITEMS)} - own)
    with pytest.raises(ValueError, match=r"'exclude' must be 'all' or 'train' \(got 'val'\)"):
        recommend(loaded, exclude='val')


def test_users_are_spelled_in_any_way(loaded, tmp_path):
    expected = lists(recommend(loaded, ['u1'], k=3))
    for users in ('u1', ('u1',), np.array(['u1'])):
        assert lists(recommend(loaded, users, k=3)) == expected
    with pytest.raises(ValueError, match="'1' is not in 'shop'; expected one of its raw ids, such"):
        recommend(loaded, 1)

    folder = tmp_path / 'numbers'
    folder.mkdir()
    rows = [f'{u}\t{i % 9}\t{max(0, i - u - 3)}' for u in range(9) for i in range(u, u + 6)]
    (folder / 'numbers.inter').write_text('\n'.join(['userID\titemID\tx_label', *rows]))
    config = {**SMALL, 'data': str(folder), 'out': str(tmp_path / 'out'), 'items': 'id'}
    run({**config, 'model': {'name': 'BPR', 'channels': 4}}, progress=False)
    other = load_run(str(tmp_path / 'out'))
    expected = lists(recommend(other, ['3', '5'], k=3))
    for users in ([3, 5], np.array([3, 5]), torch.tensor([3, 5]), ['3', 5]):
        assert lists(recommend(other, users, k=3)) == expected
    assert list(lists(recommend(other, 3))) == list(lists(recommend(other, np.int64(3)))) == [3]


def test_users_without_training_are_marked(tmp_path):
    r"""They are folded in from held-out interactions, or get popular items if these do
    not count.
    """
    more = [(f'cold{i}', 'i03', 2) for i in range(5)]
    data, out = make_shop(tmp_path / 'shop', more=more), str(tmp_path / 'out')
    with pytest.warns(UserWarning, match='dropped 5 held-out'):
        run({**SMALL, 'data': data, 'out': out}, progress=False)
        loaded = load_run(out)
    said = r"'shop': 5 users without training interactions \('cold0', 'cold1', 'cold2', ...\) get r"
    with pytest.warns(UserWarning, match=said) as caught:
        found = recommend(loaded, k=3)
    assert len(caught) == 1 and sorted(found.user) == sorted([*USERS, *(u for u, *_ in more)])
    source = dict(zip(found.user, found.source))
    assert {source[user] for user in USERS} == {'training'}
    assert {source[user] for user, *_ in more} == {'fold-in'}
    assert all('i03' not in items for user, items in lists(found).items() if 'cold' in user)
    with pytest.warns(
        UserWarning, match=r"1 user without .* \('cold4'\) gets rec.* from their held-out"
    ):
        one = recommend(loaded, ['cold4', 'u3'], k=3)
    assert list(one.user) == ['cold4', 'u3'] and list(one.source) == ['fold-in', 'training']
    own = recommend(loaded, interactions={'somebody': ['i03']}, k=3)
    assert lists(own)['somebody'] == lists(one)['cold4']

    with pytest.warns(UserWarning, match=r"1 user .* \('cold4'\) gets popular items"):
        one = recommend(loaded, ['cold4', 'u3'], k=NUM_ITEMS, exclude='train')
    assert list(one.source) == ['popularity', 'training']
    count = loaded.data[RATES].edge_index[1].bincount(minlength=NUM_ITEMS)
    place = [int(item[1:]) for item in one.item[0]]
    assert (np.diff(count[place].numpy()) <= 0).all() and 3 in place
    path = tmp_path / 'r.csv'
    assert write(one, str(path)) > NUM_ITEMS
    lines = path.read_text().splitlines()
    assert lines[0] == 'userID,rank,itemID,score,source' and lines[1].endswith('popularity')
    assert write(recommend(loaded, ['u3'], k=3), str(path)) == 3
    assert path.read_text().splitlines()[0] == 'userID,rank,itemID,score'


def test_gaps_between_numbers_are_nobody(tmp_path):
    r"""Of 2,000 users and items, 7 exists as a number only."""
    folder, size = tmp_path / 'gaps', 2000
    folder.mkdir()
    rows = [
        f'{u}\t{(u + j) % size}\t{max(0, j - 2)}'
        for u in range(size)
        for j in range(5)
        if u != 7 and (u + j) % size != 7
    ]
    (folder / 'gaps.inter').write_text('\n'.join(['userID\titemID\tx_label', *rows]))
    config = {**SMALL, 'data': str(folder), 'out': str(tmp_path / 'out'), 'items': 'id'}
    config['model'] = {'name': 'BPR', 'channels': 2}
    config['trainer'] = {'epochs': 1, 'progress': False}
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        run(config, progress=False)
        loaded = load_run(str(tmp_path / 'out'))
    assert not loaded.dataset.known_items[7] and not loaded.dataset.known_users[7]
    loaded.model.item_encoder.weight.data[7] = 100  # It would be the best or the worst of all.
    found = lists(recommend(loaded, k=size))
    assert len(found) == size - 1 and 7 not in found
    assert {len(items) for items in found.values()} <= {size - 6, size - 5}
    assert not any(7 in items for items in found.values())
    with pytest.raises(ValueError, match="The user '7' is not in 'gaps'"):
        recommend(loaded, 7)


@pytest.mark.parametrize('ending', ['csv', 'parquet'])
def test_numbers_as_ids_of_users_without_training(tmp_path, ending):
    folder = tmp_path / 'numbers'
    folder.mkdir()
    rows = [f'{u}\t{i % 9}\t{max(0, i - u - 3)}' for u in range(9) for i in range(u, u + 6)]
    rows += ['9\t3\t2']
    (folder / 'numbers.inter').write_text('\n'.join(['userID\titemID\tx_label', *rows]))
    config = {**SMALL, 'data': str(folder), 'out': str(tmp_path / 'out'), 'items': 'id'}
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        run({**config, 'model': {'name': 'BPR', 'channels': 4}}, progress=False)
        loaded = load_run(str(tmp_path / 'out'))
        found, request = recommend(loaded, k=3), prepare(loaded, k=3)
    paths = [str(tmp_path / f'{name}.{ending}') for name in 'ab']
    sizes = [write(found, paths[0]), write(request, paths[1])]
    assert sizes == [int(np.isfinite(found.score).sum())] * 2
    if ending == 'csv':
        assert open(paths[0]).read() == open(paths[1]).read()
    else:
        parquet = pytest.importorskip('pyarrow.parquet')
        one, other = (parquet.read_table(path) for path in paths)
        assert one.to_pydict() == other.to_pydict() and one['source'][-1].as_py() == 'fold-in'
        assert str(one.schema.field('userID').type) == 'int64'


def new(shop, folder, rows=2, **files):
    folder.mkdir()
    for name in ('text', 'image'):
        np.save(folder / f'{name}_feat.npy', np.load(f'{shop}/{name}_feat.npy')[:rows])
    return str(folder)


def test_ids_of_new_items(loaded, shop, tmp_path):
    folder = new(shop, tmp_path / 'new', 3)

    def refused(text, name='items.tsv'):
        for old in ('items.tsv', 'items.csv'):
            if os.path.exists(f'{folder}/{old}'):
                os.remove(f'{folder}/{old}')
        with open(f'{folder}/{name}', 'w') as file:
            file.write(text)
        with pytest.raises(ValueError) as error:
            recommend(loaded, k=3, new_items=folder)
        assert str(error.value).startswith(f"'{folder}/{name}'")
        return str(error.value)

    text = refused('itemID\nA1\nA2\nA1\n')
    assert "line 4: expected each 'itemID' once, got 'A1' again" in text
    text = refused('itemID\nA1\ni05\nA2\n')
    assert "line 3: the item 'i05' is already in 'shop'; expected ids of new items" in text
    assert 'has 2 rows, but the features have 3' in refused('itemID\nA1\nA2\n')
    assert "expected a column 'itemID', found the columns" in refused('what\nA1\nA2\nA3\n')
    for header, name in (('item_id:token\ttitle:token_seq', 'tsv'), ('asin,title', 'csv')):
        for old in ('items.tsv', 'items.csv'):
            if os.path.exists(f'{folder}/{old}'):
                os.remove(f'{folder}/{old}')
        mark = '\t' if name == 'tsv' else ','
        with open(f'{folder}/items.{name}', 'w') as file:
            file.write('\n'.join([header, *(f'A{i}{mark}x' for i in range(3))]))
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # That a column of another name is taken.
            found = recommend(loaded, 'u1', k=3, new_items=folder)
        assert sorted(found.item[0]) == ['A0', 'A1', 'A2']


def test_new_items_lack_a_modality(loaded, shop, tmp_path):
    folder = new(shop, tmp_path / 'new')
    old = np.load(f'{shop}/image_feat.npy')
    mean = old.astype(float).mean(0)
    np.save(f'{folder}/image_feat.npy', np.stack([np.full(4, np.nan, np.float32), old[1]]))
    np.save(f'{folder}/image_mask.npy', np.array([False, True]))
    data, _ = with_new_items(loaded, folder)
    np.testing.assert_allclose(data[ITEM].x_image[NUM_ITEMS], mean, atol=1e-6)
    assert torch.equal(data[ITEM].x_image[NUM_ITEMS + 1], torch.from_numpy(old[1]))

    os.remove(f'{folder}/image_feat.npy')
    with pytest.raises(ValueError, match="image_feat.npy' is missing; .* 'image_mask.npy' with Fa"):
        with_new_items(loaded, folder)
    np.save(f'{folder}/image_mask.npy', np.zeros(2, bool))
    data, _ = with_new_items(loaded, folder)
    np.testing.assert_allclose(data[ITEM].x_image[NUM_ITEMS:], np.stack([mean] * 2), atol=1e-6)
    assert torch.equal(data[ITEM].x_text[NUM_ITEMS:], data[ITEM].x_text[:2])
    # Tokens of text are those of the same texts in the catalog.
    assert torch.equal(data[ITEM].token_id[NUM_ITEMS:, 2:], data[ITEM].token_id[:2, 2:])
    assert np.isfinite(recommend(loaded, k=2, new_items=folder).score).all()
    np.save(f'{folder}/image_mask.npy', np.zeros(3, bool))
    with pytest.raises(ValueError, match="image_mask.npy': expected 2 rows as in 'text_feat.npy'"):
        with_new_items(loaded, folder)
    np.save(f'{folder}/image_mask.npy', np.zeros(2))
    with pytest.raises(ValueError, match="image_mask.npy': expected booleans"):
        with_new_items(loaded, folder)


def test_features_that_are_not_read_do_not_matter(loaded, shop, tmp_path):
    folder = new(shop, tmp_path / 'new')
    expected = recommend(loaded, k=2, new_items=folder)
    np.save(f'{folder}/audio_feat.npy', np.zeros((5, 3)))
    found = recommend(loaded, k=2, new_items=folder)
    assert (found.item == expected.item).all() and (found.score == expected.score).all()


def test_models_without_vectors(shop, bought, tmp_path):
    config = {'data': shop, 'model': 'EASE', 'threads': 1, 'device': 'cpu'}
    run({**config, 'out': str(tmp_path / 'a')}, progress=False)
    loaded = load_run(str(tmp_path / 'a'))
    found = recommend(loaded, k=4)
    assert found.item.shape == (NUM_USERS, 4) and (np.diff(found.score) <= 0).all()
    for user, items in lists(found).items():
        assert not {item for u, item, label in bought if u == user and label == '0'} & set(items)
    again = recommend(load_run(str(tmp_path / 'a')), k=4)
    assert np.array_equal(again.item, found.item) and np.array_equal(again.score, found.score)
    with pytest.raises(ValueError, match='^EASE has no vector for an item that was absent in'):
        recommend(loaded, new_items=shop)
