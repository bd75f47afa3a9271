import pytest

from motor_geo.engine import Trainer
from motor_geo.engine.batch_size import auto_batch_size, auto_lr
from motor_geo.nn.models import BPR
from motor_geo.parallel import UserShard
from motor_geo.testing.graphs import small_graph
from tests.parallel.threads import together


@pytest.mark.parametrize(
    ('count', 'size'),
    [(1, 2048), (59_541, 2048), (218_409, 4096), (721_069, 16384), (10**7, 2**18), (10**8, 2**21)],
)
def test_batch_size(count, size):
    assert auto_batch_size(count) == size


def test_learning_rate():
    assert auto_lr(1e-3, 2048) == 1e-3
    assert auto_lr(1e-3, 8192) == pytest.approx(2e-3)
    assert auto_lr(1e-3, 2**21) == 0.01  # Not .032.
    assert auto_lr(0.02, 8192) == 0.02


def test_the_batch_size_follows_from_all_interactions(monkeypatch):
    monkeypatch.setattr('motor_geo.engine.batch_size.USUAL', 1)
    data = small_graph()
    one = Trainer(BPR(data, channels=4), data, batch_size='auto', progress=False)

    def call(world):
        shard, model = UserShard(world, data, bounds=[0, 20, 211]), BPR(data, channels=4)
        shard.cut_model(model, model.user_tables())
        return Trainer(model, shard.cut(data), batch_size='auto', progress=False)

    for trainer in together(2, call):
        assert trainer.sampler.batch_size == one.sampler.batch_size == 16
        assert trainer.lr == one.lr
