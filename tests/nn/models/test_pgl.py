import pytest
import torch

from motor_geo.nn import TokenCrossEncoder
from motor_geo.nn.models import PGL
from tests.golden_case import GoldenCase


class MaskedPGL(PGL):
    case = None

    def drop(self, x, view):
        if self.dropout == 0:
            return x
        mask = self.case[f'dropout_mask_{view[:-1]}_view{view[-1]}']
        return x * mask / (1 - self.dropout)


def build(case, prefix='', **kwargs):
    data, h = case.data(weighting='binary'), case.hyper
    others = [m for m in case.modalities if m != 'image']
    model = MaskedPGL(
        data,
        channels=h['d'],
        num_layers=h['L_ui'],
        num_item_layers=h['L_ii'],
        modality_weight={'image': h['w'], **{m: (1 - h['w']) / len(others) for m in others}},
        rho=1 - h['keep_share'],
        reg_weight=h['reg'],
        temperature=h['tau'],
        **{'train_features': True, 'dropout': h['dropout'] * (prefix == 'masked_'), **kwargs},
    ).to(case.dtype)
    model.case = case
    if prefix != 'full_':
        model.prune(data, case['kept_edges'])
    parameters = {tuple(f'{m}_user_embedding' for m in case.modalities): model.user_embedding}
    for m in case.modalities:
        if model.features.tables is not None:
            parameters[f'{m}_table'] = model.features.tables[m]
        parameters[f'{m}_linear_weight'] = model.features.lins[m].weight
        parameters[f'{m}_linear_bias'] = model.features.lins[m].bias
    return model, data, case.load(parameters)


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32])
@pytest.mark.parametrize('prefix', ['', 'masked_', 'full_'])
def test_pgl_golden(prefix, dtype):
    case = GoldenCase('pgl', dtype)
    model, data, parameters = build(case, prefix)
    losses = model.loss(data, case.batch)
    reg = case.hyper['reg'] / 2
    terms = {'bpr': ('loss_bpr', 1)}
    terms |= {f'cl_{side}': (f'loss_infonce_{side}s', reg) for side in ('user', 'item')}
    case.assert_loss(losses, terms, prefix)
    case.assert_gradients(losses, parameters, prefix)
    assert set(map(id, parameters.values())) == set(map(id, model.parameters()))

    out = model(data)  # Ranking uses the full graph and no dropout.
    case.assert_close(out.user, 'user_repr')
    case.assert_close(out.item, 'item_repr')
    case.assert_close(out.user @ out.item.t(), 'scores')


def test_pgl_keeps_a_share_of_the_edges():
    case = GoldenCase('pgl')
    model, data, _ = build(case)
    model.begin_epoch(data, 0, torch.Generator().manual_seed(0))
    assert model.training_graph(data).to_item.size(1) == case.hyper['n_keep']


def test_pgl_frozen_features_give_the_same_losses():
    case = GoldenCase('pgl')
    trained, data, _ = build(case, 'full_')
    frozen, _, _ = build(case, 'full_', train_features=False)
    for m in case.modalities:
        data['item'][f'x_{m}'] = case[f'{m}_table']
    torch.testing.assert_close(frozen.loss(data, case.batch), trained.loss(data, case.batch))


def test_pgl_tokens_are_one_more_block():
    case = GoldenCase('pgl')
    published, data, _ = build(case, train_features=False)
    d = case.hyper['d']
    data['item'].token_id = torch.randint(7, (case.hyper['N'], 4))
    encoder = TokenCrossEncoder({'image': 2, 'text': 2}, 7, d).double()
    model = PGL(data, encoder, channels=d, num_layers=case.hyper['L_ui']).double()
    assert model.num_blocks == published.num_blocks + 1
    assert model.item_parameters(case.hyper['N']) == []
    published.item_graphs = model.item_graphs
    with torch.no_grad():
        model.user_embedding[:, :-d] = published.user_embedding
    model.features.load_state_dict(published.features.state_dict())
    out, expected = model(data), published(data)
    torch.testing.assert_close(out.user[:, :-d], expected.user)
    torch.testing.assert_close(out.item[:, :-d], expected.item)
    norm = model.item_blocks(data)[:, -d:].norm(dim=1)
    torch.testing.assert_close(norm, torch.ones_like(norm))


def test_pgl_user_tables_are_drawn_one_by_one():
    torch.manual_seed(0)
    model, _, _ = build(GoldenCase('pgl'))
    model.reset_parameters()
    bound = (6 / (model.user_embedding.size(0) + model.channels)) ** 0.5
    largest = model.blocks(model.user_embedding).detach().abs().amax(dim=(0, 2))
    assert (largest <= bound).all() and (largest > 0.95 * bound).all()


def test_pgl_without_contrast():
    case = GoldenCase('pgl')
    data = case.data(weighting='binary')
    assert set(PGL(data, reg_weight=0.0).loss(data, case.batch)) == {'bpr'}


def test_pgl_rejects_bad_arguments():
    data = GoldenCase('pgl').data(weighting='binary')
    with pytest.raises(ValueError, match=r"'dropout' must lie in \[0, 1\) \(got 1.0\)"):
        PGL(data, dropout=1.0)
    with pytest.raises(ValueError, match=r"'temperature' must be positive and finite \(got 0\)"):
        PGL(data, temperature=0)
    with pytest.raises(ValueError, match=r"'rho' must lie in \[0, 1\) \(got 1.0\)"):
        PGL(data, rho=1.0)
    with pytest.raises(ValueError, match="'PGL' needs the item graph .*apply 'ItemKNN'"):
        PGL(GoldenCase('pgl').data())
    with pytest.raises(ValueError, match="'PGL' needs item features of at least 1 modality"):
        PGL(GoldenCase('bpr').data())
