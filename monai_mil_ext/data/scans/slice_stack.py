"""Geometry of the slices of a series: a regular stack, or what it has instead."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from monai_mil_ext.utils import InputError, check_choice

from .dicom_slices import SeriesSlice

__all__ = ["IRREGULAR", "StackGeometry", "series_affine", "slice_affines", "sort_stack"]

IRREGULAR = ("refuse", "allow", "resample")
TOLERANCE = 0.1  # largest distance of a slice from its place in a regular stack, as a fraction of the step
ABSOLUTE = 0.01  # mm; also the largest distance of two slices at one position
SHEAR = 0.01  # shift in the plane from one slice to the next, as a fraction of the step, that is no tilt
ROUNDED = 0.1  # mm, to which positions are often rounded
GAP = 1.5  # steps from one slice to the next between which at least one is missing
WHOLE = 0.2  # largest distance of a gap from a whole number of steps, as a fraction of the step
TO_RAS = np.array([-1.0, -1.0, 1.0])


class StackGeometry(NamedTuple):
    """Places of slices that ascend along their normal, in LPS mm."""

    positions: NDArray[np.float64]  # (Z, 3)
    normal: NDArray[np.float64]  # (3,)
    pixel: float  # smaller side of a pixel in mm

    @classmethod
    def of(cls, stack: Sequence[SeriesSlice]) -> StackGeometry:
        """Return the geometry of the slices of a series."""
        first = stack[0]
        normal = np.cross(first.orientation[:3], first.orientation[3:])
        return cls(np.stack([item.position for item in stack]), normal, float(first.spacing.min()))

    @property
    def heights(self) -> NDArray[np.float64]:
        """Positions (Z,) along the normal."""
        return np.asarray(self.positions @ self.normal)

    @property
    def step(self) -> float:
        """Usual step from one slice to the next: the lower median."""
        steps = np.sort(np.diff(self.heights))
        return float(steps[(len(steps) - 1) // 2])

    @property
    def line(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Step and first position, each (3,), of the least-squares line through all positions."""
        step, start = np.polyfit(np.arange(len(self.positions)), self.positions, 1)
        return step, start

    def faults(self) -> list[tuple[str, str]]:
        """Return the rules that the stack breaks and what it has instead; nothing if it is regular.

        Each slice is compared with the least-squares line through all positions: it must lie within a tenth of the
        step of its place, or of thin slices within the error of a rounded position, and the line must follow the
        normal.
        """
        if len(self.positions) < 2:
            return []
        step, start = self.line
        off = self.positions - start - np.arange(len(self.positions))[:, None] * step
        allowed = max(TOLERANCE * self.step, min(0.75 * ROUNDED, self.step / 6)) + ABSOLUTE
        faults = [("evenly spaced slices", self._uneven())] if abs(off @ self.normal).max() > allowed else []
        if self._is_tilted(step) or _norm(self._in_plane(off)).max() > max(allowed, ROUNDED):
            faults.append(("slices stacked along their normal", self._shifted()))
        return faults

    def fault(self) -> str:
        """Return what an irregular stack has, or an empty text."""
        return ", and ".join(text for _, text in self.faults())

    def _in_plane(self, vectors: NDArray[np.float64]) -> NDArray[np.float64]:
        return vectors - (vectors @ self.normal)[..., None] * self.normal

    def _is_tilted(self, step: NDArray[np.float64]) -> bool:
        shift = float(_norm(self._in_plane(step)))
        total = shift * (len(self.positions) - 1)
        small = shift <= SHEAR * self.step + ABSOLUTE and total <= self.pixel / 2
        return total > max(TOLERANCE * self.step, ROUNDED) and not small

    def _uneven(self) -> str:
        heights, usual = self.heights, self.step
        steps = np.diff(heights)
        odd = np.flatnonzero(abs(steps - usual) > 2 * TOLERANCE * usual + ABSOLUTE)
        if not len(odd):
            return f"steps from {steps.min():g} to {steps.max():g} mm that drift"
        off = abs(steps - np.rint(steps / usual) * usual)
        gaps = steps[(steps >= GAP * usual) & (off <= max(WHOLE * usual, 2 * ROUNDED + ABSOLUTE))]
        k = next((i for i in odd if steps[i] >= GAP * usual), odd[0])
        missing = sum(round(step / usual) - 1 for step in gaps)
        count = f"{missing} slice{' seems' if missing == 1 else 's seem'} missing, {sum(gaps) - len(gaps) * usual:g} mm"
        return (
            f"a step of {steps[k]:g} mm between the slices at {heights[k]:g} and {heights[k + 1]:g} mm "
            f"where {usual:g} mm is usual{f' ({count})' * bool(missing)}"
        )

    def _shifted(self) -> str:
        shift = _norm(self._in_plane(self.positions - self.positions[0])).max()
        return f"a stack shifted by {shift:.3g} mm in the plane of its slices (gantry tilt?)"


def sort_stack(slices: Sequence[SeriesSlice], irregular: str = "refuse") -> list[SeriesSlice]:
    """Sort slices of one size and orientation in ascending order along their normal.

    Args:
        slices: slices of a series.
        irregular: ``"refuse"`` raises unless they are a regular stack; ``"allow"`` and ``"resample"`` do not.

    Raises:
        InputError: when the stack has gaps, steps that vary, or slices that are shifted against each other.
        ValueError: when rows and columns are not orthogonal, or slices share a position.
    """
    check_choice("irregular", irregular, IRREGULAR)
    normal = np.cross(slices[0].orientation[:3], slices[0].orientation[3:])
    if not np.isclose(np.linalg.norm(normal), 1, atol=1e-3):
        raise ValueError(
            "`image` must have slices with orthogonal row and column directions of length one, got others."
        )
    order = np.argsort([item.position @ normal for item in slices], kind="stable")
    stack = [slices[i] for i in order]
    geometry = StackGeometry.of(stack)
    _check_repeated(geometry.heights)
    faults = geometry.faults() if irregular == "refuse" else []
    if faults:
        rows, columns, _ = stack[0].size
        raise InputError(
            f"`image` must have {faults[0][0]}, got {geometry.fault()}; `irregular` can be allow or resample.",
            option="--irregular allow",
            shape=(columns, rows, len(stack)),
            spacing=(*stack[0].spacing[::-1].tolist(), geometry.step),
        )
    return stack


def _check_repeated(heights: NDArray[np.float64]) -> None:
    """Raise if slices share a position, up to a tenth of the step; most steps may be those of repeated slices."""
    if len(heights) < 2:
        return
    steps = np.diff(heights)
    repeated = np.flatnonzero(steps < max(ABSOLUTE, TOLERANCE * np.quantile(steps, 0.75) * (len(steps) > 1)))
    if len(repeated):
        raise ValueError(
            f"`image` must have one slice per position, got two at {heights[repeated[0]]:g} mm"
            f" ({len(repeated)} slice{'s' * (len(repeated) > 1)} too many; repeated acquisitions in one series?)."
        )


def series_affine(stack: Sequence[SeriesSlice]) -> NDArray[np.float64]:
    """Return the affine (4, 4), voxel index (column, row, slice) to RAS mm, of the sorted slices of a series.

    A regular stack leads from the first to the last slice, as in ITK. That of an irregular one is the least-squares
    line through all slices.
    """
    first, geometry = stack[0], StackGeometry.of(stack)
    if len(stack) == 1:
        step, start = geometry.normal * (first.thickness or 1.0), first.position
    elif geometry.fault():
        step, start = geometry.line
    else:
        step, start = (stack[-1].position - first.position) / (len(stack) - 1), first.position
    return _affine(first, step, start)


def slice_affines(stack: Sequence[SeriesSlice]) -> list[NDArray[np.float64]]:
    """Return the affine (4, 4) of each slice of a series as if it were alone; its third column is the usual step."""
    geometry = StackGeometry.of(stack)
    step = geometry.normal * (geometry.step if len(stack) > 1 else stack[0].thickness or 1.0)
    return [_affine(item, step, item.position) for item in stack]


def _affine(item: SeriesSlice, step: NDArray[np.float64], start: NDArray[np.float64]) -> NDArray[np.float64]:
    row, column = item.orientation[:3] * item.spacing[1], item.orientation[3:] * item.spacing[0]
    affine = np.eye(4)
    affine[:3] = TO_RAS[:, None] * np.stack([row, column, step, start], axis=1) + 0.0  # no -0.0
    return affine


def _norm(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.linalg.norm(vectors, axis=-1))
