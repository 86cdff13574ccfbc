"""Scans in every orientation for tests of slices."""

import itertools

import numpy as np
import torch
from hypothesis import strategies as st
from monai.data import MetaTensor

from monai_mil_ext.transforms import SliceSelection

PLANES = ("axial", "coronal", "sagittal")
# orders of the axes of a voxel array, and which of them are flipped
ORDERS = list(itertools.product(itertools.permutations(range(3)), itertools.product([False, True], repeat=3)))
SELECTIONS = st.builds(
    SliceSelection,
    start_mm=st.sampled_from([None, 0.6, -5.0]),
    stride=st.integers(1, 4),
    num_neighbors=st.integers(0, 2),
    foreground=st.sampled_from([None, 25.0, lambda x: x < 30]),
)


def scan(shape: tuple[int, int, int], affine: np.ndarray) -> MetaTensor:
    """Return a scan (1, *shape) whose voxels are all different."""
    return MetaTensor(torch.arange(float(np.prod(shape))).view(1, *shape), affine=torch.as_tensor(affine))


def reordered(volume: MetaTensor, axes: tuple[int, ...], flips: tuple[bool, ...]) -> MetaTensor:
    """Permute and flip the voxel array of a scan; every voxel keeps its position in mm."""
    shape = np.array(volume.shape[1:])[list(axes)]
    to_old = np.zeros((4, 4))
    to_old[3, 3] = 1
    for new, (old, flip) in enumerate(zip(axes, flips, strict=True)):
        to_old[old, new] = -1 if flip else 1
        to_old[old, 3] = shape[new] - 1 if flip else 0
    data = volume.as_tensor().permute(0, *(a + 1 for a in axes)).flip([i + 1 for i, flip in enumerate(flips) if flip])
    return MetaTensor(data, affine=volume.affine @ torch.as_tensor(to_old))


@st.composite
def affines(draw):
    """Draw affines of scans rotated by up to 0.4 about each axis, with any spacing and origin."""
    matrix = np.eye(3)
    for axis in range(3):
        angle = draw(st.floats(-0.4, 0.4))
        i, j = (k for k in range(3) if k != axis)
        turn = np.eye(3)
        turn[[i, j], [i, j]] = np.cos(angle)
        turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
        matrix = matrix @ turn
    spacing = [draw(st.sampled_from([0.6, 1.0, 2.5])) for _ in range(3)]
    affine = np.eye(4)
    affine[:3, :3] = matrix * spacing
    affine[:3, 3] = [draw(st.integers(-200, 200)) for _ in range(3)]
    return affine
