"""Checks of values that may lie on a device, for which a program should not wait."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["check_values", "is_on_host"]


def is_on_host(values: Tensor) -> bool:
    """Return whether a program can read values without waiting for a device.

    Example:
        >>> is_on_host(torch.ones(2)), is_on_host(torch.ones(2, device="meta"))
        (True, False)
    """
    return values.device.type == "cpu"


def check_values(valid: Tensor, message: Callable[[], str]) -> None:
    """Check that all values are valid, without waiting for a device.

    On a device, an invalid value ends the program with an assertion of the device, as that of
    :py:class:`torch.nn.CrossEntropyLoss` does: its text comes at the next point where the program waits for the device.

    Args:
        valid: Boolean tensor of any shape, True for a valid value.
        message: function that returns the text of the error; it is called on the host only.

    Raises:
        ValueError: if a value on the host is not valid.

    Example:
        >>> check_values(torch.tensor([1, 2]) > 0, lambda: "`x` must be positive.")
    """
    if is_on_host(valid):
        if not valid.all():
            raise ValueError(message())
    elif valid.device.type != "meta":
        torch._assert_async(valid.all(), "a label or time is not valid: run this batch on the CPU to see which one")
