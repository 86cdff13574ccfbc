"""Tests of the protocol of the classical sets: training parts, choice of settings and comparison."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from tests.bundles.small_bags import bags, scripts


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Write sixty bags as a set named musk1."""
    folder = tmp_path_factory.mktemp("sets")
    scripts("prepare").write_cohort(bags(60), folder / "musk1" / "cohort.csv")
    return folder


@pytest.fixture
def runner(root, tmp_path):
    from experiments.classical.protocol import make_runner

    return make_runner(tmp_path, root)


def make_run(model, fold=0):
    from experiments.classical import protocol

    return protocol.make_run("musk1", model, fold)


def read_fold(root, number):
    from experiments.classical import folds

    return folds.read_fold(root / "musk1" / "cohort.csv", number)


def parts(root, number):
    fold = read_fold(root, number)
    return {name: {bag["case_id"] for bag in of_part} for name, of_part in fold._parts.items()}


def test_read_fold_tests_every_bag_once_per_repeat(root):
    folds = [parts(root, number) for number in range(20)]
    for repeat in (folds[:10], folds[10:]):
        tested = [case for fold in repeat for case in fold["test"]]
        assert len(tested) == len(set(tested)) == 60
    assert folds[0]["test"] != folds[10]["test"]
    for fold in folds:
        assert len(fold["train"] | fold["val"] | fold["test"]) == sum(map(len, fold.values())) == 60
        assert len(fold["val"]) in (10, 11, 12)


def test_fold_standardized_uses_statistics_of_the_learned_parts(root):
    fold = read_fold(root, 3)
    for learned, evaluated in ((["train"], "val"), (["train", "val"], "test")):
        known, others = fold.standardized(learned, evaluated)
        rows = torch.cat([bag["image"] for bag in known])
        torch.testing.assert_close(rows.mean(0), torch.zeros(8), atol=1e-5, rtol=0)
        assert float(torch.cat([bag["image"] for bag in others]).mean(0).abs().max()) > 1e-3
        assert len(known) == sum(len(fold._parts[name]) for name in learned)
    assert abs(float(torch.cat([bag["image"] for bag in fold._parts["train"]]).mean())) > 1e-3  # unchanged


def test_make_runner_chooses_a_setting_by_validation_and_refits_on_both_parts(runner, root, monkeypatch):
    from experiments.classical import protocol

    calls = []

    def predict(config, train_bags, eval_bags, seed):
        calls.append((config["C"], len(train_bags), {bag["case_id"] for bag in eval_bags}))
        good = np.array([bag["label"] for bag in eval_bags], dtype=float)
        return np.clip(good if config["C"] == 0.1 else 1 - good, 0.1, 0.9)  # correct with this setting only

    monkeypatch.setattr(protocol, "predict_regression", predict)
    record = runner.run(make_run("pooled regression", 4))
    of_fold = parts(root, 4)
    assert len(calls) == 13
    assert all((size, cases) == (len(of_fold["train"]), of_fold["val"]) for _, size, cases in calls[:12])
    assert calls[12] == (0.1, len(of_fold["train"]) + len(of_fold["val"]), of_fold["test"])
    assert record["candidates"][record["chosen"]]["C"] == 0.1
    assert set(record["cases"]) == of_fold["test"]
    assert record["validation"][0] == {"auroc": 0.0, "loss": pytest.approx(-np.log(0.1))}


def test_make_runner_chooses_the_lower_loss_of_equal_auroc(runner, monkeypatch):
    from experiments.classical import protocol

    def predict(config, train_bags, eval_bags, seed):
        sure = 0.9 if (config["C"], config["pools"]) == (0.01, ["max"]) else 0.7
        return np.array([sure if bag["label"] else 1 - sure for bag in eval_bags])

    monkeypatch.setattr(protocol, "predict_regression", predict)
    record = runner.run(make_run("pooled regression"))
    assert record["candidates"][record["chosen"]] == {"pools": ["max"], "C": 0.01}


def test_make_runner_repeats_a_fold_only_with_other_candidates(runner, monkeypatch):
    from experiments.classical import protocol

    run = make_run("pooled regression, one setting")
    record = runner.run(run)
    monkeypatch.setattr(protocol, "read_fold", None)
    assert runner.run(run) == record
    monkeypatch.setitem(protocol.REGRESSIONS, "pooled regression, one setting", [{"pools": ["max"], "C": 1.0}])
    with pytest.raises(TypeError, match="not callable"):  # the run is repeated
        runner.run(make_run("pooled regression, one setting"))


def test_predict_regression_detects_a_shift_of_the_maximum(runner):
    record = runner.run(make_run("pooled regression, one setting"))
    assert roc_auc_score(record["labels"], record["probabilities"]) == 1


@pytest.mark.parametrize("model", ["mean", "ABMIL", "TransMIL", "QG-MIL", "ASMIL", "ACMIL"])
def test_predict_network_trains_every_network_with_every_setting(root, model):
    from experiments.classical.predictions import predict_network
    from experiments.classical.protocol import candidates

    train_bags, eval_bags = read_fold(root, 0).standardized(["train"], "val")
    for config in candidates(model):
        probability = predict_network({**config, "epochs": 1}, train_bags[:8], eval_bags[:3], seed=1)
        assert probability.shape == (3,)
        assert ((probability > 0) & (probability < 1)).all()


def test_predict_network_learns_and_is_reproducible(root):
    from experiments.classical.predictions import predict_network
    from experiments.classical.protocol import candidates

    train_bags, eval_bags = read_fold(root, 0).standardized(["train"], "val")
    config = {**candidates("ABMIL")[1], "epochs": 60}
    first, same, other = (predict_network(config, train_bags, eval_bags, seed=seed) for seed in (1, 1, 2))
    assert roc_auc_score([bag["label"] for bag in eval_bags], first) > 0.9
    assert (first == same).all()
    assert (first != other).any()


def record(auroc, loss, probability):
    return {
        "candidates": [0, 1],
        "validation": [{"auroc": 0.0, "loss": 9.0}, {"auroc": auroc, "loss": loss}],
        "chosen": 1,
        "labels": [0, 1],
        "probabilities": probability,
        "cpu_seconds": 1,
    }


RIGHT, WRONG = [0.2, 0.8], [0.8, 0.2]


def test_choose_models_chooses_per_fold_by_validation():
    from experiments.classical.table import choose_models

    chosen = choose_models(
        {
            "a": [record(0.9, 0.5, WRONG), record(0.9, 0.5, WRONG), record(0.7, 0.1, RIGHT)],
            "b": [record(0.8, 0.1, RIGHT), record(0.9, 0.4, RIGHT), record(0.9, 0.9, WRONG)],
        }
    )
    assert [record["probabilities"] for record in chosen] == [WRONG, RIGHT, WRONG]


def test_summarize_model_gives_mean_and_sample_sd_over_repeats():
    from experiments.classical.table import summarize_model

    right = [10, 10, 8, 6, 10]  # number of correct folds in each repeat
    named = [{**record(1, 1, RIGHT if i < n else WRONG), "model": "a"} for n in right for i in range(10)]
    summary = summarize_model("a", named)
    assert summary["repeats"]["bag_auroc"] == pytest.approx([1, 1, 0.8, 0.6, 1])
    folds = np.repeat([1, 0], [44, 6])
    values = {"bag_auroc": 0.88, "bag_accuracy": 0.88, "fold_sd": np.std(folds, ddof=1)}
    assert summary["values"] == pytest.approx(values)
    assert summary["sd"]["bag_auroc"] == pytest.approx(np.std([1, 1, 0.8, 0.6, 1], ddof=1))


@pytest.mark.parametrize(("folds_right", "holds"), [(48, True), (40, False)])
def test_make_result_compares_the_chosen_row_with_the_better_regression(folds_right, holds):
    def records(rights, auroc=0.9):
        return [record(auroc, 0.5, RIGHT if i % 10 < rights[i // 10] else WRONG) for i in range(50)]

    reference = [10, 9, 10, 9, 10]
    network = [10, 10, 10, 9, 9] if folds_right == 48 else [8] * 5
    by_model = {
        "a": records(network),
        "b": records([10] * 5, auroc=0.1),
        "r": records([5] * 5),
        "s": records(reference, auroc=0.99),
    }
    from experiments.classical.table import make_result

    result = make_result({"musk1": by_model}, ["a", "b"], ["r", "s"])
    claim = result["claims"]["musk1"]
    assert (claim["reference"], claim["holds"]["repeats"]) == ("s", holds)
    assert claim["at_least"]["repeats"] == pytest.approx(0.96 - 0.5 * np.std([1, 0.9, 1, 0.9, 1], ddof=1))
    assert claim["at_least"]["folds"] == pytest.approx(0.96 - 0.5 * np.std([1] * 48 + [0] * 2, ddof=1))
    assert f"musk1 {np.mean(network) / 10:.3f} for" in result["note"]
    assert ("sd over repeats, held" in result["note"]) == holds
    assert claim["chosen"] == pytest.approx(np.mean(network) / 10)
    assert [row["name"] for row in result["rows"]][:2] == ["musk1: chosen by validation", "musk1: a"]
    assert (result["rows"][0]["settings_tried"], result["cpu_seconds"]) == (4, 200)
    assert result.keys() >= {"command", "commit", "seeds", "versions", "heads", "rows", "note"}


def test_collect_needs_every_fold(runner):
    from experiments.classical.protocol import collect

    model = "pooled regression, one setting"
    record = runner.run(make_run(model))
    assert collect(runner, ["musk1"], [model], [0]) == {"musk1": {model: [record]}}
    with pytest.raises(
        RuntimeError, match=r"every run must be finished, but 1 are not, first \['musk1/pooled_reg.*01'"
    ):
        collect(runner, ["musk1"], [model], range(2))


def test_make_runner_gives_equal_records_with_two_processes(runner, root, tmp_path):
    from experiments.classical.protocol import make_runner

    runs = [make_run(model, fold) for model in ("mean", "pooled regression, one setting") for fold in range(2)]
    kept = ("chosen", "probabilities", "validation")
    alone = [{key: record[key] for key in kept} for record in runner.run_all(runs, report=None)]
    other = make_runner(tmp_path / "other", root).run_all(runs, jobs=2, report=None)
    assert alone == [{key: record[key] for key in kept} for record in other]
