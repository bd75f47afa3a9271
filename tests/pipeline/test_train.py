import json
import os
import signal
import time
import warnings

import numpy as np
import pytest
import torch
import yaml

from motor_geo.data.sampler import BPRSampler
from motor_geo.engine.evaluator import Evaluator
from motor_geo.pipeline import train
from motor_geo.pipeline.assemble import assemble
from motor_geo.pipeline.folder import load_run, read_config
from motor_geo.pipeline.train import build_evaluator, build_trainer, run
from motor_geo.run import table
from motor_geo.typing import RATES
from motor_geo.utils.errors import ConfigError
from motor_geo.utils.files import HOST
from tests import forks
from tests.pipeline.shop import NUM_ITEMS, NUM_USERS, SMALL, make_shop
from tests.utils.test_saved import flip


def start(data, out, **options):
    options = {key: {**SMALL.get(key, {}), **value} for key, value in options.items()}
    return run({**SMALL, 'data': str(data), 'out': str(out), **options}, progress=False)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_two_processes_do_not_share_a_folder(tmp_path):
    out = tmp_path / 'out'
    flags = ['--out', str(out), '--device', 'cpu', '--threads', '1', '--epochs', '10000']
    flags += ['--data.num_users', '40', '--data.num_items', '30', '--data.num_interactions', '200']
    flags += ['--tokenizer.codebook_size', '4', '--trainer.patience', '10000']
    # A shell starts what is in the background without interruptions.
    code = (
        'import signal, sys; from motor_geo.run import main\n'
        'signal.signal(signal.SIGINT, signal.default_int_handler)\n'
        'sys.exit(main())'
    )
    first = forks.Fork('-c', code, *flags)
    try:
        while not (out / 'metrics.jsonl').exists():
            assert first.poll() is None
            time.sleep(0.01)
        mine = out / f'.tmp-{first.pid}-{HOST}-abc.pt'
        mine.write_bytes(b'of the first')
        # Without a lock, it would train for hours.
        second = forks.run('-m', 'motor_geo.run', *flags, timeout=120)
        assert (second.returncode, second.stderr) == (
            2,
            f"error: '{out}' is in use by another process\n",
        )
        assert first.poll() is None and mine.read_bytes() == b'of the first'
    finally:
        os.kill(first.pid, signal.SIGINT)
        try:
            first.wait(timeout=60)
        finally:
            first.kill()
    assert first.poll() == 130
    lines = (out / 'metrics.jsonl').read_text().splitlines()
    epochs = [json.loads(line)['epoch'] for line in lines]
    assert epochs == list(range(1, len(epochs) + 1))  # Every epoch once.


def test_changed_data_are_named(tmp_path):
    shop, out = tmp_path / 'shop', tmp_path / 'out'
    make_shop(shop)
    start(shop, out)
    before = contents(out)
    path, good = shop / 'shop.inter', (shop / 'shop.inter').read_text()
    features = np.load(shop / 'text_feat.npy')
    total = 6 * NUM_USERS
    free = next(f'i{i:02d}' for i in range(NUM_ITEMS) if f'u3\ti{i:02d}' not in good)
    label = good.splitlines()[4]
    for text, x, what in [
        (f'{good}u3\t{free}\t0\n', features, f'{total + 1} instead of {total} interactions'),
        (
            f'{good}v\ti01\t0\n',
            features,
            f'{NUM_USERS + 1} instead of {NUM_USERS} users, {total + 1} instead of {total} '
            'interactions',
        ),
        (
            good.replace(label, f'{label[:-1]}2'),
            features,
            '47 instead of 48 interactions for train, 13 instead of 12 interactions for test',
        ),
        (
            good,
            features[:, :5],
            "features of 'image' (4 columns) and 'text' (5 columns) instead of 'image' (4 columns) "
            "and 'text' (6 columns)",
        ),
        (good, features + 1, 'same sizes, but other interactions or features'),
    ]:
        path.write_text(text)
        np.save(shop / 'text_feat.npy', x)
        expected = f"The data in '{shop}' have changed since training ({what}); expected"
        for call in (
            lambda: start(shop, out),
            lambda: start(shop, out, trainer={'epochs': 3}),
            lambda: load_run(str(out)),
        ):
            with pytest.raises(ConfigError) as error:
                call()
            assert str(error.value).startswith(expected)
    assert contents(out) == before
    (out / 'data.json').unlink()  # As older versions left it.
    with pytest.raises(ConfigError) as error:
        load_run(str(out))
    assert str(error.value) == (
        f"The data in '{shop}' have changed since training; expected the data of '{out}'"
    )


def test_a_run_goes_on_with_data_that_moved(tmp_path):
    shop, out = tmp_path / 'shop', tmp_path / 'out'
    make_shop(shop)
    first = start(shop, out)
    moved = shop.rename(tmp_path / 'moved')
    (moved / 'shop.inter').rename(moved / 'moved.inter')
    assert start(moved, out) == first
    assert start(moved, out, trainer={'epochs': 3})['epochs'] == 3
    assert read_config(str(out)).data['name'] == str(moved)


@pytest.mark.filterwarnings('ignore:.*no interaction is for')
@pytest.mark.parametrize('labels', [(0, 0, 0, 0, 2), (0, 0, 0, 0)])
def test_without_validation(tmp_path, labels):
    shop, out = make_shop(tmp_path / 'shop', labels), tmp_path / 'out'
    said = 'no interaction is for validation'
    tested = 2 in labels
    with (
        pytest.warns(UserWarning, match=said),
        pytest.raises(ConfigError, match=r'early stopping is not possible; set .* with --epochs'),
    ):
        start(shop, out, trainer={'epochs': 1000})
    assert not out.exists()
    with pytest.warns(UserWarning, match=said if tested else 'for test .* no test metric'):
        result = start(shop, out, trainer={'epochs': 3, 'patience': 0})
    assert result['val'] == {} and (result['best_epoch'], result['epochs']) == (3, 3)
    assert bool(result['test']) == bool(result['slices']) == bool(result['popularity']) == tested
    assert (out / 'per_user.npz').exists() == tested
    states = [
        torch.load(out / name, weights_only=True)['state']['model']
        for name in ('best.pt', 'last.pt')
    ]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    text = table(result)
    assert ('test recall' in text) == tested and 'val' not in text
    assert 'best epoch 3 of 3' in text
    with pytest.warns(UserWarning, match=said):
        assert start(shop, out, trainer={'epochs': 3, 'patience': 0}) == result  # It is finished.
    with pytest.warns(UserWarning, match=said):
        masked = run(
            {**SMALL, 'data': shop, 'out': str(tmp_path / 'b'), 'mask_validation': True}, False
        )
    assert masked['epochs'] == 2


def test_finished_run_goes_on_to_its_minimum_of_epochs(tmp_path):
    r"""Its few epochs ended it, but early stopping would not have, before the minimum."""
    trainer = {'lr': 0.0, 'patience': 0, 'min_epochs': 4}  # Without steps, the first epoch is best.
    data, out = 'synthetic', tmp_path / 'out'
    assert start(data, out, trainer={**trainer, 'epochs': 2})['epochs'] == 2
    result = start(data, out, trainer={**trainer, 'epochs': 9})
    assert (result['best_epoch'], result['epochs']) == (1, 4)
    assert start(data, out, trainer={**trainer, 'epochs': 9}) == result


def test_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    monkeypatch.chdir(tmp_path)
    make_shop(tmp_path / 'shop')
    start('~/shop', '~/runs/a')
    assert (tmp_path / 'runs' / 'a' / 'result.json').exists() and '~' not in os.listdir(tmp_path)
    assert load_run('~/runs/a', data='~/shop').config.out == str(tmp_path / 'runs' / 'a')


def edit(path, **changes):
    r"""Changes the state of a checkpoint."""
    content = torch.load(path, weights_only=True)
    content['state'].update(changes)
    torch.save(content, path)


def test_what_is_tested_are_the_weights_of_the_best_epoch(tmp_path):
    shop, out = make_shop(tmp_path / 'shop'), tmp_path / 'out'
    trainer = {'epochs': 8, 'batch_size': 8, 'lr': 0.3, 'metric': 'recall@5'}
    result = start(shop, out, trainer=trainer, evaluator={'ks': [2, 5, 10]})
    assert result['best_epoch'] < result['epochs']
    loaded = load_run(str(out))
    test = build_evaluator(assemble(loaded.config, loaded.dataset), 'test')
    found = {}
    for name in ('best.pt', 'last.pt'):
        state = torch.load(out / name, weights_only=True)['state']
        loaded.model.load_state_dict(state['model'])
        with torch.no_grad():
            found[name] = test.evaluate(loaded.model(loaded.data)).metrics
    assert found['best.pt'] == result['test'] != found['last.pt']


def test_weights_of_another_epoch_are_refused(tmp_path):
    shop, out = make_shop(tmp_path / 'shop'), tmp_path / 'out'
    result = start(shop, out)
    edit(out / 'best.pt', epoch=result['best_epoch'] + 1)
    with pytest.warns(UserWarning, match=r'best.pt. holds the weights of epoch .* has continued'):
        load_run(str(out))
    (out / 'result.json').unlink()
    with pytest.raises(ConfigError, match=r'best.pt. holds the weights of epoch \d, but the best'):
        start(shop, out)


def test_a_run_goes_on_with_the_tokens_that_it_began_with(tmp_path):
    shop, out, whole = make_shop(tmp_path / 'shop'), tmp_path / 'out', tmp_path / 'whole'
    start(shop, out, trainer={'epochs': 2})
    expected = start(shop, whole, trainer={'epochs': 4})
    (out / 'result.json').unlink()

    # The codebooks of before are taken, whatever would be fitted today.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('motor_geo.data.transforms.opq_tokenizer.fit_quantizer', None)
        result = start(shop, out, trainer={'epochs': 4})
    assert (result['hashes'], result['test']) == (expected['hashes'], expected['test'])

    # Others are refused.
    (out / 'result.json').unlink()
    other = start(shop, tmp_path / 'other', tokenizer={'seed': 1})
    assert other['hashes']['tokens'] != result['hashes']['tokens']
    (tmp_path / 'other' / 'tokenizer.pt').rename(out / 'tokenizer.pt')
    with pytest.raises(ValueError, match=r"last.pt' was trained with other tokens than"):
        start(shop, out, trainer={'epochs': 6})


def test_other_item_graphs_are_refused(tmp_path):
    shop, out = make_shop(tmp_path / 'shop'), tmp_path / 'out'
    freedom = {'model': {'name': 'FREEDOM', 'channels': 8}, 'items': {'name': 'id'}}
    start(shop, out, **freedom)
    (out / 'result.json').unlink()
    state = torch.load(out / 'last.pt', weights_only=True)['state']
    edit(out / 'last.pt', inputs={**state['inputs'], 'graphs': 'of before'})
    with pytest.raises(ValueError, match=r"last.pt' was trained with other graphs than"):
        start(shop, out, **freedom, trainer={'epochs': 3})
    content = torch.load(out / 'last.pt', weights_only=True)
    del content['state']['inputs']  # As versions of before left it.
    torch.save(content, out / 'last.pt')
    assert start(shop, out, **freedom, trainer={'epochs': 3})['epochs'] == 3


def test_rotten_weights_are_refused(tmp_path):
    shop, out = make_shop(tmp_path / 'shop'), tmp_path / 'out'
    start(shop, out)
    flip(out / 'best.pt')
    with pytest.raises(ValueError, match=r"best.pt' cannot be read as a checkpoint: .* damaged"):
        load_run(str(out))


FITTED = {'threads': 1, 'device': 'cpu', 'trainer': {'epochs': 4, 'progress': False}}


@pytest.mark.parametrize('model', ['EASE', 'ItemKNN', 'IALS'])
def test_fitted_models_run_like_all_others(tmp_path, model):
    if model == 'IALS':
        pytest.importorskip('implicit')
    shop, out = make_shop(tmp_path / 'shop'), tmp_path / 'out'
    config = {**FITTED, 'data': shop, 'model': model, 'out': str(out)}
    result = run(config, progress=False)
    names = {'config.yaml', 'data.json', 'metrics.jsonl', 'best.pt', 'last.pt', 'per_user.npz'}
    assert {path.name for path in out.iterdir()} >= names
    epochs = 4 if model == 'IALS' else 1
    assert (result['items'], result['epochs']) == ('none', epochs) and result['seconds'] > 0
    sizes = {'EASE': (NUM_ITEMS**2,) * 2, 'ItemKNN': (0, 0)}
    sizes['IALS'] = 64 * (NUM_USERS + NUM_ITEMS), 64 * NUM_ITEMS
    assert (result['num_parameters'], result['num_item_parameters']) == sizes[model]
    with np.load(out / 'per_user.npz') as file:
        assert file['recall@20'].mean() == pytest.approx(result['test']['recall@20'])
    text = table(result)
    assert f'{model} on shop, seed 0' in text and 'none items' not in text

    before = contents(out)
    assert run(config, progress=False) == result and contents(out) == before
    # Killed before the result was written.
    (out / 'result.json').unlink()
    again = run(config, progress=False)
    assert {**again, 'seconds': 0} == {**result, 'seconds': 0}
    loaded = load_run(str(out), 'cpu')
    assert type(loaded.model).__name__ == model and loaded.tokenizer is None
    if model == 'IALS':  # More iterations are wanted.
        longer = {**config, 'trainer': {**config['trainer'], 'epochs': 6}}
        assert run(longer, progress=False)['epochs'] == 6


def test_what_a_fitted_model_does_not_take(tmp_path):
    shop = make_shop(tmp_path / 'shop')
    config = {**FITTED, 'data': shop, 'model': 'EASE', 'out': str(tmp_path / 'out')}
    for options, message in [
        ({'items': 'specific'}, '--items specific: EASE takes no item encoder; remove --items'),
        ({'model': 'BPR', 'items': 'none'}, '--items none: BPR takes an item encoder, such as'),
        ({'items': {'num_layers': 1}}, r"Unknown option 'items.num_layers' of none; it has no opt"),
        ({'behavior': True}, '--behavior: expected items with tokens, got --items none'),
        ({'trainer': {'lr': 0.1}}, 'trainer.lr: EASE is fitted without gradient steps; remove'),
        ({'model': {'name': 'EASE', 'channels': 8}}, "Unknown option 'model.channels' of EASE"),
        ({'model': {'name': 'EASE', 'reg_weight': 0}}, "model: 'reg_weight' must be positive"),
    ]:
        with pytest.raises(ConfigError, match=message):
            run({**config, **options}, progress=False)
    assert not (tmp_path / 'out').exists()


def test_closed_forms_need_no_validation(tmp_path):
    shop = make_shop(tmp_path / 'shop', labels=(0, 0, 0, 2))
    config = {'data': shop, 'model': 'EASE', 'threads': 1, 'device': 'cpu'}
    result = run({**config, 'out': str(tmp_path / 'a')}, progress=False)
    assert result['val'] == {} and result['test']['recall@20'] > 0
    with pytest.raises(ConfigError, match='has no validation interactions, so early'):
        run({**config, 'model': 'IALS', 'out': str(tmp_path / 'b')}, progress=False)


@pytest.mark.parametrize('loss', ['softmax', 'whole'])
def test_a_run_with_another_loss_goes_on_bit_by_bit(tmp_path, loss):
    data = make_shop(tmp_path / 'shop')
    options = {'items': {'name': 'mean'}, 'loss': {'name': loss}}
    expected = start(data, tmp_path / 'whole', trainer={'epochs': 3}, **options)
    start(data, tmp_path / 'out', trainer={'epochs': 1}, **options)
    result = start(data, tmp_path / 'out', trainer={'epochs': 3}, **options)
    assert result['loss'] == loss and result['epochs'] == 3
    assert (result['val'], result['test']) == (expected['val'], expected['test'])
    found, weights = (
        torch.load(tmp_path / name / 'last.pt', weights_only=True)['state']['model']
        for name in ('out', 'whole')
    )
    assert found.keys() == weights.keys()
    assert all(torch.equal(found[key], weights[key]) for key in weights)


def test_what_was_trained_by_cosine_ranks_by_cosine(tmp_path):
    data, out = make_shop(tmp_path / 'shop'), tmp_path / 'out'
    result = start(data, out, items={'name': 'mean'}, loss={'name': 'softmax'})
    loaded = load_run(str(out), 'cpu')
    with torch.no_grad():
        emb = loaded.model(loaded.data)
    for x in emb:
        norm = x[x.abs().sum(dim=1) > 0].norm(dim=1)
        torch.testing.assert_close(norm, torch.ones_like(norm))
    test = build_evaluator(assemble(loaded.config, loaded.dataset), 'test')
    assert test.evaluate(emb).metrics == result['test']
    score, _ = loaded.model.recommend(loaded.data, k=3)
    assert float(score.max()) <= 1 + 1e-5
    # Where lengths count, lists are others.
    loaded.model.set_objective(None)
    plain, _ = loaded.model.recommend(loaded.data, k=3)
    assert not torch.allclose(plain, score)


def test_runs_from_before_there_was_a_loss_go_on(tmp_path):
    data, out = make_shop(tmp_path / 'shop'), tmp_path / 'out'
    model = {**SMALL['model'], 'name': 'FREEDOM'}
    first = start(data, out, model=model, items={'name': 'mean'})
    config = yaml.safe_load((out / 'config.yaml').read_text())
    assert config.pop('loss') == {'name': 'published'}
    assert config['model'].pop('similarity_weight') == 0  # An argument that came later.
    (out / 'config.yaml').write_text(yaml.safe_dump(config, sort_keys=False))
    assert start(data, out, model=model, items={'name': 'mean'}) == first
    again = start(data, out, model=model, items={'name': 'mean'}, trainer={'epochs': 3})
    assert again['epochs'] == 3 and again['hashes'] == first['hashes']
    for more, key in [
        ({'model': model, 'loss': {'name': 'softmax'}}, r'loss\.name is published there'),
        ({'model': {**model, 'similarity_weight': 0.1}}, r'model\.similarity_weight is'),
    ]:
        with pytest.raises(ConfigError, match=f'holds another run .{key}'):
            start(data, out, items={'name': 'mean'}, **more)


@pytest.mark.parametrize('mask', [True, False])
def test_validation_is_masked_when_testing_alone(tmp_path, mask):
    config = {**SMALL, 'data': make_shop(tmp_path / 'shop'), 'items': 'id', 'mask_validation': mask}
    assembly = assemble(config)
    val = assembly.dataset.targets('val')
    assert val.user.tolist() == assembly.dataset.targets('test').user.tolist()
    # Whoever likes nothing but the items of validation:
    scores = torch.zeros(NUM_USERS, NUM_ITEMS)
    scores[val.user[val.index[0]], val.index[1]] = 1
    for split, first in (('val', True), ('test', not mask)):
        pred = build_evaluator(assembly, split).evaluate(scores.__getitem__, return_pred=True).pred
        assert (pred[:, :1] == val.item.view(-1, 1)).all() == first


@pytest.mark.parametrize('left', ['lines', 'pipe'])
def test_a_training_that_is_lost_leaves_no_lines(tmp_path, left):
    data, out = make_shop(tmp_path / 'shop'), tmp_path / 'out'
    first = start(data, out, items={'name': 'id'})
    before = [json.loads(line)['loss'] for line in open(out / 'metrics.jsonl')]
    os.remove(out / 'last.pt')
    os.remove(out / 'result.json')
    if left == 'pipe':  # Nobody reads it.
        os.remove(out / 'metrics.jsonl')
        os.mkfifo(out / 'metrics.jsonl')
    assert start(data, out, items={'name': 'id'})['test'] == first['test']
    assert [json.loads(line)['loss'] for line in open(out / 'metrics.jsonl')] == before


def test_the_seed_is_that_of_the_model_and_of_the_training(tmp_path):
    data = make_shop(tmp_path / 'shop')
    config = {**SMALL, 'data': data, 'items': {'name': 'id'}, 'seed': 5}
    assembly = assemble(config)
    trainer = build_trainer(assembly, str(tmp_path / 'out'), progress=False)
    drawn = [batch.neg for batch in trainer.sampler.epoch(0)]
    expected = BPRSampler(assembly.data[RATES].edge_index, NUM_USERS, NUM_ITEMS, 32, seed=5)
    assert all(map(torch.equal, drawn, [batch.neg for batch in expected.epoch(0)]))
    assert trainer.seed == 5


def test_large_arrays_are_kept_as_batches_need(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(train, 'tune_large_arrays', lambda *args: calls.append(args))
    config = {**SMALL, 'data': make_shop(tmp_path / 'shop'), 'items': {'name': 'id'}}
    trainer = build_trainer(assemble(config), str(tmp_path / 'out'), progress=False)
    assert calls == [(trainer.model, 32)]


def test_metrics_of_users_and_ranks_of_items_are_those_of_the_best_weights(tmp_path):
    out = tmp_path / 'out'
    result = start(make_shop(tmp_path / 'shop'), out, items={'name': 'id'})
    loaded = load_run(str(out), 'cpu')
    test = build_evaluator(assemble(loaded.config, loaded.dataset), 'test')
    with torch.no_grad():
        expected = test.evaluate(loaded.model(loaded.data))
    targets = loaded.dataset.targets('test')
    values = np.load(out / 'per_user.npz')
    assert values['rank'].tolist() == expected.rank.tolist()
    assert values['item'].tolist() == targets.item.tolist()
    for key, per_user in expected.per_user.items():
        np.testing.assert_array_equal(values[key], per_user.numpy())
        assert result['test'][key] == pytest.approx(values[key].mean())


def test_validation_on_a_sample_and_test_on_all_users(tmp_path):
    shop = make_shop(tmp_path / 'shop')
    whole = start(shop, tmp_path / 'whole')
    part = start(shop, tmp_path / 'part', evaluator={'max_users': 3})
    assert part['test'] == whole['test'] and part['val'] != whole['val']
    with np.load(tmp_path / 'part' / 'per_user.npz') as file:
        assert len(file['user']) == NUM_USERS


def test_unseen_items_among_all(tmp_path):
    r"""Both ways to rank them are reported, and the factor is one of validation."""
    shop = make_shop(tmp_path / 'shop')
    config = {**SMALL, 'data': {'name': shop, 'cold_share': 0.5}, 'items': 'mean'}
    plain = run({**config, 'out': str(tmp_path / 'a')}, progress=False)
    for name in ('warm_recall@20', 'unseen_recall@20', 'harmonic@20'):
        assert name in plain['test'] and name in plain['val']
    assert plain['unseen']['all']['recall@5'] <= plain['unseen']['test']['recall@5']
    assert plain['unseen']['all']['recall@20'] == plain['test']['unseen_recall@20']

    config['unseen'] = {'factor': None, 'neighbors': 0.5, 'k': 2}
    config['trainer'] = {**SMALL['trainer'], 'metric': 'harmonic@5'}
    out = str(tmp_path / 'b')
    chosen = run({**config, 'out': out}, progress=False)
    with open(f'{out}/unseen.json') as file:
        content = json.load(file)
    factor, tried = content['factor'], content['tried']
    assert tried[str(factor)].keys() == {'warm_recall@5', 'unseen_recall@5', 'harmonic@5'}
    loaded = load_run(out)
    assert loaded.model.unseen.factor == factor
    test = Evaluator(loaded.dataset.targets('test'), loaded.data[RATES].edge_index, NUM_ITEMS)
    with torch.no_grad():
        found = test.evaluate(loaded.model(loaded.data)).metrics
    assert found['unseen_recall@5'] == pytest.approx(chosen['test']['unseen_recall@5'])
    os.remove(f'{out}/unseen.json')
    with pytest.raises(ValueError, match=r"unseen.json' is missing or damaged"):
        load_run(out)
    with pytest.raises(ConfigError, match=r'unseen.factor: expected a number; to choose it'):
        run({**config, 'data': shop, 'trainer': SMALL['trainer'], 'out': f'{out}2'}, False)


def test_held_out_items_are_ranked_among_all_on_demand(tmp_path):
    more = [(f'u{user}', f'i{item:02d}', 0) for user in range(12) for item in (0, 5, 7, 9)]
    shop = make_shop(tmp_path / 'shop', more=more)
    config = {**SMALL, 'data': {'name': shop, 'split': 'cold_item'}, 'items': 'mean'}
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        one = run({**config, 'out': str(tmp_path / 'a')}, progress=False)
        other = run(
            {**config, 'cold_candidates': 'all', 'out': str(tmp_path / 'b')}, progress=False
        )
    assert one['test'] == one['unseen']['test']
    assert other['test']['recall@5'] == other['unseen']['all']['recall@5']
    assert one['test']['recall@20'] == 1 and one['hashes']['run'] != other['hashes']['run']
    with pytest.raises(ConfigError, match="cold_candidates: expected unseen or all, got 'some'"):
        run({**config, 'cold_candidates': 'some'}, progress=False)
