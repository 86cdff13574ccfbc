"""Tests of the copy of a bundle for MONAI Label's own app."""

import json

import pytest

from monai_mil_ext.apps.bundle import save_model
from monai_mil_ext.apps.bundle_files import copy_bundle
from monai_mil_ext.apps.label import BundleRunner
from monai_mil_ext.apps.label.stock_bundle import write_stock_bundle
from monai_mil_ext.data import ModelRecord
from monai_mil_ext.networks.nets import ABMIL
from tests.bundles.wsi import BUNDLES


def test_write_stock_bundle_ends_in_a_label_map(tmp_path):
    bundle = BundleRunner(BUNDLES / "scan_mil")
    folder = write_stock_bundle(bundle, tmp_path / "scans")
    config = json.loads((folder / "configs" / "inference.json").read_text())
    view = config["postprocessing"]["transforms"][-1]
    assert view["_target_"] == "monai_mil_ext.apps.label.ScoresToLabelMapd"
    assert (view["class_names"], view["top_k"], view["task"]) == (bundle.class_names, [4, 12], "@task")
    assert "BagOutputWrapper" in config["inferer"]
    assert "_meta_" not in config
    metadata = json.loads((folder / "configs" / "metadata.json").read_text())
    labels = {"0": "background", "1": "slices ranked 1 to 4", "2": "slices ranked 5 to 12"}
    assert metadata["network_data_format"]["outputs"]["pred"]["channel_def"] == labels
    assert bundle.metadata["network_data_format"]["outputs"]["pred"]["channel_def"] != labels
    assert {"LICENSE", "docs", "scripts"} <= {path.name for path in folder.iterdir()}
    assert not list(folder.rglob("__pycache__"))


def test_write_stock_bundle_replaces_no_folder(tmp_path):
    (tmp_path / "scans" / "configs").mkdir(parents=True)
    with pytest.raises(FileExistsError, match="configs"):
        write_stock_bundle(BundleRunner(BUNDLES / "scan_mil"), tmp_path / "scans")


def test_write_stock_bundle_has_the_trained_model_alone(tmp_path):
    bundle = BundleRunner(copy_bundle("scan_mil", tmp_path))
    record = save_model(bundle.new_weights.parent, ABMIL(4, 2), "own")
    models = write_stock_bundle(bundle, tmp_path / "scans") / "models"
    assert sorted(path.name for path in models.iterdir()) == ["model.json", "model.pt"]
    assert ModelRecord.read(models) == record


def test_write_stock_bundle_has_the_weights_of_the_encoder_and_no_scan(tmp_path):
    bundle = BundleRunner(copy_bundle("scan_mil", tmp_path))
    for name in ("data/mobilenet_v2.pth", "data/scan_1.nii.gz", "data/packages/a.pth"):
        (bundle.root / name).parent.mkdir(parents=True, exist_ok=True)
        (bundle.root / name).write_bytes(b"x")
    data = write_stock_bundle(bundle, tmp_path / "scans") / "data"
    assert [path.name for path in data.iterdir()] == ["mobilenet_v2.pth"]
