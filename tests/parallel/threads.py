import threading
from concurrent.futures import ThreadPoolExecutor

import torch

from motor_geo.parallel import World


class Thread(World):
    r"""One of several threads that stand for processes."""

    def __init__(self, rank, parts, barrier):
        super().__init__(rank, len(parts))
        self.parts, self.barrier = parts, barrier

    def gather(self, x, purpose):
        self.parts[self.rank] = x.clone()
        self.barrier.wait()
        out = list(self.parts)
        self.barrier.wait()
        assert all(part.shape == x.shape and part.dtype == x.dtype for part in out)
        return out

    def all_reduce(self, x, purpose, op='sum'):
        reduce = {'sum': torch.sum, 'min': torch.amin, 'max': torch.amax}[op]
        return x.copy_(reduce(torch.stack(self.gather(x, purpose)), dim=0))

    def broadcast(self, x, source, purpose):
        return x.copy_(self.gather(x, purpose)[source])


def together(size, function):
    r"""What a function of a world returns on each of several threads."""
    parts, barrier = [None] * size, threading.Barrier(size)

    def call(rank):
        try:
            return function(Thread(rank, parts, barrier))
        except BaseException:
            barrier.abort()
            raise

    with ThreadPoolExecutor(size) as pool:
        calls = [pool.submit(call, rank) for rank in range(size)]
    # An error of one thread breaks the barrier of the others.
    errors = [call.exception() for call in calls]
    for error in errors:
        if error is not None and not isinstance(error, threading.BrokenBarrierError):
            raise error
    return [call.result() for call in calls]
