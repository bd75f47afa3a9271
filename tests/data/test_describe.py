import json

import numpy as np
import pytest
import torch

from motor_geo.__main__ import main
from motor_geo.data.describe import _answer, picture_describer, split_revision
from motor_geo.data.media import text_encoder, text_key
from tests.tiny_models import tiny_caption_model, tiny_chat_model, tiny_text_model


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')


def pictures():
    image = pytest.importorskip('PIL.Image')
    pixels = np.random.default_rng(0).integers(0, 255, (3, 24, 32, 3)).astype(np.uint8)
    return [image.fromarray(x) for x in pixels]


def test_answer_without_prompt():
    def answer(row, asked):
        return _answer(torch.tensor(row), torch.tensor(asked)).tolist()

    assert answer([1, 7, 8, 9, 5, 6], [1, 7, 8, 9]) == [5, 6]
    assert answer([4, 7, 8, 5, 6], [1, 7, 8, 3]) == [5, 6]  # Different first and last tokens.
    assert answer([0, 5, 6], [1, 7, 8, 9]) == [0, 5, 6]  # The prompt is not repeated.
    assert answer([1, 7, 8, 9], [1, 7, 8, 9]) == []


def test_revisions(tmp_path):
    assert split_revision('me/model@v1') == ('me/model', 'v1')
    assert split_revision('me/model') == ('me/model', None)
    (tmp_path / 'a@b').mkdir()
    assert split_revision(str(tmp_path / 'a@b')) == (str(tmp_path / 'a@b'), None)


@pytest.mark.parametrize('build', [tiny_caption_model, tiny_chat_model])
def test_descriptions_of_models(build, tmp_path):
    folder = build(tmp_path / 'model')
    found = pictures()
    describer = picture_describer(folder, 'a picture of', max_new_tokens=6)
    texts = describer.describe(found)
    assert len(texts) == 3 and all(0 < len(text.split()) <= 6 for text in texts)
    assert not any('picture of' in text or '<' in text for text in texts)
    assert describer.describe(found[:1]) == texts[:1]  # The same as in a batch.
    assert describer.source['precision'] == 'float32' and describer.source['max_new_tokens'] == 6
    longer = picture_describer(folder, 'a picture of', max_new_tokens=8).describe(found)
    assert all(long.startswith(short) for long, short in zip(longer, texts))
    half = picture_describer(folder, 'what is this', 6, 'bfloat16')
    assert half.source['precision'] == 'bfloat16' and len(half.describe(found)) == 3


def test_unknown_models(tmp_path):
    pytest.importorskip('transformers')
    with pytest.raises(ValueError, match='--describe: the model .* cannot be loaded'):
        picture_describer(str(tmp_path))


def test_pooling_and_precision(tmp_path):
    folder = tiny_text_model(tmp_path)
    texts = ['red chair', 'blue lamp this is', 'toy']
    mean = text_encoder(folder).encode(texts)
    np.testing.assert_array_equal(text_encoder(folder, pooling='mean').encode(texts), mean)
    last = text_encoder(folder, pooling='lasttoken')
    assert last.source['pooling'] == 'lasttoken' and last.encode(texts).shape == mean.shape
    assert np.abs(last.encode(texts)[:2] - mean[:2]).max() > 1e-3
    np.testing.assert_allclose(last.encode(['toy']), mean[2:], atol=1e-5)  # One word.
    half = text_encoder(folder, precision='bfloat16')
    np.testing.assert_allclose(half.encode(texts), mean, atol=0.1)
    assert half.source['precision'] == 'bfloat16' and (half.encode(texts) != mean).any()
    assert text_key(folder) != text_key('hashed') and text_key('a') != text_key('b')


def test_features_from_descriptions(tmp_path, capsys):
    caption, text = tiny_caption_model(tmp_path / 'caption'), tiny_text_model(tmp_path)
    shop, images = tmp_path / 'shop', tmp_path / 'images'
    shop.mkdir(), images.mkdir()
    (shop / 'items.tsv').write_text('itemID\ttitle\na\tred chair\nb\tblue lamp\nc\ttoy\n')
    for name, picture in zip('ab', pictures()):
        picture.save(images / f'{name}.png')
    command = ['features', str(shop), '--text', 'title', '--images', str(images)]
    command += ['--describe', caption, '--prompt', 'a picture of', '--max-new-tokens', '6']
    command += ['--text-encoder', text, '--pooling', 'lasttoken', '--dtype', 'float32']
    assert main(command) == 0, capsys.readouterr().err
    with open(shop / 'image_descriptions.jsonl') as file:
        head, *lines = map(json.loads, file)
    assert head['prompt'] == 'a picture of' and head['precision'] == 'float32'
    encoder = text_encoder(text, pooling='lasttoken')
    x = np.load(shop / 'image_feat.npy')
    np.testing.assert_allclose(x[:2], encoder.encode([line[3] for line in lines]), atol=1e-6)
    assert np.load(shop / 'image_mask.npy').tolist() == [True, True, False]
    with open(shop / 'image_feat.json') as file:
        content = json.load(file)
    assert content['described_by'] == head and content['pooling'] == 'lasttoken'
    assert np.load(shop / 'text_feat.npy').shape == x.shape == (3, 16)
