import itertools
import math
import warnings

import pytest
import torch

from motor_geo.nn.token_interaction import INTERACTIONS, TokenInteractionEncoder

K, D = 5, 6
NUM_TOKENS = {'image': 2, 'text': 1}


def build(mode, **kwargs):
    torch.manual_seed(0)
    encoder = TokenInteractionEncoder(NUM_TOKENS, K, D, mode, init=1.0, gain=1.0, **kwargs)
    with torch.no_grad():
        for parameter in encoder.parameters():
            if parameter.dim() == 1:  # Biases and weights of tokens.
                parameter.normal_()
    return encoder.double()


def naive(encoder, tokens):
    r"""Item vectors as plain sums over numbers."""
    mode, w, maps = encoder.mode, encoder.weight, encoder.maps
    T = len(tokens)
    e = [encoder.table[x * K + t] for x, t in enumerate(tokens)]
    if mode == 'attention':
        scores = []
        for x in range(T):
            hidden = [
                torch.tanh(sum(maps[0].weight[a, b] * e[x][b] for b in range(D))) for a in range(D)
            ]
            scores.append(sum(maps[1].weight[0, a] * hidden[a] for a in range(D)).exp())
        return sum(scores[x] / sum(scores) * e[x] for x in range(T))
    first = sum(w[x] * e[x] for x in range(T))
    if mode == 'cross':
        r = first
        for lin in maps:
            step = [sum(lin.weight[a, b] * r[b] for b in range(D)) + lin.bias[a] for a in range(D)]
            r = first * torch.stack(step) + r
        return r
    if mode == 'low_rank':
        x0 = h = torch.cat(e)
        for left, right in list(maps)[:-1]:
            weight = right.weight @ left.weight
            step = [
                sum(weight[a, b] * h[b] for b in range(T * D)) + right.bias[a] for a in range(T * D)
            ]
            h = x0 * torch.stack(step) + h
        return first + maps[-1].weight @ h
    if mode == 'product':
        out = first + maps[0].bias
        for k, (x, y) in enumerate(itertools.combinations(range(T), 2)):
            out = out + sum(e[x][a] * e[y][a] for a in range(D)) * maps[0].weight[:, k]
        return out
    size, out = D // encoder.heads, torch.zeros(D, dtype=torch.float64)
    query, key, value, own = (lin.weight for lin in maps)
    for x in range(T):
        total = own @ e[x]
        parts = []
        for head in range(encoder.heads):
            rows = slice(head * size, (head + 1) * size)
            scores = [((query[rows] @ e[x]) * (key[rows] @ e[y])).sum().exp() for y in range(T)]
            parts.append(sum(s / sum(scores) * (value[rows] @ e[y]) for y, s in enumerate(scores)))
        out = out + torch.relu(total + torch.cat(parts)) / T
    return first + out


@pytest.mark.parametrize('num_items', [3, 9])  # Gathered, and from token nodes.
@pytest.mark.parametrize('mode', INTERACTIONS)
def test_interactions_equal_naive_sums(mode, num_items):
    encoder = build(mode, num_layers=2, rank=2, heads=3)
    token_id = torch.randint(K, (num_items, 3))
    out = encoder(token_id)
    expected = torch.stack([naive(encoder, row) for row in token_id.tolist()])
    torch.testing.assert_close(out, expected)
    parameters = list(encoder.parameters())
    weight = torch.randn_like(out)
    gradients = torch.autograd.grad((out * weight).sum(), parameters)
    others = torch.autograd.grad((expected * weight).sum(), parameters)
    torch.testing.assert_close(gradients, others)
    batch = encoder(token_id[:2].view(1, 2, 3))
    torch.testing.assert_close(batch[0], expected[:2])


@pytest.mark.parametrize('mode', INTERACTIONS)
def test_interactions_start_near_the_mean(mode):
    torch.manual_seed(0)
    encoder = TokenInteractionEncoder({'image': 4, 'text': 4}, 16, 8, mode)
    token_id = torch.randint(16, (20, 8))
    rows = encoder.table[token_id + encoder.offset]
    distance = (encoder(token_id) - rows.mean(dim=1)).norm() / rows.mean(dim=1).norm()
    assert distance < 0.5
    assert all(parameter.isfinite().all() for parameter in encoder.parameters())


def test_attention_of_large_scores_is_finite():
    encoder = build('attention')
    with torch.no_grad():
        encoder.maps[1].weight.mul_(1000)
    token_id = torch.randint(K, (9, 3))
    assert encoder(token_id).isfinite().all()


def test_sizes():
    d, t = 64, 8
    table = t * 256 * d
    sizes = {
        'cross': t + 2 * (d * d + d),
        'low_rank': t + 2 * (2 * t * d * 16 + t * d) + t * d * d,
        'attention': d * d + d,
        'self_attention': t + 4 * d * d,
        'product': t + math.comb(t, 2) * d + d,
    }
    for mode, size in sizes.items():
        encoder = TokenInteractionEncoder({'image': 4, 'text': 4}, mode=mode)
        assert sum(p.numel() for p in encoder.parameters()) == table + size


def test_bad_arguments_are_rejected():
    with pytest.raises(ValueError, match="'mode' must be one of cross, .* .got 'mean'."):
        TokenInteractionEncoder(NUM_TOKENS, mode='mean')
    with pytest.raises(ValueError, match=r"'heads' must be a divisor .*, 64 \(got 3\)"):
        TokenInteractionEncoder(NUM_TOKENS, heads=3)
    with pytest.raises(ValueError, match=r"'gain' must be at least 0 and finite \(got nan\)"):
        TokenInteractionEncoder(NUM_TOKENS, gain=math.nan)
    with pytest.raises(ValueError, match=r'must be positive \(got 0 and 16\)'):
        TokenInteractionEncoder(NUM_TOKENS, num_layers=0)


def test_products_of_one_token():
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        encoder = TokenInteractionEncoder({'a': 1}, K, D, 'product')
    token_id = torch.tensor([[3], [0]])
    assert encoder.weight is not None
    torch.testing.assert_close(encoder(token_id), encoder.table[token_id[:, 0]] * encoder.weight)
