"""The bundle semi_synthetic on small sets, and the protocol's rules."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigWorkflow, verify_metadata

ROOT = Path(__file__).parents[2]
BUNDLE = ROOT / "bundles" / "semi_synthetic"
SMALL = {"num_train": 64, "batch_size": 16, "epochs": 1, "in_features": 16, "set_options": {"shift": 2.0}}
NETS = "monai_mil_ext.networks.nets."


@pytest.fixture(scope="module")
def protocol():
    """The bundle's scripts, under a name of their own: another bundle has ``scripts`` too."""
    spec = importlib.util.spec_from_file_location(
        "semi_synthetic_scripts",
        BUNDLE / "scripts" / "__init__.py",
        submodule_search_locations=[str(BUNDLE / "scripts")],
    )
    sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    yield importlib.import_module(f"{spec.name}.protocol")
    for name in [name for name in sys.modules if name.startswith(spec.name)]:
        del sys.modules[name]


def start(monkeypatch, folder, *configs, **override):
    monkeypatch.chdir(BUNDLE)
    files = [f"configs/{name}.yaml" for name in configs]
    workflow = ConfigWorkflow(
        files, workflow_type="train", logging_file=False, ckpt_dir=str(folder), **{**SMALL, **override}
    )
    workflow.initialize()
    return workflow


def metrics(workflow):
    workflow.run()
    return workflow.parser.get_parsed_content("validate#evaluator").state.metrics


def test_metadata_is_valid():
    verify_metadata(str(BUNDLE / "configs" / "metadata.json"), str(ROOT / "tests" / "bundles" / "schema.json"))


@pytest.mark.parametrize("configs", [("train",), ("train", "window_mil"), ("train", "evaluate")], ids="-".join)
def test_it_has_the_properties_that_monai_asks_for(monkeypatch, tmp_path, configs):
    workflow = start(monkeypatch, tmp_path, *configs)
    assert workflow.check_properties() == []


@pytest.mark.parametrize(
    ("name", "override"),
    [("MeanMIL", {}), ("SmAP", {"guidance": 1.0}), ("ASMIL", {"anchor": 0.01, "network_def#hidden_size": 16})],
)
def test_any_network_trains(monkeypatch, tmp_path, name, override):
    workflow = start(monkeypatch, tmp_path, "train", **{"network_def#_target_": NETS + name}, **override)
    assert 0 <= metrics(workflow)["bag_auroc"] <= 1
    state = workflow.parser.get_parsed_content("train#trainer").state
    assert {"attention_prior" in state.metrics, "attention_anchor" in state.metrics} == {
        "guidance" in override,
        "anchor" in override,
    }
    assert (tmp_path / "model.pt").exists()


def test_window_mil_nears_bayes_where_the_shift_is_plain(monkeypatch, tmp_path, protocol):
    options = {"num_train": 600, "epochs": 10, "batch_size": 20}
    window = start(monkeypatch, tmp_path, "train", "window_mil", **options)
    assert metrics(window)["bag_auroc"] > 0.9
    groups = window.parser.get_parsed_content("optimizer").param_groups
    assert [g["initial_lr"] for g in groups] == [0.003, 0.01, 0.02]  # of the direction, the offsets, the window
    evaluation = start(monkeypatch, tmp_path, "train", "window_mil", "evaluate", **options, num_test=100)
    found = metrics(evaluation)
    bags = evaluation.parser.get_parsed_content("validate#dataset")
    bayes = protocol.bounds(bags, {"shift": 2.0})["Bayes"]
    assert bags.seed == 5003
    assert found["bag_auroc"] > bayes["bag_auroc"] - 0.05
    assert found["instance_auroc"] > bayes["instance_auroc"] - 0.05


def test_bayes_finds_the_feature_wherever_it_is(protocol):
    plain, mixed = (protocol.ShiftedMeanBags(60, 0, shift=2.0, feature_seed=seed) for seed in (None, 7))
    known = protocol.bounds(plain, {"shift": 2.0})
    assert protocol.bounds(mixed, {"shift": 2.0, "feature_seed": 7}) == known
    assert known["Bayes"]["bag_auroc"] > 0.99
    assert "bag_auroc" not in known["centre"]


def test_a_test_set_is_read_once_and_every_read_is_written_down(monkeypatch, tmp_path, protocol):
    monkeypatch.setattr(protocol, "LOG", tmp_path / "reads.jsonl")
    bags = protocol.read_test_set("published", 1, "a test")
    assert bags.lengths[:3].tolist() == [35, 23, 35]
    with pytest.raises(RuntimeError, match=r"`again` must say why set 1003 \(published\) is read once more, after 20"):
        protocol.read_test_set("published", 1, "a test")
    protocol.read_test_set("published", 1, "a test", again="to see whether the log grows")
    lines = [json.loads(line) for line in (tmp_path / "reads.jsonl").read_text().splitlines()]
    assert [line.get("again") for line in lines] == [None, "to see whether the log grows"]
    assert [(line["seed"], line["variant"], line["options"]) for line in lines] == [(1003, "published", {})] * 2


def test_the_choice_is_by_validation_alone(monkeypatch, tmp_path, protocol):
    scores = {0.3: 0.7, 0.5: 0.9, 0.8: 0.8}
    monkeypatch.setattr(protocol, "train", lambda run, folder: {"val_bag_auroc": scores[run.overrides["l1"]]})
    monkeypatch.setattr(protocol, "read_test_set", None)
    assert protocol.chosen_l1(tmp_path) == 0.5


def test_seeds_are_the_published_ones_and_names_are_apart(monkeypatch, tmp_path, protocol):
    monkeypatch.chdir(BUNDLE)
    runs = [*protocol.cpu_runs(), *(r for v in protocol.VARIANTS for r in protocol.window_runs(v, 0.5))]
    assert len({run.name for run in runs}) == len(runs) == 48 + 15
    parser = protocol._workflow(runs[2], tmp_path).parser
    assert [parser[key] for key in ("seed", "train_seed", "val_seed", "num_train")] == [3001, 3001, 3002, 1000]


def test_a_row_is_mean_and_population_sd(protocol):
    sets = [{"bag_auroc": value} for value in (0.6, 0.7, 0.8)]
    records = [{"epochs": 3, "val_bag_auroc": v, "wall_seconds": 10, "cpu_seconds": 4} for v in (0.5, 0.6, 0.7)]
    made = protocol.row("x", sets, records)
    assert made["values"] == {"bag_auroc": pytest.approx(0.7)}
    assert made["sd"] == {"bag_auroc": pytest.approx((2 / 3) ** 0.5 / 10)}
    assert (made["epochs"], made["wall_seconds"], made["val_bag_auroc"]) == (3, 10, 0.6)


def test_a_finished_run_is_not_run_again(monkeypatch, tmp_path, protocol):
    monkeypatch.chdir(BUNDLE)
    run = protocol.Run("tiny", "tiny", 1, "published", ("train",), {**SMALL, "num_train": 32})
    record = protocol.train(run, tmp_path)
    monkeypatch.setattr(protocol, "_workflow", None)
    assert protocol.train(run, tmp_path) == record
    assert record["epochs"] == 1
    assert torch.load(tmp_path / "tiny" / "model.pt", weights_only=True)


def test_a_row_says_how_many_settings_were_tried(monkeypatch, tmp_path, protocol):
    record = {"epochs": 1, "val_bag_auroc": 0.5, "wall_seconds": 1, "cpu_seconds": 1}
    monkeypatch.setattr(protocol, "train", lambda run, folder: record)
    runs = protocol.cpu_runs()
    rows = protocol.rows_of(runs, {run.name: {"bag_auroc": 0.5} for run in runs}, tmp_path)
    tried = {row["name"]: row["settings_tried"] for row in rows}
    assert len(tried) == 16
    assert (tried["WindowMIL"], tried["WindowMIL + NG"], tried["max"], tried["SmAP"]) == (4, 4, 2, 1)
