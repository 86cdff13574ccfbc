"""Tests of the trainings of the benchmark."""

import pytest


@pytest.mark.parametrize("method", ["center", "slice-supervised", "WindowMIL"])
def test_methods_are_trained_saved_and_answer(small, encoded, tmp_path, method):
    from experiments.lesions.features import scan_items
    from experiments.lesions.training import answer, make_run, train

    record = train(make_run(small, "one", method, 1), tmp_path, small, encoded)
    rows = answer(tmp_path, scan_items(small.test("one", 1), encoded), small.methods[method])
    assert [row["label"] for row in rows] == [0, 1] * 6
    auroc = [row["instance_auroc"] for row in rows if row["label"]]
    if method == "center":
        assert auroc == [row["center_auroc"] for row in rows if row["label"]]
        assert len({row["probability"] for row in rows}) == 1
    else:
        assert sum(auroc) > sum(row["center_auroc"] for row in rows if row["label"]) + 0.6
        assert record["epoch"] > 0
    assert (tmp_path / "model.json").exists()


def test_negative_scans_have_no_slice_values(small, encoded, tmp_path):
    from experiments.lesions.features import scan_items
    from experiments.lesions.training import answer, make_run, train

    train(make_run(small, "one", "mean", 1), tmp_path, small, encoded)
    first, second = answer(tmp_path, scan_items(small.test("two", 1), encoded)[:2], small.methods["mean"])
    assert "instance_auroc" not in first
    assert second["instance_auroc"] == 0.5
    assert first["entropy_ratio"] == pytest.approx(1.0)


def test_a_run_names_all_that_it_depends_on(small):
    from dataclasses import replace

    from experiments.lesions.training import make_run

    run = make_run(small, "many", "ABMIL", 2)
    for change in ({"training": {"epochs": 1}}, {"drawing": replace(small.drawing, bias=0.5)}, {"num_scans": 10}):
        assert make_run(replace(small, **change), "many", "ABMIL", 2).settings != run.settings
