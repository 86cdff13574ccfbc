"""Tests of the training of wsi_mil with both networks: evaluation, folds and resuming."""

import csv
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
import yaml
from ignite.engine import Events
from monai.bundle import verify_metadata

from monai_mil_ext.data import ModelRecord, load_cohort, read_bag
from monai_mil_ext.utils.exceptions import root_cause
from tests.bundles.wsi import BUNDLES, OVERLAYS, SMALL, content, start, write_cohort

pytestmark = pytest.mark.filterwarnings("ignore:Attention is uniform")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_cohort(tmp_path_factory.mktemp("slides"))


@pytest.fixture
def run(data, tmp_path):
    """Make and run a workflow on the small cohort."""

    def make(*configs, **override):
        paths = {"dataset_dir": str(data), "ckpt_dir": str(tmp_path / "m"), "output_dir": str(tmp_path / "e")}
        settings = SMALL if "train" in configs else {"network_def#hidden_size": SMALL["network_def#hidden_size"]}
        workflow = start(*configs, **{**paths, **settings, **override})
        workflow.run()
        workflow.finalize()
        return workflow

    return make


@pytest.mark.parametrize(
    "configs", [("train",), ("train", "evaluate"), ("train", "kfold"), ("inference",)], ids=lambda c: c[-1]
)
@pytest.mark.parametrize("network", OVERLAYS)
def test_wsi_mil_has_the_properties_of_monai(network, configs, data, tmp_path):
    torch.save({}, tmp_path / "model.pt")
    kind = "infer" if configs == ("inference",) else "train"
    paths = {"dataset_dir": str(data), "ckpt_dir": str(tmp_path), "output_dir": str(tmp_path / "e")}
    paths |= {"input": str(data / "features")} if kind == "infer" else {}
    assert start(*configs, network=network, kind=kind, **paths).check_properties() == []


def test_wsi_mil_metadata_is_valid():
    meta = BUNDLES / "wsi_mil" / "configs" / "metadata.json"
    verify_metadata(str(meta), str(BUNDLES.parent / "tests/bundles/schema.json"))


def test_wsi_mil_asmil_config_changes_the_network_and_flat_keys_only():
    train, inference, overlay = (
        yaml.safe_load((BUNDLES / "wsi_mil" / "configs" / f"{name}.yaml").read_text())
        for name in ("train", "inference", "asmil")
    )
    flat = {key for key, value in train.items() if isinstance(value, (int, float))}
    assert overlay.keys() - {"network_def"} <= flat
    assert train["network_def"] == inference["unrecorded_network"]


@pytest.mark.parametrize("network", OVERLAYS)
def test_wsi_mil_learns_is_evaluated_and_localizes(network, run, data, tmp_path):
    trained = run("train", network=network, epochs=12)
    splits = content(trained, "splits")
    state = content(trained, "validate#evaluator").state
    assert state.best_metric > 0.9
    assert {"bag_auroc", "bag_macro_f1", "bag_kappa"} <= set(state.metrics)
    run("train", "evaluate", network=network)
    rows = {row["case_id"]: row for row in csv.DictReader((tmp_path / "e" / "bags.csv").open())}
    assert set(rows) == set(splits.folds[0]["test"])
    report = json.loads((tmp_path / "e" / "report.json").read_text())
    assert report["values"]["bag_auroc"] > 0.9
    temperature = ModelRecord.read(tmp_path / "m").calibration["temperature"]
    case, row = next(iter(rows.items()))
    item = next(item for item in load_cohort(data / "cohort.csv") if item["case_id"] == case)
    net = content(trained, "net")
    net.load_state_dict(torch.load(tmp_path / "m" / "model.pt", weights_only=True))
    bag = content(trained, "load_bag")(item)["image"]
    with torch.no_grad():
        expected = (net.cpu().eval()(bag[None]) / temperature).softmax(1)[0, 1]
    assert float(row["probability_1"]) == pytest.approx(float(expected), abs=1e-5)


def test_wsi_mil_calibrates_sets_of_tiles_that_inference_states(run, data, tmp_path):
    """At the level of the patient, whose slides have a file of labels each."""
    head, *lines = (data / "cohort.csv").read_text().splitlines()
    for line in lines:
        slide, _, label = line.split(",")
        tiles = len(read_bag(data / slide)["features"])
        np.save((data / slide).with_suffix(".npy"), int(label) * (np.arange(tiles) % 2 == 0))
    labeled = [f"{line},{line.split(',')[0].replace('.h5', '.npy')}" for line in lines]
    (data / "labeled.csv").write_text("\n".join([f"{head},truth", *labeled]))
    given = {"table": str(data / "labeled.csv"), "columns#instance_label": "truth", "level": "patient", "num_folds": 2}
    run("train", **given, epochs=1)
    run("train", "evaluate", **given, calibrate=True, set_alpha=0.25, set_max_share=1)
    written = json.loads((tmp_path / "m" / "conformal.json").read_text())
    tiles = list(csv.DictReader((tmp_path / "e" / "instances.csv").open()))
    ranks = [_first_rank([t for t in tiles if t["case_id"] == case]) for case in {t["case_id"] for t in tiles}]
    ranks = [rank for rank in ranks if rank]
    assert (written["num_bags"], written["threshold"], written["split"]) == (len(ranks), max(ranks), "test")
    out = {"ckpt_dir": str(tmp_path / "m"), "output_dir": str(tmp_path / "e"), "pictures": []}
    start("inference", kind="infer", input=str(data / "labeled.csv"), **out).run()
    rows = {row["case_id"]: row for row in csv.DictReader((tmp_path / "e" / "results.csv").open())}
    low, high = written["bag_sizes"]
    inside = [case for case, row in rows.items() if low <= int(row["num_tiles"]) <= high]
    assert [case for case, row in rows.items() if row["set_size"]] == inside
    entry = json.loads((tmp_path / "e" / inside[0] / "prediction.json").read_text())["instance_set"]
    assert (entry["num_needed"], len(entry["indices"])) == (max(ranks), max(ranks))
    assert f"of {rows[inside[0]]['num_tiles']} tiles include" in entry["sentence"]


def _first_rank(tiles):
    """Return the rank of the first positive tile of a bag by attention, or 0."""
    order = sorted(tiles, key=lambda tile: -float(tile["attention"]))
    return next((rank for rank, tile in enumerate(order, 1) if tile["instance_label"] == "1"), 0)


def test_wsi_mil_asmil_config_trains_with_an_anchor_and_qgmil_without(run, tmp_path):
    workflows = {name: run("train", network=name, epochs=1, ckpt_dir=str(tmp_path / name)) for name in OVERLAYS}
    metrics = {name: content(workflow, "train#trainer").state.metrics for name, workflow in workflows.items()}
    assert "attention_anchor" in metrics["asmil"]
    assert "attention_anchor" not in metrics["qgmil"]
    assert content(workflows["qgmil"], "train#named_handlers#anchor") is None
    assert "anchor" not in content(workflows["qgmil"], "train#named_handlers")


def test_wsi_mil_trains_qgmil_with_an_anchor_on_request(run, tmp_path):
    trainer = content(run("train", anchor=0.01, epochs=1), "train#trainer")
    assert "attention_anchor" in trainer.state.metrics
    state = torch.load(tmp_path / "m" / "checkpoint_epoch=1.pt", weights_only=True)
    assert state["training_state"]["parts"]["anchor"]["anchor"]


@pytest.mark.parametrize("network", OVERLAYS)
def test_wsi_mil_train_resumes_a_killed_run_exactly(network, data, tmp_path):
    """The weights that validation chose too: a run that goes on remembers the best epoch."""

    def ended(folder, kill_at=None):
        workflow = start(
            "train",
            network=network,
            dataset_dir=str(data),
            ckpt_dir=str(tmp_path / folder),
            output_dir=str(tmp_path / folder),
            **{**SMALL, "epochs": 4, "batch_size": 2},
        )
        if kill_at:

            @content(workflow, "train#trainer").on(Events.ITERATION_COMPLETED(once=kill_at))
            def kill():
                raise KeyboardInterrupt

        workflow.run()
        checkpoint = torch.load(tmp_path / folder / "checkpoint_epoch=4.pt", weights_only=True)
        return checkpoint, torch.load(tmp_path / folder / "model.pt", weights_only=True)

    whole = ended("whole")
    steps = whole[0]["trainer"]["iteration"] // 4
    with pytest.raises((KeyboardInterrupt, RuntimeError)):
        ended("killed", kill_at=2 * steps + 2)
    resumed = ended("killed")
    assert all(torch.equal(whole[1][key], resumed[1][key]) for key in whole[1])
    assert all(torch.equal(whole[0]["network"][key], resumed[0]["network"][key]) for key in whole[1])
    parts = [checkpoint["training_state"]["parts"] for checkpoint, _ in (whole, resumed)]
    assert parts[0]["best"] == parts[1]["best"]
    if network == "asmil":
        anchors = [part["anchor"]["anchor"] for part in parts]
        assert anchors[0]
        assert all(torch.equal(anchors[0][key], anchors[1][key]) for key in anchors[0])


def test_wsi_mil_kfold_makes_a_table(run, tmp_path):
    for fold in (0, 2):
        paths = {"ckpt_dir": str(tmp_path / f"m{fold}"), "output_dir": str(tmp_path / "e" / f"fold_{fold}")}
        workflow = run("train", "kfold", fold=fold, level="patient", folds_dir=str(tmp_path / "e"), epochs=6, **paths)
    rows = list(csv.DictReader((tmp_path / "e" / "fold_2" / "bags.csv").open()))
    assert {row["case_id"] for row in rows} == set(content(workflow, "splits").folds[2]["test"])
    assert {int(row["num_instances"]) > 12 for row in rows} == {True, False}  # of two slides, and of one
    table = json.loads((tmp_path / "e" / "folds.json").read_text())
    values = [table["folds"][fold]["bag_auroc"] for fold in ("0", "2")]
    assert table["values"]["bag_auroc"] == pytest.approx(sum(values) / 2)
    assert table["sd"]["bag_auroc"] == pytest.approx(abs(values[0] - values[1]) / 2**0.5)


def test_wsi_mil_evaluate_refuses_another_fold(run):
    run("train", epochs=1)
    with pytest.raises(RuntimeError, match="Failed to evaluate") as error:
        run("train", "evaluate", fold=1)
    assert str(root_cause(error.value)).startswith("`fold` must be the one that the weights were trained for")


def test_wsi_mil_evaluate_names_the_level_of_the_training_and_not_its_split(run):
    """At another level, the split is another one, too: the level is what to change."""
    run("train", epochs=1, level="patient")
    with pytest.raises(RuntimeError, match="Failed to evaluate") as error:
        run("train", "evaluate")
    assert "`level` must be patient, as in the training, got bag" in str(root_cause(error.value))


def test_wsi_mil_evaluate_refuses_weights_of_another_network(run, data):
    """Other numbers of heads give weights of the same shapes."""
    run("train", network="asmil", epochs=1, **{"network_def#num_heads": 2})
    goes_on = [(("train",), {}), (("train", "evaluate"), {}), (("inference",), {"input": str(data / "features")})]
    for configs, options in goes_on:
        with pytest.raises(RuntimeError, match="Failed to evaluate") as error:
            run(*configs, network="asmil", **options)
        assert re.search(r"num_heads is 2, got 8; .*pass the --network_def#", str(root_cause(error.value)))


def test_wsi_mil_trains_on_three_named_classes(tmp_path):
    data, names = write_cohort(tmp_path / "three", classes=3), ["benign", "low", "high"]
    head, *lines = (data / "cohort.csv").read_text().splitlines()
    named = [f"{line[:-1]}{names[int(line[-1])]}" for line in lines if not line.endswith(("p17,2", "p11,2"))]
    (data / "cohort.csv").write_text("\n".join([head, *named]))
    options = {"class_names": names, "class_weights": "$@balanced_weights", "kappa_weights": "quadratic"}
    paths = {"dataset_dir": str(data), "ckpt_dir": str(tmp_path / "m"), "output_dir": str(tmp_path / "e")}
    workflow = start("train", **paths, **{**SMALL, **options})
    workflow.run()
    labels = torch.tensor([item["label"] for item in content(workflow, "train_items")])
    expected = len(labels) / (3 * labels.bincount())
    assert len(set(expected.tolist())) > 1
    torch.testing.assert_close(content(workflow, "train#loss").weight, expected.float())
    record = ModelRecord.read(tmp_path / "m")
    assert record.class_names == tuple(names)
    assert record.cohort["cases"] == len(labels)
    start("train", "evaluate", **paths, **{**SMALL, **options}).run()
    report = json.loads((tmp_path / "e" / "report.json").read_text())
    assert report["class_names"] == [row["name"] for row in report["classes"]] == names
    assert sum(map(sum, report["confusion_matrix"])) == report["num_bags"]
    with (tmp_path / "e" / "bags.csv").open() as lines:
        for row in csv.DictReader(lines):
            assert (row["label_class"], row["predicted_class"]) == (
                names[int(row["label"])],
                names[int(row["prediction"])],
            )


def test_wsi_mil_train_refuses_a_validation_of_one_class(tmp_path):
    data = write_cohort(tmp_path / "one")
    lines = (data / "cohort.csv").read_text().splitlines()
    (data / "cohort.csv").write_text("\n".join([lines[0], *(line[:-1] + "0" for line in lines[1:])]))
    paths = {"dataset_dir": str(data), "ckpt_dir": str(tmp_path / "m"), "output_dir": str(tmp_path / "e")}
    with pytest.raises(RuntimeError, match="Failed to evaluate") as error:
        start("train", **paths, **SMALL).run()
    assert "must be a number to choose an epoch by, got NaN of bag_auroc" in str(root_cause(error.value))


def test_wsi_mil_train_keeps_the_last_of_equal_epochs(run, tmp_path):
    run("train", network="asmil", learning_rate=0.0)
    state = torch.load(tmp_path / "m" / "checkpoint_epoch=2.pt", weights_only=True)
    assert state["training_state"]["parts"]["best"]["epoch"] == 2


@pytest.mark.slow(buys="two processes of torchrun train slides, and one writes")
def test_wsi_mil_multi_gpu_train_writes_in_one_of_two_processes(data, tmp_path):
    configs = "['configs/train.yaml','configs/asmil.yaml','configs/multi_gpu_train.yaml']"
    options = {"dataset_dir": data, "ckpt_dir": tmp_path / "m", "output_dir": tmp_path / "e", **SMALL}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m"]
    command += ["monai.bundle", "run", "--config_file", configs]
    command += [word for key, value in options.items() for word in (f"--{key}", str(value))]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    folder = BUNDLES / "wsi_mil"
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    checkpoint = torch.load(tmp_path / "m" / "checkpoint_epoch=2.pt", weights_only=True)
    assert ModelRecord.read(tmp_path / "m").calibration["num_bags"] > 2
    assert len(list((tmp_path / "e").glob("events*"))) == 1
    folders = {k: str(v) for k, v in options.items() if "dir" in k}
    alone = start("train", "evaluate", network="asmil", **folders, **SMALL)
    assert checkpoint["trainer"]["epoch_length"] == -(-len(content(alone, "train#sampler")) // 2)
    alone.run()
    assert json.loads((tmp_path / "e" / "report.json").read_text())["num_bags"] > 2
