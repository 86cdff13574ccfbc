"""Attention over the slices of a small scan, and a phantom whose sides are known."""

import itertools

import numpy as np
import torch
from monai.data import MetaTensor

from monai_mil_ext.transforms import SliceBagd

SIZE_MM = {"R": 84.0, "A": 42.0, "S": 126.0}  # of the phantom: right to left, front to back, top to bottom


def scan(n=9):
    attention = np.arange(1.0, n + 1)
    reference = np.zeros((n, 16, 16), dtype=bool)
    reference[n // 2 :, 4:9, 4:9] = True
    return attention / attention.sum(), np.arange(n) * 5.0 - 20, np.random.default_rng(0).random((n, 16, 16)), reference


def phantom(order, flips, spacing=(2.0, 3.0, 7.0)):
    """Return a scan (1, X, Y, Z) whose only bright corner is at the right, front and top of the patient.

    Its voxel axes run along the patient's axes ``order`` (0 is right), in the opposite direction where ``flips`` say.
    """
    to_patient = (torch.tensor(spacing), torch.tensor(list(SIZE_MM.values())))
    sizes = [round(float(to_patient[1][axis] / to_patient[0][i])) for i, axis in enumerate(order)]
    volume = torch.zeros(1, *sizes)
    corner = [
        slice(0, max(1, n // 4)) if flip else slice(n - max(1, n // 4), n) for n, flip in zip(sizes, flips, strict=True)
    ]
    volume[(0, *corner)] = 1
    affine = torch.zeros(4, 4, dtype=torch.float64)
    for i, (axis, flip) in enumerate(zip(order, flips, strict=True)):
        affine[axis, i] = -spacing[i] if flip else spacing[i]
    affine[:, 3] = torch.tensor([-5.0, 7.0, 30.0, 1.0])
    return MetaTensor(volume, affine=affine)


ORIENTATIONS = [
    (order, flips) for order in itertools.permutations(range(3)) for flips in itertools.product((False, True), repeat=3)
]


def slices_of(scan, plane="axial", spatial_size=None, **options):
    """Return the item of a scan after SliceBagd."""
    return SliceBagd("image", plane=plane, spatial_size=spatial_size, **options)({"image": scan})
