import re

import pytest

from motor_geo.engine.checks import shares_columns
from motor_geo.nn.models import LightGCN, Recommender
from motor_geo.parallel import World
from motor_geo.pipeline.assemble import run_fingerprint
from motor_geo.pipeline.config import RunConfig
from motor_geo.pipeline.processes import by_columns, check_processes, needs_all_users, on_processes
from motor_geo.utils.errors import ConfigError

UNSEEN = {'unseen': {'length': True}}


@pytest.mark.parametrize(
    'options, message',
    [
        ({'model': 'LATTICE'}, '--model LATTICE: needs similarities of all pairs of items on one'),
        ({'model': 'MICRO'}, '--model MICRO: needs similarities of all pairs of items on one'),
        ({'model': 'EASE', 'items': 'none'}, '--model EASE: needs all interactions on one process'),
        ({'loss': 'softmax'}, '--loss: needs all interactions on one process'),
        ({'users': 'items'}, '--users items: needs all interactions on one process'),
        ({'trainer': {'drop_items': 0.1}}, '--trainer.drop_items: needs all interactions'),
        (UNSEEN, 'unseen: needs all interactions on one process'),
    ],
)
def test_what_needs_all_users_is_refused(options, message):
    config = RunConfig.of({'model': 'LightGCN', **options})
    check_processes(config, World())
    for rank in (0, 1):  # The same on all processes.
        with pytest.raises(ConfigError, match=message):
            check_processes(config, World(rank, 2))


@pytest.mark.parametrize(
    'size, options, message',
    [
        (2, {'columns': 3}, '--parallel: columns x users is 3 x all, but there are 2 processes'),
        (2, {'columns': 2, 'users': 2}, 'is 2 x 2, but there are 2 processes; expected numbers'),
        (4, {'users': 3}, 'columns x users is 1 x 3, but there are 4 processes'),
        (1, {'columns': 2}, 'columns x users is 2 x all, but there is 1 process; expected'),
        (1, {'users': 2}, 'columns x users is 1 x 2, but there is 1 process'),
        (2, {'columns': 0}, "--parallel: 'columns' must be positive"),
        (3, {'columns': 3}, '--parallel.columns 3: --model.channels 64 cannot be divided by 3'),
        (2, {'columns': 2, 'model': 'MGCN'}, '--model MGCN is not computed column by column; ch'),
        (2, {'columns': 2, 'loss': 'whole'}, '--loss whole needs all columns on one process; ch'),
    ],
)
def test_a_mesh_that_does_not_fit_is_refused(size, options, message):
    mesh = {key: value for key, value in options.items() if key in ('columns', 'users')}
    more = {key: value for key, value in options.items() if key not in mesh}
    base = {'model': 'LightGCN', 'items': 'specific', **more}
    config = RunConfig.of({**base, 'parallel': mesh})
    for rank in range(size):
        with pytest.raises(ConfigError, match=re.escape(message)):
            check_processes(config, World(rank, size))


def test_columns_are_declared_by_each_class():
    class Own(LightGCN):
        pass

    assert shares_columns(LightGCN) and not shares_columns(Own)
    assert by_columns() == ['BPR', 'LightGCN', 'LayerGCN', 'FREEDOM', 'DeepStyle']


def test_a_mesh_of_one_changes_nothing():
    world, mesh = World(), {'columns': 1, 'users': 1}
    config = RunConfig.of({'model': 'LATTICE', 'parallel': mesh})
    assert check_processes(config, world) is world
    assert run_fingerprint(config, '') == run_fingerprint(RunConfig.of({'model': 'LATTICE'}), '')


def test_what_can_share_users_is_not():
    for loss in ('published', 'bpr', 'whole'):
        check_processes(RunConfig.of({'model': 'FREEDOM', 'loss': loss}), World(0, 2))


def test_a_subclass_declares_for_itself():
    class Own(LightGCN):
        pass

    assert needs_all_users(LightGCN) is None and {'LightGCN', 'FREEDOM'} <= set(on_processes())
    assert needs_all_users(Own) == Recommender.needs_all_users == 'all users'
