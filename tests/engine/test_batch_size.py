import pytest

from motor_geo.engine.batch_size import auto_batch_size, auto_lr


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
