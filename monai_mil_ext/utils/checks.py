"""Checks of arguments with messages of one form: "`name` must <rule>, got <value>."."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from .exceptions import InputError

__all__ = [
    "EmptyBagError",
    "SourceMismatchError",
    "as_flag",
    "as_range",
    "check_bags",
    "check_choice",
    "check_count",
    "check_fraction",
    "check_mask",
    "check_name",
    "check_not_negative",
    "check_positions",
    "check_positive",
    "check_positive_number",
    "check_rate",
    "count_non_finite",
]

MAX_NAME = 200  # characters


class EmptyBagError(InputError):
    """Error for a bag without instances, such as a slide without tissue; callers catch it to skip the bag."""


class SourceMismatchError(InputError):
    """Error for a bag from another encoder, resolution or preprocessing than those a network was trained on."""


def as_flag(value: Any, name: str = "allow_mismatch") -> bool:
    """Return the value of an option that command lines give as a word: ``"false"`` must not count as true.

    Example:
        >>> as_flag("false"), as_flag(True)
        (False, True)
    """
    if isinstance(value, bool):
        return value
    if str(value).lower() not in ("true", "false"):
        raise ValueError(f"`{name}` must be true or false, got {value!r}.")
    return str(value).lower() == "true"


def as_range(**values: Any) -> tuple[float, float]:
    """Return a value, passed by name, as its two limits.

    Raises:
        ValueError: when it is not a list of two finite numbers, the lower one first.

    Example:
        >>> as_range(hu_window=[-160, 240])
        (-160.0, 240.0)
        >>> as_range(hu_window=[400])
        Traceback (most recent call last):
        ...
        ValueError: `hu_window` must be two numbers, the lower one first, got [400].
    """
    ((name, value),) = values.items()
    limits = list(value) if isinstance(value, (list, tuple)) else []
    if len(limits) != 2 or not all(map(_is_number, limits)) or not -math.inf < limits[0] < limits[1] < math.inf:
        raise ValueError(f"`{name}` must be two numbers, the lower one first, got {value!r}.")
    return float(limits[0]), float(limits[1])


def check_positive(**values: int) -> None:
    """Raise ``ValueError`` unless every value, passed by name, is a positive integer.

    Example:
        >>> check_positive(num_heads=0)
        Traceback (most recent call last):
        ...
        ValueError: `num_heads` must be a positive integer, got 0.
    """
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"`{name}` must be a positive integer, got {value!r}.")


def check_count(**values: int) -> None:
    """Raise ``ValueError`` unless every value, passed by name, is an integer of at least 0.

    Example:
        >>> check_count(num_workers=-1)
        Traceback (most recent call last):
        ...
        ValueError: `num_workers` must be an integer from 0, got -1.
    """
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise ValueError(f"`{name}` must be an integer from 0, got {value!r}.")


def check_rate(**values: float) -> None:
    """Raise ``ValueError`` unless every value, passed by name, is a number in [0, 1).

    Example:
        >>> check_rate(dropout=1.0)
        Traceback (most recent call last):
        ...
        ValueError: `dropout` must be in [0, 1), got 1.0.
    """
    for name, value in values.items():
        if not (_is_number(value) and 0 <= value < 1):
            raise ValueError(f"`{name}` must be in [0, 1), got {value!r}.")


def check_positive_number(**values: float) -> None:
    """Raise ``ValueError`` unless every value, passed by name, is a positive and finite number.

    Example:
        >>> check_positive_number(temperature=float("inf"))
        Traceback (most recent call last):
        ...
        ValueError: `temperature` must be positive and finite, got inf.
    """
    for name, value in values.items():
        if not (_is_number(value) and 0 < value < math.inf):
            raise ValueError(f"`{name}` must be positive and finite, got {value!r}.")


def check_not_negative(**values: float) -> None:
    """Raise ``ValueError`` unless every value, passed by name, is a finite number of at least 0.

    Example:
        >>> check_not_negative(weight="1")
        Traceback (most recent call last):
        ...
        ValueError: `weight` must be finite and not negative, got '1'.
    """
    for name, value in values.items():
        if not (_is_number(value) and 0 <= value < math.inf):
            raise ValueError(f"`{name}` must be finite and not negative, got {value!r}.")


def check_fraction(**values: float) -> None:
    """Raise ``ValueError`` unless every value, passed by name, is a number in [0, 1].

    Example:
        >>> check_fraction(momentum=1.5)
        Traceback (most recent call last):
        ...
        ValueError: `momentum` must be in [0, 1], got 1.5.
    """
    for name, value in values.items():
        if not (_is_number(value) and 0 <= value <= 1):
            raise ValueError(f"`{name}` must be in [0, 1], got {value!r}.")


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def check_choice(name: str, value: Any, choices: Iterable[str]) -> None:
    """Raise ``ValueError`` unless ``value`` is one of ``choices``; the message suggests close matches.

    Example:
        >>> check_choice("layer", "score_tab", ["embed", "score_tap"])
        Traceback (most recent call last):
        ...
        ValueError: `layer` must be one of 'embed', 'score_tap', got 'score_tab'; did you mean 'score_tap'?
    """
    choices = list(choices)
    if value not in choices:
        matches = difflib.get_close_matches(str(value), choices)
        hint = f"; did you mean {', '.join(map(repr, matches))}?" if matches else "."
        raise ValueError(f"`{name}` must be one of {', '.join(map(repr, choices))}, got {value!r}{hint}")


def check_name(**values: str) -> None:
    """Raise ``ValueError`` unless every value is a file name without a path, so that it cannot leave its folder.

    At most 200 characters leave room for the suffixes of files in the 255 that a file system allows.

    Example:
        >>> check_name(case_id="../secret")
        Traceback (most recent call last):
        ...
        ValueError: `case_id` must be letters, digits, '.', '_', '-' and start with letter or digit, got '../secret'.
    """
    for name, value in values.items():
        if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", value):
            raise ValueError(
                f"`{name}` must be letters, digits, '.', '_', '-' and start with letter or digit, got {value!r}."
            )
        if len(value) > MAX_NAME:
            raise ValueError(f"`{name}` must have at most {MAX_NAME} characters, got {len(value)}.")


def count_non_finite(values: Tensor) -> str:
    """Return how many values are NaN and how many infinite, or an empty string if all are finite.

    Example:
        >>> count_non_finite(torch.tensor([1.0, float("nan"), float("inf"), -float("inf")]))
        '1 NaN and 2 infinite values'
    """
    if not values.is_floating_point() or not values.numel() or torch.stack(torch.aminmax(values)).isfinite().all():
        return ""  # aminmax, which is NaN if there is a NaN, needs no memory
    counts = {"NaN": int(values.isnan().sum()), "infinite": int(values.isinf().sum())}
    kinds = [f"{count} {kind}" for kind, count in counts.items() if count]
    return f"{' and '.join(kinds)} value{'s' if sum(counts.values()) > 1 else ''}"


def check_bags(x: Tensor, in_features: int) -> None:
    """Raise ``ValueError`` unless ``x`` has shape (B, N, ``in_features``)."""
    if x.ndim != 3 or x.shape[-1] != in_features:
        raise ValueError(f"`x` must have shape (B, N, {in_features}), got {tuple(x.shape)}.")


def check_mask(mask: Tensor, x: Tensor) -> None:
    """Raise ``ValueError`` unless ``mask`` is Boolean and has the shape (B, N) of the first two axes of ``x``."""
    if mask.dtype != torch.bool:
        raise ValueError(f"`mask` must be of dtype torch.bool (True for a valid instance), got {mask.dtype}.")
    if mask.shape != x.shape[:2]:
        raise ValueError(f"`mask` must have shape (B, N) = {tuple(x.shape[:2])}, got {tuple(mask.shape)}.")


LARGEST_POSITION = 1e15  # squares of larger positions may overflow in float32


def check_positions(positions: Tensor, shape: tuple[int, ...], mask: Tensor | None = None) -> None:
    """Raise ``ValueError`` unless ``positions`` have the shape (B, N) and are finite at valid instances.

    The mask is read only if a position is not finite, so positions on the CPU are checked without waiting for a GPU.
    Positions without values, as in a compiled program, are not checked.

    Example:
        >>> check_positions(torch.tensor([[0.0, 2.5, float("nan")]]), (1, 3))
        Traceback (most recent call last):
        ...
        ValueError: `positions` must be finite (at most 1e+15) at valid instances, got nan at instance 2 of bag 0.
    """
    if positions.shape != shape:
        raise ValueError(f"`positions` must have shape (B, N) = {tuple(shape)}, got {tuple(positions.shape)}.")
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return
    bad = ~(positions.detach().float().abs() <= LARGEST_POSITION)
    try:
        if not bad.any():
            return
    except RuntimeError:  # no values: on the device `meta`, under FakeTensorMode or torch.func.vmap
        return
    if mask is not None:
        bad = bad & mask.to(bad.device)
    for bag, instance in bad.nonzero()[:1].tolist():
        got = f"{positions[bag, instance].item()} at instance {instance} of bag {bag}"
        raise ValueError(f"`positions` must be finite (at most {LARGEST_POSITION:g}) at valid instances, got {got}.")
