r"""What all tokenizers keep, whatever they fit."""

import pytest
import torch
import torch_geometric

from motor_geo.data import OPQTokenizer
from motor_geo.data.transforms import fit_quantizer
from tests.data.token_cases import features
from tests.data.transforms.test_letter import make_graph

LEARNED = {'method_kwargs': {'num_steps': 12, 'hidden': [8], 'latent': 4}}
METHODS = {
    'opq': {'method': 'opq', 'num_iters': 2},
    'pq': {'method': 'pq'},
    'rq': {'method': 'rq'},
    'balanced opq': {'method': 'opq', 'num_iters': 2, 'balance': 0.01},
    'balanced rq': {'method': 'rq', 'balance': 0.01},
    'rqvae': {'method': 'rqvae', **LEARNED},
    'balanced rqvae': {'method': 'rqvae', 'balance': 0.01, **LEARNED},
    'letter': {'method': 'letter', **LEARNED},
}
pytestmark = pytest.mark.parametrize('name', METHODS)


@pytest.fixture(autouse=True)
def cache_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(torch_geometric, 'get_home_dir', lambda: str(tmp_path / 'home'))


def make(name, **kwargs):
    return OPQTokenizer(3, 8, verbose=False, **{'center': True, **METHODS[name], **kwargs})


def test_tokens(name):
    data = make_graph()
    data['item'].x_text[5] = data['item'].x_text[4]
    transform = make(name, cache=False)
    token_id = transform(data)['item'].token_id
    assert token_id.shape == (120, 3) and token_id.dtype == torch.uint8 and int(token_id.max()) < 8
    assert torch.equal(token_id[4], token_id[5])
    x = data['item'].x_text
    single = torch.cat([transform.encode({'text': row.view(1, -1)}) for row in x[:20]])
    assert torch.equal(single, token_id[:20])
    assert transform.encode({'text': x[:0]}).shape == (0, 3)
    new = transform.encode({'text': features(9, 8, seed=3)})
    assert new.shape == (9, 3) and new.dtype == torch.uint8


def test_a_seed_is_a_result_for_any_number_of_threads(name):
    data, tokens, threads = make_graph(), [], torch.get_num_threads()
    try:
        for count, seed in ((1, 0), (2, 0), (1, 1)):
            torch.set_num_threads(count)
            transform = make(name, cache=False, seed=seed).fit(data)
            assert torch.get_num_threads() == count
            tokens.append(transform.quantizers['text'].state_dict())
    finally:
        torch.set_num_threads(threads)
    same, other = (
        all(torch.equal(tokens[0][key], value) for key, value in state.items())
        for state in tokens[1:]
    )
    assert same and not other


def test_global_randomness_stays_as_it_is(name):
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    make(name, cache=False).fit(make_graph())
    assert torch.equal(torch.rand(3), expected)


def test_cache(name, monkeypatch):
    data = make_graph()
    expected = make(name)(data)['item'].token_id

    def fail(*args, **kwargs):
        raise AssertionError('was fitted again')

    monkeypatch.setattr(fit_quantizer, 'one_thread_faiss', fail)
    monkeypatch.setattr('motor_geo.data.transforms.rq_vae.one_thread_faiss', fail)
    assert torch.equal(make(name)(data)['item'].token_id, expected)
    data['item'].x_text = data['item'].x_text + 0.01
    with pytest.raises(AssertionError, match='fitted again'):
        make(name)(data)


def test_saved_and_loaded(name, tmp_path):
    data, path = make_graph(), str(tmp_path / 'tokenizer.pt')
    transform = make(name, cache=False, num_near=3)
    expected = transform(data)['item'].token_id
    transform.save(path)
    other = OPQTokenizer.load(path)
    assert repr(other) == repr(transform)
    found = other(make_graph())['item']
    assert torch.equal(found.token_id, expected) and 'token_near' in found
    state = other.quantizers['text'].state_dict()
    for key, value in transform.quantizers['text'].state_dict().items():
        assert torch.equal(state[key], value)


def test_report(name):
    data = make_graph()
    report = make(name, cache=False).report(data, k=3, num_samples=20)
    text = report['modalities']['text']
    assert text['num_tokens'] == len(text['perplexity']) == len(text['used']) == 3
    assert all(1 <= value <= 8 for value in text['perplexity'])
    assert 0 <= text['error'] < 1.5 and 0 <= text['neighbors'] <= 1
    assert 0 <= report['collisions'] <= 120


def test_nearest_codes(name):
    data = make_graph()
    store = make(name, num_near=3)(data)['item']
    near, distance = store.token_near, store.token_distance
    assert near.shape == distance.shape == (120, 3, 3) and near.dtype == torch.uint8
    assert torch.equal(near[:, :, 0], store.token_id)
    assert torch.equal(make(name)(data)['item'].token_id, store.token_id)
    assert not distance[:, :, 0].any() and (distance.diff(dim=2) >= 0).all()
    assert all(row.unique().numel() == 3 for row in near.view(-1, 3))
    transform = make(name, num_near=3).fit(data)
    new = transform.encode_tokens({'text': data['item'].x_text[:9]})
    assert torch.equal(new['token_near'], near[:9])
    torch.testing.assert_close(new['token_distance'], distance[:9])
    # Distances of the first slot, from centroids.
    quantizer = transform.quantizers['text']
    z = quantizer.transform(quantizer.prepare(data['item'].x_text))
    centroid = quantizer.centroids[0].double()
    square = (z[:, None, : centroid.size(1)] - centroid).square().sum(-1)
    if quantizer.offset is not None:
        square = square - quantizer.offset[0].double()
    gap = torch.cdist(centroid, centroid).square().fill_diagonal_(torch.inf).min(1).values.mean()
    expected = (square.sort(dim=1).values - square.min(1, keepdim=True).values)[:, :3] / gap
    torch.testing.assert_close(distance[:, 0].double(), expected, atol=1e-5, rtol=1e-5)


def test_bad_features_are_refused(name):
    data = make_graph()
    data['item'].x_text[3, 2] = torch.nan
    with pytest.raises(ValueError, match='x_text: row 3 holds NaN'):
        make(name).fit(data)
    small = make_graph(num_items=6, num_users=4)
    small['user', 'rates', 'item'].edge_index = torch.tensor([[0, 1, 2, 3, 3], [0, 1, 2, 3, 4]])
    with pytest.raises(ValueError, match="'text' has 5 rows to fit 8 centroids"):
        make(name).fit(small)
