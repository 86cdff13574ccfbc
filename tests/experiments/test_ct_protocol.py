"""Tests of the training protocols on scans of digits: optimization, choice of epochs and settings, and tests."""

import json
import shutil

import h5py
import pytest
import torch
from monai.engines import IterationEvents

from tests.workflows import content, paths

DATA = ("train", "digits", "protocol")
SETTINGS = {"epochs": 6, "batch_size": 8, "learning_rate": 0.05, "seed": 1001}


@pytest.mark.parametrize(
    "more",
    [
        ("published",),
        ("modern",),
        ("published", "ceiling"),
        ("published", "oracle"),
        ("modern", "evaluate"),
    ],
    ids="-".join,
)
def test_ct_protocol_has_the_properties_that_monai_requires(start, scans, tmp_path, more):
    workflow = start(*DATA, *more, workflow_type="train", **paths(scans, tmp_path))
    assert workflow.check_properties() == []


def test_ct_protocol_splits_depend_on_the_seed_and_separate_patients(start, scans, tmp_path):
    parts = {}
    for seed in (1001, 2001):
        splits = content(start(*DATA, **paths(scans, tmp_path), seed=seed), "splits")
        parts[seed] = {part: set(splits.folds[0][part]) for part in ("train", "val", "test")}
        assert [len(cases) for cases in parts[seed].values()] == [40, 10, 10]
        patients = [{splits.patients[case] for case in cases} for cases in parts[seed].values()]
        assert sum(map(len, patients)) == len(set.union(*patients)) == 30
    assert parts[1001] != parts[2001]


def test_ct_protocol_published_is_clipped_sgd_with_l1_and_full_batches(start, scans, tmp_path):
    workflow = start(
        *DATA, "published", **paths(scans, tmp_path), **{**SETTINGS, "epochs": 2, "batch_size": 16}, l1=0.1
    )
    trainer, network = content(workflow, "train#trainer"), content(workflow, "network")
    norms, rates, sizes = [], [], []

    @trainer.on(IterationEvents.BACKWARD_COMPLETED)
    def look(engine):
        norms.append(torch.nn.utils.get_total_norm([p.grad for p in network.parameters()]).item())
        rates.append(engine.optimizer.param_groups[0]["lr"])
        sizes.append(len(engine.state.batch["label"]))

    workflow.run()
    optimizer = content(workflow, "optimizer")
    assert type(optimizer) is torch.optim.SGD
    assert {k: optimizer.defaults[k] for k in ("momentum", "weight_decay")} == {"momentum": 0.9, "weight_decay": 0}
    assert sizes == [16] * 4  # of 40 bags: the last 8 are dropped
    assert rates == [0.05] * 4
    assert max(norms) <= 1 + 1e-5
    # the penalty alone, half of it on 8,577 weights, is longer than 1: every step is clipped
    assert min(norms) == pytest.approx(1, abs=1e-4)
    assert content(workflow, "train#loss").weight == 0.1


def test_ct_protocol_training_does_not_read_slice_labels(start, scans, tmp_path):
    """Check that feature files without slice labels give bit-identical weights."""
    weights = []
    for name in ("with", "without"):
        data = tmp_path / name
        shutil.copytree(scans, data)
        workflow = start(*DATA, "published", **paths(data, tmp_path / f"out_{name}"), **SETTINGS)
        bags = content(workflow, "bags")
        for bag in bags:
            assert set(bag) == {"case_id", "patient", "image", "label"}
            with h5py.File(bag["image"], "a") as file:
                assert "instance_label" in file
                if name == "without":
                    del file["instance_label"]
        workflow.run()
        assert "instance_label" not in content(workflow, "train#trainer").state.batch[0]
        assert "instance_label" not in content(workflow, "validate#evaluator").state.batch[0]
        weights.append(torch.load(tmp_path / f"out_{name}" / "last.pt", weights_only=True))
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_chosen_epoch_is_the_best_with_validation_below_training(start, scans, tmp_path):
    from scripts.epoch_choice import chosen_epoch

    settings = {**SETTINGS, "seed": 2001, "epochs": 12}
    start(*DATA, "published", **paths(scans, tmp_path), **settings).run()
    record = json.loads((tmp_path / "epochs.json").read_text())
    assert len(record["epochs"]) == 12
    assert record["chosen"] == chosen_epoch(record["epochs"], below_train=True)
    assert record["chosen"]["train"] > record["chosen"]["validation"]
    workflow = start(*DATA, "published", **paths(scans, tmp_path), **settings)
    content(workflow, "network").load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
    evaluator = content(workflow, "validate#evaluator")
    evaluator.run()
    assert evaluator.state.metrics["bag_auroc"] == pytest.approx(record["chosen"]["validation"])


def test_ct_protocol_modern_stops_early(start, scans, tmp_path):
    options = {**SETTINGS, "epochs": 40, "learning_rate": 0.003, "patience": 3}
    workflow = start(*DATA, "modern", **paths(scans, tmp_path), **options, stop_on="bag_loss", stop_mode="min")
    workflow.run()
    losses = content(workflow, "train#named_handlers#epoch_choice").history
    assert len(losses) < 40
    assert type(content(workflow, "optimizer")) is torch.optim.AdamW


def test_chosen_epoch_of_a_killed_run_equals_that_of_a_complete_run(start, scans, tmp_path):
    from ignite.engine import Events

    def run(name, kill_at=None):
        workflow = start(*DATA, "published", **paths(scans, tmp_path / name), **SETTINGS)
        if kill_at:

            @content(workflow, "train#trainer").on(Events.ITERATION_COMPLETED(once=kill_at))
            def kill():
                raise KeyboardInterrupt

        workflow.run()
        return (tmp_path / name / "epochs.json").read_text(), torch.load(tmp_path / name / "last.pt", weights_only=True)

    whole, weights = run("whole")
    with pytest.raises((KeyboardInterrupt, RuntimeError)):
        run("killed", kill_at=18)  # of five iterations an epoch: in the fourth
    resumed, same = run("killed")
    assert whole == resumed
    assert all(torch.equal(weights[key], same[key]) for key in weights)


@pytest.fixture(scope="module")
def searched(scans, tmp_path_factory):
    """Run a search of two settings on two seeds, with both references; return its folder and its output."""
    from contextlib import redirect_stdout
    from io import StringIO

    from experiments.reproduce import main

    folder, printed = tmp_path_factory.mktemp("runs"), StringIO()
    words = [
        "ct_protocol",
        "--methods",
        "ABMIL",
        "ABMIL + NG",
        "slice-supervised",
        "bag-level oracle",
        "--seeds",
        "1001",
        "2001",
    ]
    words += ["--data", "digits", "--folder", str(folder), "--grid", "learning_rate=[0.1,0.01]", "l1=[0.0001]"]
    words += ["--set", f"dataset_dir={scans}", "epochs=12", "batch_size=8", "num_samples=20"]
    with redirect_stdout(printed):
        main(words)
        main([*words, "--stage", "test"])
    return folder, printed.getvalue()


@pytest.mark.slow(buys="a whole search on scans, from settings to table and page")
def test_ct_protocol_search_chooses_by_validation_and_records_every_run(searched):
    folder, _ = searched
    result = json.loads((folder / "published.json").read_text())
    assert len(list(folder.glob("published/*/*/*/run.json"))) == 2 * 2 * 4
    assert len(list(folder.glob("published/*/*/*/test/run.json"))) == 2 * 4
    for method, seeds in result["chosen"].items():
        for seed, chosen in seeds.items():
            runs = (folder / "published" / method.replace(" + ", "_").replace(" ", "_") / seed).glob("*/run.json")
            values = [json.loads(run.read_text())["record"]["chosen"] for run in runs]
            assert chosen["chosen"]["validation"] == max(v["validation"] for v in values if v)
    assert result["settings_tried"]["ABMIL"] == 2


@pytest.mark.slow(buys="a whole search on scans, from settings to table and page")
def test_ct_protocol_rows_have_seeds_sd_and_use_of_slice_labels(searched):
    folder, printed = searched
    result = json.loads((folder / "published.json").read_text())
    rows = {row["name"]: row for row in result["rows"]}
    assert list(rows) == ["ABMIL", "ABMIL + NG", "slice-supervised", "bag-level oracle", "center"]
    assert [row["uses_slice_labels"] for row in rows.values()] == [False, False, True, True, False]
    for method in ("slice-supervised", "bag-level oracle"):
        assert f"| {method} (**uses slice labels**) | mean ± sd |" in printed
    assert set(rows["ABMIL"]["seeds"]) == {"1001", "2001"}
    assert (rows["ABMIL"]["sd_kind"]["bag_auroc"], rows["ABMIL"]["sd_kind"]["instance_auroc"]) == (
        "sample",
        "population",
    )
    center = rows["center"]["seeds"]["1001"]["instance_auroc"]
    values = rows["ABMIL"]["seeds"]["1001"]
    assert values["center_auroc"] == center
    assert values["instance_skill"] == pytest.approx((values["instance_auroc"] - center) / (1 - center))
    comparison = result["comparisons"][0]
    assert (comparison["a"], comparison["b"]) == ("ABMIL + NG", "ABMIL")
    difference = rows["ABMIL + NG"]["values"]["instance_auroc"] - rows["ABMIL"]["values"]["instance_auroc"]
    assert comparison["instance_auroc"]["difference"] == pytest.approx(difference, abs=1e-6)
    assert comparison["over"]["num_bags"] == 10  # five positive scans of ten, in two test parts


@pytest.mark.slow(buys="a whole search on scans, from settings to table and page")
def test_ct_protocol_page_shows_the_best_and_worst_scans(searched, scans):
    text = (searched[0] / "published.html").read_text()
    assert text.count("<img") == 2 + 3 * 4  # curves, spread, and of all but the oracle two best and two worst
    assert "slice-supervised (slice labels): best and worst scans" in text
    assert str(scans) not in text


@pytest.mark.slow(buys="a whole search on scans, from settings to table and page")
def test_ct_protocol_references_exceed_the_methods(searched):
    result = json.loads((searched[0] / "published.json").read_text())
    rows = {row["name"]: row["values"] for row in result["rows"]}
    assert rows["slice-supervised"]["instance_auroc"] > 0.9
    assert rows["slice-supervised"]["instance_auroc"] > rows["ABMIL"]["instance_auroc"]
    assert rows["bag-level oracle"]["bag_auroc"] > 0.9
    assert rows["bag-level oracle"]["instance_auroc"] is None  # the lesion is part of its input


def test_make_results_requires_all_trainings(tmp_path):
    from experiments.ct_protocol.protocol import Plan, make_results

    plan = Plan("published", tmp_path, grid={"l1": [0], "learning_rate": [0.1]})
    with pytest.raises(RuntimeError, match=r"every setting of 'ABMIL', seed 1001, must be trained before a choice"):
        make_results(plan, ["ABMIL"], [1001])
    runner = plan.trainer()
    runner.work = lambda run, folder: {"chosen": None}
    runner.run(plan.run("ABMIL", 1001, {"learning_rate": 0.1, "l1": 0}))
    with pytest.raises(RuntimeError, match=r"`settings` of 'ABMIL', seed 1001, must have one whose epochs count"):
        make_results(plan, ["ABMIL"], [1001])


def test_plan_keeps_paths_out_of_the_settings_of_a_run(tmp_path):
    from experiments.ct_protocol.protocol import Plan

    shared = {"epochs": 2, "dataset_dir": "data", "encoder#weights": "/a/vit.pth", "encoder": {"_target_": "x"}}
    plan = Plan("published", tmp_path, overrides=shared)
    assert plan.paths == {"dataset_dir": "data", "encoder#weights": "/a/vit.pth"}
    overrides = plan.run("ABMIL", 1001, {"l1": 0}).settings["overrides"]
    assert overrides.items() >= {"epochs": 2, "seed": 1001, "l1": 0}.items()
    assert overrides["encoder"] == {"_target_": "x"}
    assert not plan.paths.keys() & overrides.keys()


def test_settings_of_the_published_grid_are_complete():
    from experiments.ct_protocol.methods import METHODS, settings

    assert len(settings("published", "ABMIL + NG")) == 32
    assert settings("published", "slice-supervised") == [{"learning_rate": rate} for rate in (0.1, 0.01, 0.001, 0.0001)]
    assert [name for name, method in METHODS.items() if method.uses_slice_labels] == [
        "slice-supervised",
        "bag-level oracle",
    ]
