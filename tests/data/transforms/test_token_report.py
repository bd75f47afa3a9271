import numpy as np
import pytest

from motor_geo.data.transforms import token_report
from tests.data.token_cases import features, make_data, tokenizer


def test_report():
    x = features(200, 8)
    x[1] = x[0]
    data = make_data(text=x, image=features(200, 6))
    transform = tokenizer(2)
    report = transform.report(data, k=5, num_samples=50)
    token_id = transform(data)['item'].token_id.tolist()
    rows = [tuple(row) for row in token_id]
    assert report['num_items'] == 200
    assert report['collisions'] == sum(rows.count(row) > 1 for row in rows)
    text = report['modalities']['text']
    part = [row[2:] for row in rows]
    assert text['collisions'] == sum(part.count(row) > 1 for row in part)
    assert text['duplicates'] == 2 and text['kept_variance'] == 1 and text['num_tokens'] == 2
    for t in range(2):
        counts = np.bincount([row[2 + t] for row in rows])
        share = counts[counts > 0] / 200
        assert text['perplexity'][t] == pytest.approx(np.exp(-(share * np.log(share)).sum()))
        assert text['used'][t] == (counts > 0).sum()
    quantizer = transform.quantizers['text']
    codes = quantizer.encode(x)
    decoded = quantizer.decode(codes) @ quantizer.rotation.double()
    error = (decoded - x).square().sum() / (x - x.mean(dim=0)).square().sum()
    assert text['error'] == pytest.approx(float(error), rel=1e-4)
    assert 0.2 < text['neighbors'] < 1
    table = transform.report_table(data)
    assert len(table.splitlines()) == 4
    assert f'{report["collisions"]} of 200 items' in table


def test_report_of_perfect_tokens():
    x = features(64, 6)
    transform = tokenizer(1, 64, method='pq').fit(make_data(text=x))
    report = transform.report(make_data(text=x))['modalities']['text']
    assert report['error'] == pytest.approx(0, abs=1e-6)
    assert report['neighbors'] == 1 and report['collisions'] == 0
    assert report['perplexity'] == pytest.approx([64])


def test_report_of_a_sample(monkeypatch):
    x = features(300, 6)
    x[299] = x[0]
    transform = tokenizer(2, 64).fit(make_data(text=x))
    whole = transform.report(make_data(text=x))
    monkeypatch.setattr(token_report, 'MAX_ROWS', 150)
    part = transform.report(make_data(text=x))
    rows = np.sort(np.random.default_rng(0).choice(300, 150, replace=False))
    text, other = whole['modalities']['text'], part['modalities']['text']
    for key in ('perplexity', 'used', 'collisions', 'duplicates', 'kept_variance'):
        assert text[key] == other[key]
    expected = transform.report(make_data(text=x[rows]))['modalities']['text']
    assert other['error'] == pytest.approx(expected['error'])
    assert other['neighbors'] == expected['neighbors'] and text['error'] != other['error']
