"""Tests of the semi-synthetic experiment on small sets, and of the protocol's rules."""

import json

import pytest
import torch

from monai_mil_ext.apps.study import StudyRunner
from tests.workflows import ROOT, configs_of, content, open_workflow

HERE = ROOT / "scripts" / "experiments" / "semi_synthetic"
SMALL = {"num_train": 64, "batch_size": 16, "epochs": 1, "in_features": 16, "set_options": {"shift": 2.0}}
NETS = "monai_mil_ext.networks.nets."


@pytest.fixture
def protocol():
    from experiments.semi_synthetic import protocol

    return protocol


def start(monkeypatch, folder, *configs, **override):
    monkeypatch.chdir(HERE)
    return open_workflow(*configs_of(*configs), ckpt_dir=str(folder), **{**SMALL, **override})


def metrics(workflow):
    workflow.run()
    return content(workflow, "validate#evaluator").state.metrics


@pytest.mark.parametrize(
    ("name", "override"),
    [("MeanMIL", {}), ("SmAP", {"guidance_weight": 1.0}), ("ASMIL", {"anchor": 0.01, "network_def#hidden_size": 16})],
)
def test_semi_synthetic_trains_any_network(monkeypatch, tmp_path, name, override):
    workflow = start(monkeypatch, tmp_path, "train", **{"network_def#_target_": NETS + name}, **override)
    assert 0 <= metrics(workflow)["bag_auroc"] <= 1
    state = content(workflow, "train#trainer").state
    assert {"attention_prior" in state.metrics, "attention_anchor" in state.metrics} == {
        "guidance_weight" in override,
        "anchor" in override,
    }
    assert (tmp_path / "model.pt").exists()


@pytest.mark.slow(buys="training reaches the known optimum")
def test_window_mil_is_close_to_bayes_for_a_large_shift(monkeypatch, tmp_path, protocol):
    options = {"num_train": 600, "epochs": 10, "batch_size": 20}
    window = start(monkeypatch, tmp_path, "train", "window_mil", **options)
    assert metrics(window)["bag_auroc"] > 0.9
    groups = window.parser.get_parsed_content("optimizer").param_groups
    assert [g["initial_lr"] for g in groups] == [0.003, 0.01, 0.02]  # of the direction, the offsets, the window
    evaluation = start(monkeypatch, tmp_path, "train", "window_mil", "evaluate", **options, num_test=100)
    values = metrics(evaluation)
    bags = content(evaluation, "validate#dataset")
    bayes = protocol.bounds(bags, {"shift": 2.0})["Bayes"]
    assert bags.seed == 5003
    assert values["bag_auroc"] > bayes["bag_auroc"] - 0.05
    assert values["instance_auroc"] > bayes["instance_auroc"] - 0.05


def test_bounds_are_those_of_the_shifted_feature(protocol):
    known = protocol.bounds(protocol.ShiftedMeanDataset(60, 0, shift=2.0), {"shift": 2.0})
    assert known["Bayes"]["bag_auroc"] > 0.99
    assert "bag_auroc" not in known["center"]


def test_read_test_set_reads_once_and_logs_every_read(monkeypatch, tmp_path, protocol):
    monkeypatch.setattr(protocol, "LOG", tmp_path / "reads.jsonl")
    bags = protocol.read_test_set("published", 1, "a test")
    assert bags.lengths[:3].tolist() == [35, 23, 35]
    with pytest.raises(RuntimeError, match=r"`again` must say why set 1003 \(published\) is read once more, after 20"):
        protocol.read_test_set("published", 1, "a test")
    protocol.read_test_set("published", 1, "a test", again="to see whether the log grows")
    lines = [json.loads(line) for line in (tmp_path / "reads.jsonl").read_text().splitlines()]
    assert [line.get("again") for line in lines] == [None, "to see whether the log grows"]
    assert [(line["seed"], line["variant"], line["options"]) for line in lines] == [(1003, "published", {})] * 2


@pytest.fixture
def runner(tmp_path, protocol):
    return StudyRunner(tmp_path, protocol.train)


def test_choose_l1_uses_validation_only(monkeypatch, protocol, runner):
    from experiments.semi_synthetic.methods import L1_TRIED, window_trainings

    scores = {0.3: 0.7, 0.5: 0.9}
    runner.work = lambda run, folder: {"val_bag_auroc": scores[run.settings["overrides"]["l1"]]}
    runner.run_all([t.run for l1 in L1_TRIED for t in window_trainings("published", l1)], report=None)
    monkeypatch.setattr(protocol, "read_test_set", None)
    assert protocol.choose_l1(runner) == 0.5


def test_cpu_trainings_have_published_seeds_and_different_names(tmp_path, protocol):
    trainings = [*protocol.cpu_trainings(), *(t for v in protocol.VARIANTS for t in protocol.window_trainings(v, 0.5))]
    assert len({training.name for training in trainings}) == len(trainings) == 48 + 12
    parser = protocol.open_workflow(trainings[2].run, tmp_path).parser
    assert [parser[key] for key in ("seed", "train_seed", "val_seed", "num_train")] == [3001, 3001, 3002, 1000]


def test_summarize_sets_gives_mean_and_population_sd(protocol):
    sets = [{"bag_auroc": value} for value in (0.6, 0.7, 0.8)]
    records = [{"epochs": 3, "val_bag_auroc": v, "wall_seconds": 10, "cpu_seconds": 4} for v in (0.5, 0.6, 0.7)]
    row = protocol.summarize_sets("x", sets, records)
    assert row["values"] == {"bag_auroc": pytest.approx(0.7)}
    assert row["sd"] == {"bag_auroc": pytest.approx((2 / 3) ** 0.5 / 10)}
    assert (row["epochs"], row["wall_seconds"], row["val_bag_auroc"]) == (3, 10, 0.6)


def test_semi_synthetic_training_runs_once_and_is_evaluated(monkeypatch, tmp_path, protocol, runner):
    training = protocol.Training("tiny", "tiny", 1, "published", ("train",), {**SMALL, "num_train": 32})
    record = runner.run(training.run)
    assert record["epochs"] == 1
    assert torch.load(tmp_path / "tiny" / "model.pt", weights_only=True)
    bags = protocol.ShiftedMeanDataset(20, 0, in_features=16)
    values = protocol.evaluate([training], bags, runner)["tiny"]
    assert values.keys() == {"bag_auroc", "instance_auroc", "instance_ap"}
    monkeypatch.setattr(protocol, "open_workflow", None)
    assert runner.run(training.run) == record


def test_summarize_methods_says_how_many_settings_were_tried(protocol, runner):
    record = {"epochs": 1, "val_bag_auroc": 0.5}
    runner.work = lambda run, folder: record
    trainings = protocol.cpu_trainings()
    runner.run_all([training.run for training in trainings], report=None)
    values = {training.name: {"bag_auroc": 0.5} for training in trainings}
    rows = protocol.summarize_methods(trainings, values, runner)
    tried = {row["name"]: row["settings_tried"] for row in rows}
    assert len(tried) == 16
    assert (tried["WindowMIL"], tried["WindowMIL + NG"], tried["max"], tried["SmAP"]) == (4, 4, 2, 1)
