import copy

import pytest
import torch
from torch import nn
from torch_geometric.data import HeteroData

from motor_geo.nn import TokenCrossEncoder
from motor_geo.nn.functional.tokens import TokenGraph
from motor_geo.nn.models import VBPR, LightGCN
from tests.golden_case import GoldenCase

TOKENS = {'text': 3, 'image': 2, 'audio': 1}
INTEGERS = [torch.uint8, torch.int8, torch.uint16, torch.int16]
INTEGERS += [torch.uint32, torch.int32, torch.uint64, torch.int64]
MODES = ['specific', 'agnostic', 'mean', 'linear']


def naive(encoder, token_id):
    r"""Equations 5 to 10 item by item, with the double loop over tokens."""
    K, out = encoder.codebook_size, []
    for row in token_id.tolist():
        e = [encoder.table[slot * K + token] for slot, token in enumerate(row)]
        if encoder.mode == 'mean':
            out.append(sum(e) / len(e))
            continue
        if encoder.mode == 'linear':
            lin = encoder.mlps[0][0]
            out.append(lin.weight @ torch.cat(e) + lin.bias)
            continue
        r = 0.0
        for (start, end), mlp in zip(encoder.groups, encoder.mlps):
            w = encoder.weight
            for x in range(start, end):
                r = r + w[x] * e[x]
                for y in range(x + 1, end):
                    r = r + w[x] * w[y] * e[x] * e[y]
            h = torch.cat(e[start:end])
            for lin in mlp:
                h = encoder.act(lin.weight @ h + lin.bias)
            if len(mlp) > 0:
                r = r + h
        out.append(r)
    return torch.stack(out)


def make(mode='specific', **kwargs):
    torch.manual_seed(0)
    encoder = TokenCrossEncoder(TOKENS, codebook_size=8, out_channels=5, mode=mode, **kwargs)
    encoder = encoder.double()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return encoder, torch.randint(8, (40, 6), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize('mode', MODES)
@pytest.mark.parametrize('num_layers', [0, 1, 2])
@pytest.mark.parametrize('activation', ['relu', 'tanh', None])
def test_token_cross_equals_double_loop(mode, num_layers, activation):
    encoder, token_id = make(mode, num_layers=num_layers, activation=activation)
    upstream = torch.randn(40, 5, dtype=torch.float64)
    parameters = list(encoder.parameters())

    expected = naive(encoder, token_id)
    expected_grad = torch.autograd.grad((expected * upstream).sum(), parameters)
    for out in (
        encoder(token_id),  # many items: sums over the token-item graph
        encoder(token_id.view(4, 10, 6)).view(40, 5),  # any leading shape: gathered
        torch.cat([encoder(token_id[:3]), encoder(token_id[3:])]),
    ):
        torch.testing.assert_close(out, expected)
        gradients = torch.autograd.grad((out * upstream).sum(), parameters)
        torch.testing.assert_close(gradients, expected_grad)


@pytest.fixture
def graphs(monkeypatch):
    r"""Numbers of items of token-item graphs that are built."""
    sizes, build = [], TokenGraph.from_tokens
    monkeypatch.setattr(
        TokenGraph,
        'from_tokens',
        lambda token_id, *args: sizes.append(token_id.size(0)) or build(token_id, *args),
    )
    return sizes


@pytest.mark.parametrize('setting', ['specific', 'agnostic'])
@pytest.mark.parametrize('gather', [True, False])
def test_token_cross_golden(setting, gather, graphs):
    case = GoldenCase('tcn')
    s = case.meta['settings']
    modalities = sorted(k[:-10] for k in case.arrays if k.endswith('_token_ids'))
    encoder = TokenCrossEncoder(
        {m: s['D'] for m in modalities},
        codebook_size=s['K'],
        out_channels=s['d'],
        mode=setting,
        num_layers=s['L'],
        activation=s['activation'],
    ).double()
    groups = [f'{setting}_{m}' for m in modalities] if setting == 'specific' else [setting]
    with torch.no_grad():
        tables = torch.cat([case[f'{m}_token_tables'].flatten(0, 1) for m in modalities])
        encoder.table.copy_(tables)
        encoder.weight.copy_(torch.cat([case[f'{g}_w'] for g in groups]))
        for g, mlp in zip(groups, encoder.mlps):
            mlp[0].weight.copy_(case[f'{g}_weight'])
            mlp[0].bias.copy_(case[f'{g}_bias'])
    token_id = torch.cat([case[f'{m}_token_ids'] for m in modalities], dim=1)

    out = encoder(token_id[None])[0] if gather else encoder(token_id)
    assert len(graphs) == (0 if gather else 1)
    case.assert_close(out, f'repr_{setting}')
    (out * case['upstream_gradient']).sum().backward()
    prefix = f'grad_{setting}_net__'
    tables = [case[f'{prefix}{m}_token_tables'].flatten(0, 1) for m in modalities]
    torch.testing.assert_close(encoder.table.grad, torch.cat(tables), atol=1e-9, rtol=1e-9)
    weights = torch.cat([case[f'{prefix}{g}_w'] for g in groups])
    torch.testing.assert_close(encoder.weight.grad, weights, atol=1e-9, rtol=1e-9)
    for g, mlp in zip(groups, encoder.mlps):
        case.assert_close(mlp[0].weight.grad, f'{prefix}{g}_weight')
        case.assert_close(mlp[0].bias.grad, f'{prefix}{g}_bias')


@pytest.mark.parametrize('dtype', INTEGERS)
@pytest.mark.parametrize('rows', [3, 40])
def test_token_cross_integer_types(dtype, rows):
    encoder, token_id = make()
    torch.testing.assert_close(encoder(token_id[:rows].to(dtype)), encoder(token_id)[:rows])


def test_token_cross_batches(graphs):
    encoder, token_id = make()
    store = HeteroData()['item']
    store.token_id = token_id
    index = torch.randint(40, (25,), generator=torch.Generator().manual_seed(2))
    # All items, a graph of the batch, and gathered.
    for rows, sizes in ((index, [40]), (index[:9], [9]), (index[:3], [])):
        for times in (1, 2):
            out = encoder.encode(store, rows)
            assert graphs == sizes * (1 if sizes == [40] else times)  # That of all items is kept.
        graphs.clear()
        torch.testing.assert_close(out, naive(encoder, token_id)[rows])
    token_id[7, 0] = 8
    with pytest.raises(ValueError, match=r"'token_id' must lie in 0..7"):
        encoder.encode(store, index)


def test_token_cross_sees_changed_tokens():
    encoder, token_id = make()
    before = encoder(token_id)
    token_id[0] = (token_id[0] + 1) % 8
    after = encoder(token_id)
    torch.testing.assert_close(after, naive(encoder, token_id))
    assert torch.equal(encoder(token_id), after)
    assert not torch.equal(before[0], after[0])


def test_token_cross_specific_is_agnostic_with_one_modality():
    torch.manual_seed(0)
    specific = TokenCrossEncoder({'text': 4}, 8, 5, mode='specific')
    agnostic = TokenCrossEncoder({'text': 4}, 8, 5, mode='agnostic')
    agnostic.load_state_dict(specific.state_dict())
    token_id = torch.randint(8, (20, 4))
    assert torch.equal(specific(token_id), agnostic(token_id))


def test_token_cross_initialization():
    torch.manual_seed(0)
    encoder = TokenCrossEncoder({'image': 4, 'text': 2})
    bound = (6 / (256 + 64)) ** 0.5
    assert 0.99 * bound < float(encoder.table.detach().abs().max()) <= bound
    assert encoder.weight.tolist() == [0.25] * 4 + [0.5] * 2
    encoder = TokenCrossEncoder({'image': 4, 'text': 2}, mode='agnostic', init='xavier_fused')
    assert float(encoder.table.detach().abs().max()) <= (6 / (6 * 256 + 64)) ** 0.5
    torch.testing.assert_close(encoder.weight, torch.full((6,), 1 / 6))
    encoder = TokenCrossEncoder({'image': 4}, init=0.01, weight_init=1.0)
    assert float(encoder.table.detach().std()) == pytest.approx(0.01, rel=0.02)
    assert encoder.weight.tolist() == [1.0] * 4


def test_token_cross_copies_and_compiles():
    encoder, token_id = make()
    expected = encoder(token_id)
    assert torch.equal(copy.deepcopy(encoder)(token_id), expected)
    other, _ = make(mode='specific')
    other.load_state_dict(encoder.state_dict(), strict=True)
    assert torch.equal(other(token_id), expected)
    assert str(encoder) == (
        "TokenCrossEncoder({'audio': 1, 'image': 2, 'text': 3}, codebook_size=8, "
        'out_channels=5, mode=specific)'
    )
    compiled = torch.compile(encoder, backend='eager')
    torch.testing.assert_close(compiled(token_id), expected)


def test_token_cross_rejects_bad_input():
    with pytest.raises(ValueError, match="'num_tokens' must map at least one modality"):
        TokenCrossEncoder({})
    with pytest.raises(ValueError, match="'mode' must be one of specific"):
        TokenCrossEncoder(TOKENS, mode='median')
    with pytest.raises(ValueError, match="'init' must be"):
        TokenCrossEncoder(TOKENS, init='ones')
    for sizes in ((0, 4), (8, 0), (8, -4)):
        with pytest.raises(ValueError, match="'codebook_size' and 'out_channels' must be positive"):
            TokenCrossEncoder(TOKENS, *sizes)
    encoder, token_id = make()
    with pytest.raises(ValueError, match='must have 6 columns'):
        encoder(token_id[:, :5])
    for rows in (token_id, token_id[:2]):  # Would read the table of the next slot.
        bad = rows.clone()
        bad[1, 0] = 8
        with pytest.raises(ValueError, match=r"'token_id' must lie in 0..7 \(got \d..8\)"):
            encoder(bad)
    data = HeteroData()
    data['item'].num_nodes = 3
    with pytest.raises(ValueError, match='token_id is missing'):
        encoder.encode(data['item'])


def parameters(model):
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def test_parameter_counts_of_the_paper():
    r"""Section 4.8 of the paper: 27.93 % (LightGCN) and 16.01 % (VBPR) fewer
    trainable parameters on Music with four tokens per modality.
    """
    data = HeteroData()
    data['user'].num_nodes, data['item'].num_nodes = 57_202, 25_717
    # Features are only asked for their width: no memory is behind these.
    data['item'].x_image = torch.empty(1, 1).expand(25_717, 4096)
    data['item'].x_text = torch.empty(1, 1).expand(25_717, 384)
    data['user', 'rates', 'item'].edge_index = torch.zeros(2, 1, dtype=torch.long)

    with torch.device('meta'):
        for cls, with_id, with_tokens, saved in (
            (LightGCN, 5_306_816, 3_824_904, 27.93),
            (VBPR, 9_254_528, 7_772_616, 16.01),
        ):
            encoder = TokenCrossEncoder({'image': 4, 'text': 4})
            counts = parameters(cls(data)), parameters(cls(data, item_encoder=encoder))
            assert counts == (with_id, with_tokens)
            # 27.925 and 16.013 with the bias of equation 7, 27.927 and 16.014 without.
            assert 100 * (1 - counts[1] / counts[0]) == pytest.approx(saved, abs=0.01)


def test_encoder_in_the_place_of_an_embedding():
    r"""A backbone takes the encoder, a plain embedding and a plain module."""
    case = GoldenCase('bpr')
    data = case.data()
    data['item'].token_id = torch.randint(4, (case.hyper['N'], 2), dtype=torch.uint8)

    class Mine(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(4, 8)

        def forward(self, token_id):
            return self.embedding(token_id.long()).sum(dim=1)

    for encoder in (TokenCrossEncoder({'text': 2}, 4, 8), nn.Embedding(case.hyper['N'], 8), Mine()):
        model = LightGCN(data, item_encoder=encoder, channels=8)
        assert model(data).item.size() == (case.hyper['N'], 8)
        sum(model.loss(data, case.batch).values()).backward()
        assert all(p.grad is not None for p in encoder.parameters())
    with pytest.raises(ValueError, match="vectors of size 8, but 'channels' is 16"):
        LightGCN(data, item_encoder=encoder.embedding, channels=16)


def test_token_cross_dropout_is_of_the_high_order_part():
    plain, token_id = make()
    encoder, _ = make(dropout=0.5)
    low, _ = make(num_layers=0)
    with torch.no_grad():
        low.table.copy_(plain.table)
        low.weight.copy_(plain.weight)
    encoder.load_state_dict(plain.state_dict())
    encoder.eval()
    torch.testing.assert_close(encoder(token_id), plain(token_id))
    encoder.train()
    few = token_id[:6]  # The form for batches, and the one for catalogs.
    for tokens in (few, token_id):
        torch.manual_seed(0)
        with torch.no_grad():
            total = torch.stack([encoder(tokens) for _ in range(1000)])
        torch.testing.assert_close(total.mean(0), plain(tokens), rtol=0.1, atol=0.3)
        assert not torch.equal(total[0], total[1])
    with torch.no_grad():
        for mlp in encoder.mlps:
            mlp[0].weight.zero_()
            mlp[0].bias.zero_()
    torch.testing.assert_close(encoder(token_id), low(token_id))
    with pytest.raises(ValueError, match='dropout'):
        make(dropout=1.0)


def test_token_cross_gain_of_the_mlp():
    torch.manual_seed(0)
    plain = TokenCrossEncoder(TOKENS, codebook_size=8, out_channels=5)
    torch.manual_seed(0)
    small = TokenCrossEncoder(TOKENS, codebook_size=8, out_channels=5, mlp_gain=0.1)
    assert torch.equal(plain.table, small.table)
    for a, b in zip(plain.mlps, small.mlps):
        torch.testing.assert_close(0.1 * a[0].weight, b[0].weight)


@pytest.mark.parametrize('mode', MODES)
def test_token_cross_encodes_equal_items_once(mode, graphs):
    encoder, token_id = make(mode)
    copies = torch.randint(15, (60,), generator=torch.Generator().manual_seed(2))
    tokens = token_id[copies]
    upstream = torch.randn(60, 5, dtype=torch.float64)
    parameters = list(encoder.parameters())
    outs = [encoder(tokens), encoder(tokens[None])[0]]
    assert graphs == [copies.unique().numel()]
    grads = [torch.autograd.grad(out, parameters, upstream) for out in outs]
    torch.testing.assert_close(*outs)
    torch.testing.assert_close(*grads)
    encoder(token_id)
    assert graphs[1:] == [len(token_id)]


@pytest.mark.parametrize('mode', ['specific', 'agnostic', 'linear'])
@pytest.mark.parametrize('num_layers', [1, 2])
def test_token_cross_is_exact_under_autocast(mode, num_layers):
    torch.manual_seed(0)
    encoder = TokenCrossEncoder(TOKENS, 8, 16, mode=mode, num_layers=num_layers)
    token_id = torch.randint(8, (40, 6))
    for rows in (token_id, token_id[:3]):  # By the graph, and gathered.
        expected = encoder(rows)
        with torch.autocast('cpu', torch.bfloat16):
            out = encoder(rows)
        assert torch.equal(out, expected)


@pytest.mark.parametrize('dtype', INTEGERS)
def test_token_cross_batches_of_any_integer_type(dtype):
    encoder, token_id = make()
    store = HeteroData()['item']
    store.token_id = token_id.to(dtype)
    for rows in (3, 9, 25):
        out = encoder.encode(store, torch.arange(rows))
        torch.testing.assert_close(out, naive(encoder, token_id[:rows]))
    bad = token_id.clone()
    bad[1, 0] = 8
    for rows in (3, 40):
        with pytest.raises(ValueError, match=r"'token_id' must lie in 0..7 \(got \d..8\)"):
            encoder(bad[:rows].to(dtype))


@pytest.mark.parametrize('dtype', [torch.float32, torch.bool, torch.complex64])
@pytest.mark.parametrize('rows', [3, 40])
def test_token_cross_rejects_other_types(dtype, rows):
    encoder, token_id = make()
    with pytest.raises(ValueError, match=f"'token_id' must hold integers \\(got {dtype}\\)"):
        encoder(token_id[:rows].to(dtype))


@pytest.mark.parametrize('mode', MODES)
def test_token_cross_under_inference_mode(mode):
    encoder, token_id = make(mode)
    expected = encoder(token_id).detach()
    with torch.inference_mode():
        tokens = token_id.clone()
        for rows in (1, 7, 8, 40):
            torch.testing.assert_close(encoder(tokens[:rows]), expected[:rows])
            torch.testing.assert_close(encoder(token_id[:rows]), expected[:rows])
    # What a server or a validation pass left behind serves training as well.
    other, token_id = make(mode)
    with torch.inference_mode():
        other(token_id)
    upstream = torch.ones_like(expected)
    for a, b in zip(
        torch.autograd.grad(other(token_id), list(other.parameters()), upstream),
        torch.autograd.grad(encoder(tokens), list(encoder.parameters()), upstream),
    ):
        assert torch.equal(a, b)


@pytest.mark.parametrize('assign', [False, True])
def test_token_cross_on_the_meta_device(assign):
    encoder, token_id = make()
    with torch.device('meta'):
        other = TokenCrossEncoder(TOKENS, codebook_size=8, out_channels=5).double()
    if not assign:
        other.to_empty(device='cpu')
    other.load_state_dict(encoder.state_dict(), assign=assign)
    for rows in (3, 40):
        assert torch.equal(other(token_id[:rows]), encoder(token_id[:rows]))


def test_token_cross_exports_any_number_of_rows():
    encoder, token_id = make()
    encoder.eval()
    for rows in (3, 20):
        program = torch.export.export(
            encoder, (token_id[:rows],), dynamic_shapes=({0: torch.export.Dim('rows')},)
        ).module()
        for count in (2, 8, 40):
            torch.testing.assert_close(program(token_id[:count]), encoder(token_id[:count]))


def test_token_cross_from_tokenizer():
    class Tokenizer:
        num_tokens_dict, codebook_size = {'image': 2, 'text': 3}, 8

    encoder = TokenCrossEncoder.from_tokenizer(Tokenizer(), 6, mode='mean')
    assert str(encoder) == (
        "TokenCrossEncoder({'image': 2, 'text': 3}, codebook_size=8, out_channels=6, mode=mean)"
    )


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        ({'init': -1.0}, "'init' must be at least 0 and finite"),
        ({'init': float('nan')}, "'init' must be at least 0 and finite"),
        ({'mlp_gain': -1.0}, "'mlp_gain' must be at least 0 and finite"),
        ({'mlp_gain': float('nan')}, "'mlp_gain' must be at least 0 and finite"),
        ({'weight_init': float('inf')}, "'weight_init' must be finite"),
    ],
)
def test_initial_values_out_of_range(kwargs, message):
    with pytest.raises(ValueError, match=message):
        TokenCrossEncoder(TOKENS, 8, 4, **kwargs)
