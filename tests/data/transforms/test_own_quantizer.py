import numpy as np
import pytest
import torch

from motor_geo.data import OPQTokenizer
from motor_geo.data.transforms.fit_quantizer import fit_quantizer
from motor_geo.data.transforms.quantizer import Quantizer
from motor_geo.pipeline.folder import load_run
from tests.test_run import read, start

PATH = f'{__name__}.Even'


class Even(Quantizer):
    r"""Even steps along the first columns, one for each token."""

    @classmethod
    def fit(cls, x, num_tokens, codebook_size, **settings):
        assert {'seed', 'center', 'normalize', 'max_dim'} <= set(settings)
        x = torch.as_tensor(x)[:, :num_tokens]
        steps = torch.linspace(0, 1, codebook_size).view(-1, 1)
        low, high = x.min(0).values, x.max(0).values
        centroids = torch.stack([a + steps * (b - a) for a, b in zip(low, high)])
        mean = torch.zeros(settings.pop('width', 6))
        return cls(mean, centroids, projection=torch.eye(num_tokens, mean.numel()))


class Wrong(Even):
    @classmethod
    def fit(cls, x, num_tokens, codebook_size, **settings):
        return super().fit(x, num_tokens + 1, codebook_size, **settings)


class Rest(Quantizer):
    r"""What a residual quantizer fits."""

    residual = True

    @classmethod
    def fit(cls, x, **settings):
        return cls(**vars(fit_quantizer(x, method='rq', **settings)))


class Nothing(Quantizer):
    pass


@pytest.fixture
def x():
    return np.random.default_rng(0).random((50, 6)).astype(np.float32)


def test_tokens_of_a_method_of_ones_own(x, tmp_path):
    tokenizer = OPQTokenizer(2, 4, method=PATH).fit(x)
    codes = tokenizer.encode(x)
    low, high = x[:, :2].min(0), x[:, :2].max(0)
    expected = np.rint((x[:, :2] - low) / (high - low) * 3)
    assert np.array_equal(codes.numpy(), expected)
    tokenizer.save(str(tmp_path / 'tokenizer.pt'))
    again = OPQTokenizer.load(str(tmp_path / 'tokenizer.pt'))
    assert type(again.quantizers['x']).__name__ == 'Even'
    assert torch.equal(again.encode(x[:9]), codes[:9])


def test_residuals_stay_residuals(x, tmp_path):
    tokenizer = OPQTokenizer(2, 4, method=f'{__name__}.Rest').fit(x)
    expected = OPQTokenizer(2, 4, method='rq', cache=False).fit(x).encode(x)
    assert torch.equal(tokenizer.encode(x), expected)
    tokenizer.save(str(tmp_path / 'tokenizer.pt'))
    assert torch.equal(OPQTokenizer.load(str(tmp_path / 'tokenizer.pt')).encode(x), expected)


def test_run_and_report(tmp_path, monkeypatch):
    def fit(cls, x, num_tokens, codebook_size, **settings):
        return inner(x, num_tokens, codebook_size, width=x.shape[1], **settings)

    inner = Even.fit
    monkeypatch.setattr(Even, 'fit', classmethod(fit))
    assert start(tmp_path, '--epochs', '1', '--tokenizer.method', PATH) == 0
    loaded = load_run(str(tmp_path))
    assert loaded.tokenizer.method == PATH
    report = loaded.tokenizer.report(loaded.dataset.data)
    assert set(report['modalities']) == {'image', 'text'} and read(tmp_path)['epochs'] == 1


@pytest.mark.parametrize(
    'method, message',
    [
        ('opg', "method must be one of opq, pq, rq, rqvae, letter, or an import path, got 'opg'"),
        (f'{__name__}.Evn', "method: '.*Evn' cannot be imported: .* has no 'Evn'; did you mean"),
        (f'{__name__}.np', 'is a module; expected a class derived from Quantizer'),
        (f'{__name__}.Nothing', r'has no class method fit\(x, num_tokens'),
    ],
)
def test_errors(method, message):
    with pytest.raises(ValueError, match=message):
        OPQTokenizer(2, 4, method=method)


def test_other_sizes(x):
    with pytest.raises(
        ValueError, match=r'Wrong.fit must return .* = \(2, 4, 6\), got \(3, 4, 6\)'
    ):
        OPQTokenizer(2, 4, method=f'{__name__}.Wrong').fit(x)
