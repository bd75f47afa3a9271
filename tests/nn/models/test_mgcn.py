import copy
import pickle

import pytest
import torch

from motor_geo.nn import FeatureProjection, TokenCrossEncoder
from motor_geo.nn.models.mgcn import MGCN
from motor_geo.typing import RATES, similar
from tests.golden_case import GoldenCase
from tests.nn.models.test_freedom import naive_similarity_loss


def build(case, data=None, **kwargs):
    h = case.hyper
    kwargs = {
        'channels': h['d'],
        'num_layers': h['L_ui'],
        'num_item_layers': h['L_ii'],
        'reg_weight': h['reg'],
        'batch_size': h['configured_batch_size'],
        'cl_weight': h['cl'],
        'temperature': h['tau'],
        **kwargs,
    }
    return MGCN(case.data('cosine') if data is None else data, **kwargs).to(case.dtype)


def golden(dtype=torch.float64, **kwargs):
    case = GoldenCase('mgcn', dtype)
    model = build(case, **{'train_features': True, **kwargs})
    parameters = {
        'user_embedding': model.user_embedding,
        'item_embedding': model.item_encoder.weight,
        'attention_hidden_weight': model.attention[0].weight,
        'attention_hidden_bias': model.attention[0].bias,
        'attention_output_weight': model.attention[2].weight,
    }
    for m in case.modalities:
        if model.features.tables is not None:
            parameters[f'{m}_table'] = model.features.tables[m]
        linears = {
            'linear': model.features.lins[m],
            'gate': model.gates[m],
            'preference_gate': model.preference_gates[m],
        }
        for name, lin in linears.items():
            parameters[f'{m}_{name}_weight'] = lin.weight
            parameters[f'{m}_{name}_bias'] = lin.bias
    return case, model, case.load(parameters)


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32])
def test_mgcn_golden(dtype):
    case, model, parameters = golden(dtype)
    data, h = case.data('cosine'), case.hyper

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


@pytest.mark.parametrize('modality', ['image', 'text'])
def test_mgcn_item_graph_golden(modality):
    case, model, _ = golden()
    edge_index, weight = model.item_graphs[modality](case.data('cosine'), case.dtype)
    actual = torch.zeros(case.hyper['N'], case.hyper['N'], dtype=case.dtype)
    actual[edge_index[1], edge_index[0]] = weight
    expected = torch.zeros_like(actual)
    row, col = (case[f'{modality}_item_adj_{name}'] for name in ('row', 'col'))
    expected[row, col] = case[f'{modality}_item_adj_value']
    assert torch.equal(actual != 0, expected != 0)
    torch.testing.assert_close(actual, expected, atol=1e-7, rtol=1e-6)


def test_mgcn_frozen_features_give_the_same_losses():
    case, trained, _ = golden()
    _, frozen, _ = golden(train_features=False)
    data = case.data('cosine')
    expected = trained.loss(data, case.batch)
    for term, value in frozen.loss(data, case.batch).items():
        torch.testing.assert_close(value, expected[term])
    data['item'].x_image = data['item'].x_image + 1
    assert torch.equal(trained.loss(data, case.batch)['bpr'], expected['bpr'])
    assert frozen.loss(data, case.batch)['bpr'] != expected['bpr']
    assert all('tables' not in name for name, _ in frozen.named_parameters())


def test_mgcn_fusion():
    # With one modality everything is shared; with two equal ones as well.
    case, model, _ = golden()
    _, paper, _ = golden(fusion='paper')
    content, z = torch.randn(2, 6, 16, dtype=torch.float64)
    torch.testing.assert_close(model.side(content, torch.stack([z, z], dim=1)), z / 3)
    torch.testing.assert_close(paper.side(content, torch.stack([z, z], dim=1)), z)

    modal = torch.randn(6, 2, 16, dtype=torch.float64)
    side = torch.zeros(2, 6, 16, dtype=torch.float64)
    for b in range(6):
        a = torch.stack([model.attention(modal[b, m])[0] for m in range(2)]).softmax(dim=0)
        shared = a[0] * modal[b, 0] + a[1] * modal[b, 1]
        specific = torch.zeros_like(shared)
        for m, gate in enumerate(model.preference_gates.values()):
            specific += (modal[b, m] - shared) * gate(content[b]).sigmoid()
        side[0, b], side[1, b] = (shared + specific) / 3, shared + specific / 2
    torch.testing.assert_close(model.side(content, modal), side[0])
    torch.testing.assert_close(paper.side(content, modal), side[1])


def test_mgcn_gradient_reaches_items_from_both_views():
    case, model, _ = golden()
    data = case.data('cosine')
    content, modal = model.views(data)
    weight = model.item_encoder.weight
    for value in (content.item, modal.item, modal.user):
        (gradient,) = torch.autograd.grad(value.square().sum(), weight, retain_graph=True)
        assert gradient.any()


def test_mgcn_item_without_edges():
    # Its content is its own vector over L + 1, and its modal view is that of
    # its neighbors in the item graphs.
    case, model, _ = golden(train_features=False)
    data = case.data('cosine')
    edge_index = data[RATES].edge_index
    data[RATES].edge_index = edge_index[:, edge_index[1] != 3]
    content, modal = model.views(data)
    torch.testing.assert_close(content.item[3], model.item_encoder.weight[3] / 3)
    z = torch.zeros(16, dtype=torch.float64)
    store = data[similar('image')]
    for (j, i), weight in zip(store.edge_index.t().tolist(), store.edge_weight):
        if i == 3:
            gate = model.gates['image'](
                model.features.lins['image'](data['item'].x_image[j])
            ).sigmoid()
            z += weight * model.item_encoder.weight[j] * gate
    torch.testing.assert_close(modal.item[3, 0], z)


@pytest.mark.parametrize('names', [['image'], ['audio', 'image', 'text']])
def test_mgcn_any_number_of_modalities(names):
    case = GoldenCase('mgcn')
    data = case.data('cosine')
    data['item'].x_audio = data['item'].x_image[:, :5].clone()
    data[similar('audio')].edge_index = data[similar('image')].edge_index
    data[similar('audio')].edge_weight = data[similar('image')].edge_weight
    for m in {'audio', 'image', 'text'} - set(names):
        del data['item'][f'x_{m}']
    model = build(case, data)
    assert model.features.names == names
    content, modal = model.views(data)
    side = model.side(content.user, modal.user)
    if len(names) == 1:
        torch.testing.assert_close(side, modal.user[:, 0] / 2)
    losses = model.loss(data, case.batch)
    torch.stack(list(losses.values())).sum().backward()
    assert all(lin.weight.grad.any() for lin in model.features.lins.values())


def test_mgcn_weights_of_zero_drop_terms():
    case = GoldenCase('mgcn')
    data = case.data('cosine')
    model = build(case, data, reg_weight=0.0, cl_weight=0.0)
    assert set(model.loss(data, case.batch)) == {'bpr'}


def test_mgcn_similarity_term():
    case, model, parameters = golden(similarity_weight=0.3)
    data = case.data('cosine')
    value = model.loss(data, case.batch)['similarity']
    content, modal = model.views(data)
    z = model.side(content.item, modal.item)
    tables = [data['item'][f'x_{m}'] for m in case.modalities]
    expected = 0.3 * naive_similarity_loss(z, case.batch.pos, tables)
    torch.testing.assert_close(value, expected)
    weight = parameters['item_embedding']
    gradients = [torch.autograd.grad(x, weight)[0] for x in (value, expected)]
    torch.testing.assert_close(*gradients)


def test_mgcn_is_id_free():
    case = GoldenCase('mgcn')
    data, n = case.data('cosine'), case.hyper['N']
    data['item'].token_id = torch.randint(7, (n, 4))
    model = build(case, data, item_encoder=TokenCrossEncoder({'image': 2, 'text': 2}, 7, 16))
    assert model.item_parameters(n) == []
    for _, value in [*model.named_parameters(), *model.named_buffers()]:
        assert n not in value.shape

    # Two copies of item 4 that nobody knows: in the graphs, they have its
    # neighbors, and themselves instead of it.
    before = model(data)
    for key in ['x_image', 'x_text', 'token_id']:
        data['item'][key] = torch.cat([data['item'][key], data['item'][key][[4, 4]]])
    data['item'].num_nodes = n + 2
    for m in case.modalities:
        store = data[similar(m)]
        copied = store.edge_index[:, store.edge_index[1] == 4]
        weight = store.edge_weight[store.edge_index[1] == 4]
        for new in (n, n + 1):
            edges = torch.where(copied == 4, new, copied)
            store.edge_index = torch.cat([store.edge_index, edges], dim=1)
            store.edge_weight = torch.cat([store.edge_weight, weight])
    after = model(data)
    torch.testing.assert_close(after.user, before.user)
    torch.testing.assert_close(after.item[:n], before.item)
    torch.testing.assert_close(after.item[n], after.item[n + 1])
    content, modal = model.views(data)
    torch.testing.assert_close(content.item[n], model.encode_items(data)[4] / 3)
    torch.testing.assert_close(modal.item[n], modal.item[4])


def test_mgcn_with_projected_features():
    case = GoldenCase('mgcn')
    data, h = case.data('cosine'), case.hyper
    encoder = FeatureProjection({'image': h['d_v'], 'text': h['d_t']}, h['d'])
    model = build(case, data, item_encoder=encoder)
    torch.stack(list(model.loss(data, case.batch).values())).sum().backward()
    assert encoder.bias.grad.any() and model.item_parameters(h['N']) == []


def test_mgcn_copies_and_resets():
    case = GoldenCase('mgcn')
    data = case.data('cosine')
    model = build(case, data)
    expected = model(data)
    for clone in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(clone(data).user, expected.user)
    clone.reset_parameters()
    assert all(not torch.equal(a, b) for a, b in zip(model.parameters(), clone.parameters()))


def test_mgcn_rejects_bad_arguments():
    case = GoldenCase('mgcn')
    data = case.data('cosine')
    with pytest.raises(ValueError, match="'fusion' must be 'reference' or 'paper' .got 'sum'."):
        MGCN(data, fusion='sum')
    with pytest.raises(ValueError, match=r"'temperature' must be positive and finite \(got 0\)"):
        MGCN(data, temperature=0)
    with pytest.raises(ValueError, match="'MGCN' needs the item graph .*apply 'ItemKNN'"):
        MGCN(case.data())
    with pytest.raises(ValueError, match="'MGCN' needs item features of at least 1 modality"):
        MGCN(GoldenCase('bpr').data())
    assert MGCN.lr_decay == (0.96, 50.0)
