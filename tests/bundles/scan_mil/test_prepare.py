"""Tests of the preparation of the demo data of scan_mil."""

import pytest


def test_prepare_ct_without_a_registry_names_the_alternative(tmp_path, monkeypatch):
    from scripts.prepare import prepare_ct

    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(RuntimeError, match=r"(?s)must be fetched from the package registry.*--data digits"):
        prepare_ct(tmp_path / "data")
    assert not (tmp_path / "data" / "cohort.json").exists()


def test_prepare_digits_writes_distinct_images_once(tmp_path):
    import nibabel as nib
    from scripts.prepare import prepare_digits

    cohort = prepare_digits(tmp_path, num_scans=3)
    written = cohort.stat().st_mtime_ns
    assert prepare_digits(tmp_path, num_scans=3).stat().st_mtime_ns == written
    slices = [
        nib.load(tmp_path / f"digits_{i}.nii.gz").get_fdata()[:, :, k].tobytes() for i in range(3) for k in range(40)
    ]
    assert len(set(slices)) == len(slices)
