import numpy as np
import torch
from threadpoolctl import threadpool_info

from motor_geo.utils.threads import one_thread


def test_one_thread():
    np.ones((2, 2)) @ np.ones((2, 2))
    before, pools = torch.get_num_threads(), threadpool_info()
    torch.set_num_threads(2)
    try:
        with one_thread():
            assert torch.get_num_threads() == 1
            assert {pool['num_threads'] for pool in threadpool_info()} == {1}
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    counts = [pool['num_threads'] for pool in threadpool_info()]
    assert counts == [pool['num_threads'] for pool in pools]
