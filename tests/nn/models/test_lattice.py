import pytest
import torch

from motor_geo.nn.models.lattice import LATTICE
from motor_geo.typing import similar
from tests.golden_case import GoldenCase


def sparse_case(case, name):
    r"""A matrix of the case as edges (column to row) and weights."""
    edge_index = torch.stack([case[f'{name}_col'], case[f'{name}_row']])
    return edge_index, case[f'{name}_value']


def dense(edge_index, weight, size):
    out = weight.new_zeros(size, size)
    out[edge_index[1], edge_index[0]] = weight.detach()
    return out


def build(case, **kwargs):
    data, h = case.data(), case.hyper
    for m in case.modalities:
        store = data[similar(m)]
        store.edge_index, store.edge_weight = sparse_case(case, f'{m}_item_adj')
    model = LATTICE(
        data,
        channels=h['d'],
        num_layers=h['L_ui'],
        num_item_layers=h['L_ii'],
        k=h['k'],
        initial_weight=h['lambda'],
        reg_weight=h['reg'],
        reg_batch_size=h['configured_batch_size'],
        **{'train_features': True, **kwargs},
    ).to(case.dtype)
    parameters = {
        'user_embedding': model.user_embedding,
        'item_embedding': model.item_encoder.weight,
        'modal_logits': model.modal_logits,
    }
    for modality in case.modalities:
        if model.features.tables is not None:
            parameters[f'{modality}_table'] = model.features.tables[modality]
        parameters[f'{modality}_linear_weight'] = model.features.lins[modality].weight
        parameters[f'{modality}_linear_bias'] = model.features.lins[modality].bias
    return model, data, case.load(parameters)


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32])
def test_lattice_golden(dtype):
    case = GoldenCase('lattice', dtype)
    model, data, parameters = build(case)
    model.begin_epoch(data, 0, torch.Generator())
    for prefix in ('', 'detached_'):  # The first batch of an epoch, and the second.
        losses = model.loss(data, case.batch)
        terms = {'bpr': ('loss_bpr', 1), 'reg': ('loss_reg', case.hyper['reg'])}
        case.assert_loss(losses, terms, prefix)
        case.assert_gradients(losses, parameters, prefix)

    out = model(data)
    case.assert_close(out.user, 'user_repr')
    case.assert_close(out.item, 'item_repr')
    case.assert_close(out.user @ out.item.t(), 'scores')


def test_lattice_graphs_golden():
    case = GoldenCase('lattice')
    model, data, _ = build(case)
    size = case.hyper['N']
    for modality, (index, value) in model.learned_graphs(data).items():
        actual = torch.zeros(size, size, dtype=case.dtype).scatter(1, index, value.detach())
        expected = dense(*sparse_case(case, f'{modality}_learned_knn'), size)
        assert torch.equal(actual != 0, expected != 0)
        torch.testing.assert_close(actual, expected, atol=1e-7, rtol=1e-6)

    ((edge_index, weight),) = model.item_graphs(data)
    actual, expected = dense(edge_index, weight, size), dense(*sparse_case(case, 'item_adj'), size)
    assert torch.equal(actual != 0, expected != 0)
    torch.testing.assert_close(actual, expected, atol=1e-7, rtol=1e-6)

    graph = model.graph(data)
    torch.testing.assert_close(graph.to_user_weight, case['ui_norm_user_row'])
    _, order = (case['train_edges'][1] * case.hyper['M'] + case['train_edges'][0]).sort()
    torch.testing.assert_close(graph.to_item_weight, case['ui_norm_item_row'][order])


def test_lattice_initial_graphs_of_item_knn():
    case = GoldenCase('lattice')
    model, data, _ = build(case)
    expected = model.item_graphs(data)[0]
    (transform,) = model.transforms
    data = transform.build(k=case.hyper['k'], cache=False)(case.data())
    actual = model.item_graphs(data)[0]
    torch.testing.assert_close(
        dense(*actual, case.hyper['N']), dense(*expected, case.hyper['N']), atol=1e-7, rtol=1e-6
    )


def test_lattice_without_learned_graph():
    case = GoldenCase('lattice')
    model, data, parameters = build(case)
    model.initial_weight = 1.0
    ((edge_index, weight),) = model.item_graphs(data)
    beta = model.modal_logits.detach().softmax(dim=0)
    expected = sum(
        b * dense(*sparse_case(case, f'{m}_item_adj'), 30) for b, m in zip(beta, case.modalities)
    )
    torch.testing.assert_close(dense(edge_index, weight, 30), expected)
    total = sum(model.loss(data, case.batch).values())
    total.backward()
    assert model.modal_logits.grad.any()
    assert all(lin.weight.grad is None for lin in model.features.lins.values())


def test_lattice_reset_parameters():
    case = GoldenCase('lattice')
    model, _, parameters = build(case)
    before = {name: p.detach().clone() for name, p in parameters.items()}
    model.reset_parameters()
    assert model.modal_logits.tolist() == [0.5, 0.5]
    for name, parameter in parameters.items():
        assert name.endswith('_table') == torch.equal(parameter, before[name])
