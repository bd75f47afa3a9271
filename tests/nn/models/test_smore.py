import pytest
import torch

from motor_geo.data import ItemKNN
from motor_geo.nn.models import SMORE
from motor_geo.nn.models.smore import filter_columns
from tests.golden_case import GoldenCase


def golden_data(case):
    data = case.data()
    for m in case.modalities:
        knn = ItemKNN(case.hyper[f'k_{m}'], modalities=[m], weighting='cosine', cache=False)
        data = knn(data)
    return data


def golden(dtype=torch.float64, **kwargs):
    case = GoldenCase('smore', dtype)
    h, data = case.hyper, golden_data(case)
    model = SMORE(
        data,
        channels=h['d'],
        num_layers=h['L_ui'],
        num_item_layers=h['L_ii'],
        reg_weight=h['reg'],
        batch_size=h['configured_batch_size'],
        cl_weight=h['cl'],
        temperature=h['tau'],
        **{'dropout': h['dropout'], 'train_features': True, **kwargs},
    ).to(case.dtype)
    parameters = {
        'user_embedding': model.user_embedding,
        'item_embedding': model.item_encoder.weight,
        'fusion_filter': model.fusion_filter,
    }
    linears = {
        'fusion_gate': model.fusion_gate,
        'fusion_preference_gate': model.fusion_preference_gate,
    }
    for m in case.modalities:
        parameters[f'{m}_filter'] = model.filters[m]
        if model.features.tables is not None:
            parameters[f'{m}_table'] = model.features.tables[m]
        parameters[f'{m}_attention_output_weight'] = model.queries[m][2].weight
        linears |= {
            f'{m}_linear': model.features.lins[m],
            f'{m}_gate': model.gates[m],
            f'{m}_preference_gate': model.preference_gates[m],
            f'{m}_attention_hidden': model.queries[m][0],
        }
    for name, lin in linears.items():
        parameters[f'{name}_weight'], parameters[f'{name}_bias'] = lin.weight, lin.bias
    return case, model, data, case.load(parameters)


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32])
def test_smore_golden(dtype):
    case, model, data, parameters = golden(dtype)
    h = case.hyper
    for m, c in zip([*case.modalities, 'fusion'], model.spectra(data)):
        case.assert_close(c, f'{m}_spectrum')
    content, modal = model.views(data)
    case.assert_close(torch.cat(content), 'content')
    case.assert_close(model.side(torch.cat(content), torch.cat(modal)), 'side')
    out = model(data)
    case.assert_close(out.user, 'user_repr')
    case.assert_close(out.item, 'item_repr')
    case.assert_close(out.user @ out.item.t(), 'scores')

    losses = model.loss(data, case.batch)
    terms = {
        'bpr': ('loss_bpr', 1),
        'reg': ('loss_reg', h['reg']),
        'cl_item': ('loss_infonce_items', h['cl']),
        'cl_user': ('loss_infonce_users', h['cl']),
    }
    case.assert_loss(losses, terms)
    case.assert_gradients(losses, parameters)
    assert set(map(id, parameters.values())) == set(map(id, model.parameters()))


def test_smore_item_graphs_golden():
    case, model, data, _ = golden()
    graphs = {**model.item_graphs, 'fusion': model.fusion_graph}
    for name, graph in graphs.items():
        edge_index, weight = graph(data, case.dtype)
        actual = torch.zeros(case.hyper['N'], case.hyper['N'], dtype=case.dtype)
        actual[edge_index[1], edge_index[0]] = weight
        expected = torch.zeros_like(actual)
        row, col = (case[f'{name}_item_adj_{part}'] for part in ('row', 'col'))
        expected[row, col] = case[f'{name}_item_adj_value']
        assert torch.equal(actual != 0, expected != 0)
        torch.testing.assert_close(actual, expected, atol=1e-7, rtol=1e-6)


@pytest.mark.parametrize('channels', [6, 7])
def test_filters_are_circular_convolutions(channels):
    torch.manual_seed(0)
    y = torch.randn(2, 3, channels, dtype=torch.float64)
    filters = torch.randn(3, 1, channels // 2 + 1, 2, dtype=torch.float64)
    out = filter_columns(y, *filters)
    n = torch.arange(channels, dtype=torch.float64)
    wave = torch.polar(
        torch.ones(channels, channels).double(), -2 * torch.pi * n[:, None] * n / channels
    )
    spectrum = torch.stack([*(y.to(wave.dtype) @ wave / channels**0.5)])
    spectrum = torch.cat([spectrum, spectrum[:1] * spectrum[1:]])[..., : channels // 2 + 1]
    spectrum = spectrum * torch.view_as_complex(filters)
    for view, coefficients in zip(out, spectrum):
        expected = torch.zeros(3, channels, dtype=torch.float64)
        for k in range(channels):  # The upper half mirrors the lower one.
            lower = k if k <= channels // 2 else channels - k
            value = coefficients[:, lower] if k == lower else coefficients[:, lower].conj()
            if k == 0 or 2 * k == channels:
                value = value.real.to(wave.dtype)
            expected += (value[:, None] * wave[k].conj()).real / channels**0.5
        torch.testing.assert_close(view, expected)


def test_smore_drops_gates_in_training_only():
    case, model, data, _ = golden(dropout=0.5)
    assert not torch.equal(model(data).item, model(data).item)
    model.eval()
    _, plain, _, _ = golden()
    torch.testing.assert_close(model(data), plain(data))


def test_smore_frozen_features_give_the_same_losses():
    case, trained, data, _ = golden()
    _, frozen, _, _ = golden(train_features=False)
    torch.testing.assert_close(frozen.loss(data, case.batch), trained.loss(data, case.batch))
    assert all('tables' not in name for name, _ in frozen.named_parameters())


def test_smore_weights_of_zero_drop_terms():
    case, _, data, _ = golden()
    assert set(SMORE(data, reg_weight=0.0, cl_weight=0.0).loss(data, case.batch)) == {'bpr'}


def test_smore_rejects_bad_arguments():
    case, _, data, _ = golden()
    with pytest.raises(ValueError, match=r"'dropout' must lie in \[0, 1\) \(got 1.0\)"):
        SMORE(data, dropout=1.0)
    with pytest.raises(ValueError, match=r"'temperature' must be positive and finite \(got 0\)"):
        SMORE(data, temperature=0)
    with pytest.raises(ValueError, match="'SMORE' needs the item graph .*apply 'ItemKNN'"):
        SMORE(case.data())
    with pytest.raises(ValueError, match="'SMORE' needs item features of at least 1 modality"):
        SMORE(GoldenCase('bpr').data())
