import copy
import itertools

import numpy as np
import pytest
import torch
from torch_geometric.data import HeteroData

from motor_geo.engine.fitter import Fitter
from motor_geo.nn import FeatureProjection, IDEmbedding, TokenCrossEncoder
from motor_geo.nn.models import TokenALS
from motor_geo.nn.objective import WholeDataLoss, usual_weight
from motor_geo.testing.graphs import item_encoder, new_items, small_graph
from motor_geo.typing import ITEM, RATES, Batch

M, N, D = 37, 29, 3
C, WEIGHT = 2.0, 0.05
ITEMS = ['id', 'mean', 'features']


def graph():
    r"""A part of a small graph in double precision, with centered features; some
    users and some items have no training interactions.
    """
    data = HeteroData()
    full = small_graph()
    data['user'].num_nodes = M
    data[ITEM].num_nodes = N
    data[ITEM].token_id = full[ITEM].token_id[:N] % 4
    for key in ('x_image', 'x_text'):
        x = full[ITEM][key][:N, :5].double()
        data[ITEM][key] = x - x.mean(dim=0)
    mask = torch.rand(M, N, generator=torch.Generator().manual_seed(0)) < 0.2
    mask[:5], mask[:, ::7] = False, False
    data[RATES].edge_index = mask.nonzero().t().contiguous()
    return data


def build(items, data, num_steps=8, seed=0, **options):
    torch.manual_seed(seed)
    options = {'unobserved': C, 'reg_weight': WEIGHT, **options}
    encoder = item_encoder(items, data, D)
    return TokenALS(data, encoder, D, num_steps=num_steps, **options).double()


def fit(model, data, epochs):
    return [e['objective'] for e in itertools.islice(model.fit(data), epochs)]


class Dense:
    r"""The objective by its definition, over a matrix of all pairs."""

    def __init__(self, data):
        edge_index = data[RATES].edge_index.numpy()
        self.x = np.zeros((M, N))
        np.add.at(self.x, tuple(edge_index), 1)
        self.user = self.x.sum(1) > 0
        self.item = self.x.sum(0) > 0
        self.num_edges = self.x.sum()
        self.alpha = C * self.num_edges / (self.user.sum() * self.item.sum())
        self.user_weight = WEIGHT * (self.x.sum(1) + self.alpha * self.item.sum())
        self.item_weight = WEIGHT * (self.x.sum(0) + self.alpha * self.user.sum())
        # Weights of squared scores, of pairs that both have interactions.
        self.pairs = self.x + self.alpha * np.outer(self.user, self.item)

    def objective(self, user, item):
        total = 0.0
        for u, i in zip(*self.x.nonzero()):
            total += self.x[u, i] * (1 - user[u] @ item[i]) ** 2
        for u in self.user.nonzero()[0]:
            total += self.alpha * ((item[self.item] @ user[u]) ** 2).sum()
            total += self.user_weight[u] * user[u] @ user[u]
        for i in self.item.nonzero()[0]:
            total += self.item_weight[i] * item[i] @ item[i]
        return total / self.num_edges

    def users(self, item):
        out = np.zeros((M, D))
        for u in self.user.nonzero()[0]:
            a = (item.T * self.pairs[u]) @ item + self.user_weight[u] * np.eye(D)
            out[u] = np.linalg.solve(a, item.T @ self.x[u])
        return out

    def items(self, user, table, basis):
        r"""The vector of parameters whose items, `basis` times it, are best: one
        large system.
        """
        num = basis.shape[-1]
        a, b = np.zeros((num, num)), np.zeros(num)
        for i in self.item.nonzero()[0]:
            h = (user.T * self.pairs[:, i]) @ user + self.item_weight[i] * np.eye(D)
            a += basis[i].T @ h @ basis[i]
            b += basis[i].T @ (user.T @ self.x[:, i])
        free = np.abs(a).sum(0) > 0
        out = table.copy()  # What has no influence stays where it was.
        out[free] = np.linalg.lstsq(a[np.ix_(free, free)], b[free], rcond=1e-12)[0]
        return out


def parameters(model):
    return torch.nn.utils.parameters_to_vector(model.item_encoder.parameters()).detach().numpy()


def basis(model, data):
    r"""Items as a matrix times parameters, [N, d, P], column by column."""
    model = copy.deepcopy(model)
    names = list(model.item_encoder.parameters())
    columns = []
    for column in torch.eye(sum(p.numel() for p in names), dtype=torch.double):
        torch.nn.utils.vector_to_parameters(column, names)
        columns.append(model(data).item.detach())
    return torch.stack(columns, dim=-1).numpy()


@pytest.mark.parametrize('items', ['mean', 'features'])
def test_an_iteration_solves_the_normal_equations(items):
    data = graph()
    model, dense = build(items, data, num_steps=300), Dense(data)
    item, before = model(data).item.detach().numpy(), parameters(model)
    objective = fit(model, data, 1)
    user = dense.users(item)
    np.testing.assert_allclose(model.user_embedding.numpy(), user, rtol=1e-6, atol=1e-9)
    matrix = basis(model, data)
    table = dense.items(user, before, matrix)
    found = model(data).item.detach().numpy()
    np.testing.assert_allclose(found[dense.item], (matrix @ table)[dense.item], atol=1e-6)
    assert objective[0] == pytest.approx(dense.objective(user, found), rel=1e-9)


def test_ids_are_dense_ials():
    data = graph()
    model, dense = build('id', data, num_steps=4 * D), Dense(data)
    item = model(data).item.detach().numpy().copy()
    value = fit(model, data, 4)[-1]
    for _ in range(4):
        user = dense.users(item)
        for i in dense.item.nonzero()[0]:
            a = (user.T * dense.pairs[:, i]) @ user + dense.item_weight[i] * np.eye(D)
            item[i] = np.linalg.solve(a, user.T @ dense.x[:, i])
    np.testing.assert_allclose(model.user_embedding.numpy(), user, atol=1e-8)
    np.testing.assert_allclose(model(data).item.detach().numpy(), item, atol=1e-8)
    assert value == pytest.approx(dense.objective(user, item), rel=1e-9)


@pytest.mark.parametrize('items', ITEMS)
@pytest.mark.parametrize('num_steps', [1, 3])
def test_the_objective_never_rises(items, num_steps):
    data = graph()
    values = fit(build(items, data, num_steps), data, 15)
    assert all(after <= before + 1e-12 for before, after in zip(values, values[1:]))
    assert values[-1] < 0.95 * values[0]


@pytest.mark.parametrize('items', ITEMS)
def test_the_objective_is_that_of_the_loss_over_all_data(items):
    data = graph()
    model = build(items, data)
    value = fit(model, data, 2)[-1]
    edge_index = data[RATES].edge_index
    batch = Batch(*edge_index, edge_index[1])
    emb = model(data)
    terms = WholeDataLoss(C, WEIGHT)(batch.rows(emb), batch, edge_index, emb)
    assert sum(terms.values()).item() == pytest.approx(value, rel=1e-10)


@pytest.mark.parametrize('items', ITEMS)
def test_where_it_ends_the_gradient_vanishes(items):
    data = graph()
    model = build(items, data, num_steps=15)
    edge_index = data[RATES].edge_index
    batch = Batch(*edge_index, edge_index[1])

    def gradient():
        model.user_embedding.requires_grad_()
        emb = model(data)
        terms = WholeDataLoss(C, WEIGHT)(batch.rows(emb), batch, edge_index, emb)
        names = list(model.parameters())
        grads = torch.autograd.grad(sum(terms.values()), names)
        model.user_embedding.requires_grad_(False)
        return max(float(grad.abs().max()) for grad in grads)

    fit(model, data, 1)
    first = gradient()
    for _ in range(8):  # At most 400 iterations.
        fit(model, data, 50)
        last = gradient()
        if last < 1e-4 * first:
            break
    assert last < 1e-4 * first


def test_items_without_interactions_are_no_negatives():
    data = graph()
    model, other = build('id', data), build('id', data)
    unused = ~Dense(data).item
    with torch.no_grad():
        other.item_encoder.weight[torch.from_numpy(unused)] *= 100
    fit(model, data, 3)
    fit(other, data, 3)
    assert torch.equal(model.user_embedding, other.user_embedding)
    # Theirs stay as they were, those of users stay zero.
    fresh = build('id', data)
    assert torch.equal(model(data).item[unused], fresh(data).item[unused])
    assert not model.user_embedding[:5].any()


@pytest.mark.parametrize('items', ['mean', 'features'])
def test_new_items_are_scored(items):
    data = small_graph()
    model = build(items, data).float()
    fit(model, data, 2)
    more = new_items(TokenALS, data)
    emb = model(more)
    assert emb.item.size(0) == 173 + 4 and emb.item[173:].abs().sum(dim=1).all()
    torch.testing.assert_close(emb.item[:173], model(data).item)
    score, item = model.recommend(more, torch.arange(3), k=177)
    assert score.isfinite().sum() > 0 and (item >= 173).any()
    assert model.item_parameters(173) == []


def test_ids_do_not_score_new_items():
    data = small_graph()
    model = build('id', data)
    assert model.item_parameters(173) == ['item_encoder.weight']
    with pytest.raises(ValueError, match='have no ID vector'):
        model(new_items(TokenALS, data))


@pytest.mark.parametrize(
    ('make', 'message'),
    [
        (lambda d: build('specific', d), r'linear in their parameters.*\(got \w+ specific\)'),
        (lambda d: build('linear', d), r'linear in their parameters.*\(got \w+ linear\)'),
        (lambda d: TokenALS(d, torch.nn.Embedding(173, 64)), r'\(got Embedding\)'),
        (lambda d: TokenALS(d, IDEmbedding(173, 8), 4), "vectors of size 8, but 'channels' is 4"),
        (lambda d: build('id', d, reg_weight=0), "'reg_weight' must be positive"),
        (lambda d: build('id', d, unobserved=float('inf')), "'unobserved' must be positive"),
        (lambda d: build('id', d, num_steps=0), "'num_steps' must be positive"),
    ],
)
def test_arguments_are_checked(make, message):
    with pytest.raises(ValueError, match=message):
        make(small_graph())


def test_many_steps_on_features_of_any_scale_stay_finite():
    data = graph()
    x = data[ITEM].x_image
    x[:, 0], x[:, 1] = 0, 1e-6  # Nothing, and next to nothing.
    x[:, 2] = torch.where(torch.arange(N) % 2 == 0, 1.0, -1.0)
    torch.manual_seed(0)
    encoder = FeatureProjection({'image': 5, 'text': 5}, D, normalize=False)
    model = TokenALS(data, encoder, D, num_steps=100).double()
    values = fit(model, data, 5)
    assert all(after <= before + 1e-12 for before, after in zip(values, values[1:]))
    assert np.isfinite(parameters(model)).all()


def test_weights_are_the_usual_ones():
    data = graph()
    weight = usual_weight(data[RATES].edge_index)
    models = build('mean', data, unobserved=3.0, reg_weight=weight), build('mean', data)
    models[1].unobserved, models[1].reg_weight = 3.0, None
    assert TokenALS(data).unobserved == 3.0 and TokenALS(data).reg_weight is None
    for model in models:
        fit(model, data, 3)
    assert np.array_equal(*map(parameters, models))


@pytest.mark.parametrize('items', ITEMS)
def test_without_any_interaction_nothing_is_learned(items):
    data = graph()
    data[RATES].edge_index = torch.empty(2, 0, dtype=torch.long)
    model = build(items, data)
    before = parameters(model)
    fit(model, data, 2)
    assert not model.user_embedding.any() and np.array_equal(parameters(model), before)


def test_a_token_that_no_item_has_stays_as_it_was():
    data = graph()
    torch.manual_seed(0)
    encoder = TokenCrossEncoder({'image': 2, 'text': 2}, 6, D, mode='mean')
    model = TokenALS(data, encoder, D, num_steps=50).double()
    before = encoder.table.detach().clone().view(4, 6, D)
    fit(model, data, 3)
    after = encoder.table.detach().view(4, 6, D)
    assert torch.equal(after[:, 4:], before[:, 4:]) and after.isfinite().all()
    assert not torch.equal(after[:, :4], before[:, :4])


@pytest.mark.parametrize('items', ITEMS)
def test_an_interrupted_fit_goes_on_bit_by_bit(items, tmp_path):
    data = graph()
    whole = build(items, data)
    expected = Fitter(whole, data, epochs=4, progress=False).fit()
    Fitter(build(items, data), data, epochs=2, progress=False, out=str(tmp_path)).fit()
    model = build(items, data, seed=1)  # What it starts from is in the checkpoint.
    result = Fitter(model, data, epochs=4, progress=False, out=str(tmp_path)).fit()
    assert [e['losses'] for e in result.history] == [e['losses'] for e in expected.history]
    for name, value in whole.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name


def test_precision_may_change_between_calls():
    data = small_graph()
    model = build('mean', data).float()
    single = fit(model, data, 1)
    double = fit(build('mean', data), data, 1)
    assert single == pytest.approx(double, rel=1e-3)
    fit(model.double(), data, 1)
