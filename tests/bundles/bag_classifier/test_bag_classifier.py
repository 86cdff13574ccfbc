"""Tests of bag_classifier on small bags: training, evaluation and inference of every network."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow

from monai_mil_ext.apps.bundle import save_model
from monai_mil_ext.data import FeatureStatistics, InstanceSource, ModelRecord, load_cohort, write_bag
from monai_mil_ext.networks.nets import ABMIL
from tests.bundles.small_bags import BUNDLE, bags, scripts
from tests.workflows import causes, configs_of, content, open_workflow, paths

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
        places = {**paths(data, tmp_path / "m"), "output_dir": str(tmp_path / "e")}
        settings = SETTINGS if kind == "train" else {}
        return open_workflow(*configs_of(*configs), kind=kind, **{**settings, **places, **override})

    return make


def test_bag_classifier_learns_is_evaluated_and_infers_files(start, data, tmp_path):
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
    start("inference", kind="infer", input=str(data / "bags"), dataset_dir="nowhere").run()
    answers = {row["case_id"]: row for row in csv.DictReader((tmp_path / "e" / "predictions.csv").open())}
    assert len(answers) == 40
    for case, row in rows.items():
        assert float(answers[case]["probability_1"]) == pytest.approx(float(row["probability_1"]), abs=1e-5)
    instances = list(csv.DictReader((tmp_path / "e" / "instances.csv").open()))
    assert len(instances) == sum(int(row["num_instances"]) for row in answers.values())
    same = [float(row["attention"]) for row in instances if row["case_id"] in rows]
    assert same == pytest.approx([float(row["attention"]) for row in attention], abs=1e-5)  # both by name of the bag


def test_bag_classifier_calibrates_sets_of_instances_that_inference_states(start, data, tmp_path):
    made, (head, *lines) = bags(), (data / "cohort.csv").read_text().splitlines()
    for line in lines:
        stem = line.split(",")[0].removeprefix("bags/").removesuffix(".h5")
        label, instances = made[str(int(stem.removeprefix("bag_")))]
        np.save(data / f"{stem}.npy", label * (np.arange(len(instances)) == 0))
    labeled = [f"{line},{line.split(',')[0].removeprefix('bags/').removesuffix('.h5')}.npy" for line in lines]
    (data / "labeled.csv").write_text("\n".join([f"{head},truth", *labeled]))
    given = {"table": str(data / "labeled.csv"), "columns#instance_label": "truth", "num_samples": 5}
    start("train", **given).run()
    start("train", "evaluate", **given, calibrate=True, set_alpha=0.2).run()
    written = json.loads((tmp_path / "m" / "conformal.json").read_text())
    assert (written["num_bags"], written["alpha"], written["threshold"], written["split"]) == (5, 0.2, 1, "test")
    start("train", "evaluate", **given).run()
    coverage = json.loads((tmp_path / "e" / "coverage.json").read_text())
    assert (coverage["num_bags"], coverage["coverage"], coverage["mean_size"]) == (5, 1, 1)
    assert json.loads((tmp_path / "e" / "report.json").read_text())["values"]["instance_auroc"] > 0.9
    start("inference", kind="infer", input=str(data / "bags")).run()
    answers = {row["case_id"]: row for row in csv.DictReader((tmp_path / "e" / "predictions.csv").open())}
    low, high = written["bag_sizes"]
    sizes = {case: int(row["num_instances"]) for case, row in answers.items()}
    assert {case for case, row in answers.items() if row["set_size"]} == {
        case for case, size in sizes.items() if low <= size <= high and size >= 2
    }
    instances = list(csv.DictReader((tmp_path / "e" / "instances.csv").open()))
    chosen = [(row["case_id"], row["instance"]) for row in instances if row["in_set"] == "1"]
    assert sorted(case for case, _ in chosen) == sorted(case for case, row in answers.items() if row["set_size"])
    tested = {row["case_id"]: row["label"] for row in csv.DictReader((tmp_path / "e" / "bags.csv").open())}
    assert {index for case, index in chosen if tested.get(case) == "1"} == {"0"}


def test_bag_classifier_kfold_equals_train_and_evaluate(start, tmp_path):
    for fold in (0, 2):
        here = {"fold": fold, "folds_dir": str(tmp_path / "e"), "ckpt_dir": str(tmp_path / f"m{fold}"), "epochs": 2}
        here |= {"num_samples": 10}
        start("train", "kfold", **here, output_dir=str(tmp_path / "e" / f"fold_{fold}")).run()
    once = (tmp_path / "e" / "fold_2" / "bags.csv").read_text()
    start("train", "evaluate", ckpt_dir=str(tmp_path / "m2"), num_samples=10).run()
    assert (tmp_path / "e" / "bags.csv").read_text() == once
    table = json.loads((tmp_path / "e" / "folds.json").read_text())
    values = [table["folds"][fold]["bag_auroc"] for fold in ("0", "2")]
    assert table["values"]["bag_auroc"] == pytest.approx(sum(values) / 2)


def test_bag_classifier_evaluate_refuses_another_fold(start, tmp_path):
    save_model(tmp_path / "m", ABMIL(8, 2))
    content(start("train"), "splits").write_fold(tmp_path / "m" / "split.json", 2)  # as its `run` does
    for other in ({"fold": 1}, {"split_seed": 5}, {"val_fraction": 0.5}):
        with pytest.raises(RuntimeError, match="Failed to evaluate") as error:
            start("train", "evaluate", **other).run()
        assert "`fold` must be the one that the weights were trained for, 2 with the same options" in causes(
            error.value
        )


@pytest.mark.slow(buys="the numbers in the model card are those of the shipped weights")
def test_bag_classifier_weights_have_the_metrics_of_their_card(monkeypatch, tmp_path):
    """On the bags of digits that they never saw, which are the same wherever they are made."""
    scripts("digit_bags").prepare_digits(tmp_path)
    monkeypatch.chdir(BUNDLE)
    paths = {"dataset_dir": str(tmp_path / "digits"), "ckpt_dir": "models", "output_dir": str(tmp_path)}
    workflow = ConfigWorkflow(
        ["configs/train.yaml", "configs/evaluate.yaml"], workflow_type="train", logging_file=False, **paths
    )
    workflow.initialize()
    workflow.run()
    result = json.loads((tmp_path / "report.json").read_text())["values"]
    output = json.loads((BUNDLE / "configs" / "metadata.json").read_text())["eval_metrics"]
    card = (BUNDLE / "docs" / "README.md").read_text()
    for key in ("bag_auroc", "bag_accuracy"):
        assert result[key] == pytest.approx(output[key], abs=0.001)
        assert f"{output[key]:.3f}" in card
        assert f"{output[f'{key}_mean_of_5_folds']:.3f} ± {output[f'{key}_sd_of_5_folds']:.3f}" in card


@pytest.mark.slow(buys="the shipped weights can be trained again")
def test_bag_classifier_weights_are_those_that_training_gives(monkeypatch, tmp_path):
    scripts("digit_bags").prepare_digits(tmp_path)
    monkeypatch.chdir(BUNDLE)
    paths = {"dataset_dir": str(tmp_path / "digits"), "ckpt_dir": str(tmp_path), "output_dir": str(tmp_path)}
    workflow = ConfigWorkflow(["configs/train.yaml"], workflow_type="train", logging_file=False, **paths)
    workflow.initialize()
    workflow.run()
    again, shipped = (torch.load(f / "model.pt", weights_only=True) for f in (tmp_path, BUNDLE / "models"))
    for weights in (again, shipped):
        del weights["attend.score.bias"]  # the softmax ignores it, so that its gradient is rounding alone
    torch.testing.assert_close(again, shipped, rtol=0, atol=1e-4)  # another processor sums in another order


@pytest.mark.parametrize(
    ("network", "override", "terms"),
    [
        ({"_target_": f"{NETS}MeanMIL"}, {}, set()),
        ({"_target_": f"{NETS}ASMIL", "hidden_size": 16}, {"anchor": 0.01}, {"attention_anchor"}),
        ({"_target_": f"{NETS}ACMIL", "hidden_size": 16}, {"branches": 1.0}, {"branch_loss", "branch_diversity"}),
        ({"_target_": f"{NETS}ABMIL", "hidden_size": 16}, {"guidance_weight": 1.0}, {"attention_prior"}),
    ],
    ids=["MeanMIL", "ASMIL", "ACMIL", "ABMIL + NG"],
)
def test_bag_classifier_trains_every_network_with_its_loss_terms(start, network, override, terms):
    network = {**network, "in_features": 8, "num_classes": 2}
    workflow = start("train", network_def=network, epochs=1, **override)
    workflow.run()
    result = content(workflow, "train#trainer").state.metrics
    known = {"attention_anchor", "branch_loss", "branch_diversity", "attention_prior"}
    assert {name for name in known if name in result} == terms


def test_bag_classifier_standardizes_features_by_the_training_part(start, data, tmp_path):
    workflow = start("train")
    items = content(workflow, "splits").select(load_cohort(data / "cohort.csv"), 2, "train")
    rows = torch.cat([item["image"] for item in content(workflow, "train#dataset")])
    torch.testing.assert_close(rows.mean(0), torch.zeros(8), atol=1e-5, rtol=0)
    torch.testing.assert_close(rows.std(0, correction=0), torch.ones(8), atol=1e-5, rtol=0)
    assert content(workflow, "statistics").mean.tolist() == FeatureStatistics.from_items(items).mean.tolist()
    raw = start("train", standardize=False)
    assert abs(float(torch.cat([item["image"] for item in content(raw, "train#dataset")]).mean(0)[0])) > 0.1


def test_bag_classifier_weights_rare_classes_on_request(start):
    assert content(start("train"), "train#loss").weight is None
    weights = content(start("train", class_weights="$@balanced_weights"), "train#loss").weight
    assert weights.tolist() == pytest.approx([1, 1])
    assert content(start("train", class_weights=[1, 3.5]), "train#loss").weight.tolist() == [1, 3.5]


def test_bag_classifier_refuses_bags_of_another_encoder(start, tmp_path):
    statistics = {"mean": [0.5] * 8, "scale": [2.0] * 8}
    source = InstanceSource(encoder="uni_v1", mpp=(0.5,), width=8)
    save_model(tmp_path / "m", ABMIL(8, 2), "study", sources=[source], preprocessing=statistics)
    for name, encoder in (("a", "uni_v1"), ("b", "gigapath")):
        write_bag(tmp_path / "in" / f"{name}.h5", {"features": np.ones((3, 8))}, {"encoder": encoder, "mpp": 0.5})
    with pytest.raises(RuntimeError, match="Failed to evaluate"):
        start("inference", kind="infer", input=str(tmp_path / "in")).run()
    with (tmp_path / "e" / "predictions.csv").open() as file:
        rows = {row["case_id"]: row for row in csv.DictReader(file)}
    assert rows["b"]["status"] == "refused: trained on encoder uni_v1, got encoder gigapath"
    assert (rows["a"]["status"], rows["a"]["source_check"], rows["a"]["model"]) == (
        "done",
        "agrees with the training",
        "study",
    )
    workflow = start("inference", kind="infer", input=str(tmp_path / "in"), allow_mismatch=True)
    assert content(workflow, "dataset")[0]["image"].tolist() == [[0.25] * 8] * 3  # standardized as in the training
    workflow.run()
    with (tmp_path / "e" / "predictions.csv").open() as file:
        rows = {row["case_id"]: row for row in csv.DictReader(file)}
    assert rows["b"]["source_check"].startswith("mismatch: trained on encoder uni_v1")
    assert float(rows["b"]["probability_1"]) > 0


def test_bag_classifier_evaluate_refuses_a_test_part_of_another_encoder(start, data, tmp_path):
    start("train", epochs=1).run()
    record = ModelRecord.read(tmp_path / "m")
    replace(record, sources=(replace(record.sources[0], encoder="uni_v1", width=9),)).write(
        tmp_path / "m" / "model.json"
    )
    with pytest.raises(RuntimeError, match="Failed to evaluate") as error:
        start("train", "evaluate").run()
    assert "is refused: trained on 9 features, got 8 features" in causes(error.value)


def test_bag_classifier_trains_on_the_tables_of_stamp_and_the_splits_of_clam(monkeypatch, tmp_path):
    """Slide and clini table as they are, names of classes, published splits, and all slides of a patient as one bag."""
    monkeypatch.chdir(BUNDLE)
    slides, clini, splits = ["PATIENT,FILENAME"], ["PATIENT,KRAS,AGE"], [",train,val,test"]
    for number, (label, instances) in bags(24).items():
        write_bag(tmp_path / "features" / f"s{number}.h5", {"features": instances})
        slides += [] if number == "15" else [f"p{int(number) // 4}_{label},s{number}.h5"]  # a patient with one slide
        clini += [f"p{int(number) // 4}_{label},{('wild type', 'mutated')[label]},60"] if int(number) % 4 < 2 else []
    for i in range(15):
        splits.append(f"{i},s{i}" + (f",s{i + 16},s{i + 20}" if i < 4 else ",,"))
    for name, lines in {"slide.csv": slides, "clini.csv": clini, "splits_0.csv": splits}.items():
        (tmp_path / name).write_text("\n".join(lines))
    columns = {"columns#bag": "FILENAME", "columns#patient": "PATIENT", "columns#label": "KRAS"}
    options = {"table": [str(tmp_path / "clini.csv"), str(tmp_path / "slide.csv")], "level": "patient", "epochs": 1}
    options |= {"split_file": str(tmp_path / "splits_0.csv"), "class_names": ["wild type", "mutated"]}
    places = {"ckpt_dir": str(tmp_path / "m"), "output_dir": str(tmp_path / "e")}
    workflow = open_workflow(*configs_of("train"), kind=None, **columns, **options, **places)
    workflow.run()
    split = json.loads((tmp_path / "m" / "split.json").read_text())
    assert (split["val"], split["test"]) == (["p4_0", "p4_1"], ["p5_0", "p5_1"])
    record = json.loads((tmp_path / "m" / "model.json").read_text())
    assert (record["task"]["level"], record["task"]["class_names"]) == ("patient", ["wild type", "mutated"])
    assert (record["cohort"]["cases"], record["cohort"]["num_folds"], record["cohort"]["seed"]) == (8, 1, None)
    assert record["cohort"]["table_sha256"]
    asked = {"input": str(tmp_path / "slide.csv"), **columns, "columns#label": None}
    workflow = open_workflow(*configs_of("inference"), kind="infer", **asked, **places)
    workflow.run()
    rows = list(csv.DictReader((tmp_path / "e" / "predictions.csv").open()))
    assert len(rows) == 12
    assert {row["status"] for row in rows} == {"done"}
    assert rows[0]["predicted_class"] in ("wild type", "mutated")
