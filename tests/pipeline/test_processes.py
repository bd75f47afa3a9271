import pytest

from motor_geo.parallel import World
from motor_geo.pipeline.config import RunConfig
from motor_geo.pipeline.processes import check_processes
from motor_geo.utils.errors import ConfigError

UNSEEN = {'unseen': {'length': True}}


@pytest.mark.parametrize(
    'options, message',
    [
        ({'model': 'LATTICE'}, '--model LATTICE: needs similarities of all pairs of items on one'),
        ({'model': 'GUME'}, '--model GUME: needs all users on one process, but torchrun started 2'),
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


def test_what_can_share_users_is_not():
    for loss in ('published', 'bpr', 'whole'):
        check_processes(RunConfig.of({'model': 'FREEDOM', 'loss': loss}), World(0, 2))
