"""Tests of the inference task for slides, without MONAI Label."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from monai_mil_ext.apps.bundle import save_model
from monai_mil_ext.apps.label import BundleRunner, SlideInferTask
from monai_mil_ext.data import InstanceSource
from monai_mil_ext.data.models import file_sha256
from monai_mil_ext.networks.nets import QGMIL
from tests.bundles.wsi import BUNDLES, F, write_features

from .server_parts import Bundle, without_init

RECORD = {
    "probability": [0.25, 0.75],
    "tile_size": 32,
    "top_tiles": [{"x": 64, "y": 0}],
    "settings": {"secret": 1},
    "input": "abc",
    "options": "def",
}
TILE = {
    "geometry": {"coordinates": [[[64, 0], [96, 0], [96, 32], [64, 32], [64, 0]]]},
    "properties": {"measurements": {"attention": 0.9}},
}


class SlideBundle(Bundle):
    """Bundle that writes tiles and a map beside the prediction."""

    def infer(self, item, folder, *configs, **overrides):
        if self.error:
            Path(folder, "results.csv").write_text("case_id,status\nslide,unreadable: no slide\n")
        super().infer(item, folder, *configs, **overrides)
        if "map" not in self.record:
            results = Path(folder) / item["case_id"]
            (results / "slide.geojson").write_text(json.dumps({"features": [TILE]}))
            (results / "slide.tif").write_bytes(b"a pyramid")


def make_task(folder, record=RECORD, **options):
    return without_init(SlideInferTask, bundle=SlideBundle(folder, record, **options), labels={"tiles": 1})


@pytest.fixture
def infer(tmp_path):
    """Infer, and return the content of the file, its suffix, and the JSON."""

    def call(task=None, **request):
        file, params = (task or make_task(tmp_path))({"image": "/data/s.svs", **request})
        if file is None:
            return None, "", params
        path = Path(file)
        content = path.read_text()
        path.unlink()
        return content, path.suffix, params

    return call


def test_slide_infer_task_json_has_scores_without_settings(infer):
    content, _, params = infer(output="json")
    assert content is None
    assert [entry["score"] for entry in params["prediction"]] == [0.25, 0.75]
    assert [entry["label"] for entry in params["prediction"]] == ["benign", "malignant"]
    assert params["uncertainty"] == pytest.approx(0.8113, abs=1e-4)
    assert not {"settings", "input", "options"} & set(params)
    assert params["model"] == "bundle"


@pytest.mark.parametrize(
    ("request_options", "suffix", "part"),
    [
        ({}, ".json", '"heatmap"'),
        ({"output": "asap"}, ".xml", "ASAP_Annotations"),
        ({"output": "dsa", "result_format": "geojson"}, ".geojson", '"features"'),
        ({"result_format": ["tiff"]}, ".tif", "a pyramid"),
    ],
)
def test_slide_infer_task_writes_the_requested_format(infer, request_options, suffix, part):
    content, written, _ = infer(**request_options)
    assert written == suffix
    assert part in content


@pytest.mark.parametrize(("image", "configs"), [("s.svs", ("inference", "slides")), ("s.h5", ("inference",))])
def test_slide_infer_task_encodes_slides_but_not_feature_files(tmp_path, image, configs):
    task = make_task(tmp_path)
    task({"image": image, "output": "json"})
    assert task.bundle.calls[0][:2] == ({"image": image, "case_id": "slide"}, configs)


def test_slide_infer_task_numbers_classes_without_names(tmp_path):
    task = make_task(tmp_path, {**RECORD, "probability": [0.2, 0.3, 0.5]})
    _, params = task({"image": "s.svs", "output": "json"})
    assert [entry["label"] for entry in params["prediction"]] == ["0", "1", "2"]


def test_slide_infer_task_gives_reasons_as_http_errors(tmp_path, infer, http_errors):
    with pytest.raises(http_errors, match=r"`result_format` must be one of dsa, asap, geojson, tiff, got '../x'"):
        infer(result_format="../x")
    with pytest.raises(http_errors, match="the slide has no heat map: no coordinates"):
        infer(make_task(tmp_path, {**RECORD, "map": {"missing": "no coordinates"}}))
    with pytest.raises(http_errors, match=r"^unreadable: no slide$"):
        infer(make_task(tmp_path, error=RuntimeError("every slide must get a prediction")))


@pytest.fixture
def trained_task(tmp_path):
    """The task of wsi_mil with a model of features of one encoder."""
    shutil.copytree(BUNDLES / "wsi_mil" / "configs", tmp_path / "b" / "configs")
    source = InstanceSource(encoder="uni_v1", magnification=(20.0,), width=F)
    save_model(tmp_path / "b" / "models", QGMIL(F, 2, hidden_size=16), "study", sources=[source])
    return without_init(SlideInferTask, bundle=BundleRunner(tmp_path / "b"), labels={"tiles": 1})


def test_slide_infer_task_refuses_features_of_another_encoder(trained_task, http_errors, tmp_path):
    path = write_features(tmp_path / "a.h5", np.ones((3, F), np.float32), encoder="gigapath", magnification=5.0)
    with pytest.raises(http_errors, match="refused: trained on encoder uni_v1 at 20x, got encoder gigapath at 5x"):
        trained_task({"image": str(path), "output": "json"})


def test_slide_infer_task_names_the_model_and_its_check(trained_task, tmp_path):
    path = write_features(tmp_path / "a.h5", np.ones((3, F), np.float32), encoder="uni_v1", magnification=20.0)
    _, params = trained_task({"image": str(path), "output": "json"})
    assert params["source_check"] == "agrees with the training"
    assert params["trained_model"]["name"] == "study"


def test_slide_infer_task_says_that_weights_do_not_fit(trained_task, http_errors, tmp_path):
    record = tmp_path / "b" / "models" / "model.json"
    torch.save(QGMIL(F, 2, hidden_size=8).state_dict(), record.with_name("model.pt"))
    values = json.loads(record.read_text())
    values["weights"][0]["sha256"] = file_sha256(record.with_name("model.pt"))
    record.write_text(json.dumps(values))
    path = write_features(tmp_path / "a.h5", np.ones((3, F), np.float32), encoder="uni_v1", magnification=20.0)
    with pytest.raises(http_errors, match="`load_path` must have the weights of this QGMIL, got others"):
        trained_task({"image": str(path), "output": "json"})


def test_slide_infer_task_writes_neither_pictures_nor_a_viewer(trained_task, tmp_path):
    (tmp_path / "b" / "configs" / "site.yaml").write_text("viewer: default\npictures: [overlay]")
    path = write_features(tmp_path / "a.h5", np.ones((3, F), np.float32), encoder="uni_v1", magnification=20.0)
    trained_task._infer(str(path), str(tmp_path / "out"), {})
    assert not [file.name for file in (tmp_path / "out").rglob("viewer*")]
    assert not list((tmp_path / "out").rglob("*.png"))
