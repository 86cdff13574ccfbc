"""Tests of ``on_bad`` of training bundles: all bad cases are listed at once, or left out and listed in a table."""

import csv
import json
import shutil

import numpy as np
import pytest

from monai_mil_ext.data import inspect_bag, write_bag
from monai_mil_ext.utils.exceptions import root_cause
from tests.bundles import wsi
from tests.bundles.small_bags import BUNDLE as BAGS
from tests.bundles.small_bags import bags, scripts
from tests.workflows import causes, configs_of, content, open_workflow, paths


def left_out(folder):
    with (folder / "left_out.csv").open(newline="") as file:
        return {row["case"]: row["reason"] for row in csv.DictReader(file)}


def run(workflow):
    workflow.run()
    workflow.finalize()
    return workflow


def spoil(table, folder):
    """Add a bag of each bad kind to a table with the columns bag, patient and label, and return their names."""
    head, *lines = table.read_text().splitlines()
    width = inspect_bag(next(folder.iterdir())).in_features
    contents = {"wide": np.ones((2, width + 1)), "nan": np.full((2, width), np.nan), "empty": np.ones((0, width))}
    contents |= dict.fromkeys(("no_label", "class7", "no_patient"), np.ones((2, width)))
    for name, features in contents.items():
        write_bag(folder / f"{name}.h5", {"features": features.astype(np.float32)})
    (folder / "cut.h5").write_bytes((folder / "wide.h5").read_bytes()[:700])
    cells = {"no_label": "q,", "class7": "q,7", "no_patient": ",0"}
    names = [*contents, "cut", "missing"]
    table.write_text("\n".join([head, *lines, *(f"{name},{cells.get(name, name + ',0')}" for name in names)]))
    return names


@pytest.fixture
def bag_data(tmp_path, monkeypatch):
    monkeypatch.chdir(BAGS)
    data = tmp_path / "data"
    scripts("prepare").write_cohort(bags(), data / "cohort.csv")
    return data, spoil(data / "cohort.csv", data / "bags")


SETTINGS = {"num_folds": 4, "epochs": 1, "num_samples": 10}


def test_bag_classifier_refuses_all_bad_bags_at_once(bag_data, tmp_path):
    data, names = bag_data
    workflow = open_workflow(*configs_of("train"), **SETTINGS, **paths(data, tmp_path / "out"))
    with pytest.raises(RuntimeError, match="Failed to evaluate") as error:
        workflow.run()
    cause = root_cause(error.value)
    assert isinstance(cause, ValueError)
    assert f"cohort.csv must be a valid cohort, got {len(names)} errors:" in str(cause)
    assert all(f"'{name}'" in str(cause) for name in names)
    assert not (tmp_path / "out" / "left_out.csv").exists()


def test_bag_classifier_skips_bad_bags(bag_data, tmp_path, caplog):
    data, names = bag_data
    out = paths(data, tmp_path / "fold_0")
    run(open_workflow(*configs_of("train", "kfold"), **SETTINGS, **out, folds_dir=str(tmp_path), on_bad="skip"))
    assert set(left_out(tmp_path / "fold_0")) == set(names)
    (line,) = [text for text in caplog.messages if "left out" in text]
    assert line.splitlines()[0] == f"cohort.csv: left out {len(names)} of {40 + len(names)} cases:"
    assert len(list(csv.DictReader((tmp_path / "fold_0" / "bags.csv").open()))) == 10
    workflow = open_workflow(*configs_of("train", "evaluate"), **SETTINGS, **out)
    with pytest.raises(RuntimeError, match="Failed to evaluate"):
        workflow.run()


def wsi_workflow(data, out, *configs, **options):
    return wsi.start(*(configs or ("train",)), **{**wsi.SMALL, "epochs": 1, **paths(data, out), **options})


@pytest.mark.parametrize("level", ["bag", "patient"])
def test_wsi_mil_skips_bad_slides(tmp_path, level):
    data = wsi.write_cohort(tmp_path / "data")
    names = spoil(data / "cohort.csv", data / "features")
    with pytest.raises(RuntimeError, match="Failed to evaluate") as error:
        wsi_workflow(data, tmp_path / "out", level=level).run()
    assert all(f"'{name}'" in str(root_cause(error.value)) for name in names)
    run(wsi_workflow(data, tmp_path / "out", level=level, on_bad="skip"))
    assert set(left_out(tmp_path / "out")) == set(names)


def test_wsi_mil_refuses_encoders_that_tell_the_class(tmp_path):
    data = wsi.write_cohort(tmp_path / "data")
    for row in (data / "cohort.csv").read_text().splitlines()[1:]:
        path, _, label = row.split(",")
        encoder = ("uni_v1", "gigapath")[int(label)]
        wsi.write_features(data / path, np.ones((6, wsi.F), np.float32), encoder=encoder)
    with pytest.raises(RuntimeError, match="Failed to evaluate") as error:
        wsi_workflow(data, tmp_path / "out", on_bad="skip").run()
    assert "class 0 is all uni_v1, class 1 all gigapath; a network can separate encoders" in causes(error.value)
    run(wsi_workflow(data, tmp_path / "out", **{"checks#allow_mismatch": True}))


def test_wsi_mil_skips_slides_that_give_no_features(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    rows = ["bag,patient,label"]
    for i in range(14):
        wsi.write_small_slide(data / f"s{i}.tif", color=((196, 120, 170), (150, 90, 160))[i % 2])
        rows.append(f"s{i}.tif,p{i},{i % 2}")
    for name in ("bad1", "bad2"):
        (data / f"{name}.tif").write_bytes(b"no slide")
        rows.append(f"{name}.tif,{name},0")
    (data / "cohort.csv").write_text("\n".join([*rows, "lost.tif,p,0"]))
    options = {**wsi.ENCODER, "slide_mpp": 0.5}

    def start(**more):
        return wsi_workflow(data, tmp_path / "out", "train", "slides", **options, **more)

    with pytest.raises(RuntimeError, match="Failed to evaluate") as error:
        start().run()
    assert "got 1 error" in str(root_cause(error.value))
    assert not (data / "features").exists()
    run(start(on_bad="skip"))
    assert list(left_out(tmp_path / "out")) == ["lost", "bad1", "bad2"]


@pytest.fixture
def scan_data(digits, tmp_path):
    """Digits, and four bad scans: two whose headers tell, and two that only encoding tells."""
    data = tmp_path / "data"
    shutil.copytree(digits, data, ignore=shutil.ignore_patterns("features"))
    scans = json.loads((data / "cohort.json").read_text())["scans"]
    whole = (data / scans[0]["image"]).read_bytes()
    for name, written in {"empty": b"", "text": b"no header", "damaged": whole[: len(whole) // 2]}.items():
        (data / f"{name}.nii.gz").write_bytes(written)
        scans.append({**scans[0], "case_id": name, "patient": name, "image": f"{name}.nii.gz"})
    scans.append({**scans[0], "case_id": "mask", "patient": "mask", "reference": "damaged.nii.gz"})
    return data, scans


def write(data, scans):
    (data / "cohort.json").write_text(json.dumps({"scans": scans}))


def test_scan_mil_lists_bad_headers_before_encoding_and_skips_all_bad_scans(start, scan_data, tmp_path):
    data, scans = scan_data
    write(data, scans)
    workflow = start("train", "digits", **paths(data, tmp_path / "out"), epochs=1)
    with pytest.raises(RuntimeError, match="Failed to") as error:
        workflow.run()
    message = str(root_cause(error.value))
    assert "cohort.json must be a valid cohort, got 2 errors:" in message
    assert "case 'empty'" in message
    assert "case 'text'" in message
    assert not (data / "features").exists()
    run(start("train", "digits", **paths(data, tmp_path / "out"), epochs=1, on_bad="skip"))
    assert list(left_out(tmp_path / "out")) == ["empty", "text", "damaged", "mask"]
    assert (tmp_path / "out" / "model.pt").exists()


def test_scan_mil_says_before_encoding_that_there_are_no_masks(start, scan_data, tmp_path):
    data, scans = scan_data
    write(data, [{key: scan[key] for key in ("case_id", "patient", "image")} for scan in scans[:4]])
    workflow = start("train", "digits", **paths(data, tmp_path / "out"))
    with pytest.raises(RuntimeError, match="Failed to") as error:
        workflow.run()
    assert "`reference` must be given for scans, got none in all 4: add protocol.yaml" in causes(error.value)
    assert not (data / "features").exists()


def test_scan_mil_protocol_lists_missing_and_wrong_labels_before_encoding(start, scan_data, tmp_path):
    data, scans = scan_data
    labels = {"digits_1": 1, "digits_2": "1", "digits_3": 2}
    write(data, [{**scan, "label": labels.get(scan["case_id"])} for scan in scans[:4]])
    workflow = start("train", "digits", "protocol", "modern", **paths(data, tmp_path / "out"))
    with pytest.raises(RuntimeError, match="Failed to") as error:
        workflow.run()
    message = str(root_cause(error.value))
    assert "got 2 errors" in message
    assert "case 'digits_3': `label` must be a class index from 0 to 1, got 2" in message
    assert "digits_2" not in message  # text of a class number is one
    assert not (data / "features").exists()


def test_scan_mil_scan_labels_skips_bad_scans(start, scan_data, tmp_path):
    data, scans = scan_data
    items = [{**scan, "image": str(data / scan["image"]), "label": i % 2} for i, scan in enumerate(scans[:6])]
    items = [{key: item[key] for key in ("case_id", "patient", "image", "label")} for item in items]
    options = {**paths(data, tmp_path / "out"), "scans": items, "epochs": 1}
    trained = run(start("train", "digits", "scan_labels", **options, on_bad="skip"))
    assert [bag["case_id"] for bag in content(trained, "bags")] == [scan["case_id"] for scan in scans[:4]]
    assert list(left_out(tmp_path / "out")) == ["empty", "text"]
