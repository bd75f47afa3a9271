from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from motor_geo.data.datasets.features_folder import load_features

X = np.arange(12, dtype=np.float32).reshape(4, 3)


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        yield


def fails(folder, message):
    with pytest.raises(ValueError, match=message) as caught:
        load_features(str(folder))
    assert len(str(caught.value)) < 400 + 2 * len(str(folder))


def test_archives_and_tensors(tmp_path):
    np.save(tmp_path / 'text_feat.npy', X)
    np.savez(tmp_path / 'audio_feat.npz', any_name=X + 1)
    torch.save(torch.from_numpy(X + 2).bfloat16(), tmp_path / 'image_feat.pt')
    with pytest.warns(UserWarning) as caught:
        features, masks = load_features(str(tmp_path))
    assert len(caught) == 1 and not masks
    assert "['audio_feat.npz', 'image_feat.pt'] are read as features." in str(caught[0].message)
    for name, shift in (('text', 0), ('audio', 1), ('image', 2)):
        assert (features[name] == X + shift).all()
    # No word about what was chosen, or left out, by name.
    assert list(load_features(str(tmp_path), modalities=['audio'])[0]) == ['audio']


@pytest.mark.parametrize(
    'name',
    ['video_features.npy', 'text_feat.pkl', 'image.h5', 'image_mask.npy', 'text_mask.npz', 'e.mat']
    + ['text_feat.csv', 'emb.safetensors', 'text_features.parquet', 'Image_feat.NPY', 'x.pth'],
)
def test_files_that_are_not_read_are_named(tmp_path, name):
    np.save(tmp_path / 'text_feat.npy', X)
    for other in ('shop.inter', 'items.tsv', 'README.md', '.hidden.npy', 'u_id_mapping.csv'):
        (tmp_path / other).write_bytes(b'x')
    load_features(str(tmp_path))
    (tmp_path / name).write_bytes(b'x')
    with pytest.warns(UserWarning, match=f"'{name}'.* looks like features and is not read"):
        assert list(load_features(str(tmp_path))[0]) == ['text']


def test_a_folder_of_files(tmp_path):
    (tmp_path / 'image_features').mkdir()
    for i in range(300):
        np.save(tmp_path / f'{i:05d}.npy', X[0])
    with pytest.warns(UserWarning, match="'image_features'|more] look like features") as caught:
        load_features(str(tmp_path))
    assert len(str(caught[0].message)) < 500 + len(str(tmp_path))


def test_unreadable(tmp_path):
    np.savez(tmp_path / 'text_feat.npz', X, X)
    fails(tmp_path, r"text_feat.npz': expected one array, found \['arr_0', 'arr_1'\]")
    np.savez(tmp_path / 'text_feat.npz', np.array([None]))
    fails(tmp_path, "text_feat.npz' cannot be read as an archive")
    (tmp_path / 'text_feat.npz').write_bytes(b'nonsense')
    fails(tmp_path, "text_feat.npz' cannot be read as an archive")
    (tmp_path / 'text_feat.npz').unlink()
    torch.save({'x': torch.ones(4, 2)}, tmp_path / 'text_feat.pt')
    fails(tmp_path, "text_feat.pt': expected one dense tensor, found dict")
    torch.save(torch.ones(4, 2, 2), tmp_path / 'text_feat.pt')
    fails(tmp_path, r"text_feat.pt': expected a numeric matrix .*\[4, 2, 2\]")
    torch.save(torch.nn.Linear(2, 2), tmp_path / 'text_feat.pt')
    fails(tmp_path, "text_feat.pt' cannot be read as a tensor without pickled objects")
    np.save(tmp_path / 'text_feat.npy', X)
    fails(
        tmp_path, r"\['text_feat.npy', 'text_feat.pt'\]; expected one file for the modality 'text'"
    )


@pytest.mark.parametrize('kind', ['.npy', '.npz', '.pt'])
@pytest.mark.parametrize('mmap', [False, True])
@pytest.mark.filterwarnings('ignore:.*are|is read as features')
def test_values_that_the_mask_says_are_missing(tmp_path, kind, mmap):
    warnings.simplefilter('ignore')
    x = X.copy()
    x[1, 0], x[3] = np.nan, np.inf
    path = tmp_path / f'text_feat{kind}'
    if kind == '.npy':
        np.save(path, x)
    elif kind == '.npz':
        np.savez(path, x)
    else:
        torch.save(torch.from_numpy(x), path)
    fails(tmp_path, "row 1 holds NaN or infinite .* or a file 'text_mask.npy' that is False for")
    np.save(tmp_path / 'text_mask.npy', np.array([True, False, True, False]))
    features, masks = load_features(str(tmp_path), mmap=mmap)
    assert (features['text'][[0, 2]] == X[[0, 2]]).all() and np.isfinite(features['text']).all()
    assert masks['text'].tolist() == [True, False, True, False]
    np.save(tmp_path / 'text_mask.npy', np.array([True, False, True, True]))
    fails(tmp_path, 'row 3 holds NaN or infinite')
