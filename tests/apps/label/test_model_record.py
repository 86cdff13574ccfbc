"""Test that the scan tasks of MONAI Label write and use the record of a model, without MONAI Label."""

import shutil
from types import SimpleNamespace

import pytest
import yaml

from monai_mil_ext.apps.label import BundleRunner, ScanInferTask, ScanTrainTask
from monai_mil_ext.data import ModelRecord, ScoreBands
from tests.bundles.conftest import BUNDLE
from tests.bundles.scan_mil.ct_series import OPTIONS, SIDE, make_scans

from .server_parts import without_init

SITE = {**OPTIONS, "in_features": 16, "spatial_size": SIDE}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A bundle that the training task has trained on small CT series."""
    folder = tmp_path_factory.mktemp("label")
    for part in ("configs", "scripts"):
        shutil.copytree(BUNDLE / part, folder / "b" / part, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "b" / "models").mkdir()
    (folder / "b" / "configs" / "site.yaml").write_text(yaml.safe_dump(SITE))
    scans = make_scans(folder / "scans")
    store = SimpleNamespace(
        list_images=lambda: list("abcd"),
        get_image_info=lambda image: {"bag_label": "abcd".index(image) % 2},
        get_image_uri=lambda image: str(scans / image),
        update_image_info=lambda image, info: None,
    )
    without_init(ScanTrainTask, bundle=BundleRunner(folder / "b"))({"max_epochs": 1, "val_split": 0}, store)
    return folder


def infer(root, name, **site):
    (root / "b" / "configs" / "site.yaml").write_text(yaml.safe_dump({**SITE, **site}))
    bands = ScoreBands(top_k=(1, 2))
    task = without_init(ScanInferTask, bundle=BundleRunner(root / "b"), bands=bands, labels={})
    return task({"image": str(root / "scans" / name), "result_write_to_file": False})[1]


def test_training_task_writes_the_record_and_inference_agrees(root):
    record = ModelRecord.read(root / "b" / "models")
    record.check_weights(root / "b" / "models" / "model.pt")
    assert (record.sources[0].modality, record.cohort["cases"]) == (("CT",), 4)
    params = infer(root, "a")
    assert params["source_check"] == "agrees with the training"
    assert params["trained_model"] == {**record.identity(), "trained_on": "model.json"}
    assert [entry["label"] for entry in params["prediction"]] == ["no tumor", "tumor"]


@pytest.mark.parametrize(
    ("name", "site", "reason"),
    [
        ("mr", {}, "trained on modality CT, got modality MR"),
        ("a", {"hu_window": [-160, 240]}, "trained on window -1000 to 400, got window -160 to 240"),
    ],
)
def test_inference_task_refuses_what_differs_or_marks_it(root, http_errors, name, site, reason):
    with pytest.raises(http_errors, match=f"^refused: {reason}$") as error:
        infer(root, name, **site)
    assert error.value.status_code == 400
    assert infer(root, name, **site, allow_mismatch=True)["source_check"] == f"mismatch: {reason}"


def test_inference_task_refuses_another_scan_after_the_first(root, http_errors):
    (root / "b" / "configs" / "site.yaml").write_text(yaml.safe_dump(SITE))
    bands = ScoreBands(top_k=(1, 2))
    task = without_init(ScanInferTask, bundle=BundleRunner(root / "b"), bands=bands, labels={})
    request = {"result_write_to_file": False}
    assert task({**request, "image": str(root / "scans" / "a")})[1]["source_check"] == "agrees with the training"
    with pytest.raises(http_errors, match=r"^refused: trained on modality CT, got modality MR$"):
        task({**request, "image": str(root / "scans" / "mr")})
