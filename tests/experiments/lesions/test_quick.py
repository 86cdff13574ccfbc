"""Tests of the quickstart: its table, and the scan of its picture."""

import re
import subprocess

from tests.workflows import ROOT

SCRIPT = ROOT / "scripts" / "quickstart"


def test_the_quickstart_prints_the_difference_to_the_center_of_every_method(small, encoded, tmp_path, monkeypatch):
    from dataclasses import replace

    from experiments.lesions import protocol

    monkeypatch.setattr(protocol, "prepare_scans", lambda *_: None)
    short = replace(small, training={**small.training, "epochs": 2})
    benchmark = protocol.Benchmark(short, [1], short.quick_methods, tmp_path, encoded)
    table = protocol.run_some(benchmark, ["one"])
    lines = [line for line in table.splitlines() if line.startswith("| ")]
    assert "slice AUROC less center" in lines[0]
    assert [line.split(" | ")[0].strip("| ") for line in lines[1:]] == list(short.quick_methods)
    differences = [line.rstrip(" |").rpartition("| ")[2] for line in lines[1:]]
    assert differences[0] == "-"
    assert all(re.fullmatch(r"-?\d\.\d{3} \[-?\d\.\d\d, -?\d\.\d\d\]", cell) for cell in differences[1:])


def test_the_picture_is_of_a_scan_with_a_lesion_that_was_left_out():
    from experiments.lesions.settings import read_protocol

    protocol = read_protocol()
    (case,) = re.findall(r"lesions\) folder=data_lesions; patient=(\w+);", SCRIPT.read_text())
    (scan,) = [scan for scan in protocol.test("one", protocol.quick_seed) if scan.case_id == case]
    assert scan.num_lesions == 1


def test_the_quickstart_is_a_script_that_names_its_data():
    assert subprocess.run(["bash", "-n", str(SCRIPT)], check=False).returncode == 0
    text = SCRIPT.read_text()
    assert "--data lesions|ct|digits" in text
