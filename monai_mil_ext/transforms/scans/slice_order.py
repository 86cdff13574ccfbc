"""Order of slices, rows and columns in the voxel array of a scan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from monai.data import MetaTensor
from monai.transforms import Orientation
from monai.utils import SpaceKeys
from torch import Tensor

from monai_mil_ext.data.scans.stack_grid import RESAMPLE, VolumeSlices
from monai_mil_ext.utils import BagKeys, InputError

__all__ = ["PLANES", "SliceOrder", "checked_affine", "irregular_slices", "item_plane"]

# directions of increasing slice, row and column number: slices ascend in RAS, images are in radiological orientation
PLANES = {"axial": "SPL", "coronal": "AIL", "sagittal": "RIP"}
RAS = (("L", "R"), ("P", "A"), ("I", "S"))


class SliceOrder(NamedTuple):
    """Axis order and flips that turn a voxel array (C, X, Y, Z) into slices (C, N, h, w)."""

    axes: tuple[int, ...]
    flips: tuple[int, ...]

    @classmethod
    def of(cls, affine: Tensor, plane: str) -> SliceOrder:
        """Determine the order by applying MONAI's Orientation to a volume of eight numbered voxels."""
        probe = MetaTensor(torch.arange(8.0).view(1, 2, 2, 2), affine=affine)
        cube = Orientation(PLANES[plane], labels=RAS)(probe).as_tensor()[0]
        steps = [int(cube[index] - cube[0, 0, 0]) for index in ((1, 0, 0), (0, 1, 0), (0, 0, 1))]
        axes = tuple({4: 0, 2: 1, 1: 2}[abs(step)] for step in steps)
        return cls(axes, tuple(i for i, step in enumerate(steps) if step < 0))

    def apply(self, volume: Tensor) -> Tensor:
        """Reorder a volume (C, X, Y, Z) to slices (C, N, h, w)."""
        return volume.permute(0, *(a + 1 for a in self.axes)).flip([f + 1 for f in self.flips])

    def undo(self, slices: Tensor) -> Tensor:
        """Reorder slices (C, N, h, w) to the volume (C, X, Y, Z)."""
        inverse_axes = [self.axes.index(a) + 1 for a in range(3)]
        return slices.flip([f + 1 for f in self.flips]).permute(0, *inverse_axes)

    def corners(self, affine: Tensor, shape: Tensor) -> Tensor:
        """Return the RAS coordinates (8, 3) in mm of the corner voxels, independent of the order of the voxel array."""
        corners = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * 3).T.reshape(3, 2, 2, 2)
        voxels = self.apply(corners).reshape(3, 8) * (shape - 1).unsqueeze(-1)
        return (affine[:3, :3] @ voxels + affine[:3, 3:]).T

    def positions(self, affine: Tensor, shape: Sequence[int], slices: VolumeSlices | None = None) -> Tensor:
        """Return the positions (N,) of the slices along their normal in mm, ascending.

        Those of an irregular series are given by its ``slices``, which must be in this plane.
        """
        along, *across = (affine[:3, a] for a in self.axes)
        normal = torch.linalg.cross(*across)
        normal = normal / normal.norm() * torch.sign(normal @ along) * (-1 if 0 in self.flips else 1)
        if slices is None:
            heights = normal @ affine[:3, 3] + torch.arange(shape[self.axes[0]], dtype=torch.float64) * (normal @ along)
        else:
            heights = torch.as_tensor(slices.position) @ normal
        return (heights.flip(0) if 0 in self.flips else heights).float()

    def slice_corners(self, affine: Tensor, shape: Sequence[int], slices: VolumeSlices | None = None) -> Tensor:
        """Return the RAS coordinates (N, 4, 3) in mm of the corner pixels of each slice."""
        ends = [(shape[a] - 1.0, 0.0) if i in self.flips else (0.0, shape[a] - 1.0) for i, a in enumerate(self.axes)]
        step, *across = (affine[:3, a] for a in self.axes)
        within = torch.cartesian_prod(*(torch.tensor(end, dtype=torch.float64) for end in ends[1:]))
        if slices is None:
            along = torch.arange(shape[self.axes[0]], dtype=torch.float64)
            start = affine[:3, 3] + along[:, None] * step
        else:
            start = torch.as_tensor(slices.position)
        return (start.flip(0) if 0 in self.flips else start)[:, None] + within @ torch.stack(across)


def irregular_slices(image: MetaTensor, affine: Tensor, plane: str) -> VolumeSlices | None:
    """Return the slices of the scan of an irregular series, or ``None`` for any other scan.

    Raises:
        InputError: when its slices are not in ``plane``.
    """
    slices = VolumeSlices.of(image.meta, affine.numpy(), image.shape[1:])
    if slices is not None and SliceOrder.of(affine, plane).axes[0] != slices.axis:
        own = next(name for name in PLANES if SliceOrder.of(affine, name).axes[0] == slices.axis)
        raise InputError(
            f"`plane` must be that of the slices of an irregular series, {own!r}, got {plane!r}; "
            "for other planes, `irregular` can be resample.",
            option=RESAMPLE,
        )
    return slices


def item_plane(item: Mapping[Any, Any], plane: str | None) -> str:
    """Return the plane of the slices of an item: that of :py:class:`monai_mil_ext.transforms.SliceBagd`, or ``plane``.

    Raises:
        ValueError: when both are given and differ.
    """
    own = item.get(BagKeys.PLANE)
    if own is not None and plane is not None and own != plane:
        raise ValueError(f"`plane` must be that of the slices, {own!r}, or None, got {plane!r}.")
    return str(own or plane or "axial")


def checked_affine(image: Any) -> Tensor:
    """Return a float64 copy of the affine (4, 4) of a scan; raise ``ValueError`` if it is not valid in RAS mm."""
    if not isinstance(image, MetaTensor):
        raise ValueError(
            f"`image` must be a MetaTensor, whose affine says where its slices are, got {type(image).__name__}."
        )
    if image.ndim != 4 or 0 in image.shape:
        raise ValueError(f"`image` must be a scan of shape (C, X, Y, Z), got {tuple(image.shape)}.")
    affine = image.affine.detach().double().cpu().clone()
    if affine.shape != (4, 4) or not affine.isfinite().all() or affine[:3, :3].det() == 0:
        raise ValueError(f"`image` must have an invertible affine (4, 4), got {affine.tolist()}.")
    space = image.meta.get("space", SpaceKeys.RAS)
    if space != SpaceKeys.RAS:
        raise ValueError(f"`image` must have an affine in RAS mm, got one in {space}.")
    return affine
