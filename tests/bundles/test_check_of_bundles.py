import json
from pathlib import Path

import pytest

from monai_mil_ext.utils import write_csv
from tests.apps.check.cohorts import bag_rows, scan_rows
from tests.make_slide import stained, write_slide
from tests.workflows import content, open_workflow

BUNDLES = Path(__file__).parents[2] / "bundles"
FLATTEN = {"_target_": "torch.nn.Flatten"}


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Check rows with a bundle, and return the report and the exit status."""

    def check(bundle, rows, *overlays, **options):
        monkeypatch.chdir(BUNDLES / bundle)
        write_csv(tmp_path / "cohort.csv", rows)
        names = [f"configs/{name}.yaml" for name in ("check", *overlays)]
        paths = {"table": str(tmp_path / "cohort.csv"), "output_dir": str(tmp_path / "out")}
        workflow = open_workflow(*names, kind=None, num_folds=3, **paths, **options)
        try:
            workflow.run()
            status = 0
        except SystemExit as error:
            status = error.code
        return json.loads((tmp_path / "out" / "check.json").read_text()), status

    return check


@pytest.mark.parametrize("bundle", ["bag_classifier", "wsi_mil", "scan_mil"])
def test_feature_files_are_checked_by_each_bundle(run, tmp_path, bundle):
    report, status = run(bundle, bag_rows(tmp_path))
    assert (status, report["problems"], report["num_cases"]) == (0, [], 8)
    report, status = run(bundle, [*bag_rows(tmp_path), {"case_id": "x", "patient": "x", "image": "lost.h5"}])
    assert status == 1
    assert {problem["case"] for problem in report["problems"]} == {"x"}


def test_scans_are_checked_and_their_encoding_is_estimated(run, tmp_path, capsys):
    report, status = run("scan_mil", scan_rows(tmp_path), encoder=FLATTEN, spatial_size=8, dataset_dir=str(tmp_path))
    assert status == 0
    assert report["estimate"]["num_instances"] == 80
    assert "Encoding will take about 1 s and 1 MB for 8 cases" in capsys.readouterr().out
    report, status = run("scan_mil", scan_rows(tmp_path, values=(0, 900)), estimate=False)
    assert (status, {problem["option"] for problem in report["problems"]}) == (1, {"--normalization percentile"})


def test_slides_are_checked_and_their_encoding_is_estimated(run, tmp_path):
    rows = []
    for i in range(6):
        write_slide(tmp_path / f"s{i}.tiff", stained((600, 900), (100, 100, 500, 500), seed=i))
        rows.append({"case_id": f"c{i}", "patient": f"p{i}", "image": f"s{i}.tiff", "label": i % 2})
    options = {"encoder": FLATTEN, "default_tile_size": 50, "dataset_dir": str(tmp_path)}
    report, status = run("wsi_mil", rows, "slides", **options)
    assert (status, report["cases"][0]["tiles"]) == (0, 216)
    assert 0 < report["estimate"]["num_instances"] < 6 * 216


LOST = {"_target_": "torch.load", "f": "/lost/encoder.pt"}


def test_slides_are_checked_without_their_encoder(run, tmp_path):
    rows = []
    for i in range(6):
        write_slide(tmp_path / f"s{i}.tiff", stained((60, 90), (10, 10, 50, 50), seed=i))
        rows.append({"case_id": f"c{i}", "patient": f"p{i}", "image": f"s{i}.tiff", "label": i % 2})
    rows.append({"case_id": "x", "patient": "x", "image": "lost.tiff", "label": 1})
    report, status = run("wsi_mil", rows, "slides", encoder=LOST, default_tile_size=20)
    assert (status, report["estimate"], report["cases"][0]["kind"]) == (1, None, "slide")
    assert {problem["case"] for problem in report["problems"]} == {"x"}
    (note,) = (note["message"] for note in report["notes"] if "encoder" in note["message"])
    assert note.endswith("which cases have features, were not checked: No such file or directory")


def test_a_mistake_in_the_encoder_ends_the_check(run, tmp_path):
    with pytest.raises(RuntimeError, match="Failed to"):
        run("wsi_mil", bag_rows(tmp_path), "slides", encoder={"_target_": "torch.nn.Linear", "in": 3})


def test_other_names_of_columns_are_options(run, tmp_path):
    rows = [
        {"name": r["case_id"], "bag": r["image"], "who": r["patient"], "grade": r["label"]} for r in bag_rows(tmp_path)
    ]
    columns = {"columns#case": "name", "columns#patient": "who", "label": "grade"}
    report, status = run("bag_classifier", rows, **columns)
    assert (status, report["cases"][3]["case_id"], report["cases"][3]["patient"]) == (0, "c3", "p3")
    assert report["task"] == "The labels make a classification of 2 classes: 0, 1."


def test_the_check_looks_for_the_features_of_the_training(monkeypatch, tmp_path):
    monkeypatch.chdir(BUNDLES / "scan_mil")
    options = {"encoder": FLATTEN, "dataset_dir": str(tmp_path)}
    check = open_workflow("configs/check.yaml", kind=None, table="t.csv", **options)
    train = open_workflow("configs/train.yaml", **options)
    caches = [content(workflow, "feature_cache") for workflow in (check, train)]
    assert caches[0].folder == caches[1].folder
    assert caches[0].attributes == caches[1].attributes
