import pytest
import torch
from torch_geometric.data import HeteroData

from motor_geo.nn import SoftTokenEncoder, TokenCrossEncoder
from motor_geo.nn.token_cross import MODES

K, D, NEAR = 6, 4, 3
NUM_TOKENS = {'image': 2, 'text': 1}


def build(mode='specific', **kwargs):
    torch.manual_seed(0)
    return SoftTokenEncoder(NUM_TOKENS, K, D, NEAR, mode=mode, init=1.0, **kwargs).double()


def codes(num_items, seed=0):
    generator = torch.Generator().manual_seed(seed)
    near = torch.stack(
        [torch.randperm(K, generator=generator)[:NEAR] for _ in range(3 * num_items)]
    ).view(num_items, 3, NEAR)
    distance = torch.rand(num_items, 3, NEAR, generator=generator).sort(dim=-1).values
    return near, distance - distance[..., :1]


def naive(encoder, near, distance):
    r"""Sums over codes, then the hard network over the sums."""
    rows = []
    for item in range(near.size(0)):
        e = []
        for x in range(3):
            tau = encoder.log_temperature[x].exp()
            weight = [torch.exp(-distance[item, x, k].double() / tau) for k in range(NEAR)]
            e.append(
                sum(
                    w / sum(weight) * encoder.table[x * K + int(c)]
                    for w, c in zip(weight, near[item, x])
                )
            )
        rows.append(torch.stack(e))
    return encoder.combine(torch.stack(rows))


@pytest.mark.parametrize('num_items', [3, 9])  # Gathered, and from token nodes.
@pytest.mark.parametrize('mode', MODES)
def test_naive_sums(mode, num_items):
    encoder = build(mode)
    with torch.no_grad():
        encoder.log_temperature.copy_(torch.tensor([0.0, -1.0, 0.5]))
    near, distance = codes(num_items)
    out, expected = encoder(near, distance), naive(encoder, near, distance)
    torch.testing.assert_close(out, expected)
    weight = torch.randn_like(out)
    parameters = list(encoder.parameters())
    found = torch.autograd.grad((out * weight).sum(), parameters)
    others = torch.autograd.grad((expected * weight).sum(), parameters)
    torch.testing.assert_close(found, others)
    assert found[[*encoder.state_dict()].index('log_temperature')].any()


def test_gradient_of_the_temperature_by_differences():
    encoder = build()
    near, distance = codes(9)
    target = torch.randn(9, D, dtype=torch.double)

    def loss():
        return (encoder(near, distance) * target).sum()

    (grad,) = torch.autograd.grad(loss(), [encoder.log_temperature])
    for x in range(3):
        values = []
        for step in (1e-6, -2e-6):
            with torch.no_grad():
                encoder.log_temperature[x] += step
                values.append(float(loss()))
        with torch.no_grad():
            encoder.log_temperature[x] += 1e-6
        assert (values[0] - values[1]) / 2e-6 == pytest.approx(float(grad[x]), rel=1e-5)


@pytest.mark.parametrize('mode', MODES)
def test_cold_is_hard(mode):
    encoder = build(mode)
    hard = TokenCrossEncoder(NUM_TOKENS, K, D, mode=mode).double()
    state = encoder.state_dict()
    state.pop('log_temperature')
    hard.load_state_dict(state)
    near, distance = codes(9)
    torch.testing.assert_close(encoder(near[:, :, 0]), hard(near[:, :, 0]))
    with torch.no_grad():
        encoder.log_temperature.fill_(-20)
    distance[..., 1:] += 0.01
    out = encoder(near, distance)
    torch.testing.assert_close(out, hard(near[:, :, 0]))
    (out.sum()).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in encoder.parameters())


def test_shares():
    encoder = build(temperature=0.25)
    share = encoder.shares(torch.tensor([[[0.0, 0.25, 1e30]] * 3]))
    expected = torch.tensor([1, torch.tensor(-1.0).exp(), 0], dtype=torch.double)
    torch.testing.assert_close(share[0, 0], expected / expected.sum(), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize('size', [0, 1, 4, 40])
def test_rows_of_a_graph(size):
    encoder, data = build(), HeteroData()
    near, distance = codes(60)
    data['item'].token_id = near[:, :, 0]
    data['item'].token_near, data['item'].token_distance = near.to(torch.uint8), distance
    every = encoder.encode(data['item'])
    index = torch.randint(60, (size,))
    torch.testing.assert_close(encoder.encode(data['item'], index), every[index])
    torch.testing.assert_close(every, naive(encoder, near, distance))


def test_errors():
    encoder, data = build(), HeteroData()
    data['item'].token_id = torch.zeros(4, 3, dtype=torch.long)
    with pytest.raises(ValueError, match=r'token_near and .*OPQTokenizer\(num_near=3\)'):
        encoder.encode(data['item'])
    data['item'].token_near = data['item'].token_distance = torch.zeros(4, 3, 2)
    with pytest.raises(ValueError, match=r'must hold 3 codes of each of 3 tokens \(got \[3, 2\]'):
        encoder.encode(data['item'])
    with pytest.raises(ValueError, match=r"'num_near' must be at least 2, .* \(got 1\)"):
        SoftTokenEncoder(NUM_TOKENS, num_near=1)
    with pytest.raises(ValueError, match=r"'temperature' must be positive and finite \(got 0"):
        SoftTokenEncoder(NUM_TOKENS, temperature=0)
    with pytest.raises(ValueError, match=r"'num_near' must be at most 'codebook_size', 4 \(got 5"):
        SoftTokenEncoder(NUM_TOKENS, codebook_size=4, num_near=5)


@pytest.mark.parametrize('size', [1, 100])
def test_codes_outside_the_codebook(size):
    encoder = build()
    near, distance = codes(size)
    for bad in (-1, encoder.codebook_size):
        near[0, 0, 1] = bad
        with pytest.raises(ValueError, match="'token_id' must lie in 0"):
            encoder(near.clone(), distance)


@pytest.mark.parametrize('shape', [(4, 3, 1), (4, 1, 3), (3, 3), (1, 3, 3)])
def test_distances_of_another_shape(shape):
    near, _ = codes(4)
    with pytest.raises(ValueError, match=r'must have the shape \[\*, 3, 3\]'):
        build()(near, torch.zeros(shape))
