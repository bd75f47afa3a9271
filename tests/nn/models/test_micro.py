import pytest
import torch

from motor_geo.nn.models.micro import MICRO
from motor_geo.typing import similar
from tests.golden_case import GoldenCase
from tests.nn.models.test_lattice import dense, sparse_case


def build(case, **kwargs):
    data, h = case.data(), case.hyper
    for m in case.modalities:
        store = data[similar(m)]
        store.edge_index, store.edge_weight = sparse_case(case, f'{m}_initial_item_adj')
    kwargs = {'contrast_weight': h['loss_ratio'], 'train_features': True, **kwargs}
    model = MICRO(
        data,
        channels=h['d'],
        num_layers=h['L_ui'],
        num_item_layers=h['L_ii'],
        k=h['k'],
        initial_weight=h['lambda'],
        reg_weight=h['reg'],
        reg_batch_size=h['configured_batch_size'],
        temperature=h['tau'],
        **kwargs,
    ).to(case.dtype)
    parameters = {
        'user_embedding': model.user_embedding,
        'item_embedding': model.item_encoder.weight,
        'attention_hidden_weight': model.attention[0].weight,
        'attention_hidden_bias': model.attention[0].bias,
        'attention_output_weight': model.attention[2].weight,
    }
    for modality in case.modalities:
        if model.features.tables is not None:
            parameters[f'{modality}_table'] = model.features.tables[modality]
        parameters[f'{modality}_linear_weight'] = model.features.lins[modality].weight
        parameters[f'{modality}_linear_bias'] = model.features.lins[modality].bias
    return model, data, case.load(parameters)


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32])
def test_micro_golden(dtype):
    case = GoldenCase('micro', dtype)
    model, data, parameters = build(case)
    terms = {'bpr': ('loss_bpr', 1), 'reg': ('loss_reg', case.hyper['reg'])}
    for m in case.modalities:
        terms[f'contrast_{m}'] = (f'loss_contrast_{m}', case.hyper['loss_ratio'])
    model.begin_epoch(data, 0, torch.Generator())
    for prefix in ('', 'detached_'):  # The first batch of an epoch, and the second.
        losses = model.loss(data, case.batch)
        case.assert_loss(losses, terms, prefix)
        case.assert_gradients(losses, parameters, prefix)

    out = model(data)
    case.assert_close(out.user, 'user_repr')
    case.assert_close(out.item, 'item_repr')
    case.assert_close(out.user @ out.item.t(), 'scores')
    _, h = model.fuse(model.encode_items(data), model.item_graphs(data))
    case.assert_close(h, 'fused_item')


def test_micro_graphs_golden():
    case = GoldenCase('micro')
    model, data, _ = build(case)
    for modality, graph in zip(model.features.names, model.item_graphs(data)):
        actual = dense(*graph, case.hyper['N'])
        expected = dense(*sparse_case(case, f'{modality}_item_adj'), case.hyper['N'])
        assert torch.equal(actual != 0, expected != 0)
        torch.testing.assert_close(actual, expected, atol=1e-7, rtol=1e-6)


def test_micro_without_learned_graphs():
    case = GoldenCase('micro')
    model, data, _ = build(case)
    model.initial_weight = 1.0
    for modality, graph in zip(model.features.names, model.item_graphs(data)):
        expected = dense(*sparse_case(case, f'{modality}_initial_item_adj'), case.hyper['N'])
        torch.testing.assert_close(dense(*graph, case.hyper['N']), expected)


def test_micro_without_contrast():
    case = GoldenCase('micro')
    model, data, _ = build(case, contrast_weight=0.0)
    assert set(model.loss(data, case.batch)) == {'bpr', 'reg'}


def test_micro_reset_parameters():
    case = GoldenCase('micro')
    model, _, parameters = build(case)
    before = {name: p.detach().clone() for name, p in parameters.items()}
    model.reset_parameters()
    for name, parameter in parameters.items():
        assert name.endswith('_table') == torch.equal(parameter, before[name])


def test_micro_rejects_a_bad_temperature():
    case = GoldenCase('micro')
    _, data, _ = build(case)
    with pytest.raises(ValueError, match=r"'temperature' must be positive and finite \(got 0.0\)"):
        MICRO(data, temperature=0.0)
