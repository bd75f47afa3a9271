import numpy as np
import pytest
import torch
from torch import nn
from torch_geometric.transforms import BaseTransform

from motor_geo import reproduce, sweep
from motor_geo.data import InteractionSVD, ItemKNN, OPQTokenizer, SyntheticClusters
from motor_geo.data.transforms.add_items import add_items
from motor_geo.nn import TokenCrossEncoder
from motor_geo.nn.models import FREEDOM, MODELS, LightGCN
from motor_geo.nn.objective import LOSSES
from motor_geo.pipeline.assemble import (
    add_tokens,
    assemble,
    build_behavior,
    build_dataset,
    build_device,
    build_item_encoder,
    build_model,
    build_tokenizer,
    build_transforms,
    check_features,
    check_splits,
    encode_items,
    encode_tokens,
    run_fingerprint,
)
from motor_geo.pipeline.config import RunConfig
from motor_geo.pipeline.flags import UNHASHED, parse_flags
from motor_geo.testing.graphs import prepare
from motor_geo.typing import ITEM, RATES, similar
from motor_geo.utils.cache import fingerprint
from motor_geo.utils.errors import ConfigError
from tests.pipeline.shop import make_shop

DATA = {'num_users': 60, 'num_items': 40, 'num_interactions': 400}
SMALL = {'num_tokens': 2, 'codebook_size': 8, 'cache': False}


def configure(**more):
    config = {'data': DATA, 'items': 'specific', 'tokenizer': SMALL, 'svd': {'channels': 6}}
    return RunConfig.of({**config, 'behavior': True, **more})


def test_tokens_of_behavior():
    config = configure()
    data = build_dataset(config).data
    tokenizer = build_tokenizer(config, data)
    out = add_tokens(config, data, tokenizer)
    assert list(tokenizer.num_tokens_dict) == ['behavior', 'image', 'text']
    assert 'x_behavior' not in out[ITEM] and 'token_id' not in data[ITEM]

    vectors = InteractionSVD(6, cache=False)(data)
    own = OPQTokenizer(modalities=['behavior'], **{**SMALL, 'seed': 0})(vectors)
    assert torch.equal(out[ITEM].token_id[:, :2], own[ITEM].token_id)
    content = OPQTokenizer(**SMALL)(data)
    assert torch.equal(out[ITEM].token_id[:, 2:], content[ITEM].token_id)
    assert build_model(config, out, tokenizer)(out).item.shape == (40, 64)


def test_nearest_codes_reach_the_encoder_and_new_items():
    items = {'name': 'motor_geo.nn.SoftTokenEncoder', 'mode': 'mean'}
    config = configure(tokenizer={**SMALL, 'num_near': 3}, items=items, behavior=False)
    out = assemble(config)
    assert out.model.item_encoder.num_near == 3
    out.add_tokens()
    store = out.data[ITEM]
    assert store.token_near.shape == store.token_distance.shape == (40, 4, 3)
    features = {m: store[f'x_{m}'][:5] for m in ('image', 'text')}
    tokens = encode_tokens(config, out.data, out.tokenizer, features, {})
    assert torch.equal(tokens['token_near'], store.token_near[:5])
    more = add_items(out.data, features, tokens, transforms=build_transforms(config))
    with torch.no_grad():
        vectors = out.model.encode_items(more)
    torch.testing.assert_close(vectors[40:], vectors[:5])
    with pytest.raises(ValueError, match="expected 'token_near' of the new items"):
        add_items(out.data, features, tokens['token_id'], transforms=build_transforms(config))
    with pytest.raises(ConfigError, match="items: 'num_near' must be at least 2, .*num_near 4"):
        assemble(configure(items=items))


def test_later_options_of_the_tokenizer_change_no_hash():
    config = configure().to_dict()
    expected = run_fingerprint(config, 'data')
    later = {'balance': 0.01, 'num_near': 4, 'method_kwargs': {'lr': 0.1}, 'max_rows': None}
    for key, value in later.items():
        other = {**config, 'tokenizer': {**config['tokenizer'], key: value}}
        assert run_fingerprint(other, 'data') != expected
        config['tokenizer'].pop(key)
    assert run_fingerprint(config, 'data') == expected


def test_narrow_features_have_fewer_recommended_tokens():
    config = RunConfig.of({'data': DATA, 'svd': {'channels': 5}, 'tokenizer': {'cache': False}})
    data = build_dataset(config).data
    data[ITEM].x_image = data[ITEM].x_image[:, :3]
    assert build_tokenizer(config, data).num_tokens == {'image': 3, 'text': 8, 'behavior': 5}
    # What is given is not cut down, but refused when it does not fit.
    given = RunConfig.of({'data': DATA, 'tokenizer': {'num_tokens': 8}})
    assert build_tokenizer(given, data).num_tokens == 8


def test_tokens_of_behavior_come_from_training_alone():
    config = configure()
    dataset = build_dataset(config)
    tokens = []
    for _ in range(2):
        tokenizer = build_tokenizer(config, dataset.data)
        tokens.append(add_tokens(config, dataset.data, tokenizer)[ITEM].token_id)
        for target in dataset._targets.values():
            target.item.fill_(0)
    assert torch.equal(*tokens)
    edge_index = dataset.data[RATES].edge_index
    dataset.data[RATES].edge_index = edge_index[:, torch.randperm(edge_index.size(1))[:150]]
    tokenizer = build_tokenizer(config, dataset.data)
    fewer = add_tokens(config, dataset.data, tokenizer)[ITEM].token_id
    assert not torch.equal(fewer[:, :2], tokens[0][:, :2])


def test_new_items_get_tokens_of_behavior():
    config = configure()
    data = build_dataset(config).data
    tokenizer = build_tokenizer(config, data)
    add_tokens(config, data, tokenizer)
    features = {m: data[ITEM][f'x_{m}'][:5] for m in ('image', 'text')}
    out = encode_items(config, data, tokenizer, features, {})
    assert out.shape == (5, 6) and 'behavior' not in features
    vectors = InteractionSVD(6, cache=False)
    features['behavior'] = vectors.encode(vectors(data), features)
    assert torch.equal(out, tokenizer.encode(features))


def test_behavior_without_content(tmp_path):
    rng = np.random.default_rng(0)
    rows = sorted({(u, i) for u, i in rng.integers(0, 30, (400, 2)).tolist()})
    lines = [f'{u}\t{i}\t{max(0, n % 10 - 7)}' for n, (u, i) in enumerate(rows)]
    (tmp_path / 'a.inter').write_text('\n'.join(['userID\titemID\tx_label', *lines]) + '\n')
    config = configure(data={'name': str(tmp_path)})
    data = build_dataset(config).data
    tokenizer = build_tokenizer(config, data)
    assert add_tokens(config, data, tokenizer)[ITEM].token_id.shape == (30, 2)


def test_behavior_is_refused():
    config = configure(items={'name': 'id'})
    data = build_dataset(config).data
    with pytest.raises(ConfigError, match='--behavior: expected items with tokens, got --items id'):
        check_features(config, data)
    data[ITEM].x_behavior = torch.zeros(40, 2)
    with pytest.raises(ConfigError, match="already have a modality 'behavior'"):
        build_tokenizer(configure(), data)
    config = configure(svd={'channels': 40})
    data = build_dataset(config).data
    with pytest.raises(ConfigError, match='^svd: channels must be less'):
        add_tokens(config, data, build_tokenizer(config, data))


def test_device():
    assert build_device('cpu') == torch.device('cpu')
    assert build_device('auto').type == ('cuda' if torch.cuda.is_available() else 'cpu')
    for name in ('gpu', 'meta', 'mps'):
        with pytest.raises(ConfigError, match=f"unknown device '{name}'; use auto, cpu or cuda"):
            build_device(name)
    with pytest.raises(ConfigError, match="'cuda:99' is not available"):
        build_device('cuda:99')


@pytest.fixture(scope='module')
def dataset():
    return SyntheticClusters(num_users=30, num_items=24, num_interactions=150)


def build(dataset, *flags):
    options = ['--graph.k', '4', '--graph.cache', 'false', '--tokenizer.cache', 'false']
    options += ['--tokenizer.num_tokens', '2', '--tokenizer.codebook_size', '4', '--device', 'cpu']
    return assemble(parse_flags([*options, *flags]), dataset)


def test_assembly(dataset):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    flags = ['--model', 'FREEDOM', '--items', 'specific', '--seed']
    out = build(dataset, *flags, '3')
    assert torch.equal(torch.get_rng_state(), before)
    assert type(out.model) is FREEDOM and out.dataset is dataset and out.config.seed == 3
    assert not out.tokenizer.is_fitted and 'token_id' not in out.data[ITEM]
    assert set(out.hashes) == {'data', 'run', 'graphs'}
    assert out.data[similar('text')].edge_index.size(1) == 24 * 4
    assert similar('text') not in dataset.data.edge_types

    out.add_tokens()
    assert out.tokenizer.is_fitted and out.data[ITEM].token_id.shape == (24, 4)
    assert 'token_id' not in dataset.data[ITEM]
    assert set(out.hashes) == {'data', 'run', 'graphs', 'tokens', 'tokenizer'}
    again = build(dataset, *flags, '3')
    again.add_tokens(out.tokenizer)
    assert again.hashes == out.hashes and again.tokenizer is out.tokenizer
    other = again.model.state_dict()
    assert all(torch.equal(value, other[key]) for key, value in out.model.state_dict().items())
    seeded = build(dataset, *flags, '4').model
    assert not torch.equal(seeded.user_embedding, out.model.user_embedding)


def test_assembly_without_tokens(dataset):
    out = build(dataset, '--items', 'id', '--model', 'BPR')
    assert out.tokenizer is None
    assert out.model.item_parameters(24) == ['item_encoder.weight']
    out.add_tokens()
    assert set(out.hashes) == {'data', 'run', 'graphs'} and 'token_id' not in out.data[ITEM]


def test_model_of_a_configuration(dataset):
    flags = ['--model.channels', '8', '--items', 'agnostic', '--items.num_layers', '2']
    out = build(dataset, *flags)
    assert out.tokenizer.num_tokens_dict == {'image': 2, 'text': 2}
    assert type(out.model) is LightGCN and out.model.channels == 8
    assert out.model.item_encoder.mode == 'agnostic' and out.model.item_parameters(24) == []

    config = RunConfig.of({'items': {'name': 'id'}})
    assert build_item_encoder(config, dataset.data, None) is None
    encoder = build(dataset, '--items', 'features', '--items.normalize', 'false').model.item_encoder
    assert encoder.in_channels == {'image': 128, 'text': 64} and encoder.normalize is False


@pytest.mark.parametrize(
    'flags, message',
    [
        (['--model.channels', '0'], '^model.channels: expected at least 1, got 0'),
        (['--model.num_layers', '-1'], "^model: 'num_layers'"),
        (['--items.num_layers', '-1'], "^items: 'num_layers'"),
        (['--tokenizer.codebook_size', '5'], '^tokenizer: codebook_size'),
        (
            ['--model', 'FREEDOM', '--graph.k', '0'],
            '^graph: k, block_size and num_probes must be at least 1',
        ),
        (['--model', 'FREEDOM', '--graph.k', '25'], '^graph: k=25 exceeds the number of items'),
        (['--device', 'foo'], "^--device: unknown device 'foo'"),
    ],
)
def test_errors_of_constructors_name_the_section(dataset, flags, message):
    with pytest.raises(ConfigError, match=message):
        build(dataset, *flags)


class CommonUsers(BaseTransform):
    r"""Counts the users of every item."""

    def forward(self, data):
        data[ITEM].degree = torch.bincount(data[RATES].edge_index[1], minlength=24)
        return data


class Declares(LightGCN):
    transforms = (ItemKNN(k=3, weighting='cosine', cache=False), CommonUsers())


class Fails(LightGCN):
    class Transform(BaseTransform):
        def forward(self, data):
            raise ValueError('no users')

    transforms = (Transform(),)


def test_declared_transforms(dataset):
    path = f'{__name__}.Declares'
    plain = assemble({'model': {'name': path}}, dataset)
    assert plain.data[similar('text')].edge_index.size(1) == 24 * 3  # As declared,
    assert plain.data[ITEM].degree.sum() == plain.data[RATES].edge_index.size(1)
    given = assemble({'model': {'name': path}, 'graph': {'k': 5}}, dataset)
    assert given.data[similar('text')].edge_index.size(1) == 24 * 5  # unless one asks otherwise.
    knn, _ = build_transforms(given.config)
    assert (knn.k, knn.weighting, knn.cache) == (5, 'cosine', False)
    assert Declares.transforms[0].k == 3
    with pytest.raises(ConfigError, match='^Transform: no users$'):
        assemble({'model': {'name': f'{__name__}.Fails'}}, dataset)


class Draws(LightGCN):
    class Noise(BaseTransform):
        def forward(self, data):
            data[ITEM].noise = torch.rand(24)
            return data

    transforms = (Noise(),)


def test_weights_do_not_depend_on_what_transforms_draw(dataset):
    config = {'model': {'name': f'{__name__}.Draws'}, 'items': 'id', 'seed': 5}
    drawn, other = (
        assemble({**config, 'model': m}, dataset) for m in (config['model'], 'LightGCN')
    )
    weights = other.model.state_dict()
    assert all(torch.equal(x, weights[key]) for key, x in drawn.model.state_dict().items())
    again = assemble(config, dataset)
    assert torch.equal(again.data[ITEM].noise, drawn.data[ITEM].noise)  # Seeded, too.


class Returns(LightGCN):
    class Nothing(BaseTransform):
        def forward(self, data):
            data[ITEM].degree = torch.zeros(24)

    transforms = (ItemKNN(k=3, cache=False), Nothing())


class Classes(LightGCN):
    transforms = (Returns.Nothing,)


class Single(LightGCN):
    transforms = ItemKNN(k=3)


class Text(LightGCN):
    transforms = ('ItemKNN',)


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        ('Returns', r'transforms\[1\] of Returns returned None; expected the graph'),
        (
            'Classes',
            r'transforms\[0\] of Classes is a class; expected an instance, Nothing\(\)',
        ),
        ('Single', r"'transforms' of Single must be a tuple, such as \(ItemKNN\(\),\), got .*"),
        ('Text', r"transforms\[0\] of Text is 'ItemKNN'; expected a transform"),
    ],
)
def test_wrong_transforms(dataset, name, message):
    with pytest.raises(ConfigError, match=f'^model: {message}$'):
        assemble({'model': {'name': f'{__name__}.{name}'}}, dataset)
    with pytest.raises(ValueError, match=f'^{message}$'):
        prepare(globals()[name], dataset.data)


@pytest.mark.parametrize('name', MODELS)
def test_transforms_of_the_library(dataset, name):
    data = dataset[0]
    for transform in MODELS[name].transforms:
        data = transform(data)
    expected = assemble({'model': {'name': name}}, dataset).data
    assert data.edge_types == expected.edge_types
    for edge_type in data.edge_types:
        assert torch.equal(data[edge_type].edge_index, expected[edge_type].edge_index)


class Forgets(LightGCN):
    def __init__(self, data, item_encoder=None, channels: int = 64):
        super().__init__(data, None, channels)


class Table(LightGCN):
    def __init__(self, data, item_encoder=None, channels: int = 64):
        super().__init__(data, item_encoder, channels)
        self.bias = nn.Parameter(torch.zeros(data[ITEM].num_nodes, 1))


def test_the_item_encoder_is_part_of_the_model(dataset):
    message = (
        f"^model: '{__name__}.Forgets' does not use the item encoder of --items specific; "
        r'pass item_encoder to super\(\).__init__$'
    )
    with pytest.raises(ConfigError, match=message):
        build(dataset, '--model', f'{__name__}.Forgets', '--items', 'specific')
    assert build(dataset, '--model', f'{__name__}.Forgets', '--items', 'id')


def test_a_table_of_items_in_a_backbone_of_another_package(dataset, recwarn):
    for items in ('specific', 'features'):
        with pytest.warns(UserWarning, match=f"Table' has .*per item .bias., .* --items {items}"):
            build(dataset, '--model', f'{__name__}.Table', '--items', items)
    recwarn.clear()
    build(dataset, '--model', f'{__name__}.Table', '--items', 'id')
    build(dataset, '--model', f'{__name__}.Declares', '--items', 'specific')
    build(dataset, '--items', f'{__name__}.Sizes', '--model', f'{__name__}.Declares')
    # A published option of this package documents its table.
    out = build(dataset, '--model', 'FREEDOM', '--model.train_features', 'true')
    own = [entry for entry in recwarn if issubclass(entry.category, UserWarning)]
    assert out.model.item_parameters(24) and own == []


def test_a_parameter_of_an_item_encoder_is_none_of_the_backbone(recwarn):
    dataset = SyntheticClusters(num_users=30, num_items=32, num_interactions=150)
    # The token table happens to have as many rows as there are items.
    flags = ['--items', 'agnostic', '--tokenizer.codebook_size', '8']
    model = build(dataset, '--model', f'{__name__}.Declares', *flags).model
    assert model.item_parameters(32) == ['item_encoder.table'] and len(recwarn) == 0


class Tokens(nn.Module):
    def __init__(self, num_tokens, codebook_size, out_channels: int = 64, bias: float = 0.0):
        super().__init__()
        self.out_channels, self.bias = out_channels, bias
        self.table = nn.Embedding(codebook_size, out_channels)
        self.sizes = dict(num_tokens)

    def forward(self, token_id):
        return self.table(token_id.long()).mean(-2) + self.bias


class Sizes(nn.Embedding):
    def __init__(self, num_items: int, out_channels: int, in_channels: dict):
        super().__init__(num_items, out_channels)
        self.in_channels = in_channels


def test_an_item_encoder_of_another_package(dataset):
    out = build(dataset, '--items', f'{__name__}.Tokens', '--items.bias', '0.5')
    encoder = out.model.item_encoder
    assert encoder.sizes == {'image': 2, 'text': 2} and encoder.bias == 0.5
    assert encoder.table.weight.shape == (4, 64)
    out.add_tokens()
    assert out.model(out.data).item.shape == (24, 64)
    assert list(out.config.items) == ['name', 'bias']

    out = build(dataset, '--items', f'{__name__}.Sizes', '--model.channels', '8')
    encoder = out.model.item_encoder
    assert out.tokenizer is None and encoder.weight.shape == (24, 8)
    assert encoder.in_channels == {'image': 128, 'text': 64}


@pytest.mark.filterwarnings('ignore:.*no interaction is for')
def test_splits_that_are_needed(tmp_path, capsys):
    shop = make_shop(tmp_path / 'shop', (0, 0, 0, 2))
    dataset = build_dataset(RunConfig.of({'data': shop}))
    check_splits(dataset, 'test')
    with pytest.raises(ConfigError, match="'shop' has no validation interactions; expected"):
        check_splits(dataset, 'test', 'val')
    (tmp_path / 's.yaml').write_text('search: {model.num_layers: [1, 2]}')
    flags = ['--data', shop, '--out', str(tmp_path / 'out')]
    assert sweep.main(['--config', str(tmp_path / 's.yaml'), *flags]) == 2
    assert reproduce.main(['backbones', *flags]) == 2
    assert capsys.readouterr().err.count("error: 'shop' has no validation interactions") == 2
    assert not (tmp_path / 'out').exists()


def test_hashes_of_runs_are_those_from_before_there_was_a_loss():
    def of(**more):
        return run_fingerprint(RunConfig.of({'model': 'FREEDOM', **more}), 'data')

    config = RunConfig.of({'model': 'FREEDOM'}).to_dict()
    before = {key: value for key, value in config.items() if key not in ('data', 'loss', *UNHASHED)}
    before['trainer'] = {
        k: v for k, v in config['trainer'].items() if k not in ('epochs', 'progress')
    }
    del before['model']['similarity_weight'], before['trainer']['drop_items']
    del before['trainer']['sparse_adam'], before['trainer']['min_epochs']
    del before['unseen'], before['cold_candidates'], before['users']
    del before['evaluator']['max_users'], before['parallel']
    del before['graph']['method'], before['graph']['num_probes']
    for key in ('balance', 'num_near', 'method_kwargs', 'max_rows'):
        del before['tokenizer'][key]
    assert of() == of(loss='published') == fingerprint('data', before)
    for option in ({'unseen': {'layers': True}}, {'cold_candidates': 'all'}, {'users': 'items'}):
        assert of(**option) != of()
    hashes = [of(), *(of(loss={'name': 'bpr', 'reg_weight': w}) for w in (0.0, 0.1))]
    assert (
        len({*hashes, of(loss='softmax'), of(model={'name': 'FREEDOM', 'similarity_weight': 0.1})})
        == 5
    )


@pytest.mark.parametrize('model', ['TokenALS', 'EASE'])
def test_models_without_a_loss_take_none(model):
    items = 'recommended' if model == 'TokenALS' else 'none'
    config = configure(model=model, loss='softmax', items=items, behavior=False)
    with pytest.raises(ConfigError, match=f'^--loss: {model} is fitted without a training loss$'):
        assemble(config)


def test_items_that_are_not_linear_are_refused_before_tokens_are_fitted(monkeypatch):
    monkeypatch.setattr(OPQTokenizer, 'forward', None)
    with pytest.raises(ConfigError, match=r"^model: 'TokenALS' needs items that are linear"):
        assemble(configure(model='TokenALS'))
    assembly = assemble(configure(model='TokenALS', items='recommended'))
    assert assembly.model.item_encoder.mode == 'mean'


@pytest.mark.parametrize(
    ('loss', 'message'),
    [
        ({'name': 'softmax', 'temperature': 0}, "^loss: 'temperature' must be positive"),
        ({'name': 'whole', 'unobserved': -1}, "^loss: 'unobserved' must be at least 0"),
    ],
)
def test_arguments_of_losses_are_checked(loss, message):
    with pytest.raises(ConfigError, match=message):
        assemble(configure(loss=loss))


def test_the_loss_of_a_configuration_ranks():
    model = assemble(configure(loss={'name': 'softmax', 'temperature': 0.3})).model
    assert type(model.objective) is LOSSES['softmax'] and model.objective.temperature == 0.3
    assert assemble(configure()).model.objective is None


def test_presets_take_what_small_data_have():
    options = {'items': {'name': 'recommended'}, 'svd': {}}
    config = configure(**options)
    data = build_dataset(config).data
    most = min(data[RATES].edge_index[side].unique().numel() for side in (0, 1)) - 1
    assert config.svd['channels'] > most  # As the preset says.
    assert build_behavior(config, data).channels == most
    # What has no preset says what is wrong with it.
    own = configure(items={'name': 'mean'}, svd={'channels': most + 5})
    assert build_behavior(own, data).channels == most + 5


def test_names_of_items_are_modes_of_the_token_network():
    modes = {'recommended': 'mean', **{mode: mode for mode in ('specific', 'agnostic', 'mean')}}
    for items, mode in {**modes, 'linear': 'linear'}.items():
        encoder = assemble(configure(items=items)).model.item_encoder
        assert type(encoder) is TokenCrossEncoder and encoder.mode == mode


def test_users_without_a_table():
    assert assemble(configure(users='items')).model.user_embedding.numel() == 0
    with pytest.raises(ConfigError, match="users: 'VBPR' needs a table of users; expected one of"):
        assemble(configure(model='VBPR', users='items'))
    with pytest.raises(ConfigError, match="users: 'EASE' needs a table of users"):
        assemble(configure(model='EASE', items='none', behavior=False, users='items'))
    with pytest.raises(ConfigError, match="users: expected table or items, got 'item'"):
        assemble(configure(users='item'))
