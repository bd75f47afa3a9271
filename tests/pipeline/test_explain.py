import csv

import numpy as np
import pytest
import torch

from motor_geo.__main__ import main
from motor_geo.pipeline.explain import explain
from motor_geo.pipeline.folder import load_run
from motor_geo.pipeline.reasons import STRENGTH
from motor_geo.pipeline.recommend import recommend
from motor_geo.pipeline.train import run
from motor_geo.pipeline.write_lists import write
from motor_geo.typing import ITEM, RATES
from tests.pipeline.shop import NUM_ITEMS, NUM_USERS, SMALL, make_shop


@pytest.fixture(scope='module')
def shop(tmp_path_factory):
    folder = make_shop(tmp_path_factory.mktemp('data') / 'shop')
    names = ''.join(f'i{item:02d}\tThing {item}\n' for item in range(NUM_ITEMS))
    with open(f'{folder}/items.tsv', 'w') as file:
        file.write('itemID\ttitle\n' + names)
    return folder


@pytest.fixture(scope='module')
def folder(shop, tmp_path_factory):
    out = str(tmp_path_factory.mktemp('runs') / 'a')
    run({**SMALL, 'data': shop, 'items': 'specific', 'out': out}, progress=False)
    return out


def test_shares_are_those_of_least_squares(folder):
    loaded = load_run(folder)
    best = recommend(loaded, 'u3', k=1)
    found = explain(loaded, 'u3', str(best.item[0, 0]), size=20)
    assert found.rank == 1 and found.score == pytest.approx(float(best.score[0, 0]), rel=1e-5)
    with torch.no_grad():
        item = loaded.model(loaded.data).item.double()
    user, index = loaded.data[RATES].edge_index
    row, column = list(loaded.dataset.user_ids).index('u3'), int(found.item[1:])
    own = index[user == row]
    seen = item[index.unique()]
    gram = user.numel() / (NUM_USERS * len(seen)) * seen.t() @ seen
    left = gram + STRENGTH * gram.diagonal().mean() * torch.eye(8) + item[own].t() @ item[own]
    terms = {f'i{j:02d}': float(item[column] @ torch.linalg.solve(left, item[j])) for j in own}
    total = sum(max(term, 0) for term in terms.values())
    expected = sorted(((term / total, j) for j, term in terms.items() if term > 0), reverse=True)
    assert [reason.item for reason in found.reasons] == [j for _, j in expected]
    for reason, (share, j) in zip(found.reasons, expected):
        assert reason.share == pytest.approx(share, rel=1e-3)
        assert reason.title == f'Thing {int(j[1:])}'
        tokens = loaded.data[ITEM].token_id
        same = (tokens[column] == tokens[int(j[1:])]).tolist()
        assert reason.tokens == {'image': (sum(same[:2]), 2), 'text': (sum(same[2:]), 2)}


def test_models_without_vectors(shop, tmp_path):
    out = str(tmp_path / 'ease')
    run({**SMALL, 'data': shop, 'model': 'EASE', 'out': out, 'trainer': {}}, progress=False)
    loaded = load_run(out)
    best = recommend(loaded, 'u3', k=1)
    found = explain(loaded, 'u3', str(best.item[0, 0]), size=20)
    assert found.rank == 1 and 0 < sum(r.share for r in found.reasons) <= 1 + 1e-6
    for reason in found.reasons:  # The terms are exact: a history of one item.
        alone = recommend(loaded, k=NUM_ITEMS, interactions={'x': [reason.item]})
        assert dict(zip(alone.item[0], alone.score[0]))[found.item] > 0
        assert reason.tokens == {}


def test_reasons_in_lists(folder, tmp_path, capsys):
    loaded = load_run(folder)
    found = recommend(loaded, ['u5', 'u3'], k=3, why=True)
    plain = recommend(loaded, ['u5', 'u3'], k=3)
    assert (found.item == plain.item).all() and found.why.shape == (2, 3)
    first = explain(loaded, 'u3', str(found.item[1, 0]), size=2)
    assert found.why[1, 0] == '; '.join(map(str, first.reasons))
    assert first.reasons[0].title in found.why[1, 0] and '%' in found.why[1, 0]
    out = tmp_path / 'r.csv'
    assert main(['recommend', folder, '--why', '--k', '3', '--out', str(out)]) == 0
    with open(out, newline='') as file:
        rows = [row for row in csv.DictReader(file) if row['userID'] == 'u3']
    assert [row['why'] for row in rows] == found.why[1].tolist()
    for ending in ('csv', 'parquet'):
        assert write(found, str(tmp_path / f'b.{ending}')) == 6
    new = recommend(loaded, k=2, interactions={'ann': ['i01']}, why=True)
    assert 'Thing 1 (100%' in new.why[0, 0] or new.why[0, 0] == ''
    capsys.readouterr()
    assert main(['recommend', folder, '--why', '--index', str(tmp_path / 'none')]) == 2
    assert 'does not exist' in capsys.readouterr().err


def test_command(folder, capsys):
    loaded = load_run(folder)
    item = str(recommend(loaded, 'u3', k=1).item[0, 0])
    assert main(['explain', folder, 'u3', item, '--k', '2']) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f'Thing {int(item[1:])} for user u3: rank 1, score ')
    assert lines[1] == 'because of' and 'Thing' in lines[2] and 'token' in lines[2]
    for user, other, said in (
        ('nobody', item, "The user 'nobody' is not in 'shop'"),
        ('u3', 'what', "The item 'what' is not in 'shop'; expected one of its raw ids, such"),
    ):
        assert main(['explain', folder, user, other]) == 2
        assert said in capsys.readouterr().err
    assert np.isfinite(explain(loaded, 'u3', item).score)
