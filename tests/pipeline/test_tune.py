import json

import pytest
import torch

from motor_geo.engine.evaluator import Evaluator
from motor_geo.pipeline import tune as module
from motor_geo.pipeline.config import RunConfig, merge
from motor_geo.pipeline.flags import expand
from motor_geo.pipeline.train import run
from motor_geo.pipeline.tune import Trial, find_trials, halve, sentence, tune
from motor_geo.run import main
from motor_geo.utils.errors import ConfigError

SMALL = {
    'data': {'name': 'clusters', 'num_users': 60, 'num_items': 40, 'num_interactions': 500},
    'model': {'name': 'TokenALS', 'channels': 8},
    'items': 'mean',
    'tokenizer': {'num_tokens': 2, 'codebook_size': 4, 'cache': False},
    'trainer': {'epochs': 2},
    'device': 'cpu',
}
FLAGS = [
    *('--data', 'clusters', '--data.num_users', '60', '--data.num_items', '40', '--threads', '1'),
    *('--data.num_interactions', '500', '--report', 'false', '--tune'),
]


def options(out, **more):
    return merge(expand(SMALL), expand({'out': str(out), **more}))


def counted(monkeypatch):
    r"""How often the held-out items of the test split are ranked."""
    calls = {'test': 0}
    build = module.build_evaluator

    class Counted(Evaluator):
        def evaluate(self, *args, **kwargs):
            calls['test'] += 1
            return super().evaluate(*args, **kwargs)

    def build_counted(assembly, split, exclude=None):
        evaluator = build(assembly, split, exclude)
        assert split == 'test'
        evaluator.__class__ = Counted
        return evaluator

    monkeypatch.setattr(module, 'build_evaluator', build_counted)
    return calls


def without_times(result):
    result = json.loads(json.dumps(result))
    for key in ('seconds', 'seconds_per_epoch'):
        del result[key]
    del result['tuned']['seconds']
    return result


def make_trials(values):
    r"""Trials whose value after `e` epochs is `values[name][e]`."""
    config = RunConfig.of(SMALL)
    return [Trial({'name': name}, config) for name in values]


def halved(values, epochs):
    calls, lines = [], []

    def train(trial, most, alone):
        calls.append((trial.options['name'], most, alone))
        trial.value, trial.epochs = values[trial.options['name']](most), most

    ranked = halve(make_trials(values), train, epochs, lambda t, n: lines.append((len(t), n)))
    return [trial.options['name'] for trial in ranked], calls, lines


def test_the_better_third_goes_on():
    r"""'8' leads after five epochs, '7' after fifteen; only '6' to '8' get there."""
    values = {str(i): lambda epochs, i=i: float(i) for i in range(9)}
    values['7'] = lambda epochs: 7.0 if epochs == 5 else 9.0
    ranked, calls, lines = halved(values, 100)
    assert ranked == ['7', '8', '6', '5', '4', '3', '2', '1', '0']
    assert calls[:9] == [(str(i), 5, False) for i in range(9)]
    assert calls[9:12] == [('8', 15, False), ('7', 15, False), ('6', 15, False)]
    assert calls[12:] == [('7', 100, True)] and lines == [(9, 3), (3, 1)]


def test_up_to_three_are_compared_once():
    values = {'a': lambda epochs: 1.0, 'b': lambda epochs: epochs / 10, 'c': lambda epochs: 1.0}
    ranked, calls, lines = halved(values, 100)
    assert ranked == ['b', 'a', 'c'] and lines == [(3, 1)]  # Of equal ones, the first.
    assert [call[1:] for call in calls] == [(15, False)] * 3 + [(100, True)]
    assert {most for _, most, _ in halved(values, 4)[1]} == {4}


def test_the_winner_is_that_of_an_exhaustive_comparison(tmp_path, monkeypatch):
    calls = counted(monkeypatch)
    result = tune(options(tmp_path / 'tuned'), progress=False)
    assert calls['test'] == 2  # The model and, beside it, popularity.
    tuned = result['tuned']
    singles = []
    for i, trial in enumerate(find_trials(SMALL, RunConfig.of(SMALL), '')):
        single = run(options(tmp_path / str(i), **trial.options), progress=False)
        singles.append((single['val']['recall@20'], trial.options, single))
    best = max(singles, key=lambda entry: entry[0])
    assert len({value for value, *_ in singles}) > 1 and tuned['chosen'] == best[1]
    assert result['val'] == best[2]['val'] and result['test'] == best[2]['test']
    assert result['hashes'] == best[2]['hashes']
    found = {str(entry['options']): entry['value'] for entry in tuned['tried']}
    assert found == {str(setting): value for value, setting, _ in singles}
    # What is in the folder is an ordinary run; those of other settings have no test metrics.
    names = {path.name for path in (tmp_path / 'tuned').iterdir()}
    assert {'best.pt', 'last.pt', 'config.yaml', 'metrics.jsonl', 'per_user.npz'} <= names
    assert [path.parent.name for path in (tmp_path / 'tuned').rglob('result.json')] == ['tuned']
    config = options(tmp_path / 'tuned', **tuned['chosen'])
    assert run(config, progress=False) == result
    assert tune(options(tmp_path / 'tuned'), progress=False) == result and calls['test'] == 2


@pytest.mark.parametrize('stop', [1, 11, 21])
def test_an_interrupted_command_goes_on(tmp_path, monkeypatch, stop):
    r"""After `stop` evaluations: in the first trial, in the second, and before testing."""
    more = {'trainer.epochs': 7, 'model.unobserved': 1.0}
    expected = tune(options(tmp_path / 'whole', **more), progress=False)
    left = [stop]

    def interrupted(method):
        def call(self, *args):
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
            return method(self, *args)

        return call

    out = tmp_path / 'out'
    with monkeypatch.context() as patch:
        for name in ('evaluate', 'validate'):
            patch.setattr(Evaluator, name, interrupted(getattr(Evaluator, name)))
        with pytest.raises(KeyboardInterrupt):
            tune(options(out, **more), progress=False)
    assert not (out / 'result.json').exists()
    result = tune(options(out, **more), progress=False)
    assert without_times(result) == without_times(expected)
    first, other = (torch.load(p / 'best.pt', weights_only=True) for p in (tmp_path / 'whole', out))
    for key, value in first['state']['model'].items():
        assert torch.equal(value, other['state']['model'][key])


def test_what_is_given_is_not_tried():
    given = merge(expand(SMALL), {'model': {'reg_weight': '0.2'}})
    trials = find_trials(given, RunConfig.of(given), 'tune')
    assert [trial.options for trial in trials] == [
        {'model.unobserved': v} for v in (1.0, 3.0, 10.0)
    ]
    assert {trial.config.model['reg_weight'] for trial in trials} == {0.2}
    assert trials[0].config.out == 'tune/unobserved1.0'


def test_the_loss_decides_where_it_has_settings():
    given = expand({'model': 'BPR', 'loss': 'whole'})
    trials = find_trials(given, RunConfig.of(given), 'tune')
    assert len(trials) == 12 and set(trials[0].options) == {'loss.unobserved', 'loss.reg_weight'}
    assert [trial.config.loss['reg_weight'] for trial in trials[:3]] == [0.03, 0.1, 0.01]


def test_a_trial_that_fails_is_out(tmp_path, monkeypatch):
    fit = module.build_trainer

    def failing(assembly, out, progress):
        trainer = fit(assembly, out, progress)
        if assembly.config.model['reg_weight'] == 0.1 and out.endswith('0.1'):
            monkeypatch.setattr(trainer, 'fit', fail)
        return trainer

    def fail():
        raise FloatingPointError('The loss is not finite')

    monkeypatch.setattr(module, 'build_trainer', failing)
    tuned = tune(options(tmp_path, **{'model.unobserved': 1}), progress=False)['tuned']
    entry = next(e for e in tuned['tried'] if e['options'] == {'model.reg_weight': 0.1})
    assert entry == {**entry, 'value': None, 'error': 'The loss is not finite'}
    assert tuned['tried'][-1] == entry and tuned['chosen'] != entry['options']


def test_sentence():
    tried = [
        {'options': {'model.unobserved': 1.0, 'model.k': 5}, 'epochs': 30, 'value': 0.1182},
        {'options': {'model.unobserved': 3.0, 'model.k': 5}, 'epochs': 1, 'value': 0.11},
    ]
    text = sentence({'metric': 'recall@20', 'seconds': 2.0, 'tried': tried})
    assert text == (
        'chosen among 2 settings on validation: model.unobserved 1, model.k 5 (recall@20 0.1182; '
        'second best model.unobserved 3, model.k 5 with 0.1100 after 1 epoch; 2.0 s in all)'
    )


def test_command(tmp_path, capsys):
    flags = [*FLAGS, '--out', str(tmp_path), '--model', 'EASE']
    assert main(flags) == 0
    text = capsys.readouterr().out
    assert text.count('12 settings after 1 epoch: model.reg_weight') == 1
    assert 'chosen among 12 settings on validation: model.reg_weight' in text
    assert main(flags) == 0
    again = capsys.readouterr().out
    assert 'is already finished' in again
    assert again[again.index('  @') :] == text[text.index('  @') :]


def test_folders_of_other_runs_are_refused(tmp_path):
    config = options(tmp_path, **{'model.unobserved': 1.0})
    run(merge(config, {'model': {'reg_weight': 0.03}}), progress=False)
    with pytest.raises(ConfigError, match='were not chosen with --tune'):
        tune(config, progress=False)
    with pytest.raises(ConfigError, match=r'holds another run \(seed is 0 there, 1 here\)'):
        tune({**config, 'seed': 1}, progress=False)
    out = tmp_path / 'tuned'
    chosen = tune({**config, 'out': str(out)}, progress=False)['tuned']['chosen']
    with pytest.raises(ConfigError, match='was chosen among other settings'):
        tune(merge(options(out), expand(chosen)), progress=False)


@pytest.mark.parametrize(
    'flags, message',
    [
        (['--model', 'Popularity'], 'there are no settings to try for Popularity'),
        (
            ['--items', 'specific', '--model.reg_weight', '1'],
            'nothing is left to try for LightGCN, since model.reg_weight',
        ),
        (['--seeds', '0'], 'expected --tune or --seeds, got both'),
        (['--tune', 'x'], "--tune: expected no value, got 'x'"),
        (['--data.split', 'nope'], 'nope'),
        (['--trainer.metric', 'x@1'], 'trainer: '),
    ],
)
def test_mistakes(tmp_path, capsys, flags, message):
    assert main([*FLAGS, *flags, '--out', str(tmp_path / 'out')]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count('\n') == 1 and not (tmp_path / 'out').exists()
