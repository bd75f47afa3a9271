r"""Compares several processes with one, which every process is by itself.

    python -m torch.distributed.run --standalone --nproc-per-node 2 -m tests.parallel.compare

The first process prints one JSON line per comparison: the largest differences over all processes.
"""

import json
import os
import sys

import torch

from motor_geo.engine import Evaluator, Trainer
from motor_geo.nn.models import MODELS, lightgcn
from motor_geo.nn.objective import LOSSES
from motor_geo.nn.pruning import degree_sensitive_pruning, uniform_pruning
from motor_geo.parallel import Mesh, UserShard, World
from motor_geo.parallel.cost import exchange
from motor_geo.pipeline.processes import by_columns, on_processes
from motor_geo.testing.graphs import item_encoder, prepare, random_batch, small_graph
from motor_geo.typing import ITEM, RATES, USER, Embeddings, EvalTargets, with_edges

CHANNELS = 16
#: Options that turn on what is off by default.
OPTIONS = {
    'FREEDOM': {'norm_weight': 0.1, 'similarity_weight': 0.1},
    'MGCN': {'similarity_weight': 0.1},
    'LayerGCN': {'num_layers': 2, 'rho': 0.3},
    'LIRDRec': {'reg_weight': 0.1},
    'GRCN': {'reg_weight': 0.1},
    'BM3': {'reg_weight': 0.1},
    'LGMRec': {'cl_weight': 0.1},
    'COHESION': {'rho': 0.3},
    'MMGCN': {'reg_weight': 0.1, 'train_embeddings': True},
}


def double(data):
    for key, value in data[ITEM].items():
        if key.startswith('x_'):
            data[ITEM][key] = value.double()
    return data


def few_users(data):
    r"""The graph of four users. The last of three processes has none."""
    edge_index = data[RATES].edge_index
    data = with_edges(data, edge_index[:, edge_index[0] < 4])
    data[USER].num_nodes = 4
    return data


def build(name, data, items, objective, **options):
    torch.manual_seed(1)
    encoder = item_encoder(items, data, CHANNELS)
    options = {**OPTIONS.get(name, {}), **options}
    model = MODELS[name](data, encoder, CHANNELS, **options).double()
    model.set_objective(None if objective is None else LOSSES[objective]())
    return model


def tables(model):
    return model.user_tables(), model.column_tables()


def share(model, data, world):
    r"""Leaves its part of a model and a graph to this process."""
    shard = UserShard(world, data)
    shard.cut_model(model, *tables(model))
    return shard, shard.cut(data)


def step(model, data, batch, shard, epoch):
    r"""The loss and the gradients of a step, with the randomness of an epoch."""
    model.zero_grad(set_to_none=True)
    model.begin_epoch(data, epoch, torch.Generator().manual_seed(epoch))
    torch.manual_seed(7)
    loss = torch.stack(list(model.loss(data, batch).values())).sum()
    if shard is None:
        loss.backward()
    else:
        (loss / shard.world.size).backward()
        shard.sum_gradients(model, *tables(model))
    return loss.detach()


def far(a, b, scale=None):
    r"""The largest difference, relative to a scale or to the largest number."""
    if a.numel() == 0:
        return 0.0
    return float((a - b).abs().max() / (b.abs().max() if scale is None else scale))


def backbone(world, name, kind, items='specific', objective=None, **options):
    r"""Two steps, with the pruning of two epochs, and the final vectors."""
    data = double(prepare(MODELS[name], small_graph()))
    data = few_users(data) if kind == 'few users' else data
    batch = random_batch(data, 2 if kind == 'few items' else 64)
    if kind == 'one user':  # The other processes have no user of the batch.
        batch = batch._replace(user=torch.full_like(batch.user, int(batch.user[0])))
    whole, part = (build(name, data, items, objective, **options) for _ in range(2))
    shard, cut = share(part, data, world)
    cuts = [set(names) for names in tables(whole)]
    out = {'loss': 0.0, 'gradient': 0.0, 'vectors': 0.0}
    for epoch in (0, 1):
        expected = step(whole, data, batch, None, epoch)
        found = step(part, cut, shard.batch(batch), shard, epoch)
        out['loss'] = max(out['loss'], far(found, expected))
        grads = {key: p.grad for key, p in whole.named_parameters() if p.grad is not None}
        scale = max(grad.abs().max() for grad in grads.values())
        own = dict(part.named_parameters())
        assert grads.keys() == {key for key, p in own.items() if p.grad is not None}
        for key, grad in grads.items():
            grad = shard.part(grad, *(key in names for names in cuts))
            out['gradient'] = max(out['gradient'], far(own[key].grad, grad, scale))
    whole.eval(), part.eval()
    with torch.no_grad():
        expected, found = whole(data), shard.to_rank(*part(cut))
    rows = slice(shard.ranked.first, shard.ranked.last)
    out['vectors'] = max(far(found[0], expected.user[rows]), far(found[1], expected.item))
    return out


def many_edges(world):
    r"""LightGCN with the graph of a million interactions, which has no edge weights."""
    usual, lightgcn.MANY_INTERACTIONS = lightgcn.MANY_INTERACTIONS, 0
    try:
        return backbone(world, 'LightGCN', 'batch')
    finally:
        lightgcn.MANY_INTERACTIONS = usual


def training(world, name, items, kind=''):
    r"""Weights after two epochs of Adam, with the trainer."""
    data = double(prepare(MODELS[name], small_graph()))
    data = few_users(data) if kind == 'few users' else data
    whole, part = (build(name, data, items, None) for _ in range(2))
    shard, cut = share(part, data, world)
    for model, graph in ((whole, data), (part, cut)):
        Trainer(model, graph, epochs=2, batch_size=200, weight_decay=1e-3, progress=False).fit()
    expected = shard.parts(whole.state_dict(), *tables(whole))
    return {'weights': max(far(x, expected[key]) for key, x in part.state_dict().items())}


def evaluation(world, max_users=None):
    r"""All metrics, also of items without training interactions."""
    generator = torch.Generator().manual_seed(0)
    data = small_graph()
    num_users, num_items = data[USER].num_nodes, data[ITEM].num_nodes
    edge_index = data[RATES].edge_index
    edge_index = edge_index[:, edge_index[1] > 20]
    user = torch.randperm(num_users, generator=generator)[:150].sort().values
    count = torch.randint(1, 5, (150,), generator=generator)
    item = torch.randint(num_items, (int(count.sum()),), generator=generator)
    targets = EvalTargets(user, torch.nn.functional.pad(count.cumsum(0), (1, 0)), item)
    # Few different scores, so there are many ties.
    emb = Embeddings(
        *(torch.randint(3, (n, 2), generator=generator) for n in (num_users, num_items))
    )
    options = {'ks': (5, 20), 'batch_size': 13, 'max_users': max_users}
    whole = Evaluator(targets, edge_index, num_items, **options).evaluate(emb, return_pred=True)
    shard = UserShard(world, with_edges(data, edge_index))
    own = shard.to_rank(*(shard.part(x, i == 0, True) for i, x in enumerate(emb)))
    args = targets, shard.edge_index, num_items
    part = Evaluator(*args, **options, shard=shard.ranked)
    part = part.evaluate(Embeddings(*own), return_pred=True)
    assert whole.metrics.keys() == part.metrics.keys() and 'harmonic@20' in whole.metrics
    assert whole.rank.equal(part.rank) and whole.pred.equal(part.pred)
    assert whole.slices() == part.slices()
    worst = max(abs(part.metrics[key] - value) for key, value in whole.metrics.items())
    return {'metrics': worst, 'count': float(len(whole.metrics))}


def pruning(world):
    r"""The kept edges of all processes together are those of one."""
    data = small_graph()
    shard, edge_index = UserShard(world, data), data[RATES].edge_index
    sizes = data[USER].num_nodes, data[ITEM].num_nodes
    cut = shard.cut(data)[RATES].edge_index
    for rho in (0.0, 0.3, 0.999999):
        for kind in ('degree', 'uniform'):
            kept = []
            for edges, part in ((edge_index, None), (cut, shard)):
                generator = torch.Generator().manual_seed(3)
                if kind == 'uniform':
                    keep = uniform_pruning(edges, rho, generator, part)
                else:
                    keep = degree_sensitive_pruning(edges, *sizes, rho, generator, part)
                kept.append(torch.zeros(edges.size(1), dtype=torch.bool).index_fill(0, keep, True))
            assert kept[0][shard.edges].equal(kept[1]), (rho, kind)
    return {'kept': 0.0}


def items_read(data, batch):
    r"""The items of a batch and those of its users."""
    user, item = data[RATES].edge_index.tolist()
    users = set(batch.user.tolist())
    near = {i for u, i in zip(user, item) if u in users}
    return len(near | set(batch.pos.tolist()) | set(batch.neg.tolist()))


def bytes_per_step(world, name, num_layers, batch_size=48):
    r"""What a step exchanges is what the documentation says."""
    data = small_graph()
    options = {'num_layers': num_layers} if num_layers is not None else {}
    torch.manual_seed(1)
    encoder = item_encoder('specific', data, CHANNELS)
    model = MODELS[name](data, encoder, CHANNELS, **options)
    shard, cut = share(model, data, world)
    batch = random_batch(data, batch_size)
    read = items_read(data, batch)
    assert batch_size == 48 or 2 * read < data[ITEM].num_nodes
    batch = shard.batch(batch)
    step(model, cut, batch, shard, 0)
    world.sent.clear()
    step(model, cut, batch, shard, 1)
    shared = sum(p.numel() for p in encoder.parameters())
    mesh = {'columns': world.columns.size, 'users': world.users.size, 'num_read': read}
    sizes = data[ITEM].num_nodes, CHANNELS, num_layers or 0, batch_size, shared
    expected = exchange(*sizes, **mesh)
    assert dict(world.sent) == {key: value for key, value in expected.items() if value}, (
        world.sent,
        expected,
    )
    return {'bytes': 0.0}


def comparisons(columns, users):
    if columns == 1:
        for name in on_processes():
            yield f'{name}, a batch', backbone, (name, 'batch')
            yield f'{name}, one user', backbone, (name, 'one user')
        for name in ('BPR', 'LightGCN', 'FREEDOM'):
            yield f'{name}, whole', backbone, (name, 'batch', 'specific', 'whole')
        yield 'pruning', pruning, ()
    elif users == 1:
        for name in by_columns():
            yield f'{name}, a batch', backbone, (name, 'batch')
        yield 'LightGCN, many edges', many_edges, ()
        yield 'LightGCN, bpr', backbone, ('LightGCN', 'batch', 'specific', 'bpr')
    else:
        for name in ('LightGCN', 'LayerGCN', 'FREEDOM'):
            yield f'{name}, one user', backbone, (name, 'one user')
    if users > 1:
        yield 'LightGCN, few users', backbone, ('LightGCN', 'few users')
        yield 'training of BPR, few users', training, ('BPR', 'specific', 'few users')
    yield 'LightGCN, item IDs', backbone, ('LightGCN', 'batch', 'id')
    for num_layers in (0, 1, 3):
        options = {'num_layers': num_layers}
        yield f'LightGCN, {num_layers} layers', backbone, ('LightGCN', 'batch'), options
    if users > 1:  # The last hop reads fewer than half of the items.
        for num_layers in (2, 3):
            args = ('LightGCN', 'few items'), {'num_layers': num_layers}
            yield f'LightGCN, {num_layers} layers, few items', backbone, *args
        yield 'FREEDOM, few items', backbone, ('FREEDOM', 'few items')
    for items in ('specific', 'id'):
        yield f'training of BPR, {items} items', training, ('BPR', items)
    yield 'evaluation', evaluation, ()
    yield 'evaluation of a sample', evaluation, (70,)
    yield 'bytes of BPR', bytes_per_step, ('BPR', None)
    for num_layers in (1, 2, 3):
        yield f'bytes of LightGCN, {num_layers} layers', bytes_per_step, ('LightGCN', num_layers)
        yield (
            f'bytes of LightGCN, {num_layers} layers, few',
            bytes_per_step,
            ('LightGCN', num_layers, 2),
        )


#: Parts of the columns, by the number of processes.
MESHES = {2: (1, 2), 3: (1,), 4: (2,)}


def main(words):
    torch.set_num_threads(1)
    with World.start(os.environ) as world:
        for columns in MESHES[world.size]:
            mesh = Mesh(columns).start(world)
            for name, compare, args, *options in comparisons(columns, mesh.users.size):
                if all(word in f'{name}, columns {columns}' for word in words):
                    found = compare(mesh, *args, **(options[0] if options else {}))
                    values = torch.tensor(list(found.values()), dtype=torch.float64)
                    values = world.all_reduce(values, '', 'max').tolist()
                    if world.is_first:
                        line = {'columns': columns, 'name': name, **dict(zip(found, values))}
                        print(json.dumps(line), flush=True)


if __name__ == '__main__':
    main(sys.argv[1:])
