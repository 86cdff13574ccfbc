"""The bundle bag_classifier on small bags: training, evaluation and inference of any network."""

import csv
import json

import pytest
import torch
from monai.bundle import ConfigWorkflow, verify_metadata

from monai_mil_ext.data import FeatureStatistics, load_cohort

from .bag_classifier import BUNDLE, bags, scripts

NETS = "monai_mil_ext.networks.nets."
SETTINGS = {"num_folds": 4, "fold": 2, "epochs": 8, "batch_size": 8, "learning_rate": 0.01}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Forty bags and their table."""
    folder = tmp_path_factory.mktemp("bags")
    scripts("prepare").write_cohort(bags(), folder / "cohort.csv")
    return folder


@pytest.fixture
def start(monkeypatch, data, tmp_path):
    monkeypatch.chdir(BUNDLE)

    def make(*configs, kind="train", **override):
        paths = {"dataset_dir": str(data), "ckpt_dir": str(tmp_path / "m"), "output_dir": str(tmp_path / "e")}
        files = [f"configs/{name}.yaml" for name in configs]
        workflow = ConfigWorkflow(files, workflow_type=kind, logging_file=False, **{**SETTINGS, **paths, **override})
        workflow.initialize()
        return workflow

    return make


def content(workflow, key):
    return workflow.parser.get_parsed_content(key)


@pytest.mark.parametrize(
    ("configs", "kind"), [(["train"], "train"), (["train", "evaluate"], "train"), (["train", "inference"], "infer")]
)
def test_it_has_the_properties_that_monai_asks_for(start, data, tmp_path, configs, kind):
    FeatureStatistics.none(8).write(tmp_path / "m" / "statistics.json")
    assert start(*configs, kind=kind, input=str(data / "bags")).check_properties() == []


def test_metadata_is_valid():
    verify_metadata(str(BUNDLE / "configs" / "metadata.json"), str(BUNDLE.parents[1] / "tests/bundles/schema.json"))


def test_it_learns_is_evaluated_on_its_fold_and_answers_files(start, data, tmp_path):
    trained = start("train")
    trained.run()
    splits = content(trained, "splits")
    assert content(trained, "validate#evaluator").state.best_metric > 0.8
    start("train", "evaluate").run()
    rows = {row["case_id"]: row for row in csv.DictReader((tmp_path / "e" / "bags.csv").open())}
    assert set(rows) == set(splits.folds[2]["test"])
    assert json.loads((tmp_path / "e" / "report.json").read_text())["values"]["bag_auroc"] > 0.9
    attention = list(csv.DictReader((tmp_path / "e" / "instances.csv").open()))
    first = {row["case_id"]: float(row["attention"]) for row in reversed(attention)}
    moved = [first[case] for case, row in rows.items() if row["label"] == "1"]
    assert min(moved) > 0.3  # the instance that was moved, of two to six
    start("train", "inference", kind="infer", input=str(data / "bags"), dataset_dir="nowhere").run()
    answers = {row["case_id"]: row for row in csv.DictReader((tmp_path / "e" / "predictions.csv").open())}
    assert len(answers) == 40
    for case, row in rows.items():
        assert float(answers[case]["probability_1"]) == pytest.approx(float(row["probability_1"]), abs=1e-5)


@pytest.mark.parametrize(
    ("network", "override", "terms"),
    [
        ({"_target_": f"{NETS}MeanMIL"}, {}, set()),
        ({"_target_": f"{NETS}ASMIL", "hidden_size": 16}, {"anchor": 0.01}, {"attention_anchor"}),
        ({"_target_": f"{NETS}ACMIL", "hidden_size": 16}, {"branches": 1.0}, {"branch_loss", "branch_diversity"}),
        ({"_target_": f"{NETS}ABMIL", "hidden_size": 16}, {"guidance": 1.0}, {"attention_prior"}),
    ],
    ids=["MeanMIL", "ASMIL", "ACMIL", "ABMIL + NG"],
)
def test_any_network_trains_with_the_terms_it_is_given(start, network, override, terms):
    network = {**network, "in_features": 8, "num_classes": 2}
    workflow = start("train", network_def=network, epochs=1, **override)
    workflow.run()
    found = content(workflow, "train#trainer").state.metrics
    known = {"attention_anchor", "branch_loss", "branch_diversity", "attention_prior"}
    assert {name for name in known if name in found} == terms


def test_features_are_standardised_by_the_training_part_alone(start, data, tmp_path):
    workflow = start("train")
    items = content(workflow, "splits").select(load_cohort(data / "cohort.csv"), 2, "train")
    rows = torch.cat([item["image"] for item in content(workflow, "train#dataset")])
    torch.testing.assert_close(rows.mean(0), torch.zeros(8), atol=1e-5, rtol=0)
    torch.testing.assert_close(rows.std(0, correction=0), torch.ones(8), atol=1e-5, rtol=0)
    assert content(workflow, "statistics").mean.tolist() == FeatureStatistics.over(items).mean.tolist()
    raw = start("train", standardize=False)
    assert abs(float(torch.cat([item["image"] for item in content(raw, "train#dataset")]).mean(0)[0])) > 0.1


def test_rare_classes_weigh_more_where_asked(start):
    assert content(start("train"), "train#loss").weight is None
    weights = content(start("train", class_weights="$@balanced_weights"), "train#loss").weight
    assert weights.tolist() == pytest.approx([1, 1])
    assert content(start("train", class_weights=[1, 3.5]), "train#loss").weight.tolist() == [1, 3.5]
