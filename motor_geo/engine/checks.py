r"""Checks what a backbone returns when it is first used."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch_geometric.data import HeteroData
from torch_geometric.typing import EdgeType

from motor_geo.nn.models import Recommender
from motor_geo.typing import RATES, Embeddings, num_nodes


def check_methods(model: Recommender) -> None:
    r"""Checks that a backbone implements :meth:`forward` and :meth:`loss`.

    Raises:
        ValueError: If one of them is missing.
    """
    for name, what in [
        ('forward(data)', 'Embeddings(user, item)'),
        ('loss(data, batch)', 'a dictionary of scalar tensors'),
    ]:
        method = name.partition('(')[0]
        if getattr(type(model), method, None) is getattr(Recommender, method):
            raise ValueError(
                f"{type(model).__name__} has no method '{method}'; expected {name} that returns "
                f'{what}'
            )


def check_weights(model: Recommender) -> None:
    r"""Checks the weights of the loss terms of a backbone of this package. A term whose
    weight is not positive would be left out.

    Raises:
        ValueError: If a weight is negative or not finite.
    """
    if not type(model).__module__.startswith('motor_geo.'):
        return
    for name, value in vars(model).items():
        weighs = isinstance(value, (int, float)) and name.endswith('weight')
        if weighs and not 0 <= value < math.inf:
            raise ValueError(
                f"'{name}' of '{type(model).__name__}' must be at least 0 and finite (got {value})"
            )


def shares_columns(target: type) -> bool:
    r"""Whether processes can share the columns of the vectors of a class of models. A
    subclass may add terms, so it has to declare this itself.
    """
    return bool(vars(target).get('columns', False))


def check_columns(model: Recommender) -> None:
    r"""Checks that processes can share the columns of the vectors of a backbone.

    Raises:
        ValueError: If the backbone or its objective needs all of them.
    """
    if not shares_columns(type(model)):
        raise ValueError(
            f"'{type(model).__name__}' needs all columns on one process; expected a backbone that "
            "declares 'columns = True'"
        )
    if model.objective is not None and not model.objective.columns:
        raise ValueError(f"'{type(model.objective).__name__}' needs all columns on one process")


def check_losses(model: Recommender, losses: object) -> None:
    r"""Checks the losses of a backbone.

    Args:
        model: The backbone, for messages.
        losses: What its :meth:`loss` returned.

    Raises:
        ValueError: If the losses are not a dictionary of scalar tensors.
    """
    name, expected = f'{type(model).__name__}.loss', 'expected a dictionary of scalar tensors'
    if not isinstance(losses, Mapping):
        raise ValueError(f'{name} returned {_kind(losses)}; {expected}')
    if not losses:
        raise ValueError(f'{name} returned an empty dictionary; {expected}')
    for key, value in losses.items():
        if not isinstance(value, Tensor) or value.dim() > 0:
            raise ValueError(f"{name}: '{key}' is {_kind(value)}; {expected}")


def check_embeddings(
    model: Recommender, out: object, data: HeteroData, edge_type: EdgeType = RATES
) -> None:
    r"""Checks that a backbone returns a vector for every user and every item of
    a graph, all of the same size.

    Args:
        model: The backbone, for messages.
        out: What its :meth:`forward` returned.
        data: The graph.
        edge_type: Edge type of interactions, from users to items.

    Raises:
        ValueError: If it does not.
    """
    name = f'{type(model).__name__}.forward'
    if not isinstance(out, Embeddings):
        raise ValueError(f'{name} returned {_kind(out)}; expected Embeddings(user, item)')
    for part, value in zip(out._fields, out):
        if not isinstance(value, Tensor) or value.dim() != 2:
            raise ValueError(f"{name}: '{part}' is {_kind(value)}; expected one row per {part}")
    sizes = num_nodes(data, edge_type[0]), num_nodes(data, edge_type[2])
    rows, width = (out.user.size(0), out.item.size(0)), out.user.size(1)
    if rows != sizes or out.item.size(1) != width:
        raise ValueError(
            f'{name} returned user vectors {list(out.user.shape)} and item vectors '
            f'{list(out.item.shape)}; expected {sizes[0]} users and {sizes[1]} items with vectors '
            'of the same size'
        )


@contextmanager
def checked_forward(model: Recommender, data: HeteroData, edge_type: EdgeType) -> Iterator[None]:
    r"""Checks the embeddings of a graph whenever its backbone is called inside
    the :obj:`with` block.

    Args:
        model: The backbone.
        data: The graph.
        edge_type: Edge type of interactions, from users to items.

    Raises:
        ValueError: As in :func:`check_embeddings`.
    """

    def hook(module: nn.Module, args: tuple[Any, ...], out: Any) -> None:
        if len(args) == 1 and args[0] is data:
            check_embeddings(model, out, data, edge_type)

    handle = model.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def checked_objective(model: Recommender) -> Iterator[None]:
    r"""Checks that a backbone uses the objective that replaces its own loss, if
    it has one.

    Args:
        model: The backbone.

    Raises:
        ValueError: If the :obj:`with` block ends without a call of the
            objective.
    """
    calls: list[nn.Module] = []
    objective = model.objective
    handle = None
    if objective is not None:
        handle = objective.register_forward_hook(lambda module, *_: calls.append(module))
    try:
        yield
    finally:
        if handle is not None:
            handle.remove()
    if objective is not None and not calls:
        raise ValueError(
            f"{type(model).__name__}.loss does not call 'ranking', so "
            f"'{type(objective).__name__}' cannot replace its loss; expected "
            'self.ranking(data, batch, rows) among its terms'
        )


def _kind(value: object) -> str:
    if isinstance(value, Tensor):
        return f'a tensor of shape {list(value.shape)}'
    name = type(value).__name__
    return 'None' if value is None else f'{"an" if name[0] in "aeiouAEIOU" else "a"} {name}'
