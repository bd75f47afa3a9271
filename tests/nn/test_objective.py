import copy
import math
import pickle

import pytest
import torch

from motor_geo.nn.loss import bpr_loss
from motor_geo.nn.models import MODELS, LightGCN, Recommender
from motor_geo.nn.objective import (
    LOSSES,
    BPRLoss,
    DirectAULoss,
    SoftmaxLoss,
    WholeDataLoss,
    uniformity,
    usual_weight,
)
from motor_geo.testing.graphs import small_graph
from motor_geo.typing import Batch, Embeddings, Rows

M, N, D = 7, 9, 4


@pytest.fixture(params=[0, 1, 2])
def case(request):
    generator = torch.Generator().manual_seed(request.param)
    edges = torch.rand(M, N, generator=generator) < 0.4
    edges[:, 0] = True  # Everybody has something.
    edge_index = edges.nonzero().t()
    user, pos = edge_index[:, torch.randint(edge_index.size(1), (11,), generator=generator)]
    batch = Batch(user, pos, torch.randint(N, (11,), generator=generator))
    emb = Embeddings(
        torch.randn(M, D, generator=generator, dtype=torch.double, requires_grad=True),
        torch.randn(N, D, generator=generator, dtype=torch.double, requires_grad=True),
    )
    return emb, batch, edge_index, batch.rows(emb)


def cosine(a, b):
    return float(a @ b / a.norm() / b.norm())


def test_bpr_loss_adds_squared_norms_per_interaction(case):
    _, batch, edge_index, rows = case
    rows = Rows(*(x.detach() for x in rows))
    terms = BPRLoss(reg_weight=0.3)(rows, batch, edge_index)
    total, norms = 0.0, 0.0
    for user, pos, neg in zip(*rows):
        total += math.log(1 + math.exp(-float(user @ pos - user @ neg)))
        norms += float(user @ user + pos @ pos + neg @ neg)
    assert float(terms['bpr'].detach()) == pytest.approx(total / 11)
    assert float(terms['norms'].detach()) == pytest.approx(0.3 * norms / 11)
    assert list(BPRLoss()(rows, batch, edge_index)) == ['bpr']


@pytest.mark.parametrize('shared', [False, True])
@pytest.mark.parametrize('correction', [0.0, 0.7])
@pytest.mark.parametrize('angle', [True, False])
def test_softmax_loss_equals_loop(case, shared, correction, angle):
    emb, batch, edge_index, rows = case
    loss = SoftmaxLoss(0.5, correction, shared, angle)
    out = loss(rows, batch, edge_index)['softmax']

    known = {(int(u), int(i)) for u, i in edge_index.t()}
    items = [*batch.pos.tolist(), *(batch.neg.tolist() if shared else [])]
    size = max(int(edge_index[1].max()), *items) + 1
    degree = torch.bincount(edge_index[1], minlength=size).double() / edge_index.size(1)
    share = (degree + 1 / size) / 2 if shared else degree

    def score(u, i):
        x, y = emb.user[u].detach(), emb.item[i].detach()
        value = (cosine(x, y) if angle else float(x @ y)) / 0.5
        return value - correction * math.log(share[i]) if correction else value

    total = 0.0
    for u, i in zip(batch.user.tolist(), batch.pos.tolist()):
        top = math.exp(score(u, i))
        rest = sum(math.exp(score(u, j)) for j in items if (u, j) not in known)
        total -= math.log(top / (top + rest))
    assert float(out.detach()) == pytest.approx(total / 11, rel=1e-10)


def test_softmax_loss_has_the_gradient_of_its_loop(case):
    emb, batch, edge_index, _ = case

    def loss(user, item):
        return SoftmaxLoss(0.5, 0.5)(batch.rows(Embeddings(user, item)), batch, edge_index)[
            'softmax'
        ]

    assert torch.autograd.gradcheck(loss, tuple(emb))


def test_directau_loss_equals_loop(case):
    _, batch, edge_index, rows = case
    terms = DirectAULoss(gamma=1.5)(rows, batch, edge_index)
    user, item = (x.detach() / x.detach().norm(dim=1, keepdim=True) for x in rows[:2])
    align = sum(float((u - i).square().sum()) for u, i in zip(user, item)) / 11

    def uniform(x):
        pairs = [(b, c) for b in range(11) for c in range(b)]
        return math.log(
            sum(math.exp(-2 * float((x[b] - x[c]).square().sum())) for b, c in pairs) / len(pairs)
        )

    assert float(terms['alignment'].detach()) == pytest.approx(align)
    expected = 0.75 * (uniform(user) + uniform(item))
    assert float(terms['uniformity'].detach()) == pytest.approx(expected)
    assert float(uniformity(user)) == pytest.approx(uniform(user))


def test_whole_data_loss_equals_loop_over_all_pairs(case):
    emb, _, edge_index, _ = case
    batch = Batch(*edge_index, edge_index[1])  # An epoch in one batch.
    terms = WholeDataLoss(2.0, 0.1)(batch.rows(emb), batch, edge_index, emb)
    user, item = (x.detach() for x in emb)
    num_edges = edge_index.size(1)
    used = sorted(set(edge_index[1].tolist()))  # Everybody has something, not every item.
    alpha = 2.0 * num_edges / (M * len(used))
    known = {(int(u), int(i)) for u, i in edge_index.t()}
    total = 0.0
    for u in range(M):
        for i in used:
            s = float(user[u] @ item[i])
            total += alpha * s**2 + ((1 - s) ** 2 if (u, i) in known else 0)
    for u in range(M):
        count = sum(pair[0] == u for pair in known)
        total += 0.1 * (count + alpha * len(used)) * float(user[u] @ user[u])
    for i in used:
        count = sum(pair[1] == i for pair in known)
        total += 0.1 * (count + alpha * M) * float(item[i] @ item[i])
    assert float(sum(terms.values()).detach()) == pytest.approx(total / num_edges)


def test_whole_data_loss_of_batches_adds_up(case):
    emb, _, edge_index, _ = case
    loss = WholeDataLoss()
    parts = [Batch(*edge, edge[1]) for edge in edge_index.t().unsqueeze(2)]
    mean = sum(sum(loss(b.rows(emb), b, edge_index, emb).values()) for b in parts) / len(parts)
    batch = Batch(*edge_index, edge_index[1])
    whole = sum(loss(batch.rows(emb), batch, edge_index, emb).values())
    assert float(mean.detach()) == pytest.approx(float(whole.detach()))
    with pytest.raises(ValueError, match='vectors of all'):
        loss(batch.rows(emb), batch, edge_index)


@pytest.mark.parametrize('name', sorted(set(LOSSES) - {'published'}))
def test_empty_batch_costs_nothing_that_depends_on_it(name):
    none = torch.empty(0, dtype=torch.long)
    emb = Embeddings(torch.zeros(M, D, requires_grad=True), torch.zeros(N, D))
    batch = Batch(none, none, none)
    loss = LOSSES[name]()
    terms = loss(batch.rows(emb), batch, torch.tensor([[0], [1]]), emb)
    assert float(sum(terms.values()).detach()) == 0


@pytest.mark.parametrize(
    ('make', 'message'),
    [
        (lambda: SoftmaxLoss(0), "'temperature' must be positive"),
        (lambda: SoftmaxLoss(correction=-1), "'correction' must be at least 0"),
        (lambda: BPRLoss(-1), "'reg_weight' must be at least 0"),
        (lambda: WholeDataLoss(float('nan')), "'unobserved' must be at least 0"),
        (lambda: DirectAULoss(-0.1), "'gamma' must be at least 0"),
    ],
)
def test_arguments_are_checked(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize('loss', [SoftmaxLoss(), DirectAULoss()])
def test_losses_by_cosine_rank_by_cosine(loss):
    data = small_graph()
    model = LightGCN(data, channels=8)
    before = model(data)
    model.set_objective(loss)
    after = model(data)
    for x, y in zip(before, after):
        assert torch.allclose(torch.nn.functional.normalize(x), y)
    model.set_objective(None)
    assert torch.equal(model(data).item, before.item)


def backbones():
    return [name for name, cls in MODELS.items() if issubclass(cls, Recommender)]


def make(name, data):
    torch.manual_seed(0)
    return MODELS[name](data, channels=16).double()


def test_the_usual_weight_follows_from_interactions_per_user(case):
    emb, batch, edge_index, rows = case
    assert usual_weight(torch.tensor([[0, 0, 5, 5], [0, 1, 2, 3]])) == pytest.approx(0.3 / 2**0.75)
    assert usual_weight(torch.tensor([range(16), range(16)])) == 0.3
    weight = 0.3 * (edge_index.size(1) / M) ** -0.75
    out = WholeDataLoss()(rows, batch, edge_index, emb)
    same = WholeDataLoss(3.0, weight)(rows, batch, edge_index, emb)
    assert float(out['norms']) == pytest.approx(float(same['norms'])) and float(out['norms']) > 0


@pytest.mark.parametrize('name', backbones())
@pytest.mark.parametrize('loss', [BPRLoss(0.1), SoftmaxLoss(shared=True), WholeDataLoss()])
def test_every_backbone_trains_with_every_loss(name, loss):
    from motor_geo.utils.lazy import declared_transforms

    data = small_graph()
    for transform in declared_transforms(MODELS[name]):
        data = transform(data)
    for key in list(data['item'].keys()):
        if key.startswith('x_'):
            data['item'][key] = data['item'][key].double()
    model = make(name, data)
    edge_index = data['user', 'rates', 'item'].edge_index
    batch = Batch(*edge_index[:, :20], edge_index[1, 20:40])
    model.begin_epoch(data, 0, torch.Generator().manual_seed(0))
    torch.manual_seed(1)
    published = model.loss(data, batch)
    model.set_objective(loss)
    torch.manual_seed(1)
    terms = model.loss(data, batch)
    expected = {'bpr', 'norms'} if isinstance(loss, BPRLoss) else {'softmax'}
    if isinstance(loss, WholeDataLoss):
        expected = {'observed', 'all', 'norms'}
    assert expected <= terms.keys()
    for key in terms.keys() & published.keys() - {'bpr'}:  # Other terms stay as they are.
        assert torch.allclose(terms[key], published[key]), key
    sum(terms.values()).backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_published_bpr_is_bpr_without_norms():
    data = small_graph()
    model = LightGCN(data, channels=8)
    edge_index = data['user', 'rates', 'item'].edge_index
    batch = Batch(*edge_index[:, :10], edge_index[1, 10:20])
    rows = batch.rows(model(data))
    assert torch.equal(
        model.ranking(data, batch, rows, form='eps')['bpr'], bpr_loss(*rows.scores(), 'eps')
    )


@pytest.mark.parametrize('copies', [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_keep_their_objective(copies):
    data = small_graph()
    model = LightGCN(data, channels=8)
    plain = model(data)
    model.set_objective(SoftmaxLoss(0.3))
    other = copies(model)
    assert isinstance(other.objective, SoftmaxLoss) and other.objective.temperature == 0.3
    assert torch.equal(other(data).item, model(data).item)
    other.set_objective(None)  # Of the copy alone.
    assert torch.equal(other(data).item, plain.item)
    assert not torch.allclose(model(data).item, plain.item)


def test_an_objective_is_set_once_however_often():
    data = small_graph()
    model = LightGCN(data, channels=8)
    needs = model.needs_negatives
    for loss in (SoftmaxLoss(), DirectAULoss(), SoftmaxLoss(shared=True), WholeDataLoss()):
        model.set_objective(loss)
    assert len(model._forward_hooks) == 0 and model.needs_tables
    model.set_objective(None)
    assert model.needs_negatives is needs and not model.needs_tables


def test_lists_are_by_cosine_too():
    data = small_graph()
    model = LightGCN(data, channels=8)
    with torch.no_grad():
        emb = model(data)
    model.set_objective(SoftmaxLoss())
    score, item = model.recommend(data, torch.arange(4), k=5)
    for user in range(4):
        for value, i in zip(score[user], item[user]):
            expected = cosine(emb.user[user], emb.item[i])
            assert float(value) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize('loss', [SoftmaxLoss(shared=True), DirectAULoss(), WholeDataLoss()])
def test_losses_are_computed_in_full_precision(case, loss):
    emb, batch, edge_index, _ = case
    half = Embeddings(*(x.detach().bfloat16() for x in emb))
    full = Embeddings(*(x.float() for x in half))
    with torch.autocast('cpu', torch.bfloat16):
        terms = loss(batch.rows(half), batch, edge_index, half)
    expected = loss(batch.rows(full), batch, edge_index, full)
    for key, value in expected.items():
        assert terms[key].dtype == torch.float32
        torch.testing.assert_close(terms[key], value)
