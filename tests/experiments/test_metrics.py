import pytest

from motor_geo.experiments.metrics import read_metrics, spelled, stem
from motor_geo.utils.errors import ConfigError


@pytest.mark.parametrize(
    'options, main, tested, shown, of_groups',
    [
        (
            {},
            'recall@20',
            ('recall@20', 'ndcg@20'),
            ('recall@10', 'recall@20', 'ndcg@10', 'ndcg@20'),
            ('recall@20', 'ndcg@20'),
        ),
        (
            {'trainer.metric': 'ndcg@10', 'evaluator.ks': '[10]'},
            'ndcg@10',
            ('ndcg@10', 'recall@10'),
            ('recall@10', 'ndcg@10'),
            ('ndcg@10', 'recall@10'),
        ),
        (
            {'evaluator.metrics': ['recall'], 'trainer.lr': 0.1},
            'recall@20',
            ('recall@20',),
            ('recall@10', 'recall@20'),
            ('recall@20', 'ndcg@20'),
        ),
        (
            {'trainer.metric': 'map@5', 'evaluator.ks': [1, 5]},
            'map@5',
            ('map@5', 'recall@5'),
            ('recall@1', 'recall@5', 'ndcg@1', 'ndcg@5', 'map@5'),
            ('recall@5', 'ndcg@5'),
        ),
        (
            {'trainer.metric': 'mrr@3', 'evaluator.ks': [3], 'evaluator.metrics': ['mrr', 'hit']},
            'mrr@3',
            ('mrr@3',),
            ('mrr@3', 'hit@3'),
            ('recall@3', 'ndcg@3'),
        ),
    ],
)
def test_metrics_of_an_experiment(options, main, tested, shown, of_groups):
    assert read_metrics(options) == (main, tested, shown, of_groups)


def test_what_is_not_evaluated_is_refused():
    with pytest.raises(ConfigError, match="expected one of recall@5, .* got 'recall@20'"):
        read_metrics({'evaluator.ks': [5]})


def test_metrics_in_words():
    assert [spelled(name) for name in ('recall@20', 'ndcg@5', 'map@1')] == [
        'Recall@20',
        'NDCG@5',
        'map@1',
    ]
    assert stem('recall@5') == 'recall'


def test_metrics_by_import_path():
    options = {'evaluator.metrics': ['recall', 'my_package.serendipity'], 'evaluator.ks': [10]}
    metrics = read_metrics({**options, 'trainer.metric': 'serendipity@10'})
    assert metrics.main == 'serendipity@10' and metrics.shown == ('recall@10', 'serendipity@10')
