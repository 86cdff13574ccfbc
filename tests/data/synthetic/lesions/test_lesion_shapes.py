"""Tests of lesions and distractors."""

import numpy as np

from monai_mil_ext.data import LesionOptions
from monai_mil_ext.data.synthetic.lesions.lesion_shapes import add_distractors, add_lesion

SPACING = (3.0, 3.0, 5.0)
OPTIONS = LesionOptions(distractors=(3, 3))


def body():
    """A gray ball in air, and its voxels."""
    x, y, z = np.ogrid[-1.2:1.2:48j, -1.2:1.2:48j, -1.2:1.2:30j]
    organ = x**2 + y**2 + z**2 < 1
    return 0.8 * organ.astype(np.float32), organ


def test_a_lesion_changes_the_image_where_its_mask_is():
    image, organ = body()
    before, mask = image.copy(), np.zeros(image.shape, np.uint8)
    add_lesion(np.random.default_rng(3), image, mask, organ, 1, SPACING, OPTIONS)
    changed = np.abs(image - before)
    assert mask.any()
    assert changed[mask == 1].mean() > 0.3
    assert changed[:, :, ~mask.any((0, 1))].max() == 0.0
    assert not mask[~organ].any()


def test_distractors_are_short_and_leave_no_mask():
    image, organ = body()
    before = image.copy()
    add_distractors(np.random.default_rng(3), image, organ, SPACING, OPTIONS)
    changed = (image != before).any((0, 1)).sum()
    assert 1 <= changed <= 3 * 5
    assert image.min() == 0.0
