import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.data import HeteroData

from motor_geo.data import OPQTokenizer
from motor_geo.data.transforms.letter import aligned, alignment, diversity, mates
from tests.data.token_cases import features

SMALL = {'num_steps': 300, 'hidden': [16], 'latent': 8}


def make_graph(num_items=120, num_users=40):
    r"""Two groups of users with two kinds of items, which features hardly tell."""
    generator = torch.Generator().manual_seed(0)
    data = HeteroData()
    data['user'].num_nodes = num_users
    kind = torch.arange(num_items).view(-1, 1) % 2
    data['item'].x_text = torch.cat([features(num_items, 7), kind / 2], dim=1)
    user = torch.arange(num_users).repeat_interleave(12)
    item = 2 * torch.randint(num_items // 2, (user.numel(),), generator=generator) + user % 2
    data['user', 'rates', 'item'].edge_index = torch.stack([user, item]).unique(dim=1)
    return data


def tokenizer(**kwargs):
    kwargs = {'cache': False, 'verbose': False, 'method': 'letter', **kwargs}
    return OPQTokenizer(2, 8, method_kwargs={**SMALL, **kwargs.pop('own', {})}, **kwargs)


def test_alignment_equals_a_naive_sum():
    generator = torch.Generator().manual_seed(0)
    z, h = torch.randn(2, 5, 3, generator=generator).double()
    expected = 0.0
    for i in range(5):
        score = [math.exp(float(z[i] @ h[j])) for j in range(5)]
        expected -= math.log(score[i] / sum(score)) / 5
    assert float(alignment(z, h)) == pytest.approx(expected)
    z = z[:0].requires_grad_()
    assert float(alignment(z, h[:0])) == 0


def test_diversity_equals_a_naive_sum():
    generator = torch.Generator().manual_seed(0)
    book = torch.randn(6, 3, generator=generator).double().requires_grad_()
    code, mate = torch.tensor([0, 3, 5, 3]), torch.tensor([2, 1, -1, 5])
    expected = 0.0
    for c, m in [(0, 2), (3, 1), (3, 5)]:  # One has no mate.
        score = {k: math.exp(float(book[c] @ book[k])) for k in range(6) if k != c}
        expected -= math.log(score[m] / sum(score.values())) / 3
    loss = diversity(code, book, mate)
    assert float(loss) == pytest.approx(expected)
    (grad,) = torch.autograd.grad(loss, [book])
    assert grad.isfinite().all() and grad.any()
    assert float(diversity(code, book, torch.full((4,), -1))) == 0


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=30), st.integers(0, 1000))
def test_mates_are_others_of_the_same_cluster(cluster, seed):
    cluster = torch.tensor(cluster)
    code = torch.arange(cluster.numel()).repeat(3)
    mate = mates(code, cluster, torch.Generator().manual_seed(seed))
    for c, m in zip(code.tolist(), mate.tolist()):
        if (cluster == cluster[c]).sum() == 1:
            assert m == -1
        else:
            assert m != c and cluster[m] == cluster[c]


def test_every_mate_is_drawn():
    cluster = torch.tensor([0, 1, 0, 0, 1, 0])
    mate = mates(torch.full((400,), 2), cluster, torch.Generator().manual_seed(0))
    count = mate.bincount(minlength=6).tolist()
    assert count[1] == count[2] == count[4] == 0 and min(count[0], count[3], count[5]) > 100


def test_width_of_behavior():
    x = torch.randn(6, 3)
    x[2] = 0
    wide = aligned(x, 5)
    assert wide.shape == (6, 5) and not wide[:, 3:].any() and not wide[2].any()
    assert float(wide[[0, 1, 3, 4, 5], :3].square().mean()) == pytest.approx(1)
    assert aligned(x, 2).shape == (6, 2)


def test_alignment_makes_items_of_the_same_users_share_tokens():
    data = make_graph()
    kind = torch.arange(120) % 2

    def purity(alpha):
        codes = (
            tokenizer(own={'alpha': alpha, 'beta': 0.0, 'lr': 1e-2})
            .fit(data)
            .encode(data)[:, 0]
            .long()
        )
        count = torch.zeros(8, 2).index_put_((codes, kind), torch.ones(120), accumulate=True)
        return float(count.max(dim=1).values.sum() / 120)

    assert purity(1.0) > 0.9 and purity(0.0) < 0.75


def test_new_items_have_tokens_by_their_features():
    data = make_graph()
    transform = tokenizer(own={'num_steps': 20})
    out = transform(data)['item'].token_id
    assert torch.equal(transform.encode({'text': data['item'].x_text[:7]}), out[:7])


def test_items_without_behavior_have_no_part():
    data = make_graph()
    edge_index = data['user', 'rates', 'item'].edge_index
    data['user', 'rates', 'item'].edge_index = edge_index[:, edge_index[1] < 60]
    transform = tokenizer(fit_on='all', own={'num_steps': 10}).fit(data)
    state = transform.quantizers['text'].state_dict()
    assert all(value.isfinite().all() for value in state.values())


def test_diversity_with_more_clusters_than_pairs():
    transform = tokenizer(own={'num_steps': 10, 'num_clusters': 8, 'beta': 1.0}).fit(make_graph())
    state = transform.quantizers['text'].state_dict()
    assert all(value.isfinite().all() for value in state.values())


def test_errors():
    data = make_graph()
    with pytest.raises(
        ValueError, match=r"method='letter' aligns tokens .* expected interactions .* got 0"
    ):
        tokenizer().fit({'text': data['item'].x_text})
    with pytest.raises(ValueError, match='alpha must be at least 0 and finite, got -1'):
        tokenizer(own={'alpha': -1}).fit(data)
    with pytest.raises(ValueError, match='num_clusters must be at least 1, got 0'):
        tokenizer(own={'num_clusters': 0}).fit(data)
    data['user', 'rates', 'item'].edge_index = torch.empty(2, 0, dtype=torch.long)
    with pytest.raises(ValueError, match='expected interactions .* got 0'):
        tokenizer(fit_on='all').fit(data)
