"""Tests of wsi_mil with a model of one encoder and slides of another, from every side."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

from monai_mil_ext.apps.bundle import TrainedModel, save_model
from monai_mil_ext.data import InstanceSource, ModelRecord
from monai_mil_ext.networks.nets import QGMIL
from monai_mil_ext.utils.exceptions import root_cause
from tests.bundles.wsi import BUNDLES, ENCODER, SMALL, F, content, start, write_features, write_small_slide

UNI = {"encoder": "uni_v1", "magnification": 20.0}
OTHER_ENCODER = ENCODER["encoder"] | {"net": "$torch.nn.Sequential(torch.nn.AdaptiveMaxPool2d(2), torch.nn.Flatten())"}
MISMATCH = "trained on encoder uni_v1 at 20x, got encoder gigapath at 5x"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A model of wsi_mil that was trained on features of one encoder."""
    folder = tmp_path_factory.mktemp("trained")
    draw, rows = np.random.default_rng(0), ["bag,patient,label"]
    for i in range(18):
        features = draw.normal(size=(6, F)).astype(np.float32)
        features[0] += 4 * (i % 2)
        write_features(folder / "data" / f"s{i}.h5", features, **UNI)
        rows.append(f"s{i}.h5,p{i},{i % 2}")
    (folder / "data" / "cohort.csv").write_text("\n".join(rows))
    paths = {"dataset_dir": str(folder / "data"), "ckpt_dir": str(folder / "m"), "output_dir": str(folder / "e")}
    workflow = start("train", **paths, **SMALL)
    workflow.run()
    workflow.finalize()
    return folder / "m"


def infer(model, tmp_path, where, *overlays, **override):
    paths = {"ckpt_dir": str(model), "output_dir": str(tmp_path / "out"), "input": str(where)}
    start("inference", *overlays, kind="infer", **{**paths, "case_id": "c1", **override}).run()


def status(tmp_path, case="c1"):
    with (tmp_path / "out" / "results.csv").open() as file:
        return {row["case_id"]: row["status"] for row in csv.DictReader(file)}[case]


def features(path, **attributes):
    return write_features(path, np.random.default_rng(1).normal(size=(6, F)).astype(np.float32), **attributes)


def test_training_records_what_it_was_trained_on(trained):
    record = ModelRecord.read(trained)
    assert record.sources[0].to_values() == {
        "key": "image", "encoder": "uni_v1", "width": F, "dtype": "float32", "magnification": [20.0]
    }  # fmt: skip
    assert record.network["class"] == "QGMIL"
    assert record.cohort["cases"] == record.cohort["patients"] < 18
    assert record.calibration["temperature"] > 0
    assert not {"settings.json", "network.json", "calibration.json"} & set(os.listdir(trained))


def test_a_slide_of_another_encoder_is_refused_and_the_others_are_predicted(trained, tmp_path):
    features(tmp_path / "in" / "a.h5", **UNI)
    features(tmp_path / "in" / "b.h5", encoder="gigapath", magnification=5.0)
    features(tmp_path / "in" / "c.h5", encoder="uni_v1", mpp=0.5)
    with pytest.raises(RuntimeError, match="Failed to evaluate") as error:
        infer(trained, tmp_path, tmp_path / "in")
    assert f"'b' is refused: {MISMATCH}" in str(root_cause(error.value))
    assert [status(tmp_path, case) for case in "abc"] == ["done", f"refused: {MISMATCH}", "done"]
    prediction = json.loads((tmp_path / "out" / "a" / "prediction.json").read_text())
    assert prediction["source_check"] == "agrees with the training"
    assert prediction["model"] == TrainedModel(trained).identity()


def test_training_is_not_resumed_with_another_encoder(trained, tmp_path):
    shutil.copytree(trained.parent, tmp_path / "t")
    for path in (tmp_path / "t" / "data").glob("*.h5"):
        features(path, encoder="gigapath", magnification=20.0)
    folders = {"dataset_dir": "data", "ckpt_dir": "m", "output_dir": "e"}
    paths = {name: str(tmp_path / "t" / folder) for name, folder in folders.items()}
    with pytest.raises(RuntimeError, match="Failed to evaluate") as error:
        start("train", **paths, **SMALL | {"epochs": 3}).run()
    assert "must go on as it began: trained on encoder uni_v1, got encoder gigapath" in str(root_cause(error.value))


def test_allow_mismatch_marks_every_output(trained, tmp_path):
    features(tmp_path / "a.h5", encoder="gigapath", magnification=5.0)
    infer(trained, tmp_path, tmp_path / "a.h5", allow_mismatch=True)
    mark = f"mismatch: {MISMATCH}"
    for name in ("prediction.json", "c1.geojson", "c1_map.json"):
        assert json.loads((tmp_path / "out" / "c1" / name).read_text())["source_check"] == mark


def test_an_evaluation_names_its_model_and_marks_slides_of_another_encoder(trained, tmp_path):
    rows = ["bag,patient,label"]
    for i in range(18):
        features(tmp_path / f"s{i}.h5", encoder="gigapath", magnification=5.0)
        rows.append(f"s{i}.h5,p{i},{i % 2}")
    (tmp_path / "cohort.csv").write_text("\n".join(rows))
    paths = {"dataset_dir": str(tmp_path), "ckpt_dir": str(trained), "output_dir": str(tmp_path / "out")}
    with pytest.raises(RuntimeError, match="Failed to evaluate") as error:
        start("train", "evaluate", **paths, **SMALL).run()
    assert MISMATCH in str(root_cause(error.value))
    start("train", "evaluate", **paths, **SMALL, allow_mismatch=True).run()
    with (tmp_path / "out" / "bags.csv").open() as file:
        lines = list(csv.DictReader(file))
    sha256 = TrainedModel(trained).identity()["sha256"][:12]
    assert {(line["source_check"], line["model_sha256"]) for line in lines} == {(f"mismatch: {MISMATCH}", sha256)}


@pytest.mark.parametrize("option", [{"num_classes": 3}, {"class_names": ["tumor", "normal"]}])
def test_classes_other_than_those_of_the_training_are_refused(trained, tmp_path, option):
    shutil.copytree(trained, tmp_path / "m")
    record = json.loads((trained / "model.json").read_text())
    record["task"]["class_names"] = ["normal", "tumor"]
    (tmp_path / "m" / "model.json").write_text(json.dumps(record))
    features(tmp_path / "a.h5", **UNI)
    with pytest.raises(RuntimeError, match="Failed to evaluate") as error:
        infer(tmp_path / "m", tmp_path, tmp_path / "a.h5", **option)
    assert re.search("must be .*, as in the training, got", str(root_cause(error.value)))
    infer(tmp_path / "m", tmp_path, tmp_path / "a.h5", class_names=["normal", "tumor"])


def test_the_task_of_the_record_makes_the_probabilities(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "m")
    record = json.loads((trained / "model.json").read_text())
    record["task"] = {"kind": "ordinal", "num_classes": 3}
    (tmp_path / "m" / "model.json").write_text(json.dumps(record))
    features(tmp_path / "a.h5", **UNI)
    infer(tmp_path / "m", tmp_path, tmp_path / "a.h5")
    prediction = json.loads((tmp_path / "out" / "c1" / "prediction.json").read_text())
    assert len(prediction["probability"]) == 3


def test_a_file_that_states_no_encoder_is_predicted_and_says_so(trained, tmp_path):
    features(tmp_path / "a.h5")
    infer(trained, tmp_path, tmp_path / "a.h5")
    prediction = json.loads((tmp_path / "out" / "c1" / "prediction.json").read_text())
    assert prediction["source_check"] == "not checked: encoder, magnification"


def test_weights_without_a_record_are_marked(trained, tmp_path):
    (tmp_path / "m").mkdir()
    shutil.copy(trained / "model.pt", tmp_path / "m")
    features(tmp_path / "a.h5", **UNI)
    network = {"_target_": "monai_mil_ext.networks.nets.QGMIL", "in_features": F, "num_classes": 2, "hidden_size": 16}
    infer(tmp_path / "m", tmp_path, tmp_path / "a.h5", network_def=network, in_features=F)
    prediction = json.loads((tmp_path / "out" / "c1" / "prediction.json").read_text())
    assert prediction["model"]["trained_on"] == "unknown"
    assert prediction["source_check"] == "not checked: it is not known what the model was trained on"


def test_weights_of_another_record_are_refused(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "m")
    weights = torch.load(tmp_path / "m" / "model.pt", weights_only=True)
    torch.save({name: value + 1 for name, value in weights.items()}, tmp_path / "m" / "model.pt")
    features(tmp_path / "a.h5", **UNI)
    with pytest.raises(RuntimeError, match="Failed to instantiate") as error:
        infer(tmp_path / "m", tmp_path, tmp_path / "a.h5")
    assert "must have the weights that model.json describes" in str(root_cause(error.value))


@pytest.mark.parametrize(
    "arguments", [{"_target_": "os.system", "command": "touch hit"}, {"in_features": "$__import__('os').mkdir('hit')"}]
)
def test_a_hostile_record_runs_nothing(arguments, trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained, tmp_path / "m")
    record = json.loads((tmp_path / "m" / "model.json").read_text())
    record["network"]["arguments"] = arguments
    (tmp_path / "m" / "model.json").write_text(json.dumps(record))
    features(tmp_path / "a.h5", **UNI)
    with pytest.raises(RuntimeError, match="Failed to instantiate") as error:
        infer(tmp_path / "m", tmp_path, tmp_path / "a.h5")
    assert "of a model record must" in str(root_cause(error.value))
    assert not (tmp_path / "hit").exists()


@pytest.mark.parametrize(
    "wrap", [lambda w: {"model": w, "train_conf": {}}, lambda w: {f"module.{k}": v for k, v in w.items()}]
)
def test_weights_of_flare_and_ddp_are_loaded(wrap, trained, tmp_path):
    features(tmp_path / "a.h5", **UNI)
    infer(trained, tmp_path, tmp_path / "a.h5")
    expected = json.loads((tmp_path / "out" / "c1" / "prediction.json").read_text())["probability"]
    shutil.copytree(trained, tmp_path / "m")
    torch.save(wrap(torch.load(trained / "model.pt", weights_only=True)), tmp_path / "m" / "model.pt")
    infer(tmp_path / "m", tmp_path, tmp_path / "a.h5", allow_mismatch=True, output_dir=str(tmp_path / "again"))
    again = json.loads((tmp_path / "again" / "c1" / "prediction.json").read_text())
    assert again["probability"] == expected
    assert again["model"]["trained_on"] == "unknown"


def test_the_network_need_not_be_given_again(trained, tmp_path):
    network = content_of_inference(trained, tmp_path)
    assert (type(network), network.in_features) == (QGMIL, F)


def test_an_option_of_the_network_is_refused_at_inference(trained, tmp_path):
    features(tmp_path / "a.h5", **UNI)
    with pytest.raises(RuntimeError, match="Failed to instantiate") as error:
        infer(trained, tmp_path, tmp_path / "a.h5", **{"network_def#hidden_size": 32})
    assert "`network_def` must be the network of model.json, got the options" in str(root_cause(error.value))


def content_of_inference(model, tmp_path):
    features(tmp_path / "a.h5", **UNI)
    workflow = start("inference", kind="infer", ckpt_dir=str(model), input=str(tmp_path / "a.h5"))
    return content(workflow, "network_def")


@pytest.fixture
def slide_model(tmp_path):
    """A model of slides: tiles of 32 pixels at 0.5 mpp, encoded by the encoder of these tests."""
    workflow = start("inference", "slides", kind="infer", input=str(write_small_slide(tmp_path / "a.tif")), **ENCODER)
    given = content(workflow, "given")
    assert given.keys() == {"encoder", "encoder_fingerprint", "mpp", "tile_size", "preprocessing"}
    torch.manual_seed(0)
    source = InstanceSource.from_values({**given, "width": 12})
    save_model(tmp_path / "m", QGMIL(12, 2, hidden_size=16), sources=[source])
    return tmp_path / "m"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ({"mpp": 2.0}, "trained on 0.5 mpp, got 2 mpp"),
        ({"tile_size": 64}, "trained on tiles of 32 px, got tiles of 64 px"),
        ({"encoder_label": "other"}, "trained on encoder dinov2-base, got encoder other"),
        ({"encoder": OTHER_ENCODER}, "trained on encoder with fingerprint"),
    ],
)
def test_slides_at_another_resolution_or_encoder_are_refused(override, message, slide_model, tmp_path, monkeypatch):
    with pytest.raises(RuntimeError, match="Failed to evaluate"):
        infer(slide_model, tmp_path, tmp_path / "a.tif", "slides", **{**ENCODER, **override})
    assert message in status(tmp_path)


def test_slides_are_read_at_the_resolution_of_the_training(slide_model, tmp_path):
    infer(slide_model, tmp_path, tmp_path / "a.tif", "slides", encoder=ENCODER["encoder"])
    prediction = json.loads((tmp_path / "out" / "c1" / "prediction.json").read_text())
    assert prediction["source_check"] == "agrees with the training"
    assert prediction["tile_size"] == 32.0


@pytest.mark.slow(buys="the command line refuses features of another encoder, and exits with an error")
def test_the_command_line_refuses_another_encoder(trained, tmp_path):
    features(tmp_path / "a.h5", encoder="gigapath", magnification=5.0)
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", "configs/inference.yaml"]
    command += ["--input", str(tmp_path / "a.h5"), "--ckpt_dir", str(trained), "--output_dir", str(tmp_path / "out")]
    done = subprocess.run(command, cwd=BUNDLES / "wsi_mil", capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert MISMATCH in done.stderr.splitlines()[-2]
