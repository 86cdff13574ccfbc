"""Tests of BatchInference for scans and slides: the table, the report, failures and resuming."""

import csv
import json
import logging
import os
from pathlib import Path

import pytest
from ignite.engine import Events

from monai_mil_ext.handlers import ScanBatchInference, ScanResultsSaver, SlideBatchInference, SlideResultsSaver
from tests.handlers.savers.items import engine_of, infer, scan, slide


def scans(folder, *cases, settings="a", pictures=()):
    saver = ScanResultsSaver(folder, pictures=pictures, settings=settings)
    return ScanBatchInference(saver, [{"case_id": case, "image": str(scan_file(folder, case))} for case in cases])


def scan_file(folder, case):
    """Return a file in place of a scan, written once."""
    path = folder / "data" / f"{case}.nii.gz"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        path.write_text(case)
    return path


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
    assert (rows[0]["num_slices"], rows[0]["top_slice_number"], rows[0]["top_slice_mm"]) == ("4", "3", "47.0")
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
    broken = {"case_id": "c2", "status": f"unreadable: bad header of {scan_file(tmp_path, 'c2')}"}
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


def rewrite(path, text):
    """Replace a file by one of the same size and modification time."""
    status = path.stat()
    path.write_text(text)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_batch_inference_infers_a_replaced_file_again(tmp_path):
    infer(scans(tmp_path, "c1", "c2"), [scan(), scan(case_id="c2")])
    assert json.loads((tmp_path / "c1" / "prediction.json").read_text())["input"]
    assert scans(tmp_path, "c1", "c2").pending == []
    rewrite(scan_file(tmp_path, "c2"), "cX")
    assert [item["case_id"] for item in scans(tmp_path, "c1", "c2").pending] == ["c2"]


@pytest.mark.parametrize("key", ["reference", "series", "slide_mpp"])
def test_batch_inference_infers_again_with_another_reference_or_series(tmp_path, key):
    saver = ScanResultsSaver(tmp_path, pictures=[], settings="a")
    item = {"case_id": "c1", "image": str(scan_file(tmp_path, "c1")), key: str(scan_file(tmp_path, "r1"))}
    infer(ScanBatchInference(saver, [item]), [scan()])
    assert ScanBatchInference(saver, [item]).pending == []
    assert ScanBatchInference(saver, [{**item, key: str(scan_file(tmp_path, "r2"))}]).pending
    rewrite(scan_file(tmp_path, "r1"), "rX")
    assert ScanBatchInference(saver, [item]).pending


def test_batch_inference_infers_again_with_other_options_of_the_saver(tmp_path):
    infer(scans(tmp_path, "c1"), [scan()])
    assert len(scans(tmp_path, "c1", pictures=["png"]).pending) == 1
    other = ScanResultsSaver(tmp_path, pictures=[], settings="a", plane="coronal")
    assert len(ScanBatchInference(other, list(scans(tmp_path, "c1").items.values())).pending) == 1


def test_batch_inference_takes_nothing_for_done_that_it_can_not_compare(tmp_path):
    infer(scans(tmp_path, "c1", settings=None), [scan()])
    assert len(scans(tmp_path, "c1", settings=None).pending) == 1
    infer(scans(tmp_path, "c1"), [scan()])
    scan_file(tmp_path, "c1").unlink()
    absent = ScanBatchInference(scans(tmp_path).saver, [{"case_id": "c1", "image": str(tmp_path / "data/c1.nii.gz")}])
    assert len(absent.pending) == 1
    record = tmp_path / "c1" / "prediction.json"
    for missing in ("input", "options"):  # as earlier versions wrote it
        infer(scans(tmp_path, "c1"), [scan()])
        record.write_text(json.dumps({k: v for k, v in json.loads(record.read_text()).items() if k != missing}))
        assert len(scans(tmp_path, "c1").pending) == 1


def test_batch_inference_refuses_a_repeated_case_id(tmp_path):
    with pytest.raises(ValueError, match="`case_id` must be unique, got 'c1' in item 0 and item 2"):
        scans(tmp_path, "c1", "c2", "c1")


def test_batch_inference_removes_results_of_a_former_file_that_now_fails(tmp_path):
    infer(scans(tmp_path, "c1"), [scan()])
    rewrite(scan_file(tmp_path, "c1"), "cX")
    results = scans(tmp_path, "c1")
    infer(results, [{"case_id": "c1", "status": "unreadable: bad header"}])
    assert list((tmp_path / "c1").iterdir()) == []
    infer(scans(tmp_path, "c1"), [scan()])
    scan_file(tmp_path, "c1").unlink()
    absent = ScanBatchInference(results.saver, [{"case_id": "c1", "image": str(tmp_path / "data/c1.nii.gz")}])
    infer(absent, [{"case_id": "c1", "status": "unreadable: no such file"}])
    assert (tmp_path / "c1" / "prediction.json").is_file(), "the file may only be absent for now"
    with pytest.raises(RuntimeError, match="'c1' is unreadable: no such file"):
        absent.finish()


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


def test_batch_inference_logs_what_was_done_before(tmp_path, caplog):
    infer(scans(tmp_path, "c1"), [scan()])
    with caplog.at_level(logging.INFO):
        infer(scans(tmp_path, "c1", "c2", "c3"), [scan(case_id="c2")])
        scans(tmp_path, "c1").run(engine_of([]))
    lines = [record.getMessage() for record in caplog.records if "done before" in record.getMessage()]
    assert lines[0].startswith("3 scans: 1 done before, 2 to do")
    assert lines[-1].startswith("1 scan: 1 done before, 0 to do")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), TypeError("a mistake"), OSError(28, "No space left on device")])
def test_batch_inference_leaves_a_table_after_an_interruption(tmp_path, error):
    results = scans(tmp_path, "c1", "c2")
    engine = engine_of([scan()], error=error)
    results.attach(engine)
    (tmp_path / "results.csv").write_text("of an earlier run")
    with pytest.raises(type(error)):
        results.run(engine)
    assert [(row["case_id"], row["status"]) for row in table(tmp_path)] == [("c1", "done"), ("c2", "not reached")]
    assert report(tmp_path)["failed"] == {"not reached": 1}


def test_batch_inference_run_removes_the_table_of_an_earlier_run_first(tmp_path):
    (tmp_path / "results.csv").write_text("of an earlier run")
    results = scans(tmp_path, "c1")
    engine = engine_of([scan()])
    results.attach(engine)
    engine.add_event_handler(Events.STARTED, lambda: seen.append((tmp_path / "results.csv").exists()))
    seen = []
    results.run(engine)
    assert seen == [False]


def test_batch_inference_run_ends_with_an_error_if_an_item_failed(tmp_path):
    results = scans(tmp_path, "c1", "c2")
    engine = engine_of([{"case_id": "c1", "status": "empty"}, scan(case_id="c2")])
    results.attach(engine)
    with pytest.raises(RuntimeError, match="got none for 1 of 2"):
        results.run(engine)
    assert [row["status"] for row in table(tmp_path)] == ["empty", "done"]


def fail_with(error):
    def save(item, about=None):
        raise error

    return save


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ValueError("no series"), "no series"),
        (RuntimeError("no series"), "RuntimeError: no series"),
        (MemoryError("7 TiB"), "MemoryError: 7 TiB"),
        (OSError(36, "File name too long", "/secret"), "File name too long"),
        (PermissionError(13, "Permission denied", "/secret"), "Permission denied"),
    ],
)
def test_batch_inference_continues_after_a_case_that_can_not_be_written(tmp_path, error, reason):
    results = scans(tmp_path, "c1", "c2")
    save, results.saver.save = results.saver.save, fail_with(error)
    engine = engine_of([scan(), scan(case_id="c2")])
    results.attach(engine)

    @engine.on(Events.ITERATION_COMPLETED(once=1))
    def mend(_):
        results.saver.save = save

    with pytest.raises(RuntimeError, match="got none for 1 of 2"):
        results.run(engine)
    assert [row["status"] for row in table(tmp_path)] == [f"not written: {reason}", "done"]


@pytest.mark.parametrize("error", [OSError("no space left"), OSError(28, "No space left"), TypeError("a mistake")])
def test_batch_inference_ends_if_the_case_is_not_to_blame(tmp_path, error):
    results = scans(tmp_path, "c1", "c2")
    results.saver.save = fail_with(error)
    engine = engine_of([scan(), scan(case_id="c2")])
    results.attach(engine)
    with pytest.raises(type(error)):
        results.run(engine)
    status = [row["status"] for row in table(tmp_path)]
    assert status[0].startswith("not written: ")
    assert status[1] == "not reached"


def test_batch_inference_counts_a_case_without_dicom_as_done_and_says_so(tmp_path):
    saver = ScanResultsSaver(tmp_path, pictures=[], dicom=["seg"], settings="a")
    items = [{"case_id": case, "image": str(scan_file(tmp_path, case))} for case in ("c1", "c2")]
    first = ScanBatchInference(saver, items)
    infer(first, [scan(case_id=item["case_id"], source=item["image"]) for item in items])
    for results in (first, ScanBatchInference(saver, items)):  # also if an earlier run wrote them
        with pytest.raises(RuntimeError, match="got some without all results for 2 of 2:\n  'c1' is done"):
            results.finish()
        for row in table(tmp_path):
            assert row["status"].startswith("done; not written as DICOM: `source` must be the DICOM folder of the scan")
            assert row["prediction"] == "1"
        assert report(tmp_path)["done"] == 2


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (Path.touch, "Not a directory"),
        (lambda path: path.symlink_to(path.name), "Too many levels of symbolic links"),
        (lambda path: (path / "prediction.json").mkdir(parents=True), "Is a directory"),
    ],
)
def test_batch_inference_gives_a_folder_that_can_not_be_written_a_row(tmp_path, make, reason):
    make(tmp_path / "c1")
    results = scans(tmp_path, "c1", "c2")
    infer(results, [scan(), scan(case_id="c2")])
    with pytest.raises(RuntimeError, match="got none for 1 of 2"):
        results.finish()
    message = f"`path` must be a file that can be written, got {reason} for 'prediction.json'"
    assert [row["status"] for row in table(tmp_path)] == [f"not written: {message}", "done"]


def test_batch_inference_infers_again_where_a_result_is_no_json(tmp_path):
    results = scans(tmp_path, "c1", "c2")
    infer(results, [scan(), scan(case_id="c2")])
    (tmp_path / "c1" / "prediction.json").write_text("[" * 100_000)
    assert [item["case_id"] for item in scans(tmp_path, "c1", "c2").pending] == ["c1"]


def test_every_row_says_what_the_input_was_and_a_refused_one_what_would_help(tmp_path):
    results = scans(tmp_path, "c1", "c2", "c3")
    known = scan(container="NIfTI", notes="2 scouts were left out; one file was no image")
    refused = {"case_id": "c2", "status": "unreadable: a gap", "option": "--irregular allow"}
    refused |= {"container": "DICOM series", "shape": [512, 512, 9], "spacing": [0.5, 0.5, 5.0]}
    infer(results, [known, refused, {"case_id": "c3", "status": "failed: no memory", "affine": known["affine"]}])
    with pytest.raises(RuntimeError, match="none for 2 of 3"):
        results.finish()
    rows = [[row[k] for k in ("container", "shape", "spacing", "option", "notes")] for row in table(tmp_path)]
    assert rows == [
        ["NIfTI", "6 x 5 x 4", "2 x 2 x 3 mm", "", "2 scouts were left out; one file was no image"],
        ["DICOM series", "512 x 512 x 9", "0.5 x 0.5 x 5 mm", "try --irregular allow", ""],
        ["", "", "2 x 2 x 3 mm", "", ""],
    ]
    stated = json.loads((tmp_path / "c1" / "prediction.json").read_text())
    assert stated["notes"] == ["2 scouts were left out", "one file was no image"]
    assert (stated["container"], stated["shape"], stated["spacing"]) == ("NIfTI", [6, 5, 4], [2.0, 2.0, 3.0])
