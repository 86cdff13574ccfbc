"""Tests of the app `mil` for scans, over HTTP on a real MONAI Label server."""

import json
import os
import shutil
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import requests
from monai.bundle import ConfigWorkflow

from monai_mil_ext.data import ScoreBands
from tests.scans import write_series

from .conftest import ROOT, parts, run

pytestmark = [pytest.mark.network, pytest.mark.slow(buys="3D Slicer's requests to a real MONAI Label server")]
MODEL = "/infer/scan_mil"


def ask(server, image="scan_41", **params):
    return server.post(f"{MODEL}?image={image}&output=json", data={"params": json.dumps(params)}).json()


def bundle_result(server, image, folder, monkeypatch):
    """The result of the bundle itself for a scan, in this process."""
    root = server.app / "model" / "scan_mil"
    monkeypatch.syspath_prepend(str(root))
    files = [str(root / "configs" / f"{name}.yaml") for name in ("inference", "digits")]
    places = {"bundle_root": str(root), "output_dir": str(folder), "input": str(image), "case_id": "case"}
    workflow = ConfigWorkflow(files, workflow_type="infer", logging_file=False, **places, pictures=[])
    workflow.initialize()
    workflow.run()
    return json.loads((folder / "case" / "prediction.json").read_text())


def label_map(content, path):
    path.write_bytes(content)
    return nib.load(path)


def margin_of_lesions(server):
    """Mean score of scans with a lesion, which are the odd ones, less that of the others."""
    scores = [ask(server, f"scan_{i}")["prediction"][1]["score"] for i in range(40, 46)]
    return np.mean(scores[1::2]) - np.mean(scores[::2])


def test_label_app_info_lists_models_and_tasks(server):
    info = requests.get(f"{server.url}/info/", timeout=60).json()
    assert info["name"] == "mil"
    assert {name: model["type"] for name, model in info["models"].items()} == {
        "scan_mil": "segmentation",
        "wsi_mil": "classification",
    }
    assert info["models"]["scan_mil"]["labels"] == {"slices ranked 1 to 4": 1, "slices ranked 5 to 12": 2}
    assert list(info["trainers"]) == ["scan_mil"]
    assert list(info["strategies"]) == ["most_uncertain_first"]
    assert list(info["scoring"]) == ["uncertainty", "slices"]
    assert all("research use only" in model["description"] for model in info["models"].values())


def test_label_app_is_listed_and_downloaded_by_monailabel(server, label_python):
    assert "mil" in run(label_python, "-m", "monailabel.main", "apps").split()
    assert (server.app / "main.py").read_text() == (ROOT / "monai_mil_ext/apps/label/mil/main.py").read_text()
    assert (server.app / "README.md").exists()


def test_scan_infer_task_json_equals_the_result_of_the_bundle(server, tmp_path, monkeypatch):
    answer = ask(server)
    expected = bundle_result(server, server.studies / "scan_41.nii", tmp_path, monkeypatch)
    assert [entry["score"] for entry in answer["prediction"]] == pytest.approx(expected["probability"], abs=1e-5)
    assert [entry["label"] for entry in answer["prediction"]] == ["no tumor", "tumor"]
    attention = [entry["attention"] for entry in expected["slices"]]
    assert [entry["attention"] for entry in answer["slices"]] == pytest.approx(attention, abs=1e-6)
    assert [entry["position_mm"] for entry in answer["slices"]] == [5.0 * i for i in range(20)]
    assert answer["top_slices"] == expected["top_slices"]
    p = np.array(expected["probability"])
    assert answer["uncertainty"] == pytest.approx(-(p * np.log2(p)).sum(), abs=1e-4)
    assert answer["use"] == "research use only"
    assert "path" not in answer
    assert str(server.studies) not in json.dumps(answer)


def test_scan_infer_task_label_map_agrees_with_scan_and_scores(server, tmp_path):
    params, content = parts(server.post(f"{MODEL}?image=scan_41"))
    labels, scan = label_map(content, tmp_path / "a.nii"), nib.load(server.studies / "scan_41.nii")
    assert labels.shape == scan.shape
    np.testing.assert_allclose(labels.affine, scan.affine)
    scores = np.array([entry["attention"] for entry in params["slices"]])
    expected = ScoreBands()(scores)
    assert [entry["band"] for entry in params["slices"]] == expected.tolist()
    column = np.zeros(20)
    column[[entry["slice_index"] for entry in params["slices"]]] = expected
    # this scan's third axis points up, as slices are numbered
    np.testing.assert_array_equal(np.asarray(labels.dataobj), np.broadcast_to(column, scan.shape))
    assert np.bincount(expected).tolist() == [8, 4, 8]
    only = server.post(f"{MODEL}?image=scan_41&output=image").content
    np.testing.assert_array_equal(label_map(only, tmp_path / "b.nii").dataobj, labels.dataobj)


def test_scan_infer_task_of_an_upload_and_in_the_format_of_ohif(server, tmp_path):
    import nrrd

    scan = nib.load(server.studies / "scan_43.nii")
    tilted = scan.affine @ np.array([[1, 0, 0.1, 7], [0, 1, 0.2, -3], [0, 0, 1, 2], [0, 0, 0, 1.0]])
    nib.save(nib.Nifti1Image(np.asarray(scan.dataobj), tilted), tmp_path / "up.nii.gz")
    with (tmp_path / "up.nii.gz").open("rb") as file:
        params, content = parts(server.post(MODEL, files={"file": ("up.nii.gz", file)}))
    labels = label_map(content, tmp_path / "labels.nii.gz")
    np.testing.assert_allclose(labels.affine, tilted, atol=1e-5)  # ITK would refuse the tilt
    known = ask(server, "scan_43")
    assert [entry["score"] for entry in params["prediction"]] == [entry["score"] for entry in known["prediction"]]
    ohif = {"result_extension": ".nrrd", "result_dtype": "uint8"}
    answer = server.post(f"{MODEL}?image=scan_43&output=image", data={"params": json.dumps(ohif)})
    (tmp_path / "a.nrrd").write_bytes(answer.content)
    values, header = nrrd.read(str(tmp_path / "a.nrrd"))
    assert (values.dtype, header["space"]) == (np.uint8, "left-posterior-superior")
    assert values[0, 0].tolist() == [entry["band"] for entry in known["slices"]]


def test_scan_infer_task_of_a_dicom_series_equals_the_bundle(server, tmp_path, monkeypatch):
    """The server has pydicom 2, and this process pydicom 3."""
    folder = server.studies / "series"
    write_series(folder, (8, 8, 20), heights=np.arange(20) * 3.0)
    answer, expected = ask(server, folder), bundle_result(server, folder, tmp_path, monkeypatch)
    assert [entry["score"] for entry in answer["prediction"]] == pytest.approx(expected["probability"], abs=1e-5)
    for name in ("attention", "position_mm"):
        assert [entry[name] for entry in answer["slices"]] == pytest.approx(
            [entry[name] for entry in expected["slices"]], abs=1e-6
        )
    assert np.diff([entry["position_mm"] for entry in answer["slices"]]) == pytest.approx(3.0)
    shutil.rmtree(folder)


def test_write_stock_bundle_serves_the_app_of_monailabel(server, label_python, tmp_path):
    """Run the app in its own process, without HTTP, and with a stand-in for torchvision, which only it needs."""
    shutil.copytree(label_python.parents[1] / "monailabel" / "sample-apps" / "monaibundle", tmp_path / "app")
    source, target = (app / "model" / "scan_mil" for app in (server.app, tmp_path / "app"))
    run(label_python, "-m", "monai_mil_ext.apps.label.stock_bundle", source, target)
    shutil.copy(server.studies / "scan_44.nii", tmp_path)
    stand_in = {**os.environ, "PYTHONPATH": str(ROOT / "tests" / "monailabel_env")}
    output = run(label_python, "tests/apps/stock_app.py", tmp_path / "app", tmp_path, "scan_44", env=stand_in)
    record = json.loads(output.splitlines()[-1])
    labels = {"slices ranked 1 to 4": 1, "slices ranked 5 to 12": 2}
    assert record["info"] == {"type": "segmentation", "labels": labels, "dimension": 3}
    ours, content = parts(server.post(f"{MODEL}?image=scan_44"))
    stock, expected = nib.load(record["file"]), label_map(content, tmp_path / "ours.nii")
    np.testing.assert_array_equal(stock.dataobj, expected.dataobj)
    np.testing.assert_allclose(stock.affine, expected.affine)
    attention = [[entry["attention"] for entry in slices] for slices in (record["params"]["slices"], ours["slices"])]
    assert attention[0] == pytest.approx(attention[1], abs=1e-6)
    assert record["params"]["prediction"][1]["score"] == pytest.approx(ours["prediction"][1]["score"], abs=1e-6)
    Path(record["file"]).unlink()


def test_label_app_serves_the_client_of_monailabel(server, label_python):
    code = (
        "import json, sys; from monailabel.client import MONAILabelClient; client = MONAILabelClient(sys.argv[1]);"
        "file, params = client.infer('scan_mil', 'scan_41', {});"
        "print(json.dumps([client.info()['name'], bool(file), params['prediction'][1]['score'],"
        " client.next_sample('most_uncertain_first', {})['id']]))"
    )
    name, has_file, score, image = json.loads(run(label_python, "-c", code, server.url).splitlines()[-1])
    assert (name, has_file) == ("mil", True)
    assert score == ask(server)["prediction"][1]["score"]
    assert image


def test_uncertainty_strategy_selects_uncertain_images_without_label(server):
    scored = server.post("/scoring/uncertainty?run_sync=true", json={"model": "scan_mil"}).json()
    assert "scan" not in " ".join(scored["failed"])
    assert "slide_1" in scored["failed"]
    values = scored["uncertainty"]
    assert values["scan_41"] == pytest.approx(ask(server)["uncertainty"])
    first, second = sorted(values, key=values.get)[::-1][:2]
    record = server.post("/activelearning/most_uncertain_first", json={}).json()
    assert (record["id"], record["weight"], record["uncertainty"]) == (first, values[first], values[first])
    server.put(f"/datastore/image/info?image={first}", data={"info": json.dumps({"bag_label": 1})})
    assert server.post("/activelearning/most_uncertain_first", json={}).json()["id"] == second
    again = server.post("/scoring/uncertainty?run_sync=true", json={"model": "scan_mil"}).json()
    assert first not in again["uncertainty"]
    server.put(f"/datastore/image/info?image={first}", data={"info": json.dumps({"bag_label": None})})


def test_scan_train_task_learns_from_stored_labels(server):
    """Even scans have no lesion, odd ones have."""
    for i in range(40, 52):
        if i % 4 < 2:  # as info of the image, and as a JSON file
            server.put(f"/datastore/image/info?image=scan_{i}", data={"info": json.dumps({"bag_label": i % 2})})
        else:
            label = json.dumps({"bag_label": ["no tumor", "tumor"][i % 2]})
            server.put(f"/datastore/label?image=scan_{i}&tag=final", files={"label": ("label.json", label)})
    weights = server.app / "model" / "scan_mil" / "models" / "model.pt"
    before, margin = weights.read_bytes(), margin_of_lesions(server)
    for wrong in ({"max_epochs": "$exit()"}, {"val_split": 2}, {"device": "$exit()"}):
        server.post("/train/scan_mil?run_sync=true", 400, json=wrong)
    assert weights.read_bytes() == before
    record = server.post("/train/scan_mil?run_sync=true", json={"max_epochs": 1, "val_split": 0.34}).json()
    assert (record["scans"], record["held_out"], record["labels"]) == (7, 5, {"no tumor": 6, "tumor": 6})
    assert 0 <= record["metrics"]["bag_auroc"] <= 1
    record = server.post("/train/scan_mil?run_sync=true", json={"max_epochs": 100, "val_split": 0}).json()
    assert (record["scans"], record["held_out"], record["metrics"]) == (12, 0, {})
    assert margin_of_lesions(server) > margin + 0.05
    stats = requests.get(f"{server.url}/info/", timeout=60).json()["train_stats"]["scan_mil"]
    assert (stats["scans"], stats["epochs"]) == (12, 100)
    assert (stats["epoch"], stats["total_epochs"]) == (100, 100)
    assert stats["total_time"]


def test_slice_scoring_compares_slice_scores_with_masks(server):
    mask = (server.studies.parent / "scans" / "scan_51_reference.nii").read_bytes()
    server.put("/datastore/label?image=scan_51&tag=final", files={"label": ("mask.nii", mask)})
    found = server.post("/scoring/slices?run_sync=true", json={"model": "scan_mil"}).json()
    assert (list(found["scans"]), found["failed"]) == (["scan_51"], {})
    assert found["mean"]["training"]["scans"] == 1
    assert 0 <= found["mean"]["training"]["instance_auroc"] <= 1


def test_labeller_shows_scans_and_answers(server):
    case = {"reader": "Ann", "image": "scan_46"}
    assert server.post("/labeller/open", json=case).json()["slices"] > 4
    picture = requests.get(f"{server.url}/labeller/picture?image=scan_46&slice=2", timeout=60)
    assert picture.content.startswith(b"\x89PNG")
    answer = server.post("/labeller/answer", json=case).json()
    assert answer["prediction"] == ask(server, "scan_46")["prediction"]
    events = [entry["event"] for entry in requests.get(f"{server.url}/labeller/log", timeout=60).json()]
    assert events == ["opened", "answer"]


def test_scan_train_task_in_its_own_process(server):
    server.post("/train/scan_mil", json={"max_epochs": 2, "pretrained": False})
    end = time.monotonic() + 240
    while (status := requests.get(f"{server.url}/train/", timeout=60).json())["status"] not in ("DONE", "ERROR"):
        assert time.monotonic() < end
        time.sleep(1)
    assert status["status"] == "DONE", status


def test_batch_infer_needs_no_gpu_and_survives_an_image_that_fails(server):
    answers = server.post("/batch/infer/scan_mil?run_sync=true&images=unlabeled", json={}).json()
    assert "scan_41" not in answers  # it has a label
    assert "error" in answers["slide_1"]
    good = {image: entry for image, entry in answers.items() if image != "slide_1"}
    assert len(good) == 8
    assert all(entry["params"]["prediction"] for entry in good.values())
    stored = server.studies / "labels" / "original"
    assert {path.name for path in stored.iterdir()} == {f"{image}.nii" for image in good}


def test_label_app_refuses_invalid_requests(server, tmp_path):
    outside = tmp_path / "other.nii"
    outside.write_bytes((server.studies / "scan_44.nii").read_bytes())
    for image, status, reason in (
        ("scan_999", 404, "one of the studies, got 'scan_999'"),
        (str(outside), 403, "a path outside of them"),
        (f"{server.studies}/../mil/main.py", 403, "a path outside of them"),
        ("slide_1", 400, "must be one 3D scalar volume"),
    ):
        answer = server.post(f"{MODEL}?image={image}&output=json", status)
        assert reason in answer.json()["detail"]
        assert str(server.studies) not in answer.text or image.startswith(str(server.studies))
    sneaked = {"params": json.dumps({"image": str(outside)})}
    server.post(f"{MODEL}?image=scan_41&output=json", 403, data=sneaked)
    text = server.post(MODEL, 400, files={"file": ("report.txt", b"no scan")})
    assert "must be a readable, undamaged scan" in text.json()["detail"]
    for params in ({"device": "$exit()"}, {"result_extension": "/../../x.nii"}):
        server.post(f"{MODEL}?image=scan_41&output=json", 400, data={"params": json.dumps(params)})
    server.post("/infer/nobody?image=scan_41", 404)
    assert requests.post(f"{server.url}/train/nobody?run_sync=true", timeout=60).status_code >= 400
    assert ask(server)["use"] == "research use only"
