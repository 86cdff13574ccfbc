"""Tests of the config cohort_inference.yaml of scan_mil: failing scans, and resuming of a killed run."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch
from ignite.engine import Events

from monai_mil_ext.networks.nets import ABMIL
from tests.archive_server import STORED, serve_answers
from tests.scans import SECRETS, write_series
from tests.utils.dask_clusters import cluster
from tests.workflows import causes

CONFIGS = ("inference", "digits", "cohort_inference")
SIDE = 64


@pytest.fixture
def cohort(digits, tmp_path):
    """Good scans among a cut one, a missing one and a folder of two series."""
    folder = tmp_path / "Secretname_archive"
    folder.mkdir()
    for i in (0, 1):
        shutil.copy(digits / f"digits_{i}.nii.gz", folder / f"Secretname_{i}.nii.gz")
    whole = (digits / "digits_2.nii.gz").read_bytes()
    (folder / "Secretname_cut.nii.gz").write_bytes(whole[: len(whole) // 2])
    for series in (1, 2):
        write_series(folder / "Secretname_two", (8, 8, 5), series=series, FrameOfReferenceUID="1.2.3")
    write_series(folder / "Secretname_dicom", (8, 8, 5), FrameOfReferenceUID="1.2.3")
    rows = [("good", "Secretname_0.nii.gz", ""), ("cut", "Secretname_cut.nii.gz", ""), ("gone", "Secretname_gone", "")]
    rows += [("two", "Secretname_two", ""), ("chosen", "Secretname_two", "2"), ("dicom", "Secretname_dicom", "")]
    rows += [("last", "Secretname_1.nii.gz", "")]
    table = folder / "scans.csv"
    table.write_text("\n".join(["case_id,image,series", *(",".join(row) for row in rows)]) + "\n")
    torch.manual_seed(0)
    torch.save(ABMIL(SIDE, 2, hidden_size=128).state_dict(), tmp_path / "model.pt")
    return {
        "cohort": str(table),
        "dataset_dir": str(digits),
        "ckpt_dir": str(tmp_path),
        "output_dir": str(tmp_path / "out"),
    }


def results(cohort):
    with open(f"{cohort['output_dir']}/results.csv") as file:
        return {row["case_id"]: row for row in csv.DictReader(file)}


def finish(workflow):
    with pytest.raises(RuntimeError, match="Failed to evaluate") as error:
        workflow.run()
    return causes(error.value)


def test_cohort_inference_continues_after_a_failing_scan(start, cohort, tmp_path, caplog, capfd):
    output = finish(start(*CONFIGS, **cohort))
    assert "every scan must get a prediction, got none for 3 of 7:" in output
    rows = results(cohort)
    assert list(rows) == ["good", "cut", "gone", "two", "chosen", "dicom", "last"]
    assert [case for case, row in rows.items() if row["status"] == "done"] == ["good", "chosen", "dicom", "last"]
    assert "undamaged scan, got a NIfTI file that nibabel can't read" in rows["cut"]["status"]
    assert "must be a scan that exists, got the path of no file" in rows["gone"]["status"]
    assert "one series, got 2: 5 slices of modality CT, series number 1; 5 slices" in rows["two"]["status"]
    result = json.loads((tmp_path / "out/good/prediction.json").read_text())
    assert float(rows["good"]["probability_1"]) == result["probability"][1]
    assert float(rows["good"]["top_slice_mm"]) == 5.0 * result["top_slices"][0]
    assert float(rows["good"]["seconds"]) > 0
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert (report["scans"], report["done"], sum(report["failed"].values())) == (7, 4, 3)
    assert report["seconds_a_scan"]["longest"] >= report["seconds_a_scan"]["median"] > 0
    printed = capfd.readouterr()
    texts = [
        caplog.text,
        printed.out,
        printed.err,
        *(p.read_bytes().decode("latin-1") for p in (tmp_path / "out").rglob("*") if p.is_file()),
    ]
    assert [s for s in (*SECRETS.values(), "Secretname", str(tmp_path)) for text in texts if s in text] == []


def test_cohort_inference_resumes_a_killed_run(start, cohort, tmp_path):
    workflow = start(*CONFIGS, **cohort)
    evaluator = workflow.parser.get_parsed_content("evaluator")

    @evaluator.on(Events.ITERATION_COMPLETED(once=5))
    def kill():
        raise KeyboardInterrupt

    with pytest.raises((KeyboardInterrupt, RuntimeError)):
        workflow.run()
    out = tmp_path / "out"
    assert sorted(path.parent.name for path in out.glob("*/prediction.json")) == ["chosen", "good"]
    cut = out / "good" / "prediction.json"
    cut.write_text(cut.read_text()[:40])  # as none of our writers leaves it
    before = (out / "chosen" / "prediction.json").stat().st_mtime_ns
    workflow = start(*CONFIGS, **cohort)
    pending = [item["case_id"] for item in workflow.parser.get_parsed_content("results").pending]
    assert pending == ["good", "cut", "gone", "two", "dicom", "last"]
    finish(workflow)
    assert (out / "chosen" / "prediction.json").stat().st_mtime_ns == before
    rows = results(cohort)
    assert [case for case, row in rows.items() if row["status"] == "done"] == ["good", "chosen", "dicom", "last"]
    assert (rows["chosen"]["seconds"], rows["good"]["seconds"] != "") == ("", True)


def test_cohort_inference_with_other_weights_infers_all_scans_again(start, cohort, tmp_path):
    finish(start(*CONFIGS, **cohort))
    assert len(start(*CONFIGS, **cohort).parser.get_parsed_content("results").pending) == 3
    weights = torch.load(tmp_path / "model.pt", weights_only=True)
    torch.save({key: value * 1.01 for key, value in weights.items()}, tmp_path / "model.pt")
    assert len(start(*CONFIGS, **cohort).parser.get_parsed_content("results").pending) == 7


def test_cohort_inference_with_nothing_left_writes_the_table_again(start, cohort, tmp_path):
    table = tmp_path / "Secretname_archive/good.csv"
    table.write_text("case_id,image\ngood,Secretname_0.nii.gz\nlast,Secretname_1.nii.gz\n")
    for _ in range(2):
        start(*CONFIGS, **{**cohort, "cohort": str(table)}).run()
        assert [row["status"] for row in results(cohort).values()] == ["done", "done"]
        (tmp_path / "out/results.csv").unlink()


def test_cohort_inference_writes_dicom_and_html_if_possible(start, cohort, tmp_path):
    from pydicom import dcmread

    output = finish(start(*CONFIGS, **cohort, dicom=["seg", "sr"], pictures=["html", "gif"]))
    assert "got none for 3 of 7 and some without all results for 2 of 7" in output
    rows = results(cohort)
    assert "done; not written as DICOM: `source` must be the DICOM folder of the scan" in rows["good"]["status"]
    assert sorted(path.name for path in (tmp_path / "out/good").iterdir()) == [
        *("good.gif", "good.html", "good_scores.json", "good_scores.nii.gz", "prediction.json", "viewer"),
    ]
    assert "Secretname" not in rows["good"]["status"]
    written = sorted(path.name for path in (tmp_path / "out/dicom").iterdir())
    endings = (".gif", ".html", "_scores.json", "_scores.nii.gz", "_seg.dcm", "_sr.dcm")
    assert written == [*(f"dicom{ending}" for ending in endings), "prediction.json", "viewer"]
    source = {dcmread(p).SOPInstanceUID for p in (tmp_path / "Secretname_archive/Secretname_two").glob("*_2_*")}
    seg = dcmread(tmp_path / "out/chosen/chosen_seg.dcm")
    used = {
        f.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        for f in seg.PerFrameFunctionalGroupsSequence
    }
    assert used <= source
    assert np.array([frame.all() for frame in seg.pixel_array]).all()


def test_cohort_inference_sends_dicom_and_writes_pseudonyms(start, cohort, tmp_path):
    table = tmp_path / "names.csv"
    table.write_text("case_id,pseudonym\ndicom,p1\nchosen,p2\n")
    scans = tmp_path / "scans.csv"
    rows = ["case_id,image,series", "dicom,Secretname_dicom,", "chosen,Secretname_two,2"]
    scans.write_text("\n".join(rows))
    options = {**cohort, "cohort": str(scans), "root": str(tmp_path / "Secretname_archive"), "pseudonyms": str(table)}
    with serve_answers((200, STORED), (401, {})) as archive:
        output = finish(start(*CONFIGS, **options, dicom=["sr", "ko"], pictures=[], send=archive.url))
    assert "'p2' is done; not sent: the archive must store all objects, got status 401." in output
    assert [row["status"].split(";")[0] for row in results(cohort).values()] == ["done", "done"]
    assert {path.name for path in (tmp_path / "out/p2").iterdir()} > {"p2_sr.dcm", "p2_ko.dcm"}
    assert all(b"SECRETID4711" in body for *_, body in archive.seen)  # DICOM objects have their patient
    texts = [path.read_text() for ending in ("json", "csv", "html") for path in (tmp_path / "out").rglob(f"*.{ending}")]
    assert [text for text in texts if "chosen" in text or "SECRETID4711" in text or "127.0.0.1" in text] == []


@pytest.mark.slow(buys="answers of Dask workers are those of one process, on real scans")
def test_cohort_inference_on_dask_workers_writes_the_same_results(start, cohort, tmp_path):
    def answers(**options):
        messages = finish(start(*CONFIGS, **cohort, pictures=[], viewer="none", **options))
        rows = {case: row | {"seconds": row["seconds"] != ""} for case, row in results(cohort).items()}
        files = {path: path.read_bytes() for path in (tmp_path / "out").glob("*/*") if path.suffix in (".json", ".csv")}
        shutil.rmtree(tmp_path / "out")
        return messages, rows, files

    serial = answers()
    with cluster({}, {}) as address:
        assert answers(scheduler=address) == serial
    assert len(serial[2]) >= 4
