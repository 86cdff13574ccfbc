"""Tests of the record of a trained model."""

import json

import pytest
import torch

from monai_mil_ext.data import InstanceSource, ModelRecord, preprocessing_id
from monai_mil_ext.data.models import file_sha256


@pytest.fixture
def record():
    return ModelRecord(
        "tumor",
        network={"class": "ABMIL", "arguments": {"in_features": 8, "num_classes": 2}, "options": {"class": "ABMIL"}},
        sources=(
            InstanceSource(encoder="uni_v1", mpp=(0.5,), width=8),
            InstanceSource("ct", plane="axial", window=(-1000.0, 400.0), modality=("CT",), lowest=(-1024.0, -1000.0)),
        ),
        task={"kind": "classification", "num_classes": 2, "class_names": ["LUAD", "LUSC"], "activation": "softmax"},
        weights=({"file": "model.pt", "sha256": "0" * 64},),
        covariates=({"name": "age", "parameters": {"mean": 61.0}},),
        calibration={"temperature": 1.25},
        operating_points=({"name": "Youden", "class_name": "LUSC", "threshold": 0.41},),
        preprocessing={"mean": [0.0], "scale": [1.0]},
        cohort={"cases": 30, "patients": 24, "fold": 0},
    )


def test_model_record_survives_writing_and_reading(record, tmp_path):
    record.write(tmp_path / "model.json")
    assert ModelRecord.read(tmp_path) == record
    assert record.class_names == ("LUAD", "LUSC")
    assert record.identity() == {"name": "tumor", "version": "1", "sha256": "0" * 64}


def test_model_record_keeps_a_list_of_weights(record):
    values = {**record.to_values(), "weights": [{"file": f"fold{i}.pt", "sha256": str(i) * 64} for i in range(3)]}
    assert ModelRecord.from_values(values).identity()["sha256"] == ["0" * 64, "1" * 64, "2" * 64]


@pytest.mark.parametrize("schema", [None, "2.0", 11, "x"])
def test_model_record_refuses_another_major_version(record, schema):
    with pytest.raises(ValueError, match=r"`schema` of a model record must be 1\.0 or a later 1\.x, got"):
        ModelRecord.from_values({**record.to_values(), "schema": schema})


def test_model_record_ignores_keys_of_a_later_minor_version(record):
    values = {**record.to_values(), "schema": "1.7", "added_later": {"x": 1}}
    assert ModelRecord.from_values(values) == record


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("network.class", "os.system; x"),
        ("network.arguments", {"_target_": "os.system", "command": "true"}),
        ("network.arguments", {"in_features": "$__import__('os').system('true')"}),
        ("network.options", {"a": "@network"}),
        ("network.free", 1),
        ("task.parameters", {"a": [{"_mode_": "callable"}]}),
        ("task.class_names", ["a", "a"]),
        ("task", {"num_classes": 2, "class_names": ["a", "b", "c"]}),
        ("task.activation", "exec"),
        ("task.class_names", ["a", "b\r\nc"]),
        ("task.num_classes", 10**12),
        ("name", "a\nb\x00"),
        ("name", " $print(1)"),
        ("name", "%macro"),
        ("weights", [{"file": "../../etc/passwd", "sha256": "0" * 64}]),
        ("weights", [{"file": "/model.pt", "sha256": "0" * 64}]),
        ("weights", [{"file": "model.pt", "sha256": "0"}]),
        ("calibration.temperature", 0),
        ("calibration.temperature", float("nan")),
        ("sources", [{"plane": "oblique"}]),
        ("sources", [{"window": [400]}]),
        ("sources", [{"window": [0, 1, 2]}]),
        ("sources", [{"highest": [400]}]),
        ("sources", [{"spatial_size": []}]),
        ("sources", [{"spatial_size": [0]}]),
        ("sources", [{"width": 2**62}]),
        ("sources", [{"mpp": [-0.5]}]),
        ("sources", [{"magnification": [0]}]),
        ("sources", [{"tile_size": [0.0]}]),
        ("cohort.table_sha256", "/home/x"),
    ],
)
def test_model_record_refuses_what_is_no_value(record, path, value):
    values = json.loads(json.dumps(record.to_values()))
    *parents, last = path.split(".")
    target = values
    for name in parents:
        target = target[name]
    target[last] = value
    with pytest.raises(
        ValueError, match=r"` of a model record must (fit its schema|be a value|have plain keys|be finit)"
    ):
        ModelRecord.from_values(values)


@pytest.mark.parametrize("content", ["", "[]x", "[" * 100_000, "\udcff"])
def test_model_record_refuses_a_file_that_is_no_json(content, tmp_path):
    (tmp_path / "model.json").write_text(content, errors="surrogateescape")
    with pytest.raises(ValueError, match=r"`path` must be the JSON record of a model, got 'model\.json'"):
        ModelRecord.read(tmp_path)


def test_model_record_names_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"`path` must be the record of a model that exists, got 'model\.json'"):
        ModelRecord.read(tmp_path / "model.json")


def test_model_record_knows_its_weights(record, tmp_path):
    torch.save({"w": torch.zeros(2)}, tmp_path / "model.pt")
    entry = {"file": "model.pt", "sha256": file_sha256(tmp_path / "model.pt")}
    mine = ModelRecord.from_values({**record.to_values(), "weights": [entry]})
    mine.check_weights(tmp_path / "model.pt")
    torch.save({"w": torch.ones(2)}, tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"weights that model\.json describes, got others in 'model\.pt'"):
        mine.check_weights(tmp_path / "model.pt")


def test_preprocessing_id_names_the_versions():
    digest, versions = preprocessing_id([1, 2]).split("@")
    assert len(digest) == 12
    assert versions.count("+") == 1
