r"""The commands of docs/shop.rst, on the synthetic shop."""

import csv
import os
import re
import shlex
import warnings

import numpy as np
import pytest

from motor_geo.__main__ import main
from motor_geo.data import SyntheticMultimodal
from motor_geo.typing import RATES

PAGE = os.path.join(os.path.dirname(__file__), '..', 'docs', 'shop.rst')
QUICK = ['--epochs', '2', '--tokenizer.codebook_size', '16', '--model.channels', '16']
QUICK += [
    '--svd.channels',
    '8',
    '--threads',
    '1',
    '--tokenizer.cache',
    'false',
    '--report',
    'false',
]
NEW = 5


def commands():
    with open(PAGE) as file:
        return [
            shlex.split(line)[1:] for line in re.findall(r'^    motor-geo .*$', file.read(), re.M)
        ]


def table(path, header, rows):
    with open(path, 'w', newline='') as file:
        csv.writer(file).writerows([header, *rows])


def shop(folder, dataset, items, image):
    (folder / 'images').mkdir(parents=True)
    names = [f'p{i}\t{dataset.item_titles[i]}\n' for i in items]
    (folder / 'items.tsv').write_text('itemID\ttitle\n' + ''.join(names))
    for i in items:
        image.fromarray(dataset.item_images[i]).save(folder / 'images' / f'p{i}.png')


def test_a_shop(tmp_path, monkeypatch, capsys):
    image = pytest.importorskip('PIL.Image')
    dataset = SyntheticMultimodal(num_users=80, num_items=60, num_interactions=900)
    user, item = dataset.data[RATES].edge_index.numpy()
    monkeypatch.chdir(tmp_path)
    old = item < 60 - NEW
    shop(tmp_path / 'shop', dataset, range(60 - NEW), image)
    shop(tmp_path / 'new', dataset, range(60 - NEW, 60), image)
    rows = [(f'c{u}', f'p{i}', t) for t, (u, i) in enumerate(zip(user[old], item[old]))]
    table('shop/events.csv', ['userID', 'itemID', 'timestamp'], rows)
    rows = [(f'c{u}', f'p{i}') for u, i in zip(user[~old], item[~old])]
    table('tomorrow.csv', ['userID', 'itemID'], [*rows, ('newcomer', 'p1'), ('newcomer', 'p2')])
    table('visitors.csv', ['userID', 'itemID'], [('visitor', 'p1'), ('visitor', 'p59')])

    def read(path):
        with open(path, newline='') as file:
            return list(csv.DictReader(file))

    for words in commands():
        if words[0] == 'run':
            words += QUICK
        if words[0] == 'explain':
            first = read('lists.csv')[0]
            words[2:] = [first['userID'], first['itemID']]
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            assert main(words) == 0, words
    lists = read('lists.csv')
    assert len(lists) >= 10 * 70 and any('tokens of' in row['why'] for row in lists)
    assert 'because of' in capsys.readouterr().out
    later = read('lists-tomorrow.csv')
    assert {row['itemID'] for row in later} & {f'p{i}' for i in range(60 - NEW, 60)}
    assert [row['userID'] for row in later].count('newcomer') == 10
    assert {row['source'] for row in read('visitors-lists.csv')} == {'fold-in'}
    assert np.isfinite([float(row['score']) for row in later]).all()
