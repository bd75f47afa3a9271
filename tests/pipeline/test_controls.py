import json

import numpy as np
import pytest

from motor_geo import run as command
from motor_geo.pipeline.controls import (
    Comparison,
    Scores,
    conclusion,
    control_configs,
    read_controls,
    relation,
)
from motor_geo.pipeline.examples import examples
from motor_geo.pipeline.flags import parse_flags
from motor_geo.utils.errors import ConfigError

FLAGS = [
    *('--items', 'recommended'),
    *('--data.num_users', '100', '--data.num_items', '80', '--data.num_interactions', '700'),
    *('--model', 'TokenALS', '--model.channels', '8', '--svd.channels', '8', '--threads', '1'),
    *('--tokenizer.num_tokens', '2', '--tokenizer.codebook_size', '8', '--epochs', '2'),
]
TOKENS = {'items': {'name': 'recommended'}}


def test_flags():
    for words in (['--control', 'id', 'features'], ['--control', 'id', '--control', 'features']):
        assert sorted(read_controls(parse_flags(words)['control'])) == ['features', 'id']
    assert read_controls('id') == ['id'] and read_controls(['id,mean']) == ['id', 'mean']


def test_controls_differ_in_items_only():
    options = {**TOKENS, 'model': {'name': 'LightGCN', 'channels': 8}, 'trainer': {'epochs': 3}}
    features, mean, own = control_configs({**options, 'behavior': True}, ['features', 'mean'])
    assert [c.items['name'] for c in (features, mean, own)] == ['features', 'mean', 'recommended']
    assert [c.behavior for c in (features, mean, own)] == [False, True, True]
    assert features.model == mean.model == own.model and features.trainer == own.trainer
    assert features.out == 'runs/synthetic-LightGCN-features-seed0'
    assert control_configs({**options, 'out': 'a'}, ['id'])[0].out == 'a-id'


@pytest.mark.parametrize(
    'options, names, message',
    [
        (TOKENS, ['recommended'], 'expected distinct items other than recommended'),
        (TOKENS, ['id', 'id'], 'got id id'),
        (TOKENS, ['idd'], "unknown item encoder 'idd'"),
        ({'model': {'name': 'EASE'}}, ['id'], 'EASE takes no item encoder'),
    ],
)
def test_errors(options, names, message):
    with pytest.raises(ConfigError, match=message):
        control_configs(options, names)


def test_relations_follow_the_numbers():
    one, noise = np.full(100, 0.2), np.random.default_rng(0).normal(0, 0.001, 100)
    assert relation(one + noise, np.full(100, 0.1)) == ('ahead of', '2.0 times')
    assert relation(np.full(100, 0.1) + noise, one)[0] == 'behind'
    assert relation(one, one) == ('level with', '+0.0%')
    assert relation(one, np.zeros(100)) == ('ahead of', '0.2000 and 0')
    assert relation(one[:1], one[:1] / 4)[0] == 'level with'  # A single user tells nothing.


def test_conclusion_says_who_is_better():
    def found(ids, tokens, new_ids=0.05, popularity=0.1):
        noise = np.random.default_rng(0).normal(0, 0.1, 400)
        noise -= noise.mean()
        scores = [
            Scores('id', ids + noise, new_ids + noise),
            Scores('recommended', tokens + 0 * noise, np.full(400, 0.2)),
        ]
        return conclusion(Comparison('recall@20', scores, popularity, 0.05, ['a', 'b']))

    text = found(0.2, 0.3)
    assert text.startswith('Tokens are ahead of IDs among all items (+50.0%)')
    assert text.endswith('(4.0 times), where IDs are no better than chance.')
    assert found(0.3, 0.2).startswith('Tokens are behind IDs among all items (-33.3%)')
    assert found(0.2, 0.201).startswith('Tokens are level with IDs among all items (+0.5%)')
    assert 'chance' not in found(0.2, 0.3, new_ids=0.1)
    assert 'popularity alone is better than IDs among all items' in found(0.2, 0.3, popularity=0.25)


def test_main_job(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    flags = (*FLAGS, '--control', 'id', 'features')
    monkeypatch.setattr(command, 'MAIN_JOB', flags)
    assert command.main([]) == 0
    text = capsys.readouterr().out
    folders = sorted(path.name for path in (tmp_path / 'runs').iterdir())
    assert folders == [f'synthetic-TokenALS-{i}-seed0' for i in ('features', 'id', 'recommended')]
    results = {
        name.split('-')[2]: json.loads((tmp_path / 'runs' / name / 'result.json').read_text())
        for name in folders
    }
    rows = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line}
    for name, result in results.items():
        values = result['test'], result['unseen']['test']
        assert rows[name] == [f'{value["recall@20"]:.4f}' for value in values]
    assert results['id']['unseen']['items'] >= 16
    assert 'Three random users' in text and text.count('\n  best items ') == 3 and 'Next:' in text
    assert (tmp_path / 'runs' / folders[2] / 'report.html').exists()
    assert not (tmp_path / 'runs' / folders[1] / 'report.html').exists()

    # Read back, with the same words; any option is a single run.
    stamps = [(tmp_path / 'runs' / name / 'last.pt').stat().st_mtime_ns for name in folders]
    assert command.main([]) == 0
    again = capsys.readouterr().out
    assert again.split('\n\n')[-5:] == text.split('\n\n')[-5:]
    assert command.main(flags) == 0
    assert 'Three random users' not in capsys.readouterr().out
    after = [(tmp_path / 'runs' / name / 'last.pt').stat().st_mtime_ns for name in folders]
    assert after == stamps

    shown = examples(f'runs/{folders[2]}', 'cpu')
    assert len(shown) == 3 and all(len(user.gets) == len(user.new) == 3 for user in shown)
    assert not any(set(user.had) & set(user.gets) for user in shown)


def test_main_job_resolves():
    flags = parse_flags(command.MAIN_JOB)
    assert sorted(read_controls(flags['control'])) == ['features', 'id']
    config = command.load_config(())
    assert config.items['name'] == 'recommended' and config.model['name'] == 'LightGCN'
    controls = control_configs({}, ['id', 'features'])[:-1]
    for control in controls:  # Nothing differs but the items.
        assert control.loss == config.loss and control.trainer == config.trainer
        assert control.loss['name'] == 'whole'


def test_control_or_seeds(capsys):
    assert command.main([*FLAGS, '--control', 'id', '--seeds', '0', '1']) == 2
    assert 'expected --control or --seeds, got both' in capsys.readouterr().err
