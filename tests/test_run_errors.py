r"""What goes wrong is said in one line, before anything is computed or
written.
"""

import os
import shutil
import warnings

import numpy as np
import pytest
import torch

from motor_geo import recommend, run
from motor_geo.engine.trainer import Trainer

NUM_ITEMS = 20
SMALL = [
    *('--items', 'specific'),
    *('--tokenizer.num_tokens', '2', '--tokenizer.codebook_size', '8', '--graph.k', '3'),
    *('--tokenizer.cache', 'false', '--graph.cache', 'false', '--trainer.progress', 'false'),
    *('--model.channels', '8', '--epochs', '2', '--threads', '1', '--device', 'cpu'),
]


def make(folder, text=True, raw=True):
    r"""A folder of data; with raw item ids if `raw`, otherwise row numbers."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    rows = ['userID\titemID\tx_label']
    for user in range(12):
        items = rng.permutation(NUM_ITEMS)[:6] if user else [*range(3), *range(17, 20)]
        names = [f'i{item}' if raw else item for item in items]
        rows += [f'{user}\t{name}\t{max(0, j - 3)}' for j, name in enumerate(names)]
    (folder / f'{folder.name}.inter').write_text('\n'.join(rows) + '\n')
    if raw:
        text_ids = ''.join(f'i{item}\n' for item in range(NUM_ITEMS))
        (folder / 'items.tsv').write_text('itemID\n' + text_ids)
    if text:
        x = rng.standard_normal((NUM_ITEMS, 6)).astype(np.float32)
        np.save(folder / 'text_feat.npy', x)
    return folder


@pytest.fixture
def data(tmp_path):
    return make(tmp_path / 'shop')


@pytest.fixture
def out(tmp_path):
    return tmp_path / 'out'


@pytest.fixture
def fails(tmp_path, out, capsys, monkeypatch):
    r"""Runs a command that must fail; returns the message."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments, main=run.main):
        def files():
            return {p: p.stat().st_mtime_ns for p in tmp_path.rglob('*') if p.is_file()}

        before = files()
        capsys.readouterr()
        with monkeypatch.context() as context:
            context.setattr(Trainer, 'run_epoch', None)  # Nothing may be trained.
            assert main([str(argument) for argument in arguments]) == 2
        error = capsys.readouterr().err
        assert error.startswith('error: ') and error.count('\n') == 1
        assert files() == before
        return error[len('error: ') : -1]

    def start(*flags, data=tmp_path / 'shop', main=None):
        if main is not None:
            return call(*flags, main=main)
        return call('--data', data, *SMALL, '--out', out, *flags)

    return start


def append(data, line):
    path = data / f'{data.name}.inter'
    path.write_text(path.read_text() + line + '\n')


def test_folders(fails, tmp_path):
    missing = tmp_path / 'missing'
    assert fails(data=missing) == f"--data: '{missing}' does not exist; expected a folder with " + (
        'NAME.inter'
    )
    missing.mkdir()
    assert f"'{missing}' holds no interactions; expected 'missing.inter'" in fails(data=missing)


def test_features(fails, data):
    path = data / 'text_feat.npy'
    x = np.load(path)
    nan, inf = x.copy(), x.copy()
    nan[3, 1], inf[4, 0] = np.nan, -np.inf
    for array, message in [
        (x[:15], "expected 20 rows (one per row of '"),
        (x[:, 0], 'expected a numeric matrix [items, width], got 1 dimensions'),
        (x[:, :, None], 'expected a numeric matrix [items, width], got 3 dimensions'),
        (x[:, :0], 'expected at least one column'),
        (nan, 'row 3 holds NaN or infinite values; expected finite numbers'),
        (inf, 'row 4 holds NaN or infinite values; expected finite numbers'),
        (x.astype(str), 'expected a numeric matrix'),
    ]:
        np.save(path, array)
        assert f"'{path}': {message}" in fails()
    np.save(path, np.full(x.shape, None), allow_pickle=True)
    assert f"'{path}' cannot be read as a numeric .npy file without pickled objects" in fails()
    path.write_bytes(b'no array')
    assert f"'{path}' cannot be read as a numeric .npy file" in fails()
    np.save(path, x)
    np.save(data / 'image_feat.npy', x[:7])
    assert f"'{path}': expected 7 rows as in 'image_feat.npy', got 20" in fails()


def test_interactions(fails, data, tmp_path, capsys):
    path = data / 'shop.inter'
    good = path.read_text()
    for line, message in [
        ('3\ti77\t0', "line 74: 'itemID' is 'i77', which is not among the 20 items"),
        ('3\ti7\t3', "line 74: expected 0 (train), 1 (val) or 2 (test) in column 'x_label', got 3"),
        ('3\ti7\t-1', "line 74: expected 0 (train), 1 (val) or 2 (test) in column 'x_label'"),
        ('3\ti7\tx', "line 74: expected an integer in column 'x_label', found 'x'"),
        ('3\ti7', 'line 74: expected 3 fields as in the header, found 2'),
        ('30\ti7\t0', "line 74: 'userID' is 30, but no row has the id 12; expected ids from 0"),
        ('-1\ti7\t0', "line 74: 'userID' is -1; expected ids from 0 without gaps"),
    ]:
        path.write_text(good)
        append(data, line)
        assert f"'{path}', {message}" in fails()
    path.write_text(good.replace('userID', 'buyer'))
    assert f"'{path}': expected a column 'userID', found the columns ['buyer'" in fails()
    path.write_text('\n'.join(row for row in good.splitlines() if not row.endswith('\t2')))
    assert "'shop': split 'test' has no interactions" in fails()
    path.write_text(good.replace('\t2', '\t1').replace('\t0', '\t1'))
    assert run.main(['--data', str(data), '--items', 'id', '--out', str(tmp_path / 'out')]) == 2
    assert "split 'train' has no interactions (label 0)" in capsys.readouterr().err

    rows = make(tmp_path / 'rows', raw=False)
    append(rows, '3\t20\t0')
    error = fails(data=rows)
    assert "rows.inter', line 74: 'itemID' is 20, but '" in error
    assert 'only has rows for items 0 to 19' in error
    bare = make(tmp_path / 'bare', raw=False, text=False)
    append(bare, '3\t40\t0')
    assert "line 74: 'itemID' is 40, but no row has the id 20" in fails('--items', 'id', data=bare)


def test_warnings_are_one_line(data, out, capsys):
    append(data, '3\ti7\t2')
    append(data, '3\ti7\t2')
    append(data, '12\ti7\t2')
    before = warnings.showwarning
    flags = ['--data', data, *SMALL, '--out', out]
    assert run.main([str(flag) for flag in flags]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and all(line.startswith("warning: 'shop': ") for line in lines)
    assert 'removed 1 duplicate interactions' in lines[0] or 'removed 2' in lines[0]
    assert "shop.inter', line 7" in lines[0]
    assert 'dropped 1 held-out interactions of 1 users without a training' in lines[1]
    assert recommend.main([str(out), '--k', '2']) == 0
    again = capsys.readouterr().err.splitlines()
    assert again[:-1] == lines and warnings.showwarning is before
    who = "warning: 'shop': 1 user without training interactions ('12')"
    assert again[-1] == f'{who} gets recommendations from their held-out interactions'


@pytest.mark.parametrize(
    'flags, message',
    [
        (['--model', 'FREDOM'], "--model: unknown model 'FREDOM'; did you mean 'FREEDOM'?"),
        (['--items', 'specfic'], "unknown item encoder 'specfic'; did you mean 'specific'?"),
        (
            ['--data', 'sintetic'],
            "neither a folder nor a registered name; did you mean 'synthetic'",
        ),
        (['--model.num_layer', '2'], "'model.num_layer' of LightGCN; did you mean 'num_layers'?"),
        (['--trainer.pacience', '2'], "did you mean 'patience'?"),
        (['--epoch', '2'], "Unknown option 'epoch'; did you mean 'epochs'?"),
        (['--tokeniser.seed', '2'], "unknown section 'tokeniser'; did you mean 'tokenizer'?"),
        (['--data.split', 'rnadom'], "Unknown split 'rnadom'; expected 'column' or"),
        (['--epochs', 'abc'], "trainer.epochs: expected int, got 'abc'"),
        (['--epochs', '0'], "trainer: 'epochs' must be positive (got 0)"),
        (['--batch_size', '0'], "trainer: 'batch_size' must be at least 1"),
        (['--lr', '-1'], 'trainer: Invalid learning rate: -1.0'),
        (['--trainer.metric', 'recal@20'], "such as 'recall@50' (got 'recal@20')"),
        (['--trainer.metric', 'recall@7'], 'at one of the cut-offs 5, 10, 20, 50, such as'),
        (['--evaluator.ks', '[10]'], "at one of the cut-offs 10, such as 'recall@10' (got 'recall"),
        (['--evaluator.ks', '[0]'], 'evaluator: Cut-offs must be positive integers, got [0]'),
        (['--evaluator.metrics', '[foo]'], "evaluator: Unknown metric 'foo'; expected one of"),
        (['--model', 'FREEDOM', '--model.rho', '2'], "model: 'rho' must lie in [0, 1) (got 2.0)"),
        (['--model.channels', '0'], 'model.channels: expected at least 1, got 0'),
        (['--items.init', 'foo'], "items: 'init' must be"),
        (['--tokenizer.num_tokens', '9'], "tokenizer: The modality 'text' has 6 columns to cut in"),
        (['--tokenizer.codebook_size', '64'], 'expected at least as many rows as centroids'),
        (['--tokenizer.codebook_size', '5'], 'codebook_size must be a power of two'),
        (['--model', 'FREEDOM', '--graph.k', '50'], 'graph: k=50 exceeds the number of items (20)'),
        (['--device', 'foo'], "--device: unknown device 'foo'; use auto, cpu or cuda"),
        (['--threads', '0'], 'threads: expected at least 1, got 0'),
        (['--threads', '100000'], 'threads: expected at most 1024, got 100000'),
        (['--seed', '-1'], 'seed: expected 0 or more'),
        (['--config', 'none.yaml'], "'none.yaml' cannot be read: No such file"),
        (['--config'], '--config: expected a value, got none'),
        (['epochs'], "'epochs' is not an option"),
    ],
    ids=lambda value: ' '.join(value) if isinstance(value, list) else '',
)
def test_options(fails, data, flags, message):
    assert message in fails(*flags)


def test_settings_are_checked_before_tokens_are_fitted(fails, data, monkeypatch):
    def fit(*args, **kwargs):
        raise AssertionError('fitted')

    monkeypatch.setattr('motor_geo.data.transforms.opq_tokenizer.fit_quantizer', fit)
    for flags in (
        ['--trainer.metric', 'recal@20'],
        ['--model', 'FREEDOM', '--graph.k', '50'],
        ['--model', 'FREEDOM', '--model.rho', '2'],
        ['--lr', '-1'],
        ['--items.num_layers', '-1'],
    ):
        fails(*flags)
    with pytest.raises(AssertionError, match='fitted'):
        fails()


@pytest.mark.parametrize(
    'text, message',
    [
        ('trainer: {epochs: abc}', "trainer.epochs: expected int, got 'abc'"),
        ('trainer: {epoch: 2}', "Unknown option 'trainer.epoch' of trainer; did you mean 'epochs'"),
        ('trainer: {epochs: 2', "c.yaml', line 1, column 20: not valid YAML"),
        ('seeds: 3', "Unknown option 'seeds'; did you mean 'seed'?"),
        ('modl: {rho: 3}', "Unknown option 'modl'; did you mean 'model'?"),
    ],
)
def test_yaml(fails, data, tmp_path, text, message):
    (tmp_path / 'c.yaml').write_text(text)
    assert message in fails(data, '--config', tmp_path / 'c.yaml', main=lambda a: run.main(a[1:]))


def test_no_features(fails, tmp_path):
    bare = make(tmp_path / 'bare', text=False)
    for items in ('specific', 'mean', 'features'):
        error = fails('--items', items, data=bare)
        assert error.startswith(f'--items {items}: expected item features (<modality>_feat.npy')
    for model in ('VBPR', 'FREEDOM', 'MICRO'):
        error = fails('--items', 'id', '--model', model, data=bare)
        assert error.startswith(f'--model {model}: expected item features of at least 1 modality')


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is one')
def test_no_gpu(fails, data):
    assert fails('--device', 'cuda') == "--device: 'cuda' is not available; use cpu or auto"


def test_output_folder_that_cannot_be(fails, data, tmp_path):
    (tmp_path / 'file').write_text('')
    error = fails('--out', tmp_path / 'file' / 'out')
    assert f"cannot be created: '{tmp_path / 'file'}' is not a folder" in error
    assert "'/dev/full' is not a folder" in fails('--out', '/dev/full')


@pytest.fixture
def limit():
    r"""Limits the size of files, as a full disk does."""
    resource = pytest.importorskip('resource')
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size=soft: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize('size, file', [(100, 'config.yaml'), (2000, 'tokenizer.pt')])
def test_full_disk(data, out, capsys, limit, size, file):
    flags = [str(flag) for flag in ['--data', data, *SMALL, '--out', out]]
    limit(size)
    code = run.main(flags)
    limit()
    assert code == 2
    assert f"error: '{out / file}' cannot be written: " in capsys.readouterr().err
    assert set(os.listdir(out)) <= {'config.yaml', 'data.json'}  # Whole or not at all.
    assert run.main(flags) == 0


def test_full_disk_in_training(data, out, capsys, limit):
    flags = [str(flag) for flag in ['--data', data, *SMALL, '--out', out]]
    limit(5000)
    code = run.main([*flags, '--items', 'id'])
    limit()
    assert code == 2
    error = capsys.readouterr().err
    assert "last.pt'" in error and error.count('\n') == 1
    assert sorted(os.listdir(out)) == ['best.pt', 'config.yaml', 'data.json']
    assert run.main([*flags, '--items', 'id']) == 0


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    r"""Folders of data and of runs: with another model, and on other data."""
    folder = tmp_path_factory.mktemp('finished')
    make(folder / 'shop')
    make(folder / 'other', raw=False)
    for name, data, model in (
        ('a', 'shop', 'LightGCN'),
        ('model', 'shop', 'BPR'),
        ('data', 'other', 'LightGCN'),
    ):
        if name == 'data':
            np.save(
                folder / 'other' / 'text_feat.npy', np.random.default_rng(1).random((NUM_ITEMS, 6))
            )
        flags = ['--data', str(folder / data), *SMALL, '--model', model]
        assert run.main([*flags, '--out', str(folder / name)]) == 0
    return folder


@pytest.fixture
def broken(finished, out):
    r"""A copy of a finished run with a file replaced by another."""

    def copy(name, source):
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(finished / 'a', out)
        if isinstance(source, bytes):
            (out / name).write_bytes(source)
        elif isinstance(source, dict):
            torch.save(source, out / name)
        elif source is None:
            (out / name).unlink()
        else:
            shutil.copy(finished / source / name, out / name)

    return copy


def cut(path):
    content = path.read_bytes()
    return content[: len(content) // 2]


def test_checkpoints_that_do_not_fit(fails, broken, finished, capsys):
    def more():
        # `config.yaml` and `tokenizer.pt` are written anew, with the same content.
        flags = ['--data', finished / 'shop', *SMALL, '--epochs', '3']
        assert run.main([str(flag) for flag in [*flags, '--out', 'out']]) == 2
        error = capsys.readouterr().err
        assert error.startswith('error: ') and error.count('\n') == 1
        return error

    broken('last.pt', 'model')
    assert "'out/last.pt' belongs to the model 'BPR', expected 'LightGCN'" in more()
    broken('last.pt', 'data')
    assert "'out/last.pt' belongs to data with the fingerprint" in more()
    broken('last.pt', cut(finished / 'a' / 'last.pt'))
    assert "'out/last.pt' cannot be read as a checkpoint: it is truncated" in more()
    broken('last.pt', b'hello')
    assert "'out/last.pt' cannot be read as a checkpoint" in more()
    broken('last.pt', {'model': 'LightGCN'})
    assert "'out/last.pt' is a PyTorch file, but not a checkpoint of motor_geo" in more()


def test_run_folders_that_do_not_fit(fails, broken, finished):
    def more(*flags):
        return fails('--epochs', '3', *flags, data=finished / 'shop')

    for content in (b'{"hashes', b'[]', b'{}', b'{"hashes": {"run": 1}}'):
        broken('result.json', content)
        assert "result.json' is damaged: expected the result of a run; delete it" in more()
    broken('result.json', 'data')
    assert "result.json' comes from other data or settings" in more()
    broken('config.yaml', b'a: [b')
    assert "config.yaml', line 1, column 6: not valid YAML" in more()
    broken('config.yaml', b'model: FOO')
    assert 'holds another run (' in more()
    broken('config.yaml', 'a')
    assert 'holds another run (model.num_layers is 2 there, 3 here)' in more(
        '--model.num_layers', '3'
    )


def test_recommend_from_a_run_that_does_not_fit(fails, broken, finished, out):
    def load(*flags):
        return fails(out, *flags, main=recommend.main)

    for name in ('config.yaml', 'best.pt', 'tokenizer.pt'):
        broken(name, None)
        error = load()
        assert name in error and ('does not exist' in error or 'not a run folder' in error)
    broken('config.yaml', b'a: [b')
    assert "config.yaml', line 1, column 6: not valid YAML" in load()
    broken('config.yaml', b'model: FOO')
    assert "config.yaml': --model: unknown model 'FOO'" in load()
    broken('config.yaml', b'seed: 0')  # Of the synthetic data.
    assert "The data in 'synthetic' have changed since training (2000 instead of 12 u" in load()
    text = (finished / 'a' / 'config.yaml').read_text()
    broken('config.yaml', text.replace('num_tokens: 2', 'num_tokens: 3').encode())
    assert "tokenizer.pt' belongs to another run: it has {'text': 2} tokens of 8" in load()
    for name in ('best.pt', 'tokenizer.pt'):
        for content in (b'hello', cut(finished / 'a' / name), {'format': 1}):
            broken(name, content)
            assert f"{name}' " in load()
    broken('best.pt', 'model')
    assert "best.pt' belongs to the model 'BPR', expected 'LightGCN'" in load()
    broken('best.pt', 'data')
    assert "best.pt' belongs to data with the fingerprint" in load()
    broken('tokenizer.pt', 'data')
    assert "tokenizer.pt' belongs to another run: expected the codebooks of training" in load()


def test_options_of_recommend(fails, broken, out, tmp_path, capsys):
    broken('best.pt', 'a')
    (tmp_path / 'file').write_text('')
    for flags, message in [
        (['--k', '0'], '--k must be at least 1 (got 0)'),
        (['--out', 'r.txt'], "'r.txt' must end in .csv, .tsv or .parquet"),
        (['--out', 'file/r.csv'], "file' is not a folder"),
        (['--users', 'none'], "--users: 'none' cannot be read: No such file"),
        (['--users', 'file'], "--users: 'file' is empty; expected one user id per line"),
        (['--device', 'foo'], "--device: unknown device 'foo'"),
        (['--new-items', 'none'], "The folder of new items 'none' does not exist"),
    ]:
        assert message in fails(out, *flags, main=recommend.main)
    for flags in (['--k', 'abc'], ['--foo'], []):
        with pytest.raises(SystemExit) as error:
            recommend.main([str(out), *flags] if flags else [])
        assert error.value.code == 2
    assert "argument --k: invalid int value: 'abc'" in capsys.readouterr().err


def test_lists_that_cannot_be_written(broken, out, limit, capsys):
    broken('best.pt', 'a')
    limit(100)
    code = recommend.main([str(out)])
    limit()
    assert code == 2 and "recs.csv' cannot be written: " in capsys.readouterr().err
    assert not any('recs' in name or name.startswith('.tmp') for name in os.listdir(out))


def test_help(capsys):
    assert run.main(['--help']) == 0
    text = capsys.readouterr().out
    assert text.startswith('usage: python -m motor_geo.run') and '--mask_validation' in text


def test_no_progress(data, out, capsys):
    flags = ['--data', data, *SMALL, '--out', out]
    assert run.main([str(flag) for flag in flags]) == 0
    found = capsys.readouterr()
    assert 'epoch    1' not in found.out and found.err == '' and 'test recall' in found.out
    shutil.rmtree(out)
    assert run.main([*map(str, flags), '--trainer.progress', 'true']) == 0
    assert 'epoch    1' in capsys.readouterr().out
