import json
import os
import shutil
import warnings

import numpy as np
import pytest
import torch

from motor_geo.__main__ import main
from motor_geo.pipeline.bundle import bundle
from motor_geo.pipeline.folder import load_run
from motor_geo.pipeline.recommend import recommend
from motor_geo.pipeline.train import run
from motor_geo.typing import ITEM, RATES
from motor_geo.utils.errors import ConfigError
from tests.pipeline.shop import NUM_ITEMS, NUM_USERS, SMALL, make_shop

RUNS = {
    'LightGCN': {},
    'recommended': {'model': 'TokenALS', 'items': 'recommended', 'svd': {'channels': 4}},
    'FREEDOM': {'model': {'name': 'FREEDOM', 'channels': 8}, 'items': 'mean'},
    'id': {'model': {'name': 'BPR', 'channels': 8}, 'items': 'id'},
    'users of items': {'items': 'mean', 'users': 'items'},
    'EASE': {'model': 'EASE', 'trainer': {'progress': False}},
}


def start(shop, out, **options):
    config = {**SMALL, **options}
    if 'items' in options:
        config['tokenizer'] = {'num_tokens': 2, 'codebook_size': 4, 'cache': False}
    if options.get('model') == 'TokenALS':
        config['trainer'] = {'epochs': 2, 'progress': False}
    run({**config, 'data': shop, 'out': out}, progress=False)
    return out


@pytest.fixture(scope='module')
def shop(tmp_path_factory):
    return make_shop(tmp_path_factory.mktemp('data') / 'shop')


@pytest.fixture(scope='module')
def folders(shop, tmp_path_factory):
    path = tmp_path_factory.mktemp('runs')
    return {name: start(shop, str(path / name), **options) for name, options in RUNS.items()}


@pytest.mark.parametrize('name', list(RUNS))
def test_a_bundle_serves_without_its_data(folders, shop, tmp_path, name):
    moved, here = tmp_path / 'moved', str(tmp_path / 'here')
    shutil.copytree(shop, moved / 'shop')
    folder = start(str(moved / 'shop'), str(tmp_path / 'run'), **RUNS[name])
    loaded = load_run(folder)
    expected = recommend(loaded, k=7)
    bundle(loaded, folder, here)
    shutil.rmtree(moved)
    os.rename(here, tmp_path / 'there')
    again = load_run(str(tmp_path / 'there'))
    found = recommend(again, k=7)
    assert (found.user == expected.user).all() and (found.item == expected.item).all()
    np.testing.assert_array_equal(found.score, expected.score)
    assert again.dataset.fingerprint == loaded.dataset.fingerprint
    new = recommend(again, k=3, interactions={'ann': ['i01', 'i02']})
    assert (
        new.item.tolist()
        == recommend(loaded, k=3, interactions={'ann': ['i01', 'i02']}).item.tolist()
    )
    with pytest.raises(ConfigError, match='already exists; choose another folder or delete it'):
        bundle(again, str(tmp_path / 'there'), folder)


def arrivals(shop, path):
    path.mkdir()
    for name in ('text', 'image'):
        np.save(path / f'{name}_feat.npy', np.load(f'{shop}/{name}_feat.npy')[:2] + 0.01)
    (path / 'items.tsv').write_text('itemID\nA\nB\n')
    return str(path)


def log(path, rows):
    path.write_text('userID\titemID\n' + ''.join(f'{u}\t{i}\n' for u, i in rows))
    return str(path)


@pytest.mark.parametrize('name', ['LightGCN', 'recommended', 'FREEDOM'])
def test_tomorrow(folders, shop, tmp_path, name, capsys):
    folder, out = folders[name], str(tmp_path / 'next')
    old = load_run(folder)
    user, item = old.data[RATES].edge_index[:, 0].tolist()
    known = str(old.dataset.user_ids[user]), str(old.dataset.item_ids[item])
    rows = [('u3', 'A'), ('ann', 'A'), ('ann', 'i05'), known]
    file, items = log(tmp_path / 'today.tsv', rows), arrivals(shop, tmp_path / 'new')
    flags = ['--interactions', file, '--items', items, '--out', out, '--epochs', '2']
    assert main(['update', folder, *flags]) == 0
    text = capsys.readouterr().out
    assert '3 new interactions (1 more were already known), 1 new users, 2 new items' in text
    word = {
        'recommended': 'iterations',
        'LightGCN': 'epochs at a learning rate of 0.01',
        'FREEDOM': 'epochs at a learning rate of 0.001',
    }[name]
    assert f'2 {word}, from the weights of the run' in text
    assert 'with the new data' in text and 'is self-contained' in text

    new = load_run(out)
    assert new.dataset.user_ids.tolist() == [*old.dataset.user_ids.tolist(), 'ann']
    assert new.dataset.item_ids.tolist() == [*old.dataset.item_ids.tolist(), 'A', 'B']
    assert torch.equal(new.data[ITEM].token_id[:NUM_ITEMS], old.data[ITEM].token_id)
    for split in ('val', 'test'):
        assert torch.equal(new.dataset.targets(split).item, old.dataset.targets(split).item)
    found = recommend(new, k=30)
    got = {u: set(i[np.isfinite(s)]) for u, i, s in zip(found.user, found.item, found.score)}
    assert len(got) == NUM_USERS + 1 and set(found.source) == {'training'}
    assert 'A' not in got['ann'] | got['u3'] and 'B' in got['ann'] and 'A' in got['u1']

    # And the day after, from the folder alone.
    later = log(tmp_path / 'later.tsv', [('bob', 'B'), ('ann', 'i07')])
    assert main(['update', out, '--interactions', later, '--out', f'{out}2', '--epochs', '1']) == 0
    last = load_run(f'{out}2')
    assert last.dataset.user_ids.tolist()[-2:] == ['ann', 'bob']
    assert torch.equal(last.data[ITEM].token_id, new.data[ITEM].token_id)
    mixed = recommend(last, 'bob', k=50, new_items=arrivals_as(shop, tmp_path / 'more'), mix=True)
    assert 'C' in mixed.item[0]


def arrivals_as(shop, path):
    arrivals(shop, path)
    (path / 'items.tsv').write_text('itemID\nC\nD\n')
    return str(path)


def test_warm_start_keeps_weights(folders, tmp_path):
    old = load_run(folders['id'])
    file, out = log(tmp_path / 'today.tsv', [('ann', 'i05')]), str(tmp_path / 'next')
    from motor_geo.pipeline.assemble import assemble
    from motor_geo.pipeline.update import extend, warm_start

    dataset, change = extend(old, file, None)
    model = assemble(old.config, dataset, 'cpu').model
    warm_start(old, model)
    assert torch.equal(model.user_embedding[:NUM_USERS], old.model.user_embedding)
    torch.testing.assert_close(model.user_embedding[-1], old.model.user_embedding.mean(dim=0))
    assert torch.equal(model.item_encoder.weight, old.model.item_encoder.weight)
    assert (change.interactions, change.known) == (1, 0) and out


@pytest.mark.parametrize('name', ['LightGCN', 'recommended', 'EASE'])
def test_refit_trains_on_everything(folders, tmp_path, name, capsys):
    folder, out = folders[name], str(tmp_path / 'all')
    assert main(['update', folder, '--refit', '--out', out]) == 0
    with open(f'{folder}/result.json') as file:
        best = json.load(file)['best_epoch']
    word = 'iteration' if name != 'LightGCN' else 'epoch'
    assert f'{best} {word}s' in capsys.readouterr().out
    old, new = load_run(folder), load_run(out)
    total = sum(old.dataset.targets(split).item.numel() for split in ('val', 'test'))
    assert new.data[RATES].num_edges == old.data[RATES].num_edges + total
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        found, before = recommend(new, k=5), recommend(old, k=5)
    assert set(found.source) == {'training'} and len(found.user) == len(before.user)


def test_refused_updates(folders, shop, tmp_path, capsys):
    def message(*flags):
        assert main(['update', *flags]) == 2
        error = capsys.readouterr().err
        assert error.startswith('error: ') and error.count('\n') == 1
        return error

    folder = folders['LightGCN']
    assert 'nothing to update; expected --interactions FILE' in message(folder)
    assert '--epochs must be at least 1 (got 0)' in message(folder, '--refit', '--epochs', '0')
    assert 'already exists' in message(folder, '--refit', '--out', shop)
    file = log(tmp_path / 'today.tsv', [('ann', 'what')])
    said = message(folder, '--interactions', file, '--out', str(tmp_path / 'a'))
    assert f"'{file}', line 2: the item 'what' is not in 'shop'" in said
    for name, kind in (('none.tsv', 'does not exist'), ('a-folder', 'is a folder')):
        (tmp_path / 'a-folder').mkdir(exist_ok=True)
        said = message(folder, '--interactions', str(tmp_path / name), '--out', str(tmp_path / 'a'))
        assert f"{name}' {kind}" in said and 'a table of users and items' in said
    broken = tmp_path / 'broken'
    shutil.copytree(folder, broken)
    for content in ('[]', '{"val": {}, "test": {}, "seconds": 1}'):
        (broken / 'result.json').write_text(content)
        flags = [str(broken), '--refit', '--out', str(tmp_path / 'a')]
        assert 'is damaged: expected the' in message(*flags)
        assert main(['bundle', str(broken), str(tmp_path / 'a')]) == 2
        assert 'is damaged: expected the' in capsys.readouterr().err
    (broken / 'result.json').unlink()
    assert 'it has no result.json' in message(*flags)
    (broken / 'bundle.pt').symlink_to('nowhere')
    assert "bundle.pt' is a link to 'nowhere', which does not exist" in message(*flags)
    assert not os.path.exists(tmp_path / 'a')
    items = arrivals(shop, tmp_path / 'new')
    said = message(folders['id'], '--items', items, '--out', str(tmp_path / 'a'))
    assert 'A model with ID embeddings has no vector' in said
