"""Tests of the cohorts of scans with lesions."""

import csv
import json

import nibabel as nib
import numpy as np
import pytest

from monai_mil_ext.data import LesionOptions, plan_lesion_scans, write_lesion_cohort, write_lesion_scans


def test_parts_and_numbers_of_lesions_are_balanced():
    scans = plan_lesion_scans(260, 7, (1, 2, 3))
    for part, size in (("train", 156), ("val", 52), ("test", 52)):
        numbers = [scan.num_lesions for scan in scans if scan.split == part]
        assert len(numbers) == size
        assert numbers.count(0) == size // 2
        counts = [numbers.count(n) for n in (1, 2, 3)]
        assert max(counts) - min(counts) <= 3
    assert len({scan.case_id for scan in scans}) == 260


def test_scans_of_one_seed_are_in_the_same_part_whatever_their_lesions():
    one, many = plan_lesion_scans(60, 7), plan_lesion_scans(60, 7, (1, 2, 3))
    assert [scan.split for scan in one] == [scan.split for scan in many]
    assert [scan for scan in one if not scan.num_lesions] == [scan for scan in many if not scan.num_lesions]


def test_written_cohort_has_volumes_masks_and_labels(head, tmp_path):
    options = LesionOptions(size=48, pixel_mm=4.0)
    file = write_lesion_cohort(tmp_path, head, plan_lesion_scans(4, 3), options)
    scans = json.loads(file.read_text())["scans"]
    assert [scan["label"] for scan in scans] == [0, 1, 0, 1]
    for scan in scans:
        image, mask = (nib.load(tmp_path / scan[key]) for key in ("image", "reference"))
        assert image.shape == mask.shape
        np.testing.assert_array_equal(image.affine, mask.affine)
        assert 4.0 <= image.header.get_zooms()[2] <= 5.5
        assert bool(np.asarray(mask.dataobj).any()) == bool(scan["label"])
    with (tmp_path / "cohort.csv").open() as table:
        assert [row["case_id"] for row in csv.DictReader(table)] == [scan["case_id"] for scan in scans]
    written = file.stat().st_mtime_ns
    assert write_lesion_cohort(tmp_path, head, plan_lesion_scans(4, 3), options).stat().st_mtime_ns == written
    for others, drawing in ((plan_lesion_scans(4, 3), LesionOptions()), (plan_lesion_scans(4, 4), options)):
        with pytest.raises(ValueError, match="`folder` must hold these scans or none, got others: remove"):
            write_lesion_cohort(tmp_path, head, others, drawing)


def test_scans_are_the_same_from_several_processes_and_kept(head, tmp_path):
    options, scans = LesionOptions(size=32, pixel_mm=6.0), plan_lesion_scans(2, 5)
    write_lesion_scans(tmp_path / "a", head, scans, options, jobs=1)
    write_lesion_scans(tmp_path / "b", head, scans[::-1], options, jobs=1)
    for scan in scans:
        images = [np.asarray(nib.load(tmp_path / name / scan.row["image"]).dataobj) for name in "ab"]
        np.testing.assert_array_equal(*images)
    kept = tmp_path / "a" / scans[0].row["image"]
    written = kept.stat().st_mtime_ns
    write_lesion_scans(tmp_path / "a", head, scans, options, jobs=1)
    assert kept.stat().st_mtime_ns == written


def test_a_cohort_needs_scans_and_lesions():
    with pytest.raises(ValueError, match="`num_scans` must be a positive integer, got 0"):
        plan_lesion_scans(0, 1)
    with pytest.raises(ValueError, match="`num_lesions` must be a positive integer, got 0"):
        plan_lesion_scans(4, 1, ())
