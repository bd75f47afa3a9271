import pytest
import torch

from motor_geo.nn.functional.rows import normalize_rows
from motor_geo.nn.models import GUME
from motor_geo.typing import RATES, similar
from tests.golden_case import GoldenCase


class GivenNoise(GUME):
    case = None

    def perturb(self, x, view, node):
        noise = self.case[f'noise_{view[:-1]}_view{view[-1]}'][node]
        return x + self.noise * x.sign() * normalize_rows(noise)


def golden(dtype=torch.float64, **kwargs):
    case = GoldenCase('gume', dtype)
    h, data = case.hyper, case.data('cosine')
    model = GivenNoise(
        data,
        channels=h['d'],
        num_layers=h['L_ui'],
        num_item_layers=h['L_ii'],
        reg_weight=h['reg'],
        extended_reg_weight=h['reg_extended'],
        batch_size=h['configured_batch_size'],
        behavior_weight=h['bm'],
        behavior_temperature=h['tau_behavior'],
        user_weight=h['um'],
        user_temperature=h['tau_user'],
        align_weight=h['vt'],
        **{'train_features': True, **kwargs},
    ).to(case.dtype)
    model.case = case
    names = case.modalities
    parameters = {
        'user_embedding': model.user_embedding,
        'item_embedding': model.item_encoder.weight,
        tuple(f'{m}_user_embedding' for m in names): model.modal_user_embedding,
        'attention_hidden_weight': model.attention[0].weight,
        'attention_hidden_bias': model.attention[0].bias,
        'attention_output_weight': model.attention[2].weight,
    }
    for m in names:
        if model.features.tables is not None:
            parameters[f'{m}_table'] = model.features.tables[m]
        linears = {
            'reduce': model.features.lins[m],
            'gate': model.gates[m],
            'behavior_gate': model.preference_gates[m],
        }
        for name, lin in linears.items():
            parameters[f'{m}_{name}_weight'] = lin.weight
            parameters[f'{m}_{name}_bias'] = lin.bias
    return case, model, data, case.load(parameters)


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32])
def test_gume_golden(dtype):
    case, model, data, parameters = golden(dtype)
    h = case.hyper
    content, explicit, extended, _ = model.nodes(data)
    case.assert_close(content, 'extended_id')
    case.assert_close(extended, 'extended_modal')
    case.assert_close(model.side(content, explicit), 'integration')
    for k, m in enumerate(case.modalities):
        case.assert_close(explicit[:, k], f'explicit_{m}')
    out = model(data)
    case.assert_close(out.user, 'user_repr')
    case.assert_close(out.item, 'item_repr')
    case.assert_close(out.user @ out.item.t(), 'scores')

    losses = model.loss(data, case.batch)
    terms = {
        'bpr': ('loss_bpr', 1),
        'reg': ('loss_reg', h['reg']),
        'reg_extended': ('loss_reg_extended', h['reg_extended']),
        'align': ('loss_align', h['vt']),
        'behavior_user': ('loss_behavior_users', h['bm']),
        'behavior_item': ('loss_behavior_items', h['bm']),
        'user': ('loss_user_modality', h['um']),
        'noise_integration': ('loss_noise_integration', h['um']),
        'noise_extended': ('loss_noise_extended', h['um']),
    }
    case.assert_loss(losses, terms)
    case.assert_gradients(losses, parameters)
    assert set(map(id, parameters.values())) == set(map(id, model.parameters()))


def dense(edge_index, weight, num_src, num_dst):
    out = torch.zeros(num_dst, num_src, dtype=weight.dtype)
    out[edge_index[1], edge_index[0]] = weight
    return out


def test_gume_graph_golden():
    case, model, data, _ = golden()
    num_users, num_items = case.hyper['M'], case.hyper['N']
    graph = model.enlarged(data, *model.graph_args(data))
    num_nodes = num_users + num_items
    actual = dense(graph.edge_index, graph.weight, num_nodes, num_nodes)
    expected = torch.zeros_like(actual)
    expected[case['graph_row'], case['graph_col']] = case['graph_value']
    assert torch.equal(actual != 0, expected != 0)
    torch.testing.assert_close(actual, expected, atol=1e-7, rtol=1e-6)
    block = dense(graph.to_user, graph.to_user_weight, num_items, num_users)
    assert torch.equal(block, actual[:num_users, num_users:])


def test_gume_item_that_nobody_knows():
    # Neither users nor items are near: what it sends is divided by the roots of one.
    case, model, data, _ = golden()
    edge_index = data[RATES].edge_index
    data[RATES].edge_index = edge_index[:, edge_index[1] != 3]
    for m in case.modalities:
        store = data[similar(m)]
        away = store.edge_index[1] == 3
        store.edge_index = store.edge_index[:, ~away]
        store.edge_weight = store.edge_weight[~away]
    out = model(data)
    assert out.item.isfinite().all()
    content = model.nodes(data).content[case.hyper['M'] + 3]
    torch.testing.assert_close(content, model.item_encoder.weight[3] / (case.hyper['L_ui'] + 1))


@pytest.mark.parametrize('names', [['image'], ['audio', 'image', 'text']])
def test_gume_any_number_of_modalities(names):
    case = GoldenCase('gume')
    data = case.data('cosine')
    data['item'].x_audio = data['item'].x_image[:, :5].clone()
    data[similar('audio')].update(data[similar('image')])
    for m in {'audio', 'image', 'text'} - set(names):
        del data['item'][f'x_{m}']
    model = GUME(data, channels=8).double()
    losses = model.loss(data, case.batch)
    sum(losses.values()).backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    assert ('align' in losses) == (len(names) > 1)


def test_gume_weights_of_zero_drop_terms():
    case, _, data, _ = golden()
    names = ('reg', 'extended_reg', 'behavior', 'user', 'align')
    model = GUME(data, **{f'{name}_weight': 0.0 for name in names})
    assert set(model.loss(data, case.batch)) == {'bpr'}


def test_gume_rejects_bad_arguments():
    case, _, data, _ = golden()
    with pytest.raises(
        ValueError, match=r"'user_temperature' must be positive and finite \(got 0\)"
    ):
        GUME(data, user_temperature=0)
    with pytest.raises(ValueError, match="'GUME' needs the item graph .*apply 'ItemKNN'"):
        GUME(case.data())
    with pytest.raises(ValueError, match="'GUME' needs item features of at least 1 modality"):
        GUME(GoldenCase('bpr').data())
