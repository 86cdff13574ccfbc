"""Smooth random fields and random affine maps, of which a scan is drawn."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["random_affine", "random_field"]

Rng = np.random.Generator


def random_field(rng: Rng, shape: Sequence[int], knots: Sequence[int], sd: float) -> NDArray[np.float32]:
    """Draw a smooth random field: normal values at knots, and blends of the nearest knots between them.

    Args:
        rng: random generator.
        shape: shape of the field.
        knots: number of knots along each axis.
        sd: standard deviation at the knots.

    Example:
        >>> random_field(np.random.default_rng(0), (4, 5, 6), (2, 2, 2), 1.0).shape
        (4, 5, 6)
    """
    field = rng.normal(0.0, sd, tuple(knots))
    for axis, (size, number) in enumerate(zip(shape, knots, strict=True)):
        field = np.moveaxis(np.tensordot(_blend(size, number), field, (1, axis)), 0, axis)
    return field.astype(np.float32)


def _blend(size: int, number: int) -> NDArray[np.float64]:
    """Return the weights (size, number) of the knots at each point; they have no corners and add up to 1."""
    place = np.linspace(0, number - 1, size)
    distance = np.abs(place[:, None] - np.arange(number)).clip(0, 1)
    weights: NDArray[np.float64] = 1 - distance**2 * (3 - 2 * distance)
    return weights


def random_affine(rng: Rng, degrees: float, scale: tuple[float, float]) -> NDArray[np.float64]:
    """Draw a matrix (3, 3) that rotates about each axis (normal angles) and scales along it (uniform factors).

    Example:
        >>> random_affine(np.random.default_rng(0), 0.0, (2.0, 2.0)).tolist()
        [[2.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 2.0]]
    """
    matrix: NDArray[np.float64] = np.diag(rng.uniform(*scale, 3))
    for axis, angle in enumerate(np.radians(rng.normal(0.0, degrees, 3))):
        i, j = [k for k in range(3) if k != axis]
        turn = np.eye(3)
        turn[[i, j], [i, j]] = np.cos(angle)
        turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
        matrix = turn @ matrix
    return matrix
