from __future__ import annotations

import json
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


class World:
    r"""The processes that work on a run together. In a world of one process, every
    method is the identity.

    All processes must call the same methods in the same order.

    The objective is the *sum* over processes of what each calls
    :meth:`~torch.Tensor.backward` on. So a loss that all of them compute alike
    counts one part in :obj:`size` on each, and what crosses processes is summed
    in both passes.

    Args:
        rank: Number of this process, from zero.
        size: Number of processes. With more than one, the default process group
            of :mod:`torch.distributed` must exist.
        group: Process group of these processes. (default: all processes)
        columns: The processes with the same users and other columns of vectors, see
            :class:`~motor_geo.parallel.Mesh`. (default: this process alone)
        users: The processes with the same columns and other users. (default: all
            processes)
    """

    def __init__(
        self,
        rank: int = 0,
        size: int = 1,
        group: Any = None,
        columns: World | None = None,
        users: World | None = None,
    ):
        self.rank = rank
        self.size = size
        self.group = group
        self._columns = columns
        self._users = users
        #: Bytes that this process handed to collectives, by purpose.
        self.sent: Counter[str] = Counter()

    @property
    def columns(self) -> World:
        r"""The processes with the same users and other columns of vectors."""
        return World() if self._columns is None else self._columns

    @property
    def users(self) -> World:
        r"""The processes with the same columns of vectors and other users."""
        return self if self._users is None else self._users

    @classmethod
    @contextmanager
    def start(
        cls, environment: Mapping[str, str], backend: str | None = None, timeout: float = 3600.0
    ) -> Iterator[World]:
        r"""Joins the processes that :obj:`torchrun` started, and leaves them when the
        block ends. Without :obj:`torchrun`, yields a world of one.

        Args:
            environment: The variables of the process, :obj:`os.environ`.
            backend: Backend of :mod:`torch.distributed`. (default: gloo, and NCCL
                for tensors on GPUs)
            timeout: Seconds after which a process stops waiting for the others.
        """
        if int(environment.get('WORLD_SIZE', 1)) == 1:
            yield cls()
            return
        from torch.distributed.rendezvous import rendezvous

        cuda = torch.cuda.is_available()
        if cuda:
            torch.cuda.set_device(int(environment['LOCAL_RANK']))
        backend = backend or ('cpu:gloo,cuda:nccl' if cuda else 'gloo')
        store, rank, size = next(rendezvous('env://', timeout=timedelta(seconds=timeout)))
        store = fresh_store(store, rank, size, timeout)
        options = {'store': store, 'rank': rank, 'world_size': size}
        dist.init_process_group(backend, timeout=timedelta(seconds=timeout), **options)
        yield cls(dist.get_rank(), dist.get_world_size())
        # Only after success: a process that failed would wait for the others forever. Without the
        # barrier, threads of gloo may abort the process.
        dist.barrier()
        dist.destroy_process_group()

    @property
    def is_first(self) -> bool:
        r"""Whether this process writes files and prints."""
        return self.rank == 0

    def all_reduce(self, x: Tensor, purpose: str, op: str = 'sum') -> Tensor:
        r"""Reduces a tensor over all processes, in place, and returns it.

        Args:
            x: The tensor, of the same shape on all processes.
            purpose: What its bytes count as in :obj:`sent`.
            op: :obj:`"sum"`, :obj:`"min"` or :obj:`"max"`.
        """
        if self.size > 1:
            self.sent[purpose] += x.numel() * x.element_size()
            dist.all_reduce(x, getattr(dist.ReduceOp, op.upper()), group=self.group)
        return x

    def gather(self, x: Tensor, purpose: str) -> list[Tensor]:
        r"""The tensors of all processes, of the same shape, in their order."""
        if self.size == 1:
            return [x]
        x = x.contiguous()
        out = [torch.empty_like(x) for _ in range(self.size)]
        self.sent[purpose] += x.numel() * x.element_size()
        dist.all_gather(out, x, group=self.group)
        return out

    def collect(self, x: Tensor) -> list[Tensor] | None:
        r"""The same on the first process, and :obj:`None` on the others."""
        if self.size == 1:
            return [x]
        x = x.contiguous()
        out = [torch.empty_like(x) for _ in range(self.size)] if self.is_first else None
        dist.gather(x, out, dst=self._global(0), group=self.group)
        return out

    def broadcast(self, x: Tensor, source: int, purpose: str) -> Tensor:
        r"""Returns the tensor of one process on all of them.

        Args:
            x: The tensor, of the same shape on all processes. It is overwritten.
            source: Number of the process.
            purpose: What its bytes count as in :obj:`sent`.
        """
        if self.size > 1:
            self.sent[purpose] += x.numel() * x.element_size() * (self.rank == source)
            dist.broadcast(x, self._global(source), group=self.group)
        return x

    def exchange(self, x: Tensor, purpose: str) -> Tensor:
        r"""Sends :obj:`x[i]` to process :obj:`i`, and returns what the others sent to
        this one, in their order.

        Shapes:
            - **input:** one entry per process, :math:`(P, *)`
            - **output:** one entry per process, :math:`(P, *)`
        """
        if self.size == 1:
            return x
        x = x.contiguous()
        self.sent[purpose] += x.numel() * x.element_size()
        out = torch.empty_like(x)
        dist.all_to_all_single(out, x, group=self.group)
        return out

    def sum(self, x: Tensor, purpose: str) -> Tensor:
        r"""The sum over all processes, whose gradient is summed as well."""
        return x if self.size == 1 else _Sum.apply(x, self, purpose)

    def sum_gradients(self, parameters: list[nn.Parameter]) -> None:
        r"""Sums the gradients of parameters that all processes hold."""
        if self.size == 1:
            return
        # All processes compute the same terms, so they have gradients of the same parameters.
        grads = [parameter.grad for parameter in parameters if parameter.grad is not None]
        # Sparse gradients have the rows of the batch, in the same order on all processes.
        grads = [grad._values() if grad.is_sparse else grad for grad in grads]
        by_type: dict[torch.dtype, list[Tensor]] = {}
        for grad in grads:
            by_type.setdefault(grad.dtype, []).append(grad)
        for same in by_type.values():
            flat = self.all_reduce(torch.cat([grad.flatten() for grad in same]), 'gradients')
            for grad, part in zip(same, flat.split([grad.numel() for grad in same])):
                grad.copy_(part.view_as(grad))

    def barrier(self) -> None:
        r"""Waits for all processes."""
        if self.size > 1:
            dist.barrier(self.group)

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        r"""Lets the first process run the block before all others, which then find
        what it has cached.
        """
        if not self.is_first:
            self.barrier()
        yield
        if self.is_first:
            self.barrier()

    def agree(self, value: bool) -> bool:
        r"""Whether the value is true on all processes."""
        if self.size == 1:
            return value
        flag = torch.tensor([int(value)], device=self._device())
        return bool(self.all_reduce(flag, 'scalars', 'min'))

    def share(self, value: Any) -> Any:
        r"""Returns the value of the first process on all of them.

        Args:
            value: Anything that JSON can represent.
        """
        if self.size == 1:
            return value
        text = json.dumps(value).encode() if self.is_first else b''
        size = torch.tensor([len(text)], device=self._device())
        dist.broadcast(size, self._global(0), group=self.group)
        content = torch.zeros(int(size), dtype=torch.uint8, device=size.device)
        if self.is_first:
            content.copy_(torch.frombuffer(bytearray(text), dtype=torch.uint8))
        dist.broadcast(content, self._global(0), group=self.group)
        return json.loads(bytes(content.tolist()))

    def _global(self, rank: int) -> int:
        r"""Number of a process among those of the default group."""
        return rank if self.group is None else dist.get_global_rank(self.group, rank)

    def _device(self) -> str:
        return 'cuda' if dist.get_backend() == 'nccl' else 'cpu'

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}({self.rank}, {self.size})'


def fresh_store(store: dist.Store, rank: int, size: int, timeout: float) -> dist.Store:
    r"""A part of a store that no other processes have used. If :obj:`torchrun` starts
    processes again, it keeps the store, with the addresses of those that ended.

    All processes say a name that nobody else has, the first one offers a list of
    them, and it is final once every process has found its own name in it.

    Args:
        store: The store.
        rank: Number of this process.
        size: Number of processes.
        timeout: Seconds after which a process stops waiting for the others.

    Raises:
        TimeoutError: If a process is missing.
    """
    own, end = uuid.uuid4().hex, time.monotonic() + timeout
    store.set(f'name/{rank}', own)
    seen = [f'seen/{other}' for other in range(size)]
    while time.monotonic() < end:
        if rank == 0:
            names = [store.get(f'name/{other}').decode() for other in range(size)]
            store.set('offer', ' '.join(names))
        offer = store.get('offer').decode()
        if offer.split()[rank] == own:
            store.set(seen[rank], offer)
            if rank == 0 and store.check(seen):
                if {store.get(key).decode() for key in seen} == {offer}:
                    store.set('final', offer)
            if store.check(['final']) and store.get('final').decode() == offer:
                return dist.PrefixStore(offer, store)
        time.sleep(0.01)
    raise TimeoutError(f'a process of {size} is missing')


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, world: World, purpose: str) -> Tensor:
        ctx.options = world, purpose
        return world.all_reduce(x.clone(memory_format=torch.contiguous_format), purpose)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        world, purpose = ctx.options
        grad = grad.clone(memory_format=torch.contiguous_format)
        return world.all_reduce(grad, purpose), None, None
