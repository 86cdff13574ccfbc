"""Tests of the files that ScanResultsSaver writes."""

import csv
import json
import re

import nibabel as nib
import numpy as np
import pytest
import torch
from highdicom.sr import srread
from monai.data import MetaTensor
from monai.transforms import Compose
from pydicom import dcmread

from monai_mil_ext.data import NotStoredError
from monai_mil_ext.handlers import ScanBatchInference, ScanResultsSaver
from monai_mil_ext.handlers.savers import scan_results
from monai_mil_ext.metrics import ConformalInstances
from monai_mil_ext.transforms import (
    InstanceScoresd,
    LoadScan,
    RankInstancesd,
    SliceBagd,
    SliceScoresToVolumed,
    SliceSelection,
)
from tests.handlers.savers.items import infer, run, scan
from tests.scans import write_series


def test_scan_results_saver_writes_scores_in_the_voxels_of_the_scan(tmp_path):
    run(ScanResultsSaver(tmp_path), [scan()])
    folder = tmp_path / "c1"
    result = json.loads((folder / "prediction.json").read_text())
    assert result["prediction"] == 1
    assert result["top_slices"] == [2, 1, 0, 3]
    assert result["slices"][2] == {
        "slice_index": 2,
        "slice_number": 3,
        "position_mm": 47.0,
        "attention": pytest.approx(0.6),
        "ratio": pytest.approx(2.4),
    }
    assert result["nearly_even"] is False
    written = nib.load(folder / "c1_scores.nii.gz")
    assert (written.affine == scan()["affine"].numpy()).all()
    # the array of the scan runs from head to foot, so its first slice is the highest
    np.testing.assert_allclose(written.get_fdata()[0, 0], [0.1, 0.6, 0.2, 0.1], atol=1e-6)
    assert sorted(p.name for p in folder.iterdir()) == [
        "c1.png",
        "c1_scores.json",
        "c1_scores.nii.gz",
        "prediction.json",
    ]


def test_scan_results_saver_lists_top_slices_by_their_index_in_the_scan(tmp_path):
    ScanResultsSaver(tmp_path, pictures=[]).save(scan(slice_index=torch.tensor([3, 2, 0, 1, 0])))
    assert json.loads((tmp_path / "c1" / "prediction.json").read_text())["top_slices"] == [0, 2, 3, 1]


def test_scan_results_saver_removes_files_of_an_earlier_run(tmp_path):
    ScanResultsSaver(tmp_path, pictures=["gif", "html"]).save(scan())
    assert {"c1.gif", "c1.html"} < {path.name for path in (tmp_path / "c1").iterdir()}
    ScanResultsSaver(tmp_path, pictures=[]).save(scan())
    assert {path.name for path in (tmp_path / "c1").iterdir()} == {
        "c1_scores.json",
        "c1_scores.nii.gz",
        "prediction.json",
    }


def test_scan_results_saver_rejects_case_id_outside_of_the_folder(tmp_path):
    with pytest.raises(ValueError, match="`case_id` must be letters, digits"):
        run(ScanResultsSaver(tmp_path / "out"), [scan(case_id="../c1")])
    assert not (tmp_path / "out").exists()


def test_scan_results_saver_names_model_and_classes_in_all_files(tmp_path):
    from PIL import Image

    model = {"name": "tumor", "version": "2", "sha256": "0123456789abcdef", "trained_on": "model.json"}
    saver = ScanResultsSaver(
        tmp_path, pictures=["png", "html", "gif"], model=model, class_names=["benign", "malignant"]
    )
    saver.save(scan(source_check="agrees with the training"))
    folder = tmp_path / "c1"
    for name in ("prediction.json", "c1_scores.json"):
        written = json.loads((folder / name).read_text())
        assert (written["model"], written["source_check"]) == (model, "agrees with the training")
        assert (written["class_names"], written["predicted_class"]) == (["benign", "malignant"], "malignant")
    note = "tumor 2, weights 0123456789ab; agrees with the training"
    page = (folder / "c1.html").read_text()
    assert f"<dt>model</dt><dd>{note}</dd>" in page
    assert "<h1>c1: probability of malignant 0.70 (threshold 0.5: malignant)</h1>" in page
    assert Image.open(folder / "c1.gif").info["comment"].decode() == f"research use only; {note}"


def test_scan_results_saver_writes_a_page_without_a_row_for_an_unknown_model(tmp_path):
    ScanResultsSaver(tmp_path, pictures=["html"]).save(scan())
    page = (tmp_path / "c1" / "c1.html").read_text()
    assert "<h1>c1: probability 0.70 (threshold 0.5: class 1)</h1>" in page
    assert "<dt>" not in page


def test_scan_results_saver_shows_what_was_done_to_the_input_on_the_page(tmp_path):
    ScanResultsSaver(tmp_path, pictures=["html"]).save(scan(notes=["1 scout was left out.", "NaN was filled."]))
    assert "<dt>notes</dt><dd>1 scout was left out. NaN was filled.</dd>" in (tmp_path / "c1" / "c1.html").read_text()


def test_scan_results_saver_needs_a_name_for_each_class(tmp_path):
    with pytest.raises(ValueError, match=r"`class_names` must be one for each of 2 classes, got \['tumor'\]"):
        ScanResultsSaver(tmp_path, class_names=["tumor"]).save(scan())
    assert list((tmp_path).rglob("*.json")) == []


@pytest.mark.parametrize("plane", ["axial", "coronal"])
def test_scan_results_saver_takes_the_plane_of_the_slices(tmp_path, plane):
    item = scan(plane=plane, spatial_shape=torch.tensor([6, 4, 4]))
    ScanResultsSaver(tmp_path, pictures=[]).save(item)
    assert json.loads((tmp_path / "c1" / "prediction.json").read_text())["plane"] == plane
    other = {"axial": "coronal", "coronal": "axial"}[plane]
    with pytest.raises(ValueError, match=f"`plane` must be that of the slices, '{plane}', or None, got '{other}'"):
        ScanResultsSaver(tmp_path, plane=other, pictures=[]).save(item)


def test_scan_results_saver_names_slices_by_their_index_after_a_selection(tmp_path):
    image = MetaTensor(torch.rand(1, 6, 5, 30), affine=torch.diag(torch.tensor([1.0, 1, 2, 1])))
    item = SliceBagd("image", selection=SliceSelection(start_mm=20, stride=2))({"image": image})
    item |= {"case_id": "c1", "slices": item["image"].as_tensor(), "pred": torch.tensor([0.3, 0.7])}
    item["attention"] = torch.linspace(0.1, 1, len(item["slice_index"]))
    item = Compose([InstanceScoresd(), RankInstancesd(top_k=2), SliceScoresToVolumed("scores", "score_volume")])(item)
    saver = ScanResultsSaver(tmp_path, pictures=["html"], settings="a")
    (tmp_path / "scan.nii").touch()
    batch = ScanBatchInference(saver, [{"case_id": "c1", "image": str(tmp_path / "scan.nii")}])
    infer(batch, [item])
    record = json.loads((tmp_path / "c1" / "prediction.json").read_text())
    assert record["top_slices"] == item["slice_index"][[-1, -2]].tolist() == [28, 26]
    numbers = [entry["slice_number"] for entry in record["slices"]]
    assert numbers == (item["slice_index"] + 1).tolist()
    page = (tmp_path / "c1/c1.html").read_text()
    assert re.findall(r'"name": "(slice \d+ of \d+)"', page) == [f"slice {number} of 30" for number in numbers]
    batch.finish()
    (row,) = csv.DictReader((tmp_path / "results.csv").open())
    assert (row["top_slice_number"], row["top_slice_mm"]) == ("29", "56.0")


@pytest.mark.parametrize(("pred", "expected"), [([0.97], 1), ([0.5], 0), ([0.49], 0), ([0.2, 0.8], 1), ([0.8, 0.2], 0)])
def test_scan_results_saver_predicts_the_class_of_one_or_more_probabilities(tmp_path, pred, expected):
    ScanResultsSaver(tmp_path, pictures=[]).save(scan(pred=torch.tensor(pred)))
    assert json.loads((tmp_path / "c1" / "prediction.json").read_text())["prediction"] == expected


def series_item(folder, **changes):
    """Return a postprocessed item of a series of four axial slices."""
    image = LoadScan()(folder)
    item = SliceBagd("image", plane=changes.pop("plane", "axial"))({"image": image})
    slices = item.pop("image").as_tensor()
    slices = (slices - slices.min()) / (slices.max() - slices.min())
    scores = torch.arange(1.0, len(slices) + 1)
    item |= {"case_id": "c1", "slices": slices, "pred": torch.tensor([0.3, 0.7]), "attention": scores / scores.sum()}
    item |= {"source": str(folder)} | changes
    return Compose([InstanceScoresd(), RankInstancesd(), SliceScoresToVolumed("scores", "score_volume")])(item)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("NIfTI", "`source` must be the DICOM folder of the scan for results as DICOM, got a single file"),
        ("other plane", "`volume` must have one score for each slice of the series, got slices with several scores"),
        ("no frame of reference", "`source` must have StudyInstanceUID, SeriesInstanceUID, FrameOfReferenceUID"),
        ("no SOPInstanceUID", "`source` must have StudyInstanceUID, SeriesInstanceUID, FrameOfReferenceUID, Modality"),
        ("no source", "`source` must be an item with the folder of the scan"),
    ],
)
def test_scan_results_saver_writes_all_else_where_dicom_is_impossible(tmp_path, kind, reason):
    folder = tmp_path / "Secretname"
    write_series(folder, **({} if kind == "no frame of reference" else {"FrameOfReferenceUID": "1.2.3"}))
    item = series_item(folder, plane="coronal" if kind == "other plane" else "axial")
    if kind == "NIfTI":
        item["source"] = str(tmp_path / "Secretname.nii.gz")
    elif kind == "no source":
        del item["source"]
    elif kind == "no SOPInstanceUID":
        for path in folder.iterdir():
            ds = dcmread(path)
            del ds.SOPInstanceUID
            ds.save_as(path)
    saver = ScanResultsSaver(tmp_path / "out", dicom=["seg", "sr"])
    record = saver.save(item)
    assert saver.status(record).startswith(f"done; not written as DICOM: {reason}")
    assert "Secretname" not in saver.status(record)
    names = {path.name for path in (tmp_path / "out/c1").iterdir()}
    assert {"c1.png", "c1_scores.nii.gz", "prediction.json"} <= names
    assert json.loads((tmp_path / "out/c1/prediction.json").read_text())["prediction"] == 1
    with pytest.raises(RuntimeError, match="every case must get all results, got some without:\n  'c1' is done; not"):
        run(saver, [item])


@pytest.mark.parametrize("kind", ["Secretname.nii.gz", "absent"])
def test_scan_results_saver_refuses_dicom_of_no_folder_before_the_first_case(tmp_path, kind):
    saver = ScanResultsSaver(tmp_path, dicom=["seg"])
    items = [{"case_id": "a", "image": str(tmp_path / kind)}, {"case_id": "b", "image": str(tmp_path / "b.nrrd")}]
    with pytest.raises(ValueError, match="`dicom` must be empty for scans that are no DICOM folders") as error:
        saver.check_sources(items)
    assert "Secretname" not in str(error.value)
    saver.check_sources([*items, {"case_id": "c", "image": str(tmp_path)}])
    saver.check_sources([])
    ScanResultsSaver(tmp_path).check_sources(items)


def test_scan_results_saver_says_if_attention_is_nearly_even(tmp_path):
    attention = torch.tensor([0.24, 0.25, 0.26, 0.25, 0.0])[:, None]
    ScanResultsSaver(tmp_path, pictures=["html"]).save(scan(attention=attention))
    record = json.loads((tmp_path / "c1" / "prediction.json").read_text())
    assert record["nearly_even"] is True
    assert [entry["ratio"] for entry in record["slices"]] == pytest.approx([0.96, 1, 1.04, 1])
    assert "Attention is nearly even" in (tmp_path / "c1" / "c1.html").read_text()
    # the volume keeps attention itself
    assert nib.load(tmp_path / "c1" / "c1_scores.nii.gz").get_fdata().max() == pytest.approx(0.26)


def test_scan_results_saver_numbers_slices_as_dicom_does(tmp_path):
    write_series(tmp_path / "series")  # InstanceNumber 1 is the lowest slice of four
    item = series_item(tmp_path / "series", instance_number=torch.tensor([4, 3, 2, 1]), window="window -160 to 240 HU")
    record = ScanResultsSaver(tmp_path, pictures=["html", "png", "gif"]).save(item)
    assert [entry["instance_number"] for entry in record["slices"]] == [4, 3, 2, 1]
    assert record["window"] == "window -160 to 240 HU"
    page = (tmp_path / "c1" / "c1.html").read_text()
    assert "<strong>slice 4 of 4</strong>, 37.5 mm, InstanceNumber 1" in page
    assert "<dd>window -160 to 240 HU</dd>" in page


def test_scan_results_saver_links_the_files_that_it_has_written(tmp_path):
    write_series(tmp_path / "series", FrameOfReferenceUID="1.2.3")
    item = series_item(tmp_path / "series")
    ScanResultsSaver(tmp_path, pictures=["png", "html", "gif"], dicom=["seg", "sr"]).save(item)
    links = re.findall(r'<a href="([^"]+)"', (tmp_path / "c1" / "c1.html").read_text())
    assert links == ["c1_scores.nii.gz", "c1_seg.dcm", "c1_sr.dcm", "c1.gif", "c1.png"]
    assert all((tmp_path / "c1" / name).is_file() for name in links)
    ScanResultsSaver(tmp_path, pictures=["html"]).save(item)
    page = (tmp_path / "c1" / "c1.html").read_text()
    assert re.findall(r'<a href="([^"]+)"', page) == ["c1_scores.nii.gz"]


def test_scan_results_saver_shows_the_slice_itself_among_its_neighbors(tmp_path, monkeypatch):
    shown = {}
    monkeypatch.setattr(scan_results, "scan_page", lambda *scan, **_: shown.update(slices=scan[2]) or "page")
    image = MetaTensor(torch.rand(1, 6, 5, 4), affine=torch.diag(torch.tensor([1.0, 1, 2, 1])))
    item = SliceBagd("image", selection=SliceSelection(num_neighbors=1))({"image": image})
    item |= {"case_id": "c1", "slices": item["image"].as_tensor(), "pred": torch.tensor([0.3, 0.7])}
    item["attention"] = torch.linspace(0.1, 1, 4)
    item = Compose([InstanceScoresd(), RankInstancesd(), SliceScoresToVolumed("scores", "score_volume")])(item)
    ScanResultsSaver(tmp_path, pictures=["html"]).save(item)
    assert (shown["slices"] == SliceBagd("image")({"image": image})["image"][:, 0].numpy()).all()


def test_scan_results_saver_scales_slices_that_are_not_in_the_unit_interval(tmp_path):
    item = scan(window="normalization z")
    item["slices"] = item["slices"] * 6 - 3
    record = ScanResultsSaver(tmp_path, pictures=["html"]).save(item)
    assert record["window"] == "normalization z"
    assert re.search(r"<dd>normalization z, shown from -[\d.]+ to [\d.]+</dd>", (tmp_path / "c1/c1.html").read_text())


def test_scan_results_saver_takes_thresholds_from_the_model(tmp_path):
    point = {"name": "screening", "class_name": "tumor", "threshold": 0.2}
    model = {"name": "m", "version": "1", "sha256": "0" * 64, "trained_on": "model.json", "operating_points": [point]}
    saver = ScanResultsSaver(tmp_path, pictures=["html"], model=model, class_names=["no tumor", "tumor"])
    record = saver.save(scan(pred=torch.tensor([0.7, 0.3])))
    assert record["operating_points"] == [point | {"is_positive": True}]
    assert record["predicted_class"] == "tumor"  # not the more probable class
    page = (tmp_path / "c1" / "c1.html").read_text()
    assert "<h1>c1: probability of tumor 0.30 (threshold 0.2, screening: tumor)</h1>" in page


def test_scan_results_saver_states_values_and_refuses_a_report_of_them(tmp_path):
    ScanResultsSaver(tmp_path, pictures=["html"], task="cox").save(scan(pred=torch.tensor([0.25])))
    assert "<h1>c1: risk 0.25 (log hazard, relative)</h1>" in (tmp_path / "c1" / "c1.html").read_text()
    with pytest.raises(ValueError, match=r"`dicom` must be without 'sr', .*, for regression, got \['sr'\]"):
        ScanResultsSaver(tmp_path, dicom=["sr"], task="regression")


class Archive:
    """Archive in memory that stores files, or refuses them with a reason."""

    fingerprint = "0123"

    def __init__(self, reason=None):
        self.reason, self.files = reason, []

    def store(self, files):
        if self.reason:
            raise NotStoredError(self.reason)
        self.files += [path.name for path in files]


def test_scan_results_saver_writes_all_kinds_of_dicom(tmp_path):
    write_series(tmp_path / "series", FrameOfReferenceUID="1.2.3")
    kinds = ["seg", "sr", "ko", "sc"]
    saver = ScanResultsSaver(tmp_path, pictures=[], dicom=kinds, class_names=["benign", "malignant"])
    saver.save(series_item(tmp_path / "series"))
    read = {kind: dcmread(tmp_path / "c1" / f"c1_{kind}.dcm") for kind in kinds}
    assert {ds.SeriesDescription.split(";")[0] for ds in read.values()} == {"malignant 0.70"}
    report = srread(tmp_path / "c1" / "c1_sr.dcm").content
    (derived,) = [item for item in report[0].ContentSequence if item.name.meaning == "Derived Imaging Measurements"]
    named = {item.name.meaning: item.value for item in derived.ContentSequence}
    assert named == pytest.approx({"Probability of benign": 0.3, "Probability of malignant": 0.7})
    pixels = read["sc"].pixel_array
    assert pixels.shape[2] == 3
    assert pixels.std() > 10  # it is not blank


def test_scan_results_saver_states_the_set_of_slices_in_the_report(tmp_path):
    write_series(tmp_path / "series", FrameOfReferenceUID="1.2.3")
    sets = ConformalInstances(alpha=0.5).fit([torch.tensor([0.4, 0.3, 0.2, 0.1])] * 9, [torch.tensor([1, 0, 0, 0])] * 9)
    model = {
        "name": "m",
        "version": "1",
        "sha256": "0" * 64,
        "trained_on": "model.json",
        "instance_set": sets.to_dict(),
    }
    item = series_item(tmp_path / "series")
    record = ScanResultsSaver(tmp_path, pictures=[], dicom=["sr"], model=model).save(item)
    chosen = record["instance_set"]["indices"]
    assert len(chosen) == 1
    report = srread(tmp_path / "c1" / "c1_sr.dcm").content
    (evaluations,) = [item for item in report[0].ContentSequence if item.name.meaning == "Qualitative Evaluations"]
    assert evaluations.ContentSequence[-1].value == record["instance_set"]["sentence"]
    marked = {
        group.tracking_identifier
        for group in report.get_planar_roi_measurement_groups()
        for evaluation in group.get_qualitative_evaluations()
        if evaluation.name.meaning == "Slice is in the set"
    }
    assert marked == {"slice of rank 1"}


def test_scan_results_saver_sends_dicom_and_keeps_what_is_refused(tmp_path):
    write_series(tmp_path / "series", FrameOfReferenceUID="1.2.3")
    item = series_item(tmp_path / "series")
    saver = ScanResultsSaver(tmp_path, pictures=[], dicom=["seg", "sr"]).send_to("http://127.0.0.1:9")
    saver.archive = Archive()
    record = saver.save(item)
    assert saver.archive.files == ["c1_seg.dcm", "c1_sr.dcm"]
    assert (saver.status(record), record["dicom"]) == ("done", {"sent_to": "0123"})
    assert saver.is_complete(record)
    saver.archive = Archive("the archive must store all objects, got status 503.")
    record = saver.save(item)
    assert saver.status(record) == "done; not sent: the archive must store all objects, got status 503."
    assert not saver.is_complete(record)
    assert {"c1_seg.dcm", "c1_sr.dcm", "prediction.json"} <= {path.name for path in (tmp_path / "c1").iterdir()}
    with pytest.raises(RuntimeError, match="every case must get all results, got some without:\n  'c1' is done; not s"):
        run(saver, [item])


def test_scan_results_saver_repeats_a_scan_that_no_archive_has(tmp_path):
    write_series(tmp_path / "series", FrameOfReferenceUID="1.2.3")
    item, items = series_item(tmp_path / "series"), [{"case_id": "c1", "image": str(tmp_path / "series")}]

    def pending(archive):
        saver = ScanResultsSaver(tmp_path / "out", pictures=[], dicom=["sr"], settings="a")
        saver.archive = archive
        batch = ScanBatchInference(saver, items)
        if batch.pending:
            infer(batch, [item])
        return len(batch.pending)

    assert [pending(Archive("full")), pending(Archive("full")), pending(Archive()), pending(Archive())] == [1, 1, 1, 0]
    assert pending(None) == 0  # nothing but the archive has changed


@pytest.mark.parametrize(("url", "dicom"), [("http://127.0.0.1:9", []), ("127.0.0.1:9", ["sr"])])
def test_scan_results_saver_refuses_an_archive_that_can_get_nothing(tmp_path, url, dicom):
    with pytest.raises(ValueError, match=r"`(dicom|url)` must"):
        ScanResultsSaver(tmp_path, dicom=dicom).send_to(url)
    assert ScanResultsSaver(tmp_path).send_to(None).archive is None


def test_scan_results_saver_writes_a_viewer_and_removes_that_of_an_earlier_run(tmp_path):
    ScanResultsSaver(tmp_path, pictures=["png", "viewer"]).save(scan(window="window -160 to 240 HU"))
    folder = tmp_path / "c1" / "viewer"
    page = (folder / "index.html").read_text()
    assert "<h1>c1: probability 0.70 (threshold 0.5: class 1)</h1>" in page
    links = re.findall(r'<a href="([^"]+)"', page)
    assert links == ["../c1_scores.nii.gz", "../c1.png"]
    assert all((folder / link).is_file() for link in links)
    assert (folder / "slices_000.jpg").is_file()
    ScanResultsSaver(tmp_path, pictures=["viewer-full"]).save(scan())
    assert (folder / "slices_000.png").is_file()
    assert not (folder / "slices_000.jpg").exists()
    ScanResultsSaver(tmp_path, pictures=[]).save(scan())
    assert not folder.exists()
