import pytest

from motor_geo.utils.numbers import not_negative, positive


@pytest.mark.parametrize('bad', [-1, -1e-9, float('nan'), float('inf')])
def test_numbers_out_of_range(bad):
    for check, expected in ((positive, 'positive'), (not_negative, 'at least 0')):
        with pytest.raises(ValueError, match=f"'lr' must be {expected} and finite .got {bad}"):
            check('lr', bad)


def test_zero():
    assert not_negative('lr', 0) == 0 and positive('lr', 1e-9) == 1e-9
    with pytest.raises(ValueError, match="'lr' must be positive and finite .got 0"):
        positive('lr', 0)
