import copy
import json
import shutil
import types
from pathlib import Path

import numpy as np
import pytest
import torch

from motor_geo.pipeline import page as module
from motor_geo.pipeline.catalog import read_catalog
from motor_geo.pipeline.folder import load_run
from motor_geo.pipeline.page import main, write_last, write_page
from motor_geo.pipeline.train import run
from motor_geo.report.page import picture
from motor_geo.utils.errors import ConfigError
from tests.pipeline.shop import NUM_ITEMS, NUM_USERS, SMALL, make_shop
from tests.report.html_tree import parse, table

LABELS = (0, 0, 0, 0, 1, 2)
NASTY = '<script>alert(1)</script> & "quoted" `code`'


def start(data, out, items='specific', **options):
    config = {**SMALL, 'data': str(data), 'out': str(out), 'items': {'name': items}, **options}
    run(config, progress=False)
    return str(out)


def shop_of(folder, labels=LABELS):
    make_shop(folder, labels)
    titles = [f'i{i:02d}\tThing number {i}' for i in range(NUM_ITEMS)]
    titles[3], titles[4] = f'i03\t{NASTY}', 'i04\t'
    (folder / 'items.tsv').write_text('\n'.join(['itemID\ttitle', *titles]) + '\n')
    return folder


@pytest.fixture(scope='module')
def shop(tmp_path_factory):
    return shop_of(tmp_path_factory.mktemp('data') / 'shop')


@pytest.fixture(scope='module')
def runs(tmp_path_factory, shop):
    folder = tmp_path_factory.mktemp('runs')
    return {items: start(shop, folder / items, items) for items in ('specific', 'id')}


@pytest.fixture(scope='module')
def tree(runs):
    return read(write_page(runs['specific'], [runs['id']]))


def read(path):
    return parse(Path(path).read_text(encoding='utf-8'))


def result_of(folder):
    return json.loads(Path(folder, 'result.json').read_text())


def sections(tree):
    return {next(n.find('h2')).text: n for n in tree.find('section', 'details')}


def test_metrics_are_those_of_the_results(tree, runs):
    one, two = result_of(runs['specific']), result_of(runs['id'])
    keys = ('recall@10', 'recall@20', 'ndcg@10', 'ndcg@20')
    expected = [
        ('test', 'this run', one['test']),
        ('test', 'LightGCN, id', two['test']),
        ('test', 'popularity', one['popularity']),
        ('validation', 'this run', one['val']),
        ('validation', 'LightGCN, id', two['val']),
    ]
    assert table(tree, 'Metrics') == [
        [split, name, *(f'{found[key]:.4f}' for key in keys)] for split, name, found in expected
    ]
    sizes = [row[:4] for row in table(tree, 'Size and time')]
    assert sizes == [
        ['this run', f'{one["num_parameters"]:,}', '0', str(one['best_epoch'])],
        ['LightGCN, id', f'{two["num_parameters"]:,}', '8', str(two['best_epoch'])],
    ]
    note = sections(tree)['Results'].text
    assert 'items.name is id instead of specific' in note and 'data.' not in note


def test_the_answer_is_on_top(tree, runs):
    one, two = result_of(runs['specific']), result_of(runs['id'])
    answer = next(n for n in tree.find('div') if n.attrs.get('class') == 'answer').text
    assert answer.startswith(f'Recall@20 on test is {one["test"]["recall@20"]:.4f}: ')
    assert f'popularity ({one["popularity"]["recall@20"]:.4f})' in answer
    assert f'the control (LightGCN, id: {two["test"]["recall@20"]:.4f})' in answer
    assert answer.endswith(f'None of its {one["num_parameters"]:,} parameters belongs to an item.')


def test_users_are_counted(tree, runs):
    values = [dict(np.load(Path(runs[key], 'per_user.npz'))) for key in ('specific', 'id')]
    difference = values[0]['recall@20'] - values[1]['recall@20']
    better, worse = (difference > 0).sum(), (difference < 0).sum()
    assert (
        f'Recall@20 is higher than with LightGCN, id for {better} users, lower for {worse}, and '
        f'equal for {NUM_USERS - better - worse};'
    ) in sections(tree)['Results'].text


def test_the_best_epoch_is_marked(tree, runs):
    result = result_of(runs['specific'])
    lines = Path(runs['specific'], 'metrics.jsonl').read_text().splitlines()
    best = json.loads(lines[result['best_epoch'] - 1])
    own = sections(tree)['Training']
    value, loss = own.find('figcaption')
    mark = f'best epoch, {best["epoch"]}'
    assert value.text == f'this run LightGCN, id {mark}: {best["val"]["recall@20"]:.4f}'
    assert loss.text == f'loss bpr reg {mark}'
    assert len(list(own.find('circle'))) == 4  # On each figure and in its legend.


def test_groups_are_those_of_the_results(tree, runs, shop):
    one, two = (result_of(runs[key])['slices'] for key in ('specific', 'id'))
    rows = table(tree, 'Groups of items')
    names = {row[0].partition(' (')[0] for row in rows}
    assert names == {'unseen' if n == 'cold' else n for n in one if one[n]['interactions']}
    for head, name, recall, ndcg, items, interactions in rows:
        group = {'unseen': 'cold'}.get(head.partition(' ')[0], head.partition(' ')[0])
        own = (one if name == 'this run' else two)[group]
        assert (recall, ndcg) == (f'{own["recall@20"]:.4f}', f'{own["ndcg@20"]:.4f}')
        assert (items, interactions) == (str(own['items']), str(own['interactions']))


def test_ages_of_items_are_shown_where_times_are_known(tree, tmp_path):
    assert not [node for node in tree.find('table') if 'newest' in node.text]
    shop = shop_of(tmp_path / 'shop')
    head, *lines = Path(shop, 'shop.inter').read_text().splitlines()
    rows = [f'{line.rpartition(chr(9))[0]}\t{time}' for time, line in enumerate(lines)]
    Path(shop, 'shop.inter').write_text('\n'.join(['userID\titemID\ttimestamp', *rows]))
    config = {**SMALL, 'data': {'name': str(shop), 'split': 'temporal'}}
    folder = str(tmp_path / 'run')
    run({**config, 'items': {'name': 'specific'}, 'out': folder}, progress=False)
    ages = result_of(folder)['ages']
    assert list(ages) == ['unseen', 'newest', 'recent', 'oldest']
    assert sum(entry['items'] for entry in ages.values()) == NUM_ITEMS
    for name, *cells in table(read(write_page(folder, [])), 'Age of the items'):
        values = [ages[name].get(key) for key in ('recall@20', 'ndcg@20')]
        sizes = [str(ages[name][key]) for key in ('items', 'interactions')]
        assert cells[2:] == sizes
        assert values[0] is None or cells[0] == f'{values[0]:.4f}'


def test_tokens_are_measured(tree, runs):
    loaded = load_run(runs['specific'], 'cpu')
    report = loaded.tokenizer.report(loaded.data)
    rows = {row[0]: row[1:] for row in table(tree, 'By modality')}
    assert list(rows) == ['image', 'text']
    for name, found in report['modalities'].items():
        assert rows[name][:2] == ['2', str(found['collisions'])]
        assert rows[name][-1] == f'{found["neighbors"]:.3f}'
    books = table(tree, 'Use of the codebooks')
    expected = [
        [name, str(i + 1), f'{used} of 4', f'{perplexity:.1f}']
        for name, found in report['modalities'].items()
        for i, (used, perplexity) in enumerate(zip(found['used'], found['perplexity']))
    ]
    assert books == expected
    cards = [n for n in sections(tree)['Tokens'].find('article')]
    assert len(cards) == 4 + 8
    # The first query shares as many tokens as is said, and nobody shares more.
    token_id, titles = loaded.data['item'].token_id, read_catalog(loaded.dataset).titles
    query = titles.index(next(cards[0].find('h3')).text)
    shared = (token_id == token_id[query]).sum(dim=1)
    shared[query] = -1
    said = [int(n.text.split(' of ')[0].split()[-1]) for n in cards[0].find('small')]
    assert said == shared.sort(descending=True).values[:3].tolist()


def test_codes_have_their_items(tree, runs):
    loaded = load_run(runs['specific'], 'cpu')
    token_id, titles = loaded.data['item'].token_id, read_catalog(loaded.dataset).titles
    card = list(sections(tree)['Tokens'].find('article'))[4]
    modality, position, code = next(card.find('h3')).text.split(', ')
    assert modality == 'image'
    column, code = int(position.split()[1]) - 1, int(code.split()[1])
    own = {titles[i] for i in (token_id[:, column] == code).nonzero().view(-1).tolist()}
    listed = [node.text for node in card.find('li')]
    assert len(listed) == 5 and set(listed) <= own


def test_lists_agree_with_the_evaluation(tree, runs):
    loaded = load_run(runs['specific'], 'cpu')
    catalog = read_catalog(loaded.dataset)
    values = dict(np.load(Path(runs['specific'], 'per_user.npz')))
    cards = list(sections(tree)['Lists of a few users'].find('article'))
    assert 2 <= len(cards) <= 4
    for card in cards:
        user = list(loaded.dataset.user_ids).index(next(card.find('h3')).text.split()[1])
        had, get, took = (list(part.find('li')) for part in card.find('ul', 'ol'))
        row, item = loaded.data['user', 'rates', 'item'].edge_index
        assert {n.text for n in had} == {catalog.titles[i] for i in item[row == user].tolist()}
        place = list(values['user']).index(user)
        targets = slice(*values['ptr'][place : place + 2])
        expected = {
            catalog.titles[i]: rank + 1
            for i, rank in zip(values['item'][targets], values['rank'][targets])
        }
        for node in took:
            title, _, rank = node.text.rpartition('rank ')
            title = title.removesuffix('✓ ').strip()
            assert int(rank) == expected.pop(title)
            assert ('hit' in node.attrs.get('class', '')) == (int(rank) <= 10)
            if int(rank) <= 10:
                assert get[int(rank) - 1].text == f'{title} ✓ in test'
        assert not expected and len(get) == 10
        assert sum('class' in n.attrs for n in get) == sum('class' in n.attrs for n in took)


def test_nothing_is_loaded_and_titles_are_text(tree, runs):
    text = Path(runs['specific'], 'report.html').read_text()
    assert not list(tree.find('script', 'link', 'iframe', 'object'))
    assert 'http://' not in text and 'https://' not in text and 'url(' not in text
    catalog = read_catalog(load_run(runs['specific'], 'cpu').dataset)
    assert catalog.titles[3] == NASTY and catalog.titles[4] == 'i04'
    assert catalog.titled.tolist() == [i != 4 for i in range(NUM_ITEMS)]
    shown = catalog.item(3)
    assert shown.title == NASTY and '<script>' not in text


def test_settings_come_last_and_closed(tree, runs):
    *_, last = sections(tree).values()
    assert last.tag == 'details' and 'open' not in last.attrs
    result = result_of(runs['specific'])
    assert dict(table(tree, 'Hashes')) == result['hashes']
    assert dict(table(tree, 'Versions')) == result['versions']
    assert 'num_tokens: 2' in last.text


def test_ids_have_no_tokens(runs):
    tree = read(write_page(runs['id']))
    assert 'Tokens' not in sections(tree)
    answer = next(n for n in tree.find('div') if n.attrs.get('class') == 'answer').text
    assert answer.endswith('parameters, 8 belong to each item.')
    assert [row[1] for row in table(tree, 'Metrics')] == ['this run', 'popularity', 'this run']


@pytest.mark.parametrize('labels', [(0, 0, 0, 2), (0, 0, 0, 0)])
@pytest.mark.filterwarnings('ignore:.*no interaction is for')
def test_without_held_out_interactions(tmp_path, labels):
    shop = shop_of(tmp_path / 'shop', labels)
    out = start(shop, tmp_path / 'out', 'features')
    tree = read(write_page(out))
    found, result = sections(tree), result_of(out)
    text = next(n for n in tree.find('div') if n.attrs.get('class') == 'answer').text
    assert list(found['Lists of a few users'].find('li'))
    assert not list(found['Training'].find('circle'))  # Nothing chose an epoch.
    if 2 in labels:
        assert text.startswith(f'Recall@20 on test is {result["test"]["recall@20"]:.4f}: ')
        assert [row[:2] for row in table(tree, 'Metrics')] == [
            ['test', 'this run'],
            ['test', 'popularity'],
        ]
    else:
        assert text.startswith('No interactions were held out for testing. None of its ')
        assert 'Took in' not in found['Lists of a few users'].text
        assert 'Metrics' not in found['Results'].text
    assert ('By popularity of the items' in found) == (2 in labels)


def test_other_cutoffs(shop, tmp_path):
    trainer = {**SMALL['trainer'], 'metric': 'recall@5'}
    out = start(shop, tmp_path / 'out', 'id', evaluator={'ks': 5}, trainer=trainer)
    tree, test = read(write_page(out)), result_of(out)['test']
    text = next(n for n in tree.find('div') if n.attrs.get('class') == 'answer').text
    assert text.startswith(f'Recall@5 on test is {test["recall@5"]:.4f}: ')
    users = round(test['hit@5'] * NUM_USERS)
    own = sections(tree)['Lists of a few users']
    assert (
        f'from the {users} of {NUM_USERS} users with a held-out item among the first 5' in own.text
    )
    assert {len(list(node.find('li'))) for node in own.find('ol')} == {5}


def test_without_a_loss(runs, tmp_path):
    shutil.copytree(runs['id'], tmp_path / 'run')
    path = tmp_path / 'run' / 'metrics.jsonl'
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows = [{**row, 'loss': 0, 'losses': {}} for row in rows]
    path.write_text(''.join(f'{json.dumps(row)}\n' for row in rows))
    own = sections(read(write_page(str(tmp_path / 'run'))))['Training']
    assert [node.text for node in own.find('h3')] == ['Recall@20 on validation']


def test_a_function_may_score(runs, monkeypatch):
    before = sections(read(write_page(runs['id'])))['Lists of a few users'].text
    real = load_run(runs['id'], 'cpu')
    emb = real.model(real.data)
    scoring = real._replace(model=lambda data: lambda users: emb.user[users] @ emb.item.t())
    monkeypatch.setattr('motor_geo.pipeline.folder.load_run', lambda *args: scoring)
    after = sections(read(write_page(runs['id'])))['Lists of a few users'].text
    assert before == after


def test_controls_are_checked(runs, tmp_path, capsys):
    other = start(make_shop(tmp_path / 'shop', (0, 0, 0, 1, 2)), tmp_path / 'other', 'id')
    out = tmp_path / 'page.html'
    assert main([runs['id'], '--control', other, '--out', str(out)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: '{other}' was trained on other data than '{runs['id']}'")
    for folders, message in [
        ([runs['specific']], 'occurs twice'),
        ([runs['id'], runs['id']], 'occurs twice'),
        ([str(tmp_path)], 'it has no result.json'),
    ]:
        with pytest.raises(ConfigError, match=message):
            write_page(runs['specific'], folders, str(out))
    assert not out.exists()


def test_another_protocol_is_refused(runs, shop, tmp_path):
    masked = start(shop, tmp_path / 'masked', mask_validation=True)
    with pytest.raises(ConfigError, match=r'were evaluated differently .*mask_validation'):
        write_page(runs['specific'], [masked])


def test_the_default_control_is_found(runs, tmp_path):
    shutil.copytree(runs['specific'], tmp_path / 'mine')
    shutil.copytree(runs['id'], tmp_path / 'shop-LightGCN-id-seed0')
    assert [row[0] for row in table(read(write_page(str(tmp_path / 'mine'))), 'Size and time')] == [
        'this run',
        'LightGCN, id',
    ]
    path = tmp_path / 'shop-LightGCN-id-seed0' / 'result.json'
    path.write_text(path.read_text().replace('"data": "', '"data": "x'))  # Its hash, too.
    tree = read(write_page(str(tmp_path / 'mine')))
    assert [row[0] for row in table(tree, 'Size and time')] == ['this run']


def test_a_page_is_whole_or_as_before(runs, tmp_path, monkeypatch):
    folder = tmp_path / 'run'
    shutil.copytree(runs['id'], folder)
    (folder / 'report.html').write_text('before')
    names = sorted(path.name for path in folder.iterdir())

    def broken(*args):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr('os.replace', broken)
    with pytest.raises(OSError, match=r"report\.html' cannot be written: No space left"):
        write_page(str(folder))
    assert (folder / 'report.html').read_text() == 'before'
    assert sorted(path.name for path in folder.iterdir()) == names


def test_the_last_run_never_fails(runs, tmp_path, monkeypatch):
    folder = tmp_path / 'run'
    shutil.copytree(runs['id'], folder)
    (folder / 'report.html').unlink(missing_ok=True)
    (folder / 'best.pt').write_bytes(b'damaged')
    with pytest.warns(UserWarning, match='The page of .* could not be written'):
        assert write_last(str(folder)) is None
    shutil.copy(Path(runs['id'], 'best.pt'), folder)
    path = write_last(str(folder))
    assert path == str(folder / 'report.html')
    (folder / 'report.html').write_text('with controls')  # Newer than the result.
    assert write_last(str(folder)) == path
    assert (folder / 'report.html').read_text() == 'with controls'


def test_items_have_pictures(runs, monkeypatch):
    loaded = load_run(runs['id'], 'cpu')
    dataset = copy.copy(loaded.dataset)
    images = np.random.default_rng(0).integers(0, 256, (NUM_ITEMS, 4, 4, 3)).astype(np.uint8)
    dataset.item_titles = np.array([None, *(f'Title {i}' for i in range(1, NUM_ITEMS))])
    dataset.item_images = images
    catalog = read_catalog(dataset)
    assert catalog.has_names and catalog.titles[:2] == ['i00', 'Title 1']
    assert catalog.item(7, 'note').picture == picture(images[7])
    images[8] = 0
    assert catalog.item(8).picture == ''
    monkeypatch.setattr(
        'motor_geo.pipeline.folder.load_run', lambda *args: loaded._replace(dataset=dataset)
    )
    tree = read(write_page(runs['id']))
    addresses = {node.attrs['src'] for node in tree.find('img')}
    assert addresses <= {picture(image) for image in images} and len(addresses) > 5
    dataset.item_images = images[1:]
    with pytest.raises(
        ValueError, match=r"'item_images' of 'shop': expected uint8 \[20, H, W, 3\]"
    ):
        read_catalog(dataset)


@pytest.mark.parametrize(
    'name, text, expected',
    [
        ('items.csv', 'itemID,Title\na,"One, two"\nb,\n', ['One, two', 'b']),
        ('items.tsv', 'name:token\titem_id:token\n"Big"\ta\nLast\tb\n', ['"Big"', 'Last']),
        ('items.tsv', 'itemID\tcolor\na\tred\nb\tblue\n', ['a', 'b']),
    ],
)
def test_titles_of_files(tmp_path, name, text, expected):
    (tmp_path / name).write_text(text)
    dataset = types.SimpleNamespace(
        folder=str(tmp_path), item_ids=np.array(['a', 'b']), num_items=2, name='d'
    )
    assert read_catalog(dataset).titles == expected


def test_numbers_are_named_as_items():
    dataset = types.SimpleNamespace(item_ids=np.arange(2), num_items=2, name='d')
    catalog = read_catalog(dataset)
    assert catalog.titles == ['item 0', 'item 1'] and not catalog.has_names


def test_commands(runs, capsys, monkeypatch):
    from motor_geo.run import main as run_main

    monkeypatch.setattr('motor_geo.pipeline.train.run', lambda config, **_: result_of(runs['id']))
    assert run_main(['--out', runs['id']]) == 0
    path = str(Path(runs['id'], module.PAGE))
    assert f"page: '{path}'" in capsys.readouterr().out
    assert run_main(['--out', runs['id'], '--report', 'false']) == 0
    assert 'page' not in capsys.readouterr().out
    assert main([runs['id'], '--device', 'cpu']) == 0
    assert capsys.readouterr().out == f"written: '{path}'\n"
    assert main(['nowhere']) == 2


def test_equal_runs_have_equal_pages(runs):
    state = torch.random.get_rng_state()
    pages = [Path(write_page(runs['specific'])).read_text() for _ in range(2)]
    assert pages[0] == pages[1] and torch.equal(state, torch.random.get_rng_state())
