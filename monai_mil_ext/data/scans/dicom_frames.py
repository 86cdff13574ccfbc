"""Reader of multi-frame DICOM objects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_mil_ext.utils import optional_dependency

from .dicom_files import pixel_fault

__all__ = ["read_frames"]

nib = optional_dependency("", "nibabel")

RULE = "`image` must be a multi-frame DICOM object with one regular stack of frames, each with its position and value"


def read_frames(path: Path, header: Any) -> Any:
    """Read the frames of an enhanced CT or MR, sorted along their normal, as an image of nibabel in RAS mm.

    Each frame is rescaled with its own slope and intercept.

    Args:
        path: the file.
        header: its header, see :py:func:`read_header`.

    Raises:
        ValueError: when the frames have no positions (no functional groups), are not one regular stack, or have fewer
            or more pixels than their size.
    """
    fault = pixel_fault(header, path)
    if fault:
        raise ValueError(f"`image` must be a readable, undamaged scan, got a DICOM file with {fault}.")
    try:
        return _stack(optional_dependency("dicom", "highdicom").imread(path))
    except Exception as error:  # the file is the cause, or that highdicom is not installed
        reason = (
            str(error) if isinstance(error, (ImportError, RuntimeError)) else f"{type(error).__name__} in highdicom"
        )
        raise ValueError(f"{RULE}, got: {reason.rstrip('.')}.") from None


def _stack(image: Any) -> Any:
    if "PerFrameFunctionalGroupsSequence" not in image or "SharedFunctionalGroupsSequence" not in image:
        raise RuntimeError("no functional groups")
    shared: Any = image.SharedFunctionalGroupsSequence[0]
    groups: list[Any] = list(image.PerFrameFunctionalGroupsSequence)
    content = [item for group in groups for item in group.get("FrameContentSequence", ())]
    stacks = {str(item.get("StackID", "")) for item in content}
    if len(stacks) > 1:
        raise RuntimeError(f"{len(stacks)} stacks")
    volume = image.get_volume(
        dtype=np.float32,
        apply_real_world_transform=False,
        # where a frame has a rescaling, all frames must have one
        apply_modality_transform=any("PixelValueTransformationSequence" in group for group in (shared, *groups)),
        apply_presentation_lut=False,
    )
    array, affine = volume.array.transpose(2, 1, 0), _to_ras(volume.affine)
    if len(groups) == 1:
        measures = (shared if "PixelMeasuresSequence" in shared else groups[0]).PixelMeasuresSequence[0]
        affine[:3, 2] *= float(measures.get("SliceThickness") or 1.0)
    if np.linalg.det(affine[:3, :3]) < 0:  # as those of a series, slices ascend along their normal
        array = array[..., ::-1]
        affine[:3, 3] += affine[:3, 2] * (array.shape[2] - 1)
        affine[:3, 2] *= -1
    return nib.Nifti1Image(np.ascontiguousarray(array), affine)


def _to_ras(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the affine of indices (column, row, slice) to RAS mm for one of (slice, row, column) to LPS mm."""
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine[:, [2, 1, 0, 3]]
