"""A head of two ellipsoids, so that no test needs a download."""

import numpy as np
import pytest

from monai_mil_ext.data import Anatomy


@pytest.fixture(scope="session")
def head():
    shape = (140, 170, 130)
    axes = [np.linspace(-1.1, 1.1, size) for size in shape]
    distance = np.sqrt(axes[0][:, None, None] ** 2 + axes[1][:, None] ** 2 + axes[2] ** 2)
    volume = np.where(distance < 1, np.where(distance < 0.7, 1.0, 0.7), 0.0).astype(np.float32)
    return Anatomy(volume, distance < 1)
