"""Tests of the trained model of a bundle, and of networks built from a record."""

import os
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

from monai_mil_ext.apps.bundle import (
    TrainedModel,
    build_network,
    describe_network,
    mark_demonstration,
    save_model,
    trained_network,
)
from monai_mil_ext.data import InstanceSource, ModelRecord
from monai_mil_ext.data.models import file_sha256
from monai_mil_ext.metrics import ConformalInstances
from monai_mil_ext.networks import nets
from monai_mil_ext.utils import write_json
from tests.contracts.net_cases import additive_without_kinks, every_net, max_without_ties


@every_net
def test_a_described_network_is_built_again(make):
    if getattr(make, "func", make) in (max_without_ties, additive_without_kinks):
        return  # a layer is replaced after the construction, which a description can't know; loading its weights fails
    net = make()
    description = describe_network(net)
    assert description["arguments"] is not None
    again = build_network(description)
    again.load_state_dict(net.state_dict())
    assert describe_network(again) == description


def test_a_description_survives_a_record(tmp_path):
    net = nets.QGMIL(8, 2, hidden_size=8, block=nets.QGMILBlock(num_heads=2, gate="none"))
    ModelRecord("m", network=describe_network(net)).write(tmp_path / "model.json")
    again = TrainedModel(tmp_path).network(nn.Linear(1, 1))
    assert describe_network(again) == describe_network(net)


def test_a_network_of_another_package_is_named_and_not_built(tmp_path):
    description = describe_network(nn.Sequential(nn.Linear(2, 2)))
    assert description["class"] == "torch.nn.modules.container.Sequential"
    assert description["arguments"] is None
    ModelRecord("m", network=description).write(tmp_path / "model.json")
    default = nn.Linear(1, 1)
    assert TrainedModel(tmp_path).network(default) is default


@pytest.mark.parametrize("name", ["os.system", "BagNet", "load_reference_state_dict", "_EXAMPLE", "nn", "", None])
def test_build_network_builds_public_networks_only(name):
    with pytest.raises(ValueError, match=r"`(class|arguments)` of a recorded network must"):
        build_network({"class": name, "arguments": {"command": "true"}})


@pytest.mark.parametrize("name", ["os.system", "BagNet", "nn"])
def test_build_network_builds_public_members_only(name):
    members = [
        {"class": "MeanMIL", "arguments": {"in_features": 8, "num_classes": 2}},
        {"class": name, "arguments": {}},
    ]
    with pytest.raises(ValueError, match=r"`(class|arguments)` of a recorded network must"):
        build_network({"class": "BagEnsemble", "arguments": {"members": members}})


def test_build_network_names_arguments_that_do_not_fit():
    with pytest.raises(ValueError, match=r"`arguments` of a recorded network must fit ABMIL, got \['x'\]"):
        build_network({"class": "ABMIL", "arguments": {"x": 1}})


def write_model(folder, **values):
    torch.save({"w": torch.zeros(2)}, folder / "model.pt")
    weights = ({"file": "model.pt", "sha256": file_sha256(folder / "model.pt")},)
    ModelRecord("m", weights=weights, **values).write(folder / "model.json")


def test_trained_model_prefers_the_record_to_defaults(tmp_path):
    source = InstanceSource(window=(-160.0, 240.0))
    write_model(tmp_path, sources=(source,), task={"class_names": ["a", "b"]}, calibration={"temperature": 2.0})
    model = TrainedModel(tmp_path)
    assert model.source("window", [0, 1]) == [-160.0, 240.0]
    assert model.source("plane", "axial") == "axial"
    assert model.task("class_names") == ["a", "b"]
    assert model.calibration("temperature", 1.0) == 2.0
    assert model.preprocessing("mean", "none") == "none"
    assert model.trained_source() == source
    assert model.identity()["trained_on"] == "model.json"


def test_trained_model_states_the_operating_points_of_its_record(tmp_path):
    point = {"name": "screening", "class_name": "b", "threshold": 0.2}
    write_model(tmp_path, operating_points=(point,))
    assert TrainedModel(tmp_path).identity()["operating_points"] == [point]
    write_model(tmp_path)
    assert "operating_points" not in TrainedModel(tmp_path).identity()


def test_trained_model_states_the_bin_edges_of_its_record(tmp_path):
    write_model(tmp_path, task={"kind": "survival", "parameters": {"bin_edges": [6.0, None]}})
    assert TrainedModel(tmp_path).identity()["bin_edges"] == [6.0, None]


def test_trained_model_refuses_weights_of_another_record(tmp_path):
    write_model(tmp_path)
    torch.save({"w": torch.ones(2)}, tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"weights that model\.json describes, got others in 'model\.pt'"):
        TrainedModel(tmp_path)
    identity = TrainedModel(tmp_path, allow_mismatch=True).identity()
    assert identity == {
        "name": None, "version": None, "sha256": file_sha256(tmp_path / "model.pt"), "trained_on": "unknown"
    }  # fmt: skip


def test_input_never_agrees_with_the_record_of_other_weights(tmp_path):
    source = InstanceSource(window=(-160.0, 240.0))
    write_model(tmp_path, sources=(source,))
    torch.save({"w": torch.ones(2)}, tmp_path / "model.pt")
    model = TrainedModel(tmp_path, allow_mismatch=True)
    assert model.trained_source() is None
    assert model.source("window") == [-160.0, 240.0]


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: path.symlink_to(path.name)])
def test_trained_model_refuses_a_record_that_is_no_file(make, tmp_path):
    make(tmp_path / "model.json")
    with pytest.raises(FileNotFoundError, match=r"must be the record of a model that exists, got 'model\.json'"):
        TrainedModel(tmp_path)


def test_trained_model_does_not_know_what_other_weights_were_trained_on(tmp_path):
    write_model(tmp_path, sources=(InstanceSource(encoder="uni_v1"),))
    torch.save({"w": torch.ones(2)}, tmp_path / "model.pt")
    assert TrainedModel(tmp_path, allow_mismatch=True).trained_source() is None


def test_trained_model_does_not_trust_a_record_without_hashes(tmp_path):
    write_model(tmp_path, sources=(InstanceSource(encoder="uni_v1"),))
    ModelRecord("m", sources=(InstanceSource(encoder="uni_v1"),)).write(tmp_path / "model.json")
    model = TrainedModel(tmp_path)
    assert model.trained_source() is None
    assert model.identity()["trained_on"] == "unknown"
    assert model.identity()["sha256"] == file_sha256(tmp_path / "model.pt")


def test_trained_model_states_the_hash_of_its_own_weights_of_several(tmp_path):
    for name in ("a.pt", "b.pt"):
        torch.save({name: torch.zeros(2)}, tmp_path / name)
    weights = tuple({"file": name, "sha256": file_sha256(tmp_path / name)} for name in ("a.pt", "b.pt"))
    ModelRecord("m", weights=weights).write(tmp_path / "model.json")
    assert TrainedModel.of(tmp_path / "b.pt").identity()["sha256"] == weights[1]["sha256"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"class_names": ["b", "a"]}, r"`class_names` must be \['a', 'b'\], as in the training, got \['b', 'a'\]\."),
        ({"class_names": ["a", "b", "c"]}, r"`class_names` must be \['a', 'b'\], as in the training, got"),
        ({"num_classes": 3}, r"`num_classes` must be 2, as in the training, got 3\."),
        (
            {"kinds": ["survival", "ordinal"]},
            "`ckpt_dir` must have a model for survival or ordinal, got one for ",
        ),
    ],
)
def test_trained_model_refuses_options_of_another_task(tmp_path, options, message):
    write_model(tmp_path, task={"kind": "classification", "num_classes": 2, "class_names": ["a", "b"]})
    TrainedModel(tmp_path).check_task(["a", "b"], 2)
    with pytest.raises(ValueError, match=message):
        TrainedModel(tmp_path).check_task(**options)


def test_trained_model_takes_names_that_the_training_had_not(tmp_path):
    write_model(tmp_path, task={"kind": "classification", "num_classes": 2, "class_names": None})
    TrainedModel(tmp_path).check_task(["a", "b"], 2)


def test_trained_model_refuses_another_level(tmp_path):
    write_model(tmp_path, task={"kind": "classification", "num_classes": 2, "level": "patient"})
    assert TrainedModel(tmp_path).task("level", "bag") == "patient"
    TrainedModel(tmp_path).check_task(level="patient")
    with pytest.raises(ValueError, match="`level` must be patient, as in the training, got bag"):
        TrainedModel(tmp_path).check_task(level="bag")
    write_model(tmp_path, task={"kind": "classification", "num_classes": 2})  # of an earlier version
    TrainedModel(tmp_path).check_task(level="patient")


def test_trained_model_marks_weights_without_a_record(tmp_path):
    torch.save({"w": torch.zeros(2)}, tmp_path / "model.pt")
    model = TrainedModel(tmp_path)
    assert model.trained_source() is None
    assert model.identity()["trained_on"] == "unknown"
    model.check_network(nn.Linear(2, 2))


def test_trained_model_refuses_a_damaged_record(tmp_path):
    os.makedirs(tmp_path, exist_ok=True)
    (tmp_path / "model.json").write_text("{")
    with pytest.raises(ValueError, match="`path` must be the JSON record of a model"):
        TrainedModel(tmp_path)


def test_trained_model_checks_options_of_the_network(tmp_path):
    trained = nets.ASMIL(8, 2, hidden_size=16, num_heads=2)
    ModelRecord("m", network=describe_network(trained)).write(tmp_path / "model.json")
    TrainedModel(tmp_path).check_network(trained)
    with pytest.raises(
        ValueError, match=r"`network_def` must be the network that was trained, whose \S*num_heads is 2"
    ):
        TrainedModel(tmp_path).check_network(nets.ASMIL(8, 2, hidden_size=16, num_heads=4))


def test_instance_sets_are_used_with_the_weights_of_their_calibration(tmp_path):
    sets = ConformalInstances().fit([torch.tensor([0.6, 0.4])] * 9, [torch.tensor([1, 0])] * 9)
    record = save_model(tmp_path, nets.ABMIL(4, 2), "tumor")
    sha256 = record.weights[0]["sha256"]
    assert "instance_set" not in TrainedModel(tmp_path).identity()
    write_json(tmp_path / "conformal.json", {**sets.to_dict(), "weights_sha256": sha256})
    assert TrainedModel(tmp_path).identity()["instance_set"] == {**sets.to_dict(), "weights_sha256": sha256}
    write_json(tmp_path / "conformal.json", {**sets.to_dict(), "weights_sha256": "ab"})
    stated = TrainedModel(tmp_path).identity()["instance_set"]
    assert stated["missing"] == "conformal.json was calibrated with other weights"
    write_json(tmp_path / "conformal.json", {**sets.to_dict(), "num_bags": 2})
    with pytest.raises(ValueError, match="`threshold` must be that of 2 bags"):
        TrainedModel(tmp_path).identity()


def test_trained_model_says_which_it_is(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    cohort = {"cases": 9, "patients": 3}
    save_model("models/trained", nets.ABMIL(4, 2), date="2026-11-30T12:00:00+00:00", cohort=cohort)
    folders = ["./models/trained", str(tmp_path / "models" / "trained")]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for folder in folders:
            TrainedModel(folder).announce()
        Path("models/trained/model.json").unlink()
        TrainedModel("models/trained").announce()
    shown = ["models/trained/model.pt", "trained/model.pt"]  # no path names a user
    known = "trained 2026-11-30 on 9 cases of 3 patients"
    said = [*(f"model: {path} ({known})" for path in shown), "model: models/trained/model.pt (no record)"]
    assert capsys.readouterr().out.splitlines() == said


def test_a_model_without_weights_is_named(tmp_path, capsys):
    message = r"`ckpt_dir` must be the folder of a trained model, got models/fold_3 without model.pt: train first, or"
    with pytest.raises(FileNotFoundError, match=message) as raised:
        TrainedModel(tmp_path / "models" / "fold_3").announce()
    assert str(tmp_path.parent) not in str(raised.value)
    assert capsys.readouterr().out == ""


def test_trained_model_warns_of_weights_that_only_demonstrate(tmp_path):
    save_model(tmp_path, nets.ABMIL(4, 2))
    assert "demonstration" not in TrainedModel(tmp_path).identity()
    mark_demonstration(tmp_path, "handwritten digits")
    with pytest.warns(
        UserWarning, match="come with the bundle, trained on handwritten digits: .* nothing about disease"
    ):
        TrainedModel(tmp_path).announce()
    assert TrainedModel(tmp_path).identity()["demonstration"] == "handwritten digits"


def test_a_trained_network_takes_no_weights_of_another_model(tmp_path):
    net, other = nets.ABMIL(4, 2), nets.ABMIL(4, 2)
    save_model(tmp_path / "trained", net)
    built = trained_network(TrainedModel(tmp_path / "trained"), other)
    with pytest.raises(ValueError, match=r"must be the folder of the weights to load, got \S+/trained, which"):
        built.load_state_dict(other.state_dict())
    built.load_state_dict(net.state_dict())
    trained_network(TrainedModel(tmp_path / "trained", allow_mismatch=True), other).load_state_dict(other.state_dict())
    trained_network(TrainedModel(tmp_path / "absent"), other).load_state_dict(net.state_dict())
