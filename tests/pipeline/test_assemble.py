import numpy as np
import pytest
import torch

from motor_geo.data import InteractionSVD, OPQTokenizer
from motor_geo.pipeline.assemble import (
    add_tokens,
    build_dataset,
    build_model,
    build_tokenizer,
    encode_items,
)
from motor_geo.pipeline.config import resolve
from motor_geo.typing import ITEM, RATES
from motor_geo.utils.errors import ConfigError

DATA = {'num_users': 60, 'num_items': 40, 'num_interactions': 400}
SMALL = {'num_tokens': 2, 'codebook_size': 8, 'cache': False}


def configure(**more):
    config = {'data': DATA, 'tokenizer': SMALL, 'svd': {'channels': 6}, 'behavior': True}
    return resolve({**config, **more})


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
        build_tokenizer(config, data)
    data[ITEM].x_behavior = torch.zeros(40, 2)
    with pytest.raises(ConfigError, match="modality 'behavior' already"):
        build_tokenizer(configure(), data)
    config = configure(svd={'channels': 40})
    data = build_dataset(config).data
    with pytest.raises(ConfigError, match='^svd: channels must be less'):
        add_tokens(config, data, build_tokenizer(config, data))
