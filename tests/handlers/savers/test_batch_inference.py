"""Tests of BatchInference for scans and slides: the table, the report, failures and resuming."""

import csv
import json

import pytest
from ignite.engine import Engine
from monai.engines import IterationEvents

from monai_mil_ext.handlers import ScanBatchInference, ScanResultsSaver, SlideBatchInference, SlideResultsSaver
from tests.handlers.savers.items import scan, slide


def infer(results, items):
    """Run an engine that gives postprocessed ``items`` one by one, and return those that remain in its output."""
    kept = []

    def step(engine, item):
        engine.state.batch = [{key: value for key, value in item.items() if key != "pred"}]
        engine.state.output = [{"pred": item.get("pred")}]
        engine.fire_event(IterationEvents.MODEL_COMPLETED)
        kept.extend(item["case_id"] for item in engine.state.batch)
        return engine.state.output

    engine = Engine(step)
    engine.register_events(*IterationEvents)
    results.attach(engine)
    engine.run(items)
    return kept


def scans(folder, *cases, settings="a"):
    saver = ScanResultsSaver(folder, pictures=[], settings=settings)
    return ScanBatchInference(saver, [{"case_id": case, "image": f"/data/{case}.nii.gz"} for case in cases])


def table(folder):
    return list(csv.DictReader((folder / "results.csv").open()))


def report(folder):
    return json.loads((folder / "report.json").read_text())


def test_scan_batch_inference_writes_a_table_and_a_report(tmp_path):
    results = scans(tmp_path, "c1", "c2")
    assert infer(results, [scan(), scan(case_id="c2")]) == ["c1", "c2"]
    results.finish()
    rows = table(tmp_path)
    assert [(row["case_id"], row["status"], row["prediction"]) for row in rows] == [
        ("c1", "done", "1"),
        ("c2", "done", "1"),
    ]
    assert (rows[0]["num_slices"], rows[0]["top_slice"], rows[0]["top_slice_mm"]) == ("4", "2", "47.0")
    assert float(rows[0]["probability_1"]) == pytest.approx(0.7)
    assert float(rows[0]["seconds"]) >= 0
    assert (report(tmp_path)["scans"], report(tmp_path)["done_in_this_run"]) == (2, 2)
    assert report(tmp_path)["seconds_a_scan"].keys() == {"median", "longest"}


def test_slide_batch_inference_adds_columns_of_slides(tmp_path):
    saver = SlideResultsSaver(tmp_path, pictures=[])
    results = SlideBatchInference(saver, [{"case_id": "s1"}, {"case_id": "s2"}])
    infer(results, [slide(), slide(case_id="s2", unit="um")])
    results.finish()
    columns = [(row["num_tiles"], row["top_tile_x"], row["top_tile_y"]) for row in table(tmp_path)]
    assert columns == [("3", "64", "0"), ("3", "", "")]
    assert report(tmp_path)["slides"] == 2


def test_batch_inference_removes_failed_items_and_raises_at_the_end(tmp_path):
    results = scans(tmp_path, "c1", "c2", "c3", "c4")
    broken = {"case_id": "c2", "status": "unreadable: bad header of /data/c2.nii.gz"}
    not_writable = scan(case_id="c3")
    del not_writable["mask"]
    not_writable["position"] = not_writable["position"][:3]
    assert infer(results, [scan(), broken, not_writable]) == ["c1", "c3"]
    with pytest.raises(RuntimeError, match="every scan must get a prediction, got none for 3 of 4:\n  'c2' is unread"):
        results.finish()
    status = [row["status"] for row in table(tmp_path)]
    assert status[:2] == ["done", "unreadable: bad header of the scan"]
    assert status[2].startswith("not written: ")
    assert status[3] == "not reached"
    assert (report(tmp_path)["done"], sum(report(tmp_path)["failed"].values())) == (1, 3)


def test_batch_inference_resumes_with_the_pending_items(tmp_path):
    infer(scans(tmp_path, "c1", "c2"), [scan()])
    results = scans(tmp_path, "c1", "c2")
    assert [item["case_id"] for item in results.pending] == ["c2"]
    infer(results, [scan(case_id="c2")])
    results.finish()
    assert [row["seconds"] == "" for row in table(tmp_path)] == [True, False]
    assert (report(tmp_path)["done"], report(tmp_path)["done_in_this_run"]) == (2, 1)
    assert len(scans(tmp_path, "c1", "c2", settings="b").pending) == 2
    results.restart([{"case_id": "c3"}])
    assert [item["case_id"] for item in results.pending] == ["c3"]


def test_batch_inference_ends_with_any_other_error(tmp_path):
    results = scans(tmp_path, "c1")
    results.saver.save = lambda item: (_ for _ in ()).throw(OSError("no space left"))
    with pytest.raises(OSError, match="no space left"):
        infer(results, [scan()])


def test_slide_batch_inference_names_the_predicted_class(tmp_path):
    saver = SlideResultsSaver(tmp_path, ["benign", "malignant"], pictures=[], settings="a")
    results = SlideBatchInference(saver, [{"case_id": "s1", "image": "s1.svs"}])
    infer(results, [slide()])
    results.finish()
    (row,) = table(tmp_path)
    assert (row["prediction"], row["predicted_class"], row["probability_1"]) == ("1", "malignant", "0.75")


def test_batch_inference_gives_logits_a_row_with_the_reason(tmp_path):
    results = scans(tmp_path, "c1", "c2")
    infer(results, [scan(pred=[-1.0, 2.0]), scan(case_id="c2")])
    with pytest.raises(RuntimeError, match="every scan must get a prediction, got none for 1 of 2"):
        results.finish()
    refused, done = table(tmp_path)
    assert refused["status"].startswith("not written: `pred` must be probabilities in [0, 1], got -1")
    assert (done["status"], refused["prediction"], done["prediction"]) == ("done", "", "1")
