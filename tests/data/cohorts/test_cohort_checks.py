"""Tests of the checks of the bag files of a cohort."""

from pathlib import Path

import numpy as np
import pytest

from monai_mil_ext.data import CohortChecks, check_cohort, load_cohort, write_bag
from monai_mil_ext.data.cohorts.cohort_checks import BagSummary
from tests.data.cohort_files import HEAD, texts, write_bags, write_table


def test_cohort_checks_inspect_returns_sizes_or_an_error(tmp_path):
    write_bags(tmp_path, {"a": 2})
    (tmp_path / "b.h5").write_bytes(b"no bag")
    assert CohortChecks().inspect(tmp_path / "a.h5") == BagSummary(2, 3)
    assert "'b.h5'" in CohortChecks().inspect(tmp_path / "b.h5").error
    assert "'c.h5'" in CohortChecks().inspect(tmp_path / "c.h5").error
    np.save(tmp_path / "d.npy", np.full((1, 3), np.inf))
    assert CohortChecks(features=True).inspect(tmp_path / "d.npy").error == (
        "features must be finite, got 3 NaN or infinite values"
    )


def test_cohort_checks_check_widths_compares_with_most_bags():
    summaries = {Path(name): BagSummary(2, width) for name, width in {"a": 4, "b": 3, "c": 3}.items()}
    summaries[Path("empty")] = BagSummary(0, 0)
    checked = CohortChecks().check_widths(summaries)
    assert {path.name: summary.error for path, summary in checked.items()} == {
        "a": "features must have 3 columns as in 2 bags, got 4",
        "b": "",
        "c": "",
        "empty": "",
    }
    assert CohortChecks().check_widths({Path("empty"): BagSummary()}) == {Path("empty"): BagSummary()}


def test_cohort_checks_of_features_and_coordinates(tmp_path):
    write_bags(tmp_path, {"good": 3})
    write_bag(tmp_path / "nan.h5", {"features": np.array([[1, np.nan, np.inf]], np.float16)})
    coords = np.array([[0, 0], [0, 1], [0, 0], [0, 0]])
    write_bag(tmp_path / "doubled.h5", {"features": np.ones((4, 3), np.float32), "coords": coords})
    table = write_table(tmp_path / "c.csv", [HEAD, *([name, "p", "0"] for name in ("good", "nan", "doubled"))])
    assert len(load_cohort(table)) == 3
    errors = texts(check_cohort(table, checks=CohortChecks(features=True, coords=True)).errors)
    assert errors == [
        "row 3, 'nan': features must be finite, got 2 NaN or infinite values",
        "row 4, 'doubled': instances must have distinct coordinates, got 2 duplicates",
    ]
    skip = CohortChecks(features=True, coords=True, on_damaged="skip")
    with pytest.warns(UserWarning, match="2 skipped"):
        assert [item["case_id"] for item in load_cohort(table, checks=skip)] == ["good"]


def test_cohort_checks_in_features(tmp_path):
    write_bags(tmp_path, {"a": 2, "b": 2})
    table = write_table(tmp_path / "c.csv", [HEAD, ["a", "p", "0"], ["b", "p", "0"]])
    report = check_cohort(table, checks=CohortChecks(in_features=4))
    assert texts(report.errors)[0] == "row 2, 'a': features must have 4 columns, got 3"
    assert len(report.errors) == 2
    with pytest.raises(ValueError, match="`on_empty` must be one of 'skip', 'error', got 'drop'"):
        CohortChecks(on_empty="drop")
