r"""Every block of Python and every command of the guide runs."""

from functools import wraps

import numpy as np
import pytest
import torch

from motor_geo.data import SyntheticMultimodal
from motor_geo.data.transforms.letter import LETTERQuantizer
from motor_geo.data.transforms.rq_vae import RQVAEQuantizer
from motor_geo.testing.graphs import small_graph, with_types
from tests.docs.pages import arguments, blocks, commands, make_folder, run_page, small


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    make_folder(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv('PYG_HOME', str(tmp_path / 'pyg'))
    return tmp_path


def test_the_example_by_hand():
    names = run_page('docs/idea.rst')
    assert names['token_id'].tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    assert names['item'].tolist() == [[2.0, 0.5], [0.0, 0.5], [0.5, 2.0], [-0.5, 2.0]]
    assert names['score'].tolist() == [-1.5, 0.5, 1.5, 2.5]


def test_choose_backbone():
    run_page('docs/choose_backbone.rst')


def test_new_items(folder):
    names = run_page('docs/new_items.rst')
    assert names['item'].size(0) == 63 and names['x_new'].shape == (3, 64)
    lines = (folder / 'runs/shop/recs-new.csv').read_text().splitlines()[1:]
    assert {int(line.split(',')[2]) for line in lines} <= {60, 61, 62}


def test_compare(folder, capsys):
    run_page('docs/compare.rst')
    assert 'against the first' in capsys.readouterr().out
    assert (folder / 'report.html').exists()


def test_larger():
    assert run_page('docs/larger.rst')['x'].shape == (2, 64)


def test_table():
    names = run_page('docs/howto/table.rst')
    assert names['data']['item'].token_id.shape == (60, 4)


def test_two_models():
    result = run_page('docs/howto/compare.rst')['result']
    assert 0 <= result.p_wilcoxon <= 1 and result.n == 200


def test_plug_in(folder):
    (_, code), *_ = blocks('docs/howto/plug_in.rst')
    (folder / 'my_gnn.py').write_text(code)
    run_page('docs/howto/plug_in.rst')
    assert (folder / 'runs/mine/recs.csv').exists()


def test_hetero_conv():
    names = run_page('docs/howto/hetero_conv.rst')
    assert names['out']['item'].shape == (60, 32)
    names['out']['item'].sum().backward()
    assert torch.isfinite(names['model'].item.table.grad).all()


def test_loggers():
    assert [epoch for epoch, _ in run_page('docs/howto/wandb.rst')['logger'].lines] == [1, 2]


def test_hub(folder):
    pytest.importorskip('safetensors')
    names = run_page('docs/howto/hub.rst')
    assert names['x'].shape == (3, 32)
    assert 'license: cc-by-4.0' in (folder / 'shop-tokens' / 'README.md').read_text()


def test_token_report(capsys):
    names = run_page('docs/howto/token_report.rst')
    assert max(m['collisions'] for m in names['report']['modalities'].values()) > 30
    assert '16.0/16' in capsys.readouterr().out  # As the page shows.


def test_pitfalls():
    run_page('docs/howto/pitfalls.rst')


def test_commands_of_a_block():
    block = (
        'python -m motor_geo.run \\\n    --data shop  # Why\n\npip install x\nmotor-geo doctor\n'
    )
    assert list(map(arguments, commands(block))) == [['run', '--data', 'shop'], ['doctor']]


def test_small():
    got = small(['run', '--epochs', '100', '--graph.k', '9'])
    assert got[:5] == ['run', '--epochs', '1', '--graph.k', '9']
    assert '--trainer.epochs' not in got and got.count('--graph.k') == 1
    assert '--data.num_users' in got and '--data.num_users' not in small(['run', '--data', 'shop'])
    assert small(['doctor']) == ['doctor']


def test_cli(folder):
    names = run_page('docs/cli.rst')
    assert names['embeddings'].item.shape == (150, 64)
    assert (folder / 'new.csv').exists() and (folder / 'comparison.md').exists()
    assert (folder / 'pages' / 'figure6.html').exists()
    x = torch.randn(40, 8)
    tokens = names['MyQuantizer'].fit(x, num_tokens=4, codebook_size=16, seed=0).encode(x)
    assert tokens.shape == (40, 4) and int(tokens.max()) < 16


def test_readme(folder):
    skipped = ('pip install', 'import torch\n')  # Run by CI, and by tests/test_readme.py.
    run_page('README.md', without=skipped)
    assert (folder / 'runs/shop/recs-new.csv').exists()


def test_quickstart():
    run_page('docs/quickstart.rst', without=('import torch', 'encoder =', 'new ='))


def test_data(folder):
    path = folder / 'shop' / 'shop.inter'
    _, *rows = (line.split('\t')[:2] for line in path.read_text().splitlines())
    lines = ['userID\titemID\ttimestamp\tcustomer\tsku\tts']
    lines += [f'{user}\t{item}\t{i}\t{user}\t{item}\t{i}' for i, (user, item) in enumerate(rows)]
    path.write_text('\n'.join(lines) + '\n')
    (folder / 'shop' / 'items.tsv').unlink()
    frame = {'customer': [0, 0, 0, 1, 1, 1], 'sku': list('abcbcd'), 'timestamp': range(6)}
    frame = {name: np.array(column) for name, column in frame.items()}
    data = with_types(small_graph(), ('customer', 'buys', 'product'))
    x = np.ones((4, 3), np.float32)
    names = run_page('docs/data.rst', frame=frame, x=x, names=list('abcd'), data=data)
    assert names['dataset'][0]['item'].token_id.shape == (60, 8)


def shortly(fit):
    @wraps(fit)
    def short(*args, **options):
        return fit(*args, **{**options, 'num_steps': 50})

    return short


def test_tokens(monkeypatch):
    for quantizer in (RQVAEQuantizer, LETTERQuantizer):  # The page trains for thousands of steps.
        monkeypatch.setattr(quantizer, 'fit', staticmethod(shortly(quantizer.fit)))
    data = SyntheticMultimodal(num_users=300, num_items=400, num_interactions=2500)[0]
    names = run_page('docs/tokens.rst', data=data)
    token_id = names['data']['item'].token_id
    assert token_id.shape == (400, 2 * 8 + 16)
    assert names['encoder'](token_id).shape == (400, 64)


def test_losses():
    run_page('docs/losses.rst')


def test_synthetic():
    assert run_page('docs/synthetic.rst')['dataset'].new_items.sum() == 300
