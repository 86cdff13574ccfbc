"""Slices of a series with any positions, as their headers describe them."""

from types import SimpleNamespace

import numpy as np
from hypothesis import strategies as st

ORIENTATIONS = {
    "axial": (1, 0, 0, 0, 1, 0),
    "coronal": (1, 0, 0, 0, 0, -1),
    "sagittal": (0, 1, 0, 0, 0, -1),
    "prone": (-1, 0, 0, 0, -1, 0),
    "oblique": (0.8, 0.6, 0, -0.6, 0.8, 0),
    "tipped": (1, 0, 0, 0, 0.96, 0.28),
}
# steps of at least a tenth of the others, so that no two slices count as one
STEPS = st.lists(st.sampled_from([1.5, 2.0, 2.5, 5.0, 7.3]), min_size=2, max_size=7)


def stack_of(heights, orientation=ORIENTATIONS["axial"], shift=0.0, thickness=2.0, size=(5, 6)):
    """Return slices at ``heights`` along their normal, shifted by ``shift`` (Z,) or (Z, 2) mm in their plane."""
    row, column = np.reshape(orientation, (2, 3)).astype(float)
    shifts = np.zeros((len(heights), 2))
    shifts[:, : np.ndim(shift) or 1] = np.reshape(shift, (-1, np.ndim(shift) or 1))
    places = np.array([3.0, -7, 11]) + np.outer(heights, np.cross(row, column)) + shifts @ [row, column]
    return [
        SimpleNamespace(
            orientation=np.array(orientation, dtype=float),
            position=place,
            spacing=np.array([0.7, 0.9]),
            thickness=thickness,
            size=(*size, 1),
        )
        for place in places
    ]
