import torch

from motor_geo.parallel import UserRange, World


def test_users_of_a_process():
    users = UserRange(World(), 3, 7)
    assert len(users) == 4 and str(users).startswith('UserRange(3, 7, World')
    assert users.mine(torch.tensor([2, 3, 6, 7])).tolist() == [False, True, True, False]
