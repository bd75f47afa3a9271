import numpy as np
import pytest
import torch

from motor_geo.pipeline.assemble import assemble
from motor_geo.pipeline.tokens import main, measure
from motor_geo.utils.errors import ConfigError
from tests.shop import make_shop

SMALL = {'num_tokens': 2, 'codebook_size': 8, 'cache': False}


@pytest.fixture(scope='module')
def shop(tmp_path_factory):
    return make_shop(tmp_path_factory.mktemp('data'))


def test_what_is_measured_are_the_tokens_of_a_run(shop):
    config = {
        'data': {'name': shop},
        'tokenizer': SMALL,
        'svd': {'channels': 8},
        'behavior': True,
    }
    parts = assemble(config)
    parts.add_tokens()
    tokens = parts.data['item'].token_id.long()
    report = measure(config)
    assert list(report['modalities']) == ['behavior', 'image', 'text']
    assert report['num_items'] == tokens.size(0) == 60
    _, inverse, count = torch.unique(tokens, dim=0, return_inverse=True, return_counts=True)
    assert report['collisions'] == int((count[inverse] > 1).sum())
    share = np.bincount(tokens[:, 0]) / 60
    entropy = -(share[share > 0] * np.log(share[share > 0])).sum()
    assert report['modalities']['behavior']['perplexity'][0] == pytest.approx(np.exp(entropy))
    assert report['modalities']['behavior']['used'][0] == (share > 0).sum()


def test_command(shop, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    flags = [
        *('--data', shop, '--tokenizer.num_tokens', '2', '--tokenizer.codebook_size', '8'),
        *('--tokenizer.cache', 'false', '--k', '5', '--samples', '20'),
    ]
    assert main(flags) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ['modality', 'tokens', 'used']
    report = measure({'data': {'name': shop}, 'tokenizer': SMALL}, 5, 20)
    for line, (name, row) in zip(lines[1:], report['modalities'].items()):
        used = sum(row['used']) / 2
        assert line.split()[:3] == [name, '2', f'{used:.1f}/8']
        assert line.split()[-1] == f'{row["neighbors"]:.3f}'
    assert lines[-1].startswith(f'{report["collisions"]} of 60 items')
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    'flags, message',
    [
        (['--items', 'id'], '--items id: expected items with tokens'),
        (['--k', '0'], "--k: expected a positive integer, got '0'"),
        (['--tokenizer.codebook_size', '7'], 'tokenizer: codebook_size must be a power of two'),
        (['--tokenizer.num_token', '4'], "did you mean 'num_tokens'"),
    ],
)
def test_mistakes(shop, capsys, flags, message):
    assert main(['--data', shop, *flags]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count('\n') == 1


def test_data_without_features(tmp_path):
    lines = [f'{i % 9}\t{i}\t{i // 9}' for i in range(27)]
    (tmp_path / 'plain.inter').write_text('\n'.join(['userID\titemID\tx_label', *lines]))
    with pytest.raises(ConfigError, match='expected item features'):
        measure({'data': {'name': str(tmp_path)}, 'items': 'specific'})
