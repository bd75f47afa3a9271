import numpy as np
import pytest

from motor_geo.pipeline.seeds import read_seeds, run_seeds, seeds_table
from motor_geo.utils.errors import ConfigError
from tests.test_run import SMALL, main, read


def test_seeds_from_text():
    assert read_seeds(['0', '2', '10']) == [0, 2, 10] and read_seeds('3') == [3]
    for words in (['0', '0'], ['-1'], ['1', 'x'], 'x', ''):
        with pytest.raises(ConfigError, match='expected distinct non-negative integers'):
            read_seeds(words)


def test_runs_of_seeds_are_those_of_single_runs(tmp_path, capsys):
    flags = [*SMALL, '--epochs', '2', '--items', 'id', '--trainer.progress', 'false']
    assert main([*flags, '--out', str(tmp_path / 'all'), '--seeds', '0', '3']) == 0
    values = []
    for seed in (0, 3):
        one = tmp_path / f'one{seed}'
        assert main([*flags, '--out', str(one), '--seed', str(seed)]) == 0
        assert read(tmp_path / 'all' / f'seed{seed}')['test'] == read(one)['test']
        values.append(read(one)['test']['recall@20'])
    assert values[0] != values[1]
    expected = f'{sum(values) / 2:.4f} ± {abs(values[0] - values[1]) / np.sqrt(2):.4f}'
    text = capsys.readouterr().out
    assert expected in text and 'mean ± standard deviation over seeds 0, 3' in text
    # What is finished is read back, and another seed is added.
    stamp = (tmp_path / 'all' / 'seed0' / 'last.pt').stat().st_mtime_ns
    assert main([*flags, '--out', str(tmp_path / 'all'), '--seeds', '3', '0', '1']) == 0
    assert (tmp_path / 'all' / 'seed0' / 'last.pt').stat().st_mtime_ns == stamp
    assert 'over seeds 3, 0, 1' in capsys.readouterr().out


def test_every_folder_is_checked_before_training(tmp_path):
    config = {'trainer': {'epochs': 1, 'progress': False}, 'out': str(tmp_path)}
    (tmp_path / 'seed1').mkdir()
    (tmp_path / 'seed1' / 'config.yaml').write_text('seed: 1\nmodel: BPR\n')
    with pytest.raises(ConfigError, match='seed1. holds another run'):
        run_seeds(config, [0, 1], progress=False)
    assert not (tmp_path / 'seed0').exists()


def test_a_single_seed_has_no_deviation():
    result = {'model': 'BPR', 'items': 'id', 'data': 'shop', 'seed': 4}
    table = seeds_table([{**result, 'test': {'recall@20': 0.25}}])
    assert '0.2500' in table and '±' not in table and 'mean over seeds 4' in table


@pytest.mark.parametrize(
    'flags, message',
    [
        (['--seeds', '1', '--seed', '1'], 'expected --seed or --seeds, got both'),
        (['--seeds'], '--seeds: expected a value, got none'),
        (['--seeds', '1', '1'], '--seeds: expected distinct non-negative integers, got 1 1'),
    ],
)
def test_mistakes(tmp_path, capsys, flags, message):
    assert main([*SMALL, '--out', str(tmp_path / 'out'), *flags]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / 'out').exists()
