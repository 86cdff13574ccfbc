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


def test_batch_inference_counts_a_case_without_dicom_as_done_and_says_so(tmp_path):
    saver = ScanResultsSaver(tmp_path, pictures=[], dicom=["seg"])
    items = [{"case_id": case, "image": f"/data/{case}.nii.gz"} for case in ("c1", "c2")]
    first = ScanBatchInference(saver, items)
    infer(first, [scan(source="/data/c1.nii.gz"), scan(case_id="c2", source="/data/c2.nii.gz")])
    for results in (first, ScanBatchInference(saver, items)):  # also if an earlier run wrote them
        with pytest.raises(RuntimeError, match="got some without all results for 2 of 2:\n  'c1' is done"):
            results.finish()
        for row in table(tmp_path):
            assert row["status"].startswith("done; not written as DICOM: `source` must be the DICOM folder of the scan")
            assert row["prediction"] == "1"
        assert report(tmp_path)["done"] == 2
