"""Tests of a whole study by study.yaml."""

import csv
import json

import pytest

from tests.apps.study.cohort_bags import make_items
from tests.bundles.small_bags import BUNDLE
from tests.workflows import configs_of, open_workflow

FEW = {"methods": "MeanMIL,CLAM", "num_folds": 2, "epochs": 2, "num_samples": 20, "covariates": "age"}


def write_table(path, items):
    """Write the table of items, with a clinical variable."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["case_id", "patient", "image", "label", "age"])
        writer.writerows([i["case_id"], i["patient"], i["image"], ("no", "yes")[i["label"]], 50 + n % 7] for n, i in
                         enumerate(items))  # fmt: skip
    return str(path)


@pytest.mark.slow(buys="study.yaml of bag_classifier from a table to the report of the study and of an external cohort")
def test_bag_classifier_study_from_a_table_to_reports(monkeypatch, tmp_path):
    monkeypatch.chdir(BUNDLE)
    items = make_items(tmp_path, num_cases=24)
    table, other = write_table(tmp_path / "cohort.csv", items), write_table(tmp_path / "other.csv", items[:8])
    places = {"table": table, "external": other, "study_dir": str(tmp_path / "study"), "class_names": ["no", "yes"]}
    open_workflow(*configs_of("study"), **places, **FEW).run()
    for folder, cases in (("study", 24), ("study/external/external", 8)):
        content = json.loads((tmp_path / folder / "report.json").read_text())
        assert {summary["num_cases"] for summary in content["summaries"].values()} == {cases}
        assert str(tmp_path) not in (tmp_path / folder / "report.html").read_text()
    assert (tmp_path / "study/models/CLAM/model.json").exists()
