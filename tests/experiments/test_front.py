"""Tests of the facts on the front page, which are made from docs/results."""

import json
from pathlib import Path

import pytest

RESULTS = Path(__file__).parents[2] / "docs" / "results"
LESIONS = {
    "center": (0.58, (0.55, 0.61), None),
    "ABMIL": (0.60, (0.57, 0.63), (-0.01, 0.05)),
    "QG-MIL": (0.70, (0.66, 0.74), (0.08, 0.16)),
    "WindowMIL": (0.81, (0.78, 0.84), (0.20, 0.27)),
    "max": (0.50, (0.47, 0.53), (-0.12, -0.04)),
    "mean": (None, (None, None), (None, None)),
    "WindowMIL, by evidence": (0.85, (0.8, 0.9), (0.1, 0.3)),
    "slice-supervised": (0.90, (0.88, 0.92), (0.29, 0.35)),
}


@pytest.fixture
def results(tmp_path):
    """Copy the results that the facts need, and return the folder."""
    for name in ("benchmarks", "mutants", "lesions"):
        (tmp_path / f"{name}.json").write_text((RESULTS / f"{name}.json").read_text())
    return tmp_path


def write_lesions(folder, rows):
    written = [
        {
            "name": name,
            "values": {"instance_auroc": value},
            "interval_95": {"instance_auroc": ends, **({"difference": apart} if apart else {})},
        }
        for name, (value, ends, apart) in rows.items()
    ]
    (folder / "lesions.json").write_text(json.dumps({"rows": written}))


def localization(folder):
    from experiments.front import front_table

    (line,) = [line for line in front_table(folder).splitlines() if line.startswith("| **localization**")]
    return line


def test_only_methods_whose_interval_excludes_zero_are_named(results):
    write_lesions(results, LESIONS)
    line = localization(results)
    assert "label per scan: WindowMIL 0.81 [0.78, 0.84], QG-MIL 0.70 [0.66, 0.74]; center" in line
    assert "center of the scan 0.58 [0.55, 0.61]" in line
    assert "label of every slice 0.90 [0.88, 0.92]" in line
    assert not any(name in line for name in ("ABMIL", "max", "mean"))


def test_the_caption_of_the_picture_has_the_measured_share(results):
    from experiments.front import picture_caption

    content = json.loads((results / "lesions.json").read_text())
    (row,) = [row for row in content["rows"] if row["name"] == "WindowMIL"]
    row["values"]["pointing_game"], row["interval_95"]["pointing_game"] = 0.123, (0.1, 0.15)
    (results / "lesions.json").write_text(json.dumps(content))
    assert f"in 12 % [10, 15] of {row['num_positive']} such scans" in picture_caption(results)


def test_without_such_a_method_the_fact_says_so(results):
    write_lesions(results, {name: row for name, row in LESIONS.items() if name not in ("QG-MIL", "WindowMIL")})
    assert "label per scan: no network above the center; center of the scan 0.58" in localization(results)


def test_time_is_told_with_memory_and_by_its_kind(results):
    from experiments.front import front_table

    content = json.loads((results / "benchmarks.json").read_text())
    rows = {row["name"]: row for row in content["rows"]}
    times = {"published": {"user": 4.0, "system": 2.5}, "ours": {"user": 3.2, "system": 0.05}}
    rows["qgmil_train_4000"] |= {"value": 2.0, "interval": [1.9, 2.125], "seconds": times}
    rows["qgmil_train_memory_4000"]["value"] = 5.0
    rows["qgmil_train_memory_10000"]["detail"] |= {"published_gib": 9.0, "ours_gib": 0.5}
    (results / "benchmarks.json").write_text(json.dumps(content))
    table = front_table(results)
    assert "user seconds of the processor 1.25, all of its seconds 2.00 [1.90, 2.12], memory 5.0." in table
    assert "it takes 0.50 instead of 9.00 GiB" in table
