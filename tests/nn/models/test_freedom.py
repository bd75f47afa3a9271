import copy

import pytest
import torch
import torch.nn.functional as F

from motor_geo.nn.models import FREEDOM
from motor_geo.typing import RATES
from tests.golden_case import GoldenCase


def build(case, **kwargs):
    data, h = case.data(weighting='binary'), case.hyper
    others = [m for m in case.modalities if m != 'image']
    weight = {'image': h['w'], **{m: (1 - h['w']) / len(others) for m in others}}
    kwargs = {'rho': h['rho'], 'reg_weight': h['reg'], 'train_features': True, **kwargs}
    model = FREEDOM(
        data,
        channels=h['d'],
        num_layers=h['L_ui'],
        num_item_layers=h['L_ii'],
        modality_weight=weight,
        **kwargs,
    ).to(case.dtype)
    parameters = {
        'user_embedding': model.user_embedding,
        'item_embedding': model.item_encoder.weight,
    }
    for modality in case.modalities:
        if model.features.tables is not None:
            parameters[f'{modality}_table'] = model.features.tables[modality]
        parameters[f'{modality}_linear_weight'] = model.features.lins[modality].weight
        parameters[f'{modality}_linear_bias'] = model.features.lins[modality].bias
    return model, data, case.load(parameters)


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32])
@pytest.mark.parametrize('prefix', ['', 'full_'])
def test_freedom_golden(prefix, dtype):
    case = GoldenCase('freedom', dtype)
    model, data, parameters = build(case)
    if prefix == '':
        model.prune(data, case['kept_edge_index'])

    losses = model.loss(data, case.batch)
    terms = {'bpr': ('loss_bpr', 1)}
    for m in case.modalities:
        terms[f'bpr_{m}'] = (f'loss_bpr_{m}', case.hyper['reg'])
    case.assert_loss(losses, terms, prefix)
    case.assert_gradients(losses, parameters, prefix)

    out = model(data)  # Ranking uses the full graph, pruned or not.
    case.assert_close(out.user, 'user_repr')
    case.assert_close(out.item, 'item_repr')
    case.assert_close(out.user @ out.item.t(), 'scores')
    if prefix == '':
        out = model.propagate(data, model.training_graph(data))
        case.assert_close(out.user, 'train_user_repr')
        case.assert_close(out.item, 'train_item_repr')


def test_freedom_item_graph_golden():
    case = GoldenCase('freedom')
    model, data, _ = build(case)
    edge_index, weight = model.item_graphs(data, case.dtype)
    actual = torch.zeros(case.hyper['N'], case.hyper['N'], dtype=case.dtype)
    actual[edge_index[1], edge_index[0]] = weight
    expected = torch.zeros_like(actual)
    expected[case['item_adj_row'], case['item_adj_col']] = case['item_adj_value']
    torch.testing.assert_close(actual, expected, atol=1e-7, rtol=1e-6)


def test_freedom_frozen_features_give_the_same_losses():
    case = GoldenCase('freedom')
    trained, data, _ = build(case)
    frozen, _, _ = build(case, train_features=False)
    for modality in case.modalities:  # The case's tables differ from its features.
        data['item'][f'x_{modality}'] = case[f'{modality}_table']
    expected = trained.loss(data, case.batch)
    for term, value in frozen.loss(data, case.batch).items():
        torch.testing.assert_close(value, expected[term])
    assert all('tables' not in name for name, _ in frozen.named_parameters())


def test_freedom_without_reg_has_no_feature_gradient():
    case = GoldenCase('freedom')
    model, data, _ = build(case, reg_weight=0.0)
    losses = model.loss(data, case.batch)
    assert set(losses) == {'bpr'}
    losses['bpr'].backward()
    for parameter in [*model.features.lins.parameters(), *model.features.tables.parameters()]:
        assert parameter.grad is None or not parameter.grad.any()


@pytest.mark.parametrize('num_item_layers', [0, 1, 2])
def test_freedom_computes_the_rows_of_the_batch(num_item_layers):
    case = GoldenCase('freedom')
    model, data, _ = build(case, reg_weight=0.0, norm_weight=0.5)
    model.num_item_layers = num_item_layers
    model.prune(data, case['kept_edge_index'])
    losses, (user, pos, neg) = model.loss(data, case.batch), case.batch
    out = model.propagate(data, model.training_graph(data))
    difference = (out.user[user] * (out.item[pos] - out.item[neg])).sum(dim=-1)
    table = model.item_encoder.weight
    norm = sum(rows.norm() for rows in (model.user_embedding[user], table[pos], table[neg]))
    expected = {
        'bpr': -F.logsigmoid(difference).mean(),
        'reg': 0.5 * norm / user.numel(),
    }
    torch.testing.assert_close(losses, expected)
    leaves = model.user_embedding, table
    gradients = torch.autograd.grad(sum(losses.values()), leaves)
    torch.testing.assert_close(gradients, torch.autograd.grad(sum(expected.values()), leaves))


def naive_similarity_loss(z, pos, tables):
    r"""The term of AlignRec, pair by pair."""
    total = 0
    for a in pos.tolist():
        for b in pos.tolist():
            cosines = [torch.cosine_similarity(x[a], x[b], dim=0) for x in tables]
            total = total + (z[a] @ z[b] - sum(cosines) / len(cosines)) ** 2
    return total**0.5 / len(pos)


def test_freedom_similarity_term():
    case = GoldenCase('freedom')
    model, data, _ = build(case, similarity_weight=0.3)
    value = model.loss(data, case.batch)['similarity']
    z = model.smooth(data, model.item_encoder.weight)
    tables = [data['item'][f'x_{m}'] for m in case.modalities]
    expected = 0.3 * naive_similarity_loss(z, case.batch.pos, tables)
    torch.testing.assert_close(value, expected)
    table = model.item_encoder.weight
    gradients = [torch.autograd.grad(x, table)[0] for x in (value, expected)]
    torch.testing.assert_close(*gradients)


def test_freedom_pruning_belongs_to_the_epoch():
    case = GoldenCase('freedom')
    model, data, _ = build(case)

    def epoch(seed):
        model.begin_epoch(data, 0, torch.Generator().manual_seed(seed))
        return model.training_graph(data).to_item.as_tensor()

    first, again, other = epoch(0), epoch(0), epoch(1)
    assert first.size(1) == case.hyper['n_keep']
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(model.training_graph(data).to_item.as_tensor(), other)
    clone = copy.deepcopy(model)  # It trains on the whole graph until it is pruned itself.
    assert clone.training_graph(data).to_item.size(1) == data[RATES].num_edges
    clone.begin_epoch(data, 0, torch.Generator().manual_seed(1))
    assert torch.equal(clone.training_graph(data).to_item.as_tensor(), other)


def test_freedom_loss_on_another_graph():
    # Pruning belongs to the graph that was pruned; all others are used whole.
    case = GoldenCase('freedom')
    model, data, _ = build(case)
    other = copy.copy(data)
    other[RATES].edge_index = data[RATES].edge_index[:, ::2].contiguous()
    whole, expected = model.loss(data, case.batch), model.loss(other, case.batch)
    model.begin_epoch(data, 0, torch.Generator().manual_seed(0))
    pruned = model.loss(data, case.batch)
    assert not torch.isclose(pruned['bpr'], whole['bpr'])
    assert torch.equal(model.loss(other, case.batch)['bpr'], expected['bpr'])
    assert torch.equal(model.loss(data, case.batch)['bpr'], pruned['bpr'])
    data[RATES].edge_index[:, 0] = data[RATES].edge_index[:, 1]  # A change in place.
    assert not torch.isclose(model.loss(data, case.batch)['bpr'], pruned['bpr'])


def test_freedom_rejects_bad_arguments():
    case = GoldenCase('freedom')
    data = case.data(weighting='binary')
    with pytest.raises(ValueError, match=r"'rho' must lie in \[0, 1\) \(got 1.0\)"):
        FREEDOM(data, rho=1.0)
    with pytest.raises(ValueError, match="'modality_weight' must name the modalities"):
        FREEDOM(data, modality_weight={'smell': 1.0})
    with pytest.raises(ValueError, match="needs the item graph .*apply 'ItemKNN'"):
        FREEDOM(case.data())
