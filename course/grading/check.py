r"""Comparisons for tests of assignments. Students read their messages, which say what to look at
and not what to write.

.. code-block:: python

    @points(2)
    def test_example(student):
        '''The title of the test.'''
        check.close('double', student.double(x), 2 * x, 'Multiply by two.', {
            'This is the square.': x.square(),
        })
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import pytest
import torch
from torch import Tensor


def points(number: float) -> Any:
    r"""Marks a test with its number of points. The first line of its docstring is its title."""
    return pytest.mark.points(number)


class Hint(AssertionError):
    r"""A failure with a message for students."""


def fail(message: str) -> NoReturn:
    raise Hint(message)


def that(condition: Any, message: str) -> None:
    r"""Fails with a message unless a condition holds."""
    if not bool(condition):
        raise Hint(message)


def number(name: str, value: Any) -> float:
    r"""The value of a function that returns a number."""
    if isinstance(value, Tensor) and value.numel() == 1:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise Hint(f'`{name}` returned {describe(value)}; expected a number.')
    return float(value)


def tensor(name: str, value: Any, shape: Sequence[int]) -> Tensor:
    r"""The value of a function that returns a tensor of a given shape."""
    if not isinstance(value, Tensor):
        raise Hint(f'`{name}` returned {describe(value)}; expected a tensor.')
    if list(value.shape) != list(shape):
        raise Hint(
            f'`{name}` returned a tensor of shape {list(value.shape)}; expected {list(shape)}.'
        )
    return value


def pair(name: str, value: Any) -> tuple[Any, Any]:
    r"""The value of a function that returns two values."""
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise Hint(f'`{name}` returned {describe(value)}; expected a tuple of two values.')
    return value[0], value[1]


def close(
    name: str,
    actual: Any,
    expected: Any,
    hint: str,
    typical: Mapping[str, Any] | None = None,
    atol: float = 1e-5,
    rtol: float = 1e-4,
) -> None:
    r"""Compares numbers or tensors.

    Args:
        name: Name of the function of the submission.
        actual: Its value.
        expected: The correct value.
        hint: What to look at if they differ.
        typical: Values of typical mistakes, by the message that they get instead.
        atol: Absolute tolerance.
        rtol: Relative tolerance.
    """
    if isinstance(expected, Tensor) and expected.dim() > 0:
        actual = tensor(name, actual, expected.shape).double()
        expected = expected.double()
    else:
        actual = torch.tensor(number(name, actual), dtype=torch.float64)
        expected = torch.tensor(float(expected), dtype=torch.float64)
    if torch.allclose(actual, expected, atol=atol, rtol=rtol):
        return
    if not actual.isfinite().all() and expected.isfinite().all():
        raise Hint(f'`{name}` returned NaN or infinite values. {hint}')
    for message, value in (typical or {}).items():
        value = torch.as_tensor(value).double()
        if value.shape == actual.shape and torch.allclose(actual, value, atol=atol, rtol=rtol):
            raise Hint(message.strip())  # Blanks tell keys apart.
    where = ''
    if actual.dim() > 0:
        off = (actual - expected).abs() > atol + rtol * expected.abs()
        first = off.nonzero()[0].tolist()
        share = f'{int(off.sum())} of {off.numel()} values differ'
        where = f' {share}, the first at {first}, where you have {float(actual[tuple(first)]):.4g}.'
    else:
        where = f' You have {float(actual):.4g}.'
    raise Hint(f'`{name}` is wrong.{where} {hint}')


def describe(value: Any) -> str:
    r"""A value in a few words."""
    if isinstance(value, Tensor):
        return f'a tensor of shape {list(value.shape)}'
    if isinstance(value, (list, tuple, dict)):
        return f'a {type(value).__name__} of length {len(value)}'
    text = repr(value)
    return text if len(text) < 40 else f"a value of type '{type(value).__name__}'"
