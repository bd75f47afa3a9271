import pytest
import torch
import torch.nn.functional as F

from motor_geo.nn.models import AlignRec
from motor_geo.nn.models.similarity import feature_cosine, similarity_loss
from motor_geo.typing import similar
from tests.golden_case import GoldenCase


def golden(dtype=torch.float64, several=False, **kwargs):
    case = GoldenCase('alignrec', dtype)
    h, data = case.hyper, case.data('cosine')
    if not several:  # The case has one feature.
        for m in case.modalities[1:]:
            del data['item'][f'x_{m}'], data[similar(m)]
    model = AlignRec(
        data,
        channels=h['d'],
        num_layers=h['L_ui'],
        num_item_layers=h['L_ii'],
        reg_weight=h['reg'],
        batch_size=h['configured_batch_size'],
        cl_weight=h['cl'],
        temperature=h['tau'],
        similarity_weight=h['sim'],
        cosine_weight=h['ui_cosine'],
        **{'train_features': True, **kwargs},
    ).to(case.dtype)
    if several:
        return case, model, data, None
    parameters = {
        'user_embedding': model.user_embedding,
        'item_embedding': model.item_encoder.weight,
        'linear_weight': model.lin.weight,
        'linear_bias': model.lin.bias,
        'gate_weight': model.gate.weight,
        'gate_bias': model.gate.bias,
    }
    if model.features.tables is not None:
        parameters['table'] = model.features.tables[case.modalities[0]]
    return case, model, data, case.load(parameters)


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32])
def test_alignrec_golden(dtype):
    case, model, data, parameters = golden(dtype)
    h = case.hyper
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
        'similarity': ('loss_similarity', h['sim']),
        'cosine': ('loss_cosine', h['ui_cosine']),
    }
    case.assert_loss(losses, terms)
    case.assert_gradients(losses, parameters)
    assert set(map(id, parameters.values())) == set(map(id, model.parameters()))


@pytest.mark.parametrize('train_features', [False, True])
def test_alignrec_several_modalities_are_concatenated(train_features):
    case, model, data, _ = golden(several=True, train_features=train_features)
    x = torch.cat([F.normalize(data['item'][f'x_{m}']) for m in case.modalities], dim=1)
    gate = model.gate(model.lin(x)).sigmoid()
    n = case.hyper['N']
    adj = torch.zeros(n, n, dtype=case.dtype)
    for m in case.modalities:
        edges = data[similar(m)]
        adj[edges.edge_index[1], edges.edge_index[0]] += edges.edge_weight / len(case.modalities)
    expected = adj @ (model.item_encoder.weight * gate)
    torch.testing.assert_close(model.views(data)[1].item.squeeze(1), expected)
    index = torch.tensor([3, 0, 3])
    cosine = feature_cosine(data, model.features, index, case.dtype)
    torch.testing.assert_close(cosine, (x @ x.t())[index][:, index] / len(case.modalities))


def test_similarity_loss_by_hand():
    z = torch.tensor([[1.0, 0.0], [0.0, 2.0]], requires_grad=True)
    cosine = torch.tensor([[1.0, 0.5], [0.5, 1.0]])
    # Items 0, 1, 1: differences 0, -0.5 (four times) and 3 (four times).
    value = similarity_loss(z, cosine, torch.tensor([1, 2]))
    torch.testing.assert_close(value, torch.tensor((4 * 0.25 + 4 * 9.0) ** 0.5 / 3))
    value = similarity_loss(z, z.detach() @ z.detach().t(), torch.tensor([1, 2]))
    value.backward()
    assert value == 0 and not z.grad.any()


def test_alignrec_similarities_are_those_of_given_features():
    case, model, data, _ = golden()
    before = model.loss(data, case.batch)
    data['item'].x_image = data['item'].x_image + torch.randn_like(data['item'].x_image)
    assert model.loss(data, case.batch)['similarity'] != before
    assert torch.equal(
        model.loss(data, case.batch)['bpr'], golden()[1].loss(data, case.batch)['bpr']
    )


def test_alignrec_weights_of_zero_drop_terms():
    case, _, data, _ = golden()
    names = ('reg', 'cl', 'similarity', 'cosine')
    model = AlignRec(data, **{f'{name}_weight': 0.0 for name in names})
    assert set(model.loss(data, case.batch)) == {'bpr'}


def test_alignrec_rejects_bad_arguments():
    case, _, data, _ = golden()
    with pytest.raises(ValueError, match=r"'temperature' must be positive and finite \(got 0\)"):
        AlignRec(data, temperature=0)
    with pytest.raises(ValueError, match="'AlignRec' needs the item graph .*apply 'ItemKNN'"):
        AlignRec(case.data())
    with pytest.raises(ValueError, match="'AlignRec' needs item features of at least 1 modality"):
        AlignRec(GoldenCase('bpr').data())
