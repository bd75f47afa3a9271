import numpy as np
import pytest
import torch

from motor_geo.__main__ import main
from motor_geo.data import OPQTokenizer
from motor_geo.nn import TokenCrossEncoder
from motor_geo.pipeline.export import vectors
from motor_geo.pipeline.folder import load_run
from motor_geo.pipeline.index import read_index
from motor_geo.pipeline.recommend import recommend
from motor_geo.pipeline.train import run
from tests.pipeline.shop import NUM_ITEMS, SMALL, make_shop


@pytest.fixture(scope='module')
def shop(tmp_path_factory):
    return make_shop(tmp_path_factory.mktemp('data') / 'shop')


@pytest.fixture(scope='module')
def folder(shop, tmp_path_factory):
    out = str(tmp_path_factory.mktemp('runs') / 'a')
    run({**SMALL, 'data': shop, 'out': out}, progress=False)
    return out


@pytest.mark.parametrize('kind', ['flat', 'hnsw'])
@pytest.mark.parametrize('exclude', ['all', 'train'])
def test_lists_of_an_index(folder, tmp_path, capsys, kind, exclude):
    path = str(tmp_path / 'shop.index')
    assert main(['export', folder, '--index', path, '--kind', kind]) == 0
    text = capsys.readouterr().out
    assert f"{NUM_ITEMS} items written to '{path}' ({kind}, recalls 100.0% of the ex" in text
    loaded, index = load_run(folder), read_index(path)
    for k in (3, NUM_ITEMS):
        exact = recommend(loaded, k=k, exclude=exclude)
        found = recommend(loaded, k=k, exclude=exclude, index=index)
        valid = np.isfinite(exact.score)
        assert (np.isfinite(found.score) == valid).all()
        assert (found.item[valid] == exact.item[valid]).all()
        np.testing.assert_allclose(found.score, exact.score, rtol=1e-4, atol=1e-6)
    new = {'ann': ['i01', 'i02']}
    expected = recommend(loaded, k=4, interactions=new)
    assert (recommend(loaded, k=4, interactions=new, index=index).item == expected.item).all()


def test_new_items_in_an_index(folder, shop, tmp_path, capsys):
    path, new = str(tmp_path / 'shop.index'), tmp_path / 'new'
    new.mkdir()
    for name in ('text', 'image'):
        np.save(new / f'{name}_feat.npy', np.load(f'{shop}/{name}_feat.npy')[:2])
    (new / 'items.tsv').write_text('itemID\nA\nB\n')
    assert main(['export', folder, '--index', path]) == 0
    assert main(['export', folder, '--index', path, '--append', str(new)]) == 0
    assert f"2 items appended to '{path}' (22 in total)" in capsys.readouterr().out
    loaded = load_run(folder)
    found = recommend(loaded, k=30, index=read_index(path))
    expected = recommend(loaded, k=30, new_items=str(new), mix=True)
    for a, b, x, y in zip(found.item, expected.item, found.score, expected.score):
        assert set(a[np.isfinite(x)]) == set(b[np.isfinite(y)]) and 'A' in a
    out = str(tmp_path / 'r.csv')
    assert main(['recommend', folder, '--index', path, '--out', out, '--k', '30']) == 0
    assert main(['export', folder, '--index', path, '--append', str(new)]) == 2
    assert "the item 'A' is already in the index" in capsys.readouterr().err
    other = str(tmp_path / 'other')
    run({**SMALL, 'data': shop, 'out': other, 'seed': 1}, progress=False)
    for flags in (['export', other, '--append', str(new)], ['recommend', other, '--out', out]):
        assert main([*flags, '--index', path]) == 2
        assert 'is an index of another run' in capsys.readouterr().err


def test_vectors(folder, tmp_path):
    parquet = pytest.importorskip('pyarrow.parquet')
    items, users = str(tmp_path / 'items.parquet'), str(tmp_path / 'users.parquet')
    assert main(['export', folder, '--item-vectors', items, '--user-vectors', users]) == 0
    loaded = load_run(folder)
    user, item = vectors(loaded)
    table = parquet.read_table(items).to_pydict()
    assert table['itemID'] == loaded.dataset.item_ids.astype(str).tolist()
    torch.testing.assert_close(torch.tensor(table['vector']), item)
    table = parquet.read_table(users).to_pydict()
    assert table['userID'] == loaded.dataset.user_ids.astype(str).tolist()
    torch.testing.assert_close(torch.tensor(table['vector']), user)


def test_pretrained(folder, tmp_path, capsys):
    pytest.importorskip('safetensors')
    path = str(tmp_path / 'shop')
    assert main(['export', folder, '--pretrained', path]) == 0
    assert f"item encoder and tokenizer written to '{path}'" in capsys.readouterr().out
    loaded = load_run(folder)
    tokenizer, encoder = loaded.tokenizer, loaded.model.item_encoder.eval()
    x = {m: torch.randn(9, quantizer.width) for m, quantizer in tokenizer.quantizers.items()}
    token_id = OPQTokenizer.from_pretrained(path).encode(x)
    assert torch.equal(token_id, tokenizer.encode(x))
    assert torch.equal(TokenCrossEncoder.from_pretrained(path)(token_id), encoder(token_id))
    text = (tmp_path / 'shop' / 'README.md').read_text()
    assert '## OPQTokenizer' in text and '## TokenCrossEncoder' in text


@pytest.mark.parametrize('split', [None, 'random'])
def test_card_of_a_run(shop, tmp_path, split):
    pytest.importorskip('safetensors')
    out, path = str(tmp_path / 'run'), str(tmp_path / 'card')
    data = {'name': shop} if split is None else {'name': shop, 'split': split}
    result = run({**SMALL, 'data': data, 'out': out, 'seed': 3}, progress=False)
    for _ in range(2):
        assert main(['export', out, '--pretrained', path]) == 0
        text = (tmp_path / 'card' / 'README.md').read_text()
        assert text.count('## Training and evaluation') == text.count('## OPQTokenizer') == 1
    dataset = load_run(out).dataset
    counts = [dataset.summary()[name] for name in ('train', 'val', 'test')]
    assert f'| split | {counts[0]} train, {counts[1]} val, {counts[2]} test interactions |' in text
    assert (f'split: {split}' in text) == (split is not None)
    assert f'| name | {dataset.name} |' in text and '| sizes | 12 users, 20 items |' in text
    assert '| features | image (4 columns), text (6 columns) |' in text
    assert f'| hash | {dataset.fingerprint} |' in text and '| seed | 3 |' in text
    values = [result[key]['recall@20'] for key in ('val', 'test', 'popularity')]
    assert '| metric | validation | test | test, popularity ranking |' in text
    assert f'| recall@20 | {" | ".join(f"{value:.4f}" for value in values)} |' in text
    assert '| ndcg@10 |' in text and '| precision@20 |' not in text
    assert f'torch {torch.__version__}' in text and str(tmp_path) not in text
    assert shop not in text and '# license: add the license' in text
    assert text.index('## Intended use') < text.index('## Limits') < text.index('## OPQTokenizer')


def test_vectors_as_safetensors(folder, tmp_path):
    safetensors = pytest.importorskip('safetensors')
    path = str(tmp_path / 'items.safetensors')
    assert main(['export', folder, '--item-vectors', path]) == 0
    with safetensors.safe_open(path, 'pt') as file:
        torch.testing.assert_close(file.get_tensor('vector'), vectors(load_run(folder))[1])
        assert '"i00", "i01"' in file.metadata()['itemID']


def test_refused_exports(folder, shop, tmp_path, capsys):
    def message(*flags):
        assert main(['export', *flags]) == 2
        error = capsys.readouterr().err
        assert error.startswith('error: ') and error.count('\n') == 1
        return error

    assert 'nothing to export; expected --index FILE' in message(folder)
    assert "x.npy' must end in .parquet or .safe" in message(folder, '--item-vectors', 'x.npy')
    assert 'is not a run folder' in message(shop, '--index', str(tmp_path / 'a'))
    ease = str(tmp_path / 'ease')
    run({**SMALL, 'data': shop, 'model': 'EASE', 'out': ease, 'trainer': {}}, progress=False)
    assert 'EASE scores without vectors' in message(ease, '--index', str(tmp_path / 'a'))
    assert 'has no tokens' in message(ease, '--onnx', str(tmp_path / 'a'))
    assert 'has no token encoder' in message(ease, '--pretrained', str(tmp_path / 'b'))
