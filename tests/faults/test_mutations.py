r"""Whatever a file holds, reading it ends soon, with what was there or with one sentence that
names the file.
"""

import gzip
import json
import os
import random
import signal
import warnings

import numpy as np
import pytest
import torch
import yaml

from motor_geo.data import OPQTokenizer
from motor_geo.data.datasets.amazon_raw import IMAGE, read_interactions, read_metadata, write_images
from motor_geo.data.datasets.features_folder import load_mask, load_matrix
from motor_geo.data.datasets.layouts import read_lists
from motor_geo.data.datasets.reader import read_header, read_table
from motor_geo.engine.checkpoint import load_checkpoint, save_checkpoint
from motor_geo.experiments.search import read_space
from motor_geo.pipeline.finished import read_result
from motor_geo.pipeline.flags import read_yaml
from motor_geo.recommend import read_users
from motor_geo.utils.arrays import load_array, load_npz
from motor_geo.utils.cache import fingerprint
from tests.faults.mutate import mutated

LONGEST = 20  # Seconds.
ASINS = np.array([f'B{i:09d}' for i in range(6)])
ROWS = [(f'u{i % 5}', f'i{i % 7}', i % 3, 1.5 * i) for i in range(20)]


def of_array(path):
    np.save(path, np.arange(24, dtype=np.float32).reshape(6, 4))


def of_mask(path):
    np.save(path, np.arange(6) % 2 == 0)


def of_archive(path):
    np.savez_compressed(path, x=np.arange(24.0).reshape(6, 4))


def of_tensor(path):
    torch.save(torch.arange(24.0).view(6, 4), path)


def of_options(path):
    content = {'model': {'name': 'FREEDOM', 'channels': 8}, 'seed': 3, 'evaluator': {'ks': [5]}}
    path.write_text(yaml.safe_dump({**content, 'epochs': 4, 'lr': 0.01}))


def of_space(path):
    path.write_text('model: BPR\nsearch:\n  lr: [0.1, 0.01]\n  model.channels: {low: 4, high: 8}\n')


def of_checkpoint(path):
    state = {'model': {'x': torch.arange(50.0)}, 'epoch': 3, 'history': '[]'}
    save_checkpoint(str(path), state, 'BPR', 'abc')


def of_tokenizer(path):
    x = torch.arange(240.0).view(40, 6).sin()
    OPQTokenizer(2, 8, method='pq', cache=False, verbose=False).fit({'text': x}).save(str(path))


def of_text(path, delimiter='\t'):
    lines = [delimiter.join(map(str, row)) for row in [('user', 'item', 'label', 'time'), *ROWS]]
    path.write_text('\n'.join(lines) + '\n')


def of_csv(path):
    of_text(path, ',')
    path.write_text(path.read_text().replace('i3', '"i,3"'))


def of_packed(path):
    of_text(path)
    path.write_bytes(gzip.compress(path.read_bytes(), mtime=0))


def of_parquet(path):
    pyarrow = pytest.importorskip('pyarrow')
    parquet = pytest.importorskip('pyarrow.parquet')
    names = ('user', 'item', 'label', 'time')
    table = pyarrow.table(dict(zip(names, map(list, zip(*ROWS)))))
    parquet.write_table(table, path, write_page_checksum=True)


def of_lists(path):
    path.write_text(json.dumps({str(u): [u, u + 1, u + 5] for u in range(6)}))


def of_reviews(path):
    lines = [
        json.dumps({'reviewerID': f'A{i % 4}', 'asin': ASINS[i % 6], 'unixReviewTime': 10**9 + i})
        for i in range(12)
    ]
    path.write_bytes(gzip.compress('\n'.join(lines).encode(), mtime=0))


def of_ratings(path):
    path.write_text(''.join(f'A{i % 4},{ASINS[i % 6]},5.0,{10**9 + i}\n' for i in range(12)))


def of_products(path):
    path.write_text(
        ''.join(f"{{'asin': '{a}', 'title': 'x', 'category': [['y']]}}\n" for a in ASINS)
    )


def of_images(path):
    records = np.zeros(2, IMAGE)
    records['asin'], records['x'] = ASINS[:2].astype('S10'), 1
    path.write_bytes(records.tobytes())


def of_result(path):
    result = {'val': {'recall@20': 0.5}, 'test': {}, 'seconds': 1.0, 'epochs': 3, 'hashes': {}}
    path.write_text(json.dumps(result))


def of_users(path):
    path.write_text('u1\nu2\nu3\n')


def table(path):
    read_header(path)
    out = read_table(path, ['user', 'item'], ['label'], times=['time'])
    return out.ids, out.numbers


def images(path):
    folder = os.path.join(os.path.dirname(path), 'images')
    os.makedirs(folder, exist_ok=True)
    write_images(path, ASINS, folder)


#: Names of files, what they hold, how they are read, and whether they have checksums.
KINDS = {
    'text_feat.npy': (of_array, load_array, False),
    'text_mask.npy': (of_mask, load_mask, False),
    'text_feat.npz': (of_archive, load_matrix, True),
    'text_feat.pt': (of_tensor, load_matrix, True),
    'options.yaml': (of_options, read_yaml, False),
    'space.yaml': (of_space, lambda path: read_space([path], {}).search, False),
    'last.pt': (of_checkpoint, load_checkpoint, True),
    'tokenizer.pt': (of_tokenizer, lambda path: OPQTokenizer.load(path).quantizers, True),
    'shop.inter': (of_text, table, False),
    'shop.csv': (of_csv, table, False),
    'shop.inter.gz': (of_packed, table, True),
    'shop.parquet': (of_parquet, table, False),
    'train.json': (of_lists, lambda path: read_lists(path).ids, False),
    'reviews.json.gz': (of_reviews, read_interactions, False),
    'ratings.csv': (of_ratings, read_interactions, False),
    'meta.json': (of_products, lambda path: read_metadata(path, ASINS), False),
    'images.b': (of_images, images, False),
    'result.json': (of_result, lambda path: read_result(os.path.dirname(path)), False),
    'per_user.npz': (of_archive, load_npz, True),
    'users.txt': (of_users, read_users, False),
}
#: Options of a space are checked one after the other, as flags are: without a file.
NAMELESS = ('space.yaml',)


def said(value):
    r"""What was read, in a form that can be compared."""
    if isinstance(value, dict):
        return {key: said(entry) for key, entry in value.items()}
    if hasattr(value, 'state_dict'):
        return said(value.state_dict())
    return fingerprint(value)


def too_long(*args):
    raise AssertionError(f'longer than {LONGEST} seconds')


def damage(folder, name, seeds):
    r"""Reads damaged files; returns how many could be read."""
    make, read, checked = KINDS[name]
    path = folder / name
    make(path)
    content = path.read_bytes()
    whole = said(read(str(path)))
    before = signal.signal(signal.SIGALRM, too_long)
    read_well = 0
    try:
        for seed in seeds:
            path.write_bytes(mutated(content, random.Random(f'{name} {seed}')))
            signal.alarm(LONGEST)
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter('ignore')
                    found = said(read(str(path)))
            except (ValueError, OSError, MemoryError) as error:
                named = name in str(error) or name in NAMELESS
                assert named and str(error).count('\n') < 3, f'seed {seed}: {error!r}'
            except BaseException as error:
                raise AssertionError(f'seed {seed}: {error!r}') from error
            else:
                read_well += 1
                assert not checked or found == whole, f'seed {seed}: something else was read'
            finally:
                signal.alarm(0)
    finally:
        signal.signal(signal.SIGALRM, before)
    return read_well


pytestmark = pytest.mark.skipif(not hasattr(signal, 'SIGALRM'), reason='alarms of POSIX')


@pytest.mark.parametrize('name', KINDS)
def test_damaged_files(tmp_path, name, capfd):
    damage(tmp_path, name, range(25))


@pytest.mark.faults
@pytest.mark.parametrize('name', KINDS)
def test_many_damaged_files(tmp_path, name, capfd):
    damage(tmp_path, name, range(2000))


@pytest.mark.parametrize('kind', ['pipe', 'link', 'loop', 'folder', 'empty', 'device'])
@pytest.mark.parametrize('name', KINDS)
def test_special_files(tmp_path, name, kind):
    if (name, kind) == ('meta.json', 'empty'):
        return  # Nothing is known of any product.
    path = tmp_path / name
    if kind == 'pipe':
        os.mkfifo(path)
    elif kind == 'folder':
        path.mkdir()
    elif kind == 'empty':
        path.write_bytes(b'')
    else:
        path.symlink_to({'link': 'nowhere', 'loop': name, 'device': '/dev/zero'}[kind])
    signal.signal(signal.SIGALRM, too_long)
    signal.alarm(LONGEST)
    try:
        with pytest.raises((ValueError, OSError)) as error:
            KINDS[name][1](str(path))
            raise AssertionError('it was read')
    finally:
        signal.alarm(0)
    assert name in str(error.value)
