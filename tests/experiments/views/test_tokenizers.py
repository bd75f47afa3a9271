from types import SimpleNamespace

import pytest

from motor_geo.experiments.views import tokenizers as view
from motor_geo.pipeline.config import RunConfig
from motor_geo.pipeline.tokens import measure

DATA = {'num_users': 60, 'num_items': 40, 'num_interactions': 400}
SMALL = {'tokenizer.num_tokens': 2, 'tokenizer.codebook_size': 8, 'tokenizer.cache': False}


def test_tokens_of_each_quantizer_once(monkeypatch):
    monkeypatch.setattr(view, 'comparison', lambda results: iter(()))
    variants = {}
    for form in ('specific', 'mean'):
        for name, options in (('pq', {}), ('even', {'tokenizer.balance': 0.01})):
            own = {f'data.{key}': value for key, value in DATA.items()}
            job = SimpleNamespace(options={**own, **SMALL, 'tokenizer.method': 'pq', **options})
            variants['shop', 'LightGCN', form, name] = SimpleNamespace(jobs=[job])
    variants['shop', 'LightGCN', 'mean', 'opq'] = SimpleNamespace(jobs=[])  # Not finished.
    results = SimpleNamespace(
        experiment=SimpleNamespace(name='quantizers'),
        options=SimpleNamespace(data={'shop': ''}),
        of=lambda data: variants,
    )
    (table,) = view.quantizers(results)
    assert [tuple(row.label) for row in table.rows] == [
        *(('pq', 'image'), ('pq', 'text'), ('pq', 'all')),
        *(('even', 'image'), ('even', 'text'), ('even', 'all')),
    ]
    options = {'num_tokens': 2, 'codebook_size': 8, 'cache': False, 'method': 'pq'}
    report = measure(RunConfig.of({'data': DATA, 'tokenizer': options}))
    text = report['modalities']['text']
    values = [cell.mean for cell in table.rows[1].cells]
    assert values[1] == pytest.approx(sum(text['perplexity']) / 2)
    assert values[2:] == [text[k] for k in ('collisions', 'duplicates', 'error', 'neighbors')]
    assert table.rows[2].cells[2].mean == report['collisions']
    assert table.rows[4].cells[1].mean > values[1]  # More even.
