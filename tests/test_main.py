"""Tests of the command ``python -m monai_mil_ext``."""

import pytest
import torch

from monai_mil_ext.__main__ import main
from monai_mil_ext.data import write_bag


def test_main_without_words_names_the_commands(capsys):
    with pytest.raises(SystemExit, match="2"):
        main([])
    assert "COMMAND" in capsys.readouterr().err


def test_main_doctor_reports_the_installation(capsys):
    assert main(["doctor"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "all well"


def test_main_bundle_list_and_copy(capsys, tmp_path):
    assert main(["bundle", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["bag_classifier", "instance_encoder", "scan_mil", "wsi_mil"]
    assert lines[2].endswith("Classify CT scans from one label each, and find the slices that explain the label")
    assert main(["bundle", "copy", "wsi_mil", str(tmp_path)]) == 0
    assert (tmp_path / "wsi_mil/configs/train.yaml").exists()
    assert main(["bundle", "copy", "wsi_mil", str(tmp_path)]) == 1
    assert main(["bundle", "copy", "wsi", str(tmp_path)]) == 1
    errors = capsys.readouterr().err.splitlines()
    assert errors == [
        "`folder` must be without 'wsi_mil', which would be overwritten.",
        "`name` must be one of 'bag_classifier', 'instance_encoder', 'scan_mil', 'wsi_mil', got 'wsi'; "
        "did you mean 'wsi_mil'?",
    ]


def test_main_join_makes_a_file_of_each_case(capsys, tmp_path):
    for name, size, cases in (("uni", 3, "ab"), ("conch", 2, "a")):
        for case in cases:
            write_bag(tmp_path / name / f"{case}.h5", {"features": torch.ones(4, size)})
    folders = [f"{name}={tmp_path / name}" for name in ("uni", "conch")]
    assert main(["join", str(tmp_path / "joined"), *folders]) == 0
    assert main(["join", str(tmp_path / "joined"), *folders, "--allow_missing"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "1 files of uni (3 features), conch (2 features); 1 that lack a source left out",
        "2 files of uni (3 features), conch (2 features); 1 that lack a source joined from the others",
    ]
    assert main(["join", str(tmp_path / "joined"), "uni", folders[1]]) == 1
    assert "`sources` must be different names with a folder, such as uni=DIR" in capsys.readouterr().err
