"""Tests of the cohorts of scans with lesions."""

import csv
import json

import nibabel as nib
import numpy as np
import pytest


@pytest.fixture
def cohort():
    from scripts.lesions import cohort

    return cohort


def test_parts_and_numbers_of_lesions_are_balanced(cohort):
    scans = cohort.plan_scans(260, 7, (1, 2, 3))
    for part, size in (("train", 156), ("val", 52), ("test", 52)):
        numbers = [scan.num_lesions for scan in scans if scan.split == part]
        assert len(numbers) == size
        assert numbers.count(0) == size // 2
        counts = [numbers.count(n) for n in (1, 2, 3)]
        assert max(counts) - min(counts) <= 3
    assert len({scan.case_id for scan in scans}) == 260


def test_scans_of_one_seed_are_in_the_same_part_whatever_their_lesions(cohort):
    one, many = cohort.plan_scans(60, 7), cohort.plan_scans(60, 7, (1, 2, 3))
    assert [scan.split for scan in one] == [scan.split for scan in many]
    assert [scan for scan in one if not scan.num_lesions] == [scan for scan in many if not scan.num_lesions]


def test_written_cohort_has_volumes_masks_and_labels(cohort, head, tmp_path, monkeypatch):
    from scripts.lesions.drawing import DrawingOptions

    monkeypatch.setattr(cohort, "fetch_anatomy", lambda name, folder: head)
    options = DrawingOptions(size=48, pixel_mm=4.0)
    file = cohort.write_cohort(tmp_path, cohort.plan_scans(4, 3), options)
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
    assert cohort.write_cohort(tmp_path, cohort.plan_scans(4, 3), options).stat().st_mtime_ns == written
    with pytest.raises(ValueError, match="`folder` must hold scans of the same drawing"):
        cohort.write_cohort(tmp_path, cohort.plan_scans(4, 3), DrawingOptions())


def test_scans_are_the_same_from_several_processes_and_kept(cohort, head, tmp_path):
    from scripts.lesions.drawing import DrawingOptions

    options, scans = DrawingOptions(size=32, pixel_mm=6.0), cohort.plan_scans(2, 5)
    cohort.write_scans(tmp_path / "a", head, scans, options, jobs=1)
    cohort.write_scans(tmp_path / "b", head, scans[::-1], options, jobs=1)
    for scan in scans:
        images = [np.asarray(nib.load(tmp_path / name / scan.row["image"]).dataobj) for name in "ab"]
        np.testing.assert_array_equal(*images)
    kept = tmp_path / "a" / scans[0].row["image"]
    written = kept.stat().st_mtime_ns
    cohort.write_scans(tmp_path / "a", head, scans, options, jobs=1)
    assert kept.stat().st_mtime_ns == written
