"""Tests of BundleRunner, whose kept workflow gives the results of a new one."""

import json
import os
import shutil

import pytest
import torch

from monai_mil_ext.apps.bundle import save_model
from monai_mil_ext.apps.bundle_files import copy_bundle
from monai_mil_ext.apps.label import BundleRunner, LabelApp, bundle_runner
from monai_mil_ext.apps.label.bundle_runner import device_override
from monai_mil_ext.data import InstanceSource
from monai_mil_ext.handlers import WeightsLoader
from monai_mil_ext.networks.nets import ABMIL, QGMIL
from tests.bundles.wsi import BUNDLES, ENCODER, F, write_cohort, write_small_slide


@pytest.fixture
def root(tmp_path):
    """A bundle of slides with an untrained network."""
    shutil.copytree(BUNDLES / "wsi_mil" / "configs", tmp_path / "b" / "configs")
    write_weights(tmp_path / "b")
    return tmp_path / "b"


@pytest.fixture
def counts(monkeypatch):
    """Numbers of workflows that were built, and of weights that were loaded."""
    built, loaded, load = [], [], WeightsLoader.__call__

    class Counted(bundle_runner.ConfigWorkflow):
        def __init__(self, *args, **options):
            built.append(args)
            super().__init__(*args, **options)

    monkeypatch.setattr(bundle_runner, "ConfigWorkflow", Counted)
    monkeypatch.setattr(WeightsLoader, "__call__", lambda *args: (loaded.append(args), load(*args))[1])
    return lambda: (len(built), len(loaded))


def write_weights(root, seed=0, in_features=F):
    (root / "models").mkdir(exist_ok=True)
    torch.manual_seed(seed)
    net = QGMIL(in_features=in_features, num_classes=2, hidden_size=16)
    save_model(root / "models", net, sources=[InstanceSource(width=in_features)])


def infer(runner, image, out, *overlays, **overrides):
    runner.infer({"case_id": "slide", "image": str(image)}, out, "inference", *overlays, **overrides)
    files = sorted(path for path in out.rglob("*") if path.is_file())
    of_run = ("results.csv", "report.json", "index.html")
    return {path.name: path.read_bytes() for path in files if path.name not in of_run}


def test_bundle_runner_keeps_a_workflow_and_gives_the_results_of_a_new_one(root, tmp_path, counts):
    images = sorted((write_cohort(tmp_path / "data", patients=3) / "features").iterdir())
    runner = BundleRunner(root)
    kept = [infer(runner, image, tmp_path / "kept" / image.stem) for image in images]
    assert counts() == (1, 1)
    new = [infer(BundleRunner(root), image, tmp_path / "new" / image.stem) for image in images]
    assert kept == new
    assert len({json.dumps(json.loads(files["prediction.json"])["probability"]) for files in kept}) == len(images)


def test_bundle_runner_builds_a_new_workflow_when_something_changed(root, tmp_path, counts):
    (image, *_) = sorted((write_cohort(tmp_path / "data", patients=1) / "features").iterdir())
    runner = BundleRunner(root)
    first = infer(runner, image, tmp_path / "0")
    write_weights(root, seed=1)
    assert infer(runner, image, tmp_path / "1")["prediction.json"] != first["prediction.json"]
    (root / "configs" / "site.yaml").write_text("scaling: ratio\n")
    changed = infer(runner, image, tmp_path / "2")
    assert json.loads(changed["prediction.json"])["map"]["scaling"] == "ratio"
    infer(runner, image, tmp_path / "3", top_k=1)
    assert counts() == (4, 4)
    infer(runner, image, tmp_path / "4", top_k=1)
    assert counts() == (4, 4)


def test_bundle_runner_keeps_no_workflow_after_an_error(root, tmp_path, counts):
    (image, *_) = sorted((write_cohort(tmp_path / "data", patients=1) / "features").iterdir())
    broken = tmp_path / "broken.h5"
    broken.write_bytes(b"no file of features")
    runner = BundleRunner(root)
    first = infer(runner, image, tmp_path / "0")
    with pytest.raises(RuntimeError, match="every slide must get a prediction, got none for 1 of 1"):
        infer(runner, broken, tmp_path / "1")
    assert infer(runner, image, tmp_path / "2") == first
    assert counts() == (2, 2)


def test_bundle_runner_reads_a_slide_again_whose_file_changed(root, tmp_path, counts):
    write_weights(root, in_features=12)
    runner, path = BundleRunner(root), tmp_path / "a.tif"
    first = infer(runner, write_small_slide(path), tmp_path / "0", "slides", viewer="none", **ENCODER)
    write_small_slide(path, (120, 60, 140))
    os.utime(path, ns=(1, 1))
    second = infer(runner, path, tmp_path / "1", "slides", viewer="none", **ENCODER)
    assert counts() == (1, 1)
    assert (
        first.keys()
        == second.keys()
        == {f"slide{end}" for end in (".geojson", ".png", ".tif", "_map.json", "_tiles.png")} | {"prediction.json"}
    )
    assert first["prediction.json"] != second["prediction.json"]


def test_device_override_ignores_a_missing_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device_override({"device": "cuda:1"}) == {}
    assert device_override({"device": ["cpu"]}) == {"device": "cpu"}


def test_bundle_runner_knows_the_kind_and_the_classes_of_a_bundle():
    scans, slides = (BundleRunner(BUNDLES / name) for name in ("scan_mil", "wsi_mil"))
    assert (scans.reads_slides, slides.reads_slides) == (False, True)
    assert scans.class_names == ["no tumor", "tumor"]
    assert scans.has("train", "scan_labels")
    assert not slides.has("scan_labels")


def test_bundle_runner_uses_the_trained_model_and_its_classes(tmp_path):
    runner = BundleRunner(copy_bundle("scan_mil", tmp_path))
    shipped = tmp_path.resolve() / "scan_mil" / "models" / "model.pt"
    assert (runner.weights, runner.is_demonstration) == (shipped, True)
    assert runner.new_weights == shipped.parent / "trained" / "model.pt"
    (runner.root / "configs" / "site.yaml").write_text("class_names: [healthy, sick]")
    assert runner.class_names == ["healthy", "sick"]
    save_model(runner.new_weights.parent, ABMIL(4, 2), task={"class_names": ["a", "b"]})
    assert (runner.weights, runner.is_demonstration, runner.class_names) == (runner.new_weights, False, ["a", "b"])
    assert runner.weights in runner._files()  # so that a workflow is built again after the next training


@pytest.mark.parametrize("option", ["viewer: full", "viewer: default", "pictures: [png]"])
def test_bundle_runner_refuses_a_site_that_asks_for_what_no_client_gets(tmp_path, option):
    runner = BundleRunner(copy_bundle("scan_mil", tmp_path / "model"))
    runner.check_site()
    (runner.root / "configs" / "site.yaml").write_text("viewer: none\npictures: []")
    runner.check_site()
    (runner.root / "configs" / "site.yaml").write_text(option)
    with pytest.raises(ValueError, match=rf"`{option.split(':')[0]}` in the site.yaml of scan_mil must be .*, got "):
        runner.check_site()
    with pytest.raises(ValueError, match="answers to clients have neither pictures nor a viewer"):
        LabelApp(str(tmp_path), str(tmp_path))


def test_bundle_runner_leaves_out_only_what_a_bundle_has(tmp_path):
    runner = BundleRunner(copy_bundle("scan_mil", tmp_path))
    assert runner.unseen() == {"pictures": [], "viewer": "none"}
    (runner.root / "configs" / "inference.yaml").write_text("pictures: [png]")
    assert runner.unseen() == {"pictures": []}
