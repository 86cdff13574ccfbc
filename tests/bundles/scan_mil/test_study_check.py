"""Tests of the first step of a study of scans: the check, before anything is encoded."""

import nibabel as nib
import numpy as np
import pytest

from tests.bundles.scripts_of import BUNDLES
from tests.workflows import causes, content, open_workflow

STUDY = BUNDLES / "scan_mil" / "configs" / "study.yaml"
FLAT = {"encoder": {"_target_": "torch.nn.Flatten"}, "encoder_weights": "", "spatial_size": None}


def write_scans(folder):
    """Write seven scans, one of them damaged and one without the values of a CT, and their table."""
    rows, draw = ["case_id,patient,image,label,site"], np.random.default_rng(0)
    for i in range(7):
        low = 0 if i == 5 else -1000
        volume = draw.integers(low, 400, (6, 6, 5 + i)).astype(np.int16)
        nib.save(nib.Nifti1Image(volume, np.diag([1, 1, 1 + i % 2, 1])), folder / f"{i}.nii")
        rows.append(f"c{i},p{i},{i}.nii,{('no', 'yes')[i % 2]},{'ab'[i % 2]}")
    (folder / "3.nii").write_bytes(b"no scan")
    (folder / "cohort.csv").write_text("\n".join(rows))
    return {"dataset_dir": str(folder), "study_dir": str(folder / "study"), **FLAT}


def test_all_problems_are_told_once_and_before_the_encoding(tmp_path, capsys, caplog):
    workflow = open_workflow(STUDY, **write_scans(tmp_path))
    assert [item["case_id"] for item in content(workflow, "cohort")] == ["c0", "c1", "c2", "c4", "c6"]
    text = capsys.readouterr().out + caplog.text
    assert "2 problems:" in text
    assert (text.count("c3"), text.count("c5")) == (1, 1)
    notes = content(workflow, "check").study_notes()
    assert any("slice distance and label are confounded" in note for note in notes)
    assert not any("site" in note for note in notes)


def test_a_cohort_with_a_bad_case_is_refused_before_the_encoding(tmp_path):
    workflow = open_workflow(STUDY, **write_scans(tmp_path), on_bad="refuse")
    with pytest.raises(Exception, match="ConfigExpression") as error:
        content(workflow, "cohort")
    assert "cohort.csv must be a valid cohort, got 2 problems:" in causes(error.value)
    assert not (tmp_path / "features").exists()
