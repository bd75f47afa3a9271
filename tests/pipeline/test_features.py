import json
import os

import numpy as np
import pytest

from motor_geo.__main__ import main
from motor_geo.data import TableDataset, media
from motor_geo.data.encoders import hashed_ngrams, image_statistics

TITLES = ['Red chair', 'Blue chair', '', 'Green lamp', 'Lamp']
CALLS: list[int] = []


def own(texts):
    CALLS.append(len(texts))
    return np.array([[len(text), text.count('a')] for text in texts], float)


def look(pictures):
    CALLS.append(len(pictures))
    return [f'{picture.size[0]} wide' for picture in pictures]


def silent(pictures):
    return []


def broken(texts):
    return np.full((len(texts), 2), np.nan)


@pytest.fixture
def shop(tmp_path):
    folder = tmp_path / 'shop'
    folder.mkdir()
    rows = [f'i{i}\t{title}\tthing {i}' for i, title in enumerate(TITLES)]
    (folder / 'items.tsv').write_text('\n'.join(['itemID\ttitle\ttext', *rows]) + '\n')
    rows = [f'u{u}\ti{(u + j) % 5}\t{max(0, j - 1)}' for u in range(6) for j in range(4)]
    (folder / 'shop.inter').write_text('\n'.join(['userID\titemID\tx_label', *rows]) + '\n')
    return folder


def test_titles(shop, capsys):
    assert main(['features', str(shop), '--text', 'title', '--dim', '32']) == 0
    text = capsys.readouterr().out
    assert 'text: 4 items, 32 columns, 1 items have none (text_mask.npy)' in text
    x, mask = np.load(shop / 'text_feat.npy'), np.load(shop / 'text_mask.npy')
    assert x.dtype == np.float16 and mask.tolist() == [True, True, False, True, True]
    expected = hashed_ngrams([title for title in TITLES if title], 32).astype(np.float16)
    np.testing.assert_array_equal(x[mask], expected)
    assert TableDataset(str(shop)).modalities == ['text']
    with open(shop / 'text_feat.json') as file:
        content = json.load(file)
    assert (content['encoder'], content['items'], content['with']) == ('hashed', 5, 4)

    flags = ['--text', 'title,text', '--dtype', 'float32']
    assert main(['features', str(shop), *flags]) == 0
    assert not os.path.exists(shop / 'text_mask.npy')
    x = np.load(shop / 'text_feat.npy')
    np.testing.assert_array_equal(x[:1], hashed_ngrams(['Red chair. thing 0'], 256))
    assert sorted(p for p in os.listdir(shop) if p.startswith('.')) == []


def test_pictures(shop, tmp_path, capsys):
    image = pytest.importorskip('PIL.Image')
    folder = tmp_path / 'images'
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (2, 64, 64, 3)).astype(np.uint8)
    for name, x in zip(('i0.png', 'i3.png'), pixels):
        image.fromarray(x).save(folder / name)
    assert main(['features', str(shop), '--images', str(folder)]) == 0
    assert 'image: 2 items, 128 columns, 3 items have none' in capsys.readouterr().out
    x = np.load(shop / 'image_feat.npy')
    np.testing.assert_array_equal(x[[0, 3]], image_statistics(pixels).astype(np.float16))
    (folder / 'i1.png').write_text('no picture')
    assert main(['features', str(shop), '--images', str(folder)]) == 2
    assert "i1.png' cannot be read as an image" in capsys.readouterr().err
    (folder / 'i1.png').unlink()
    os.mkfifo(folder / 'i1.png')
    assert main(['features', str(shop), '--images', str(folder)]) == 2
    assert "i1.png' is a pipe or a device; expected an image" in capsys.readouterr().err


def test_an_interrupted_command_goes_on(shop, monkeypatch):
    monkeypatch.setattr(media, 'PART', 2)
    encoder = media.text_encoder(f'{__name__}.own')
    texts = ['a', 'bb', 'ccc', 'aaaa', 'b']

    def interrupt(count):
        if count == 3:
            raise KeyboardInterrupt

    CALLS.clear()
    with pytest.raises(KeyboardInterrupt):
        media.write_features(str(shop), 'text', texts, encoder, batch_size=1, progress=interrupt)
    assert len(CALLS) == 3 and not os.path.exists(shop / 'text_feat.npy')
    assert media.write_features(str(shop), 'text', texts, encoder, batch_size=1) == (5, 2)
    assert len(CALLS) == 6  # The third one again, since its part was not kept.
    assert np.load(shop / 'text_feat.npy').tolist() == [[1, 1], [2, 0], [3, 0], [4, 4], [1, 0]]


def test_partial_files_of_a_killed_process_are_ignored(shop, monkeypatch):
    encoder = media.text_encoder(f'{__name__}.own')

    def kill(count):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        media.write_features(str(shop), 'text', ['a', 'bb'], encoder, progress=kill)
    (parts,) = (name for name in os.listdir(shop) if name.startswith('.text-'))
    np.save(shop / parts / '.tmp-7-00000000-half.npy', np.ones((2, 2)))  # From another machine.
    assert media.write_features(str(shop), 'text', ['a', 'bb'], encoder) == (2, 2)
    assert np.load(shop / 'text_feat.npy').tolist() == [[1, 1], [2, 0]]


def test_features_never_have_the_mask_of_other_items(shop, monkeypatch):
    encoder = media.text_encoder(f'{__name__}.own')
    media.write_features(str(shop), 'text', ['a', '', 'ccc'], encoder)
    names, save = [], media._save

    def written(x, path):
        names.append(sorted(name for name in os.listdir(shop) if name.startswith('text')))
        save(x, path)

    monkeypatch.setattr(media, '_save', written)
    media.write_features(str(shop), 'text', ['a', '', 'ccc'], encoder)  # The same mask.
    assert names == [['text_feat.json', 'text_feat.npy', 'text_mask.npy']]
    media.write_features(str(shop), 'text', ['', 'a', 'ccc'], encoder)
    assert names[1:] == [['text_feat.json'], ['text_feat.json', 'text_mask.npy']]
    np.save(shop / 'text_mask.npy', [1, 0])  # Not a mask.
    media.write_features(str(shop), 'text', ['b', 'a', 'ccc'], encoder)
    assert names[3:] == [['text_feat.json']] and not (shop / 'text_mask.npy').exists()


def test_refused(shop, tmp_path, capsys):
    def message(*flags):
        assert main(['features', *flags]) == 2
        error = capsys.readouterr().err
        assert error.startswith('error: ') and error.count('\n') == 1
        return error

    folder = str(shop)
    assert 'nothing to encode; expected --text COLUMNS or --images' in message(folder)
    assert "has no column 'name'; found itemID, title, text" in message(folder, '--text', 'name')
    assert "the folder 'none' does not exist" in message('none', '--text', 'title')
    assert "--images: the folder 'none' does not" in message(folder, '--images', 'none')
    (tmp_path / 'images').mkdir()
    said = message(folder, '--images', str(tmp_path / 'images'))
    assert "has no image of any item; expected files named by the column 'itemID'" in said
    flags = [folder, '--text', 'title', '--text-encoder']
    assert 'expected a row of finite numbers' in message(*flags, f'{__name__}.broken')
    assert "no_such.thing' " in message(*flags, 'no_such.thing')
    assert not os.path.exists(shop / 'text_feat.npy')
    flags = [folder, '--text', 'title']
    (shop / 'items.tsv').write_text('itemID\ttitle\na\tx\nb\n')
    said = message(*flags)
    assert "items.tsv', row 3: expected 2 fields as in the header, found 1" in said
    (shop / 'items.tsv').write_bytes(b'itemID\ttitle\na\t\xe9\n')
    assert "items.tsv': expected UTF-8 text, found 0xe9" in message(*flags)
    os.remove(shop / 'items.tsv')
    (shop / 'items.csv').write_text('itemID,title\na,"xxx\nb,yyy\n')
    assert "items.csv', after row 1: unexpected end of data" in message(*flags)
    long = 'x' * 200_000
    (shop / 'items.csv').write_text(f'itemID,title\na,"{long}"\n')
    assert media.read_texts(folder, ['title']) == [long]
    os.remove(shop / 'items.csv')
    assert 'has no file of items: expected items.tsv' in message(folder, '--text', 'title')


@pytest.fixture
def images(tmp_path):
    image = pytest.importorskip('PIL.Image')
    folder = tmp_path / 'images'
    folder.mkdir()
    for name, width in (('i0', 20), ('i2', 30), ('i3', 20)):
        image.new('RGB', (width, 16), 'red').save(folder / f'{name}.png')
    return folder


def test_descriptions(shop, images, capsys):
    def features(*flags):
        CALLS.clear()
        command = ['features', str(shop), '--images', str(images), '--dtype', 'float32']
        assert main([*command, '--describe', f'{__name__}.look', *flags]) == 0, capsys.readouterr()
        return np.load(shop / 'image_feat.npy')

    x = features('--batch-size', '2', '--dim', '32')
    assert 'image: 3 items, 32 columns, 2 items have none' in capsys.readouterr().out
    assert CALLS == [2, 1]
    expected = hashed_ngrams(['20 wide', '30 wide', '20 wide'], 32)
    np.testing.assert_array_equal(x[[0, 2, 3]], expected)
    with open(shop / 'image_feat.json') as file:
        content = json.load(file)
    assert (content['encoder'], content['described_by']) == (
        'hashed',
        {'describer': f'{__name__}.look'},
    )
    path = shop / 'image_descriptions.jsonl'
    lines = path.read_text().splitlines()
    assert json.loads(lines[1])[::3] == ['i0.png', '20 wide'] and len(lines) == 4
    assert TableDataset(str(shop)).modalities == ['image']

    # Another encoder reuses the descriptions. A changed image and an incomplete line do not.
    x = features('--text-encoder', f'{__name__}.own')
    assert CALLS == [3] and x[0].tolist() == [7, 0]  # Only the encoder is called.
    path.write_text('\n'.join(lines)[:-3])
    os.utime(images / 'i0.png', ns=(1, 1))
    features()
    assert CALLS == [2] and len(path.read_text().splitlines()) == 5
    path.write_text('{"describer": "another"}\n' + '\n'.join(lines[1:]) + '\n')
    features('--text', 'title')
    assert CALLS == [3] and TableDataset(str(shop)).modalities == ['image', 'text']


def test_descriptions_are_refused(shop, images, capsys):
    def message(*flags):
        assert main(['features', str(shop), *flags]) == 2
        return capsys.readouterr().err

    pictures = ['--images', str(images)]
    described = [*pictures, '--describe', f'{__name__}.look']
    assert '--prompt: expected a language model' in message(*pictures, '--prompt', 'a')
    said = message('--text', 'title', '--describe', 'a')
    assert '--describe: expected a folder of images' in said
    said = message(*described, '--image-encoder', 'statistics')
    assert 'expected either an image encoder or --describe MODEL' in said
    assert '--max-new-tokens must be at least 1' in message(*described, '--max-new-tokens', '0')
    said = message(*pictures, '--describe', f'{__name__}.silent')
    assert 'expected 3 texts, one per image, got 0 texts among 0 values' in said
    said = message(*pictures, '--describe', 'no_such.thing')
    assert "--describe: 'no_such.thing' cannot be imported" in said
    said = message('--text', 'title', '--pooling', 'cls')
    assert "--text-encoder 'hashed' does not support --precision or --pooling" in said
    assert not os.path.exists(shop / 'image_feat.npy')
