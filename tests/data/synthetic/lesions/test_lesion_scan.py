"""Tests of the drawing of scans with lesions."""

import hashlib

import numpy as np
import pytest
from scipy import ndimage

from monai_mil_ext.data import Anatomy, LesionOptions, draw_lesion_scan


def draw(head, seed=0, lesions=1, **options):
    return draw_lesion_scan(head, (seed, 0), lesions, LesionOptions(**{"size": 64, "pixel_mm": 3.0, **options}))


def runs(mask):
    """Return the number of runs of slices with a lesion."""
    return ndimage.label(mask.any((0, 1)))[1]


def test_a_scan_depends_on_its_seed_only(head):
    scan, again, other = draw(head), draw(head), draw(head, seed=1)
    assert np.array_equal(scan.image, again.image)
    assert np.array_equal(scan.mask, again.mask)
    assert scan.spacing == again.spacing
    assert scan.spacing != other.spacing


@pytest.mark.parametrize("lesions", [1, 2, 3])
def test_lesions_are_runs_of_slices_that_do_not_touch(head, lesions):
    for seed in range(4):
        mask = draw(head, seed, lesions).mask
        assert set(np.unique(mask)) == set(range(lesions + 1))
        assert runs(mask) == lesions


def test_without_lesions_the_same_head_is_drawn_from_the_same_scanner(head):
    without, one, two = (draw(head, seed=2, lesions=number) for number in (0, 1, 2))
    assert not without.mask.any()
    near = ndimage.binary_dilation(two.mask > 0, iterations=6)
    assert np.array_equal(without.image[~near], two.image[~near])
    assert np.array_equal(two.mask == 1, one.mask == 1)
    inside = one.mask > 0
    assert abs(one.image[inside].mean() / without.image[inside].mean() - 1) > 0.2


def test_the_truth_has_no_slice_with_a_few_voxels_of_a_lesion(head):
    for seed in range(6):
        scan = draw(head, seed, min_area_mm2=90.0)
        area = (scan.mask > 0).sum((0, 1)) * scan.spacing[0] * scan.spacing[1]
        assert area[area > 0].min() >= 90.0


def test_lesions_are_bright_or_dark_and_lie_anywhere(head):
    changes, places = [], []
    for seed in range(16):
        without, scan = (draw(head, seed, number, size=40, pixel_mm=5.0) for number in (0, 1))
        inside = scan.mask > 0
        changes.append(float(scan.image[inside].mean()) - float(without.image[inside].mean()))
        places.append(np.flatnonzero(inside.any((0, 1))).mean() / scan.mask.shape[2])
    assert 3 <= sum(change > 0 for change in changes) <= 13
    assert min(places) < 0.3
    assert max(places) > 0.7


def test_distractors_are_in_scans_of_both_classes(head):
    for lesions in (0, 1):
        plain, spotted = (draw(head, 5, lesions, distractors=(n, n), gamma=(1.0, 1.0)) for n in (0, 6))
        changed = ndimage.label(np.abs(spotted.image.astype(float) - plain.image) > 40)[1]
        assert changed >= 3


def test_lesions_that_do_not_fit_are_refused(head):
    with pytest.raises(ValueError, match="`num_lesions` must fit into the scan, got no place for lesion"):
        draw(head, 0, 12, size=40, pixel_mm=5.0)


def test_a_drawn_scan_stays_as_it_was(head):
    """Published results are of scans that are drawn again, not stored."""
    scan = draw_lesion_scan(head, (7, 3), 2, LesionOptions(size=64, pixel_mm=3.0))
    assert scan.image.shape == (64, 64, 24)
    assert scan.spacing == (3.0, 3.0, pytest.approx(5.462550330579252, abs=0))
    digest = hashlib.sha256(scan.mask.tobytes()).hexdigest()
    assert digest == "9572857c0fc9cc345a2722527e8fa05b498181e8a8144384579d4904eac07254"
    # a voxel may be rounded otherwise by the exponential of another processor
    assert scan.image.mean() == pytest.approx(138.6854044596354, rel=1e-6)
    assert scan.image.std() == pytest.approx(210.2832658785578, rel=1e-6)


def test_an_anatomy_without_an_organ_is_refused(head):
    with pytest.raises(ValueError, match="`anatomy` must have an organ in its volume, got 0 voxels"):
        draw_lesion_scan(Anatomy(head.volume, np.zeros_like(head.organ)), 0, 1)


def test_one_number_is_a_seed(head):
    options = LesionOptions(size=32, pixel_mm=6.0)
    scans = [draw_lesion_scan(head, seed, 1, options) for seed in (5, (5,), 6)]
    assert np.array_equal(scans[0].image, scans[1].image)
    assert scans[0].image.shape != scans[2].image.shape or not np.array_equal(scans[0].image, scans[2].image)
