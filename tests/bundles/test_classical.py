"""The protocol of the classical sets: what may see what, what is chosen, and what a table is made of."""

import doctest
import json

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from .bag_classifier import BUNDLE, bags, scripts


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Sixty bags as a set named musk1."""
    folder = tmp_path_factory.mktemp("sets")
    scripts("prepare").write_cohort(bags(60), folder / "musk1" / "cohort.csv")
    return folder


@pytest.fixture
def task(root, tmp_path):
    def make(model, fold=0):
        return scripts("classical").Task("musk1", model, fold, root, tmp_path)

    return make


def parts(root, number):
    fold = scripts("folds").read_fold(root / "musk1" / "cohort.csv", number)
    return {name: {bag["case_id"] for bag in own} for name, own in fold._parts.items()}


def test_folds_cover_every_bag_once_a_repeat_and_differ_between_repeats(root):
    folds = [parts(root, number) for number in range(20)]
    for repeat in (folds[:10], folds[10:]):
        tested = [case for fold in repeat for case in fold["test"]]
        assert len(tested) == len(set(tested)) == 60
    assert folds[0]["test"] != folds[10]["test"]
    for fold in folds:
        assert len(fold["train"] | fold["val"] | fold["test"]) == sum(map(len, fold.values())) == 60
        assert len(fold["val"]) in (10, 11, 12)


def test_bags_are_standardised_by_what_is_learned_from_alone(root):
    fold = scripts("folds").read_fold(root / "musk1" / "cohort.csv", 3)
    for learned, asked in ((["train"], "val"), (["train", "val"], "test")):
        known, others = fold.standardized(learned, asked)
        rows = torch.cat([bag["image"] for bag in known])
        torch.testing.assert_close(rows.mean(0), torch.zeros(8), atol=1e-5, rtol=0)
        assert float(torch.cat([bag["image"] for bag in others]).mean(0).abs().max()) > 1e-3
        assert len(known) == sum(len(fold._parts[name]) for name in learned)
    assert abs(float(torch.cat([bag["image"] for bag in fold._parts["train"]]).mean())) > 1e-3  # left as it was


def test_a_setting_is_chosen_by_validation_then_learns_from_both_parts(task, root, monkeypatch):
    classical = scripts("classical")
    asked_of = []

    def answers(config, known, asked, seed):
        asked_of.append((config["C"], len(known), {bag["case_id"] for bag in asked}))
        good = np.array([bag["label"] for bag in asked], dtype=float)
        return np.clip(good if config["C"] == 0.1 else 1 - good, 0.1, 0.9)  # right with one setting, else wrong

    monkeypatch.setattr(classical, "regression_answers", answers)
    found = classical.run(task("pooled regression", 4))
    own = parts(root, 4)
    assert len(asked_of) == 13
    assert all((size, cases) == (len(own["train"]), own["val"]) for _, size, cases in asked_of[:12])
    assert asked_of[12] == (0.1, len(own["train"]) + len(own["val"]), own["test"])
    assert found["settings"][found["chosen"]]["C"] == 0.1
    assert set(found["cases"]) == own["test"]
    assert found["validation"][0] == {"auroc": 0.0, "loss": pytest.approx(-np.log(0.1))}


def test_of_equal_auroc_the_lower_loss_is_chosen(task, monkeypatch):
    classical = scripts("classical")

    def answers(config, known, asked, seed):
        sure = 0.9 if (config["C"], config["pools"]) == (0.01, ["max"]) else 0.7
        return np.array([sure if bag["label"] else 1 - sure for bag in asked])

    monkeypatch.setattr(classical, "regression_answers", answers)
    found = classical.run(task("pooled regression"))
    assert found["settings"][found["chosen"]] == {"pools": ["max"], "C": 0.01}


def test_a_record_is_made_once_and_again_where_settings_changed(task, monkeypatch):
    classical, one = scripts("classical"), task("pooled regression, one setting")
    found = classical.run(one)
    monkeypatch.setattr(classical, "read_fold", None)
    assert classical.run(one) == found == json.loads(one.record.read_text())
    one.record.write_text(json.dumps({**found, "settings": []}))
    with pytest.raises(TypeError, match="not callable"):  # it is made again
        classical.run(one)


def test_regression_finds_what_moves_the_maximum(task):
    found = scripts("classical").run(task("pooled regression, one setting"))
    assert roc_auc_score(found["labels"], found["probabilities"]) == 1


@pytest.mark.parametrize("model", ["mean", "ABMIL", "TransMIL", "QG-MIL", "ASMIL", "ACMIL"])
def test_every_network_trains_with_every_setting(root, monkeypatch, model):
    monkeypatch.chdir(BUNDLE)
    known, asked = scripts("folds").read_fold(root / "musk1" / "cohort.csv", 0).standardized(["train"], "val")
    for config in scripts("classical").candidates(model):
        found = scripts("answers").network_answers({**config, "epochs": 1}, known[:8], asked[:3], seed=1)
        assert found.shape == (3,)
        assert ((found > 0) & (found < 1)).all()


def test_a_network_learns_and_is_the_same_again(root, monkeypatch):
    monkeypatch.chdir(BUNDLE)
    known, asked = scripts("folds").read_fold(root / "musk1" / "cohort.csv", 0).standardized(["train"], "val")
    answers, config = scripts("answers").network_answers, {**scripts("classical").candidates("ABMIL")[1], "epochs": 60}
    found = answers(config, known, asked, seed=1)
    assert roc_auc_score([bag["label"] for bag in asked], found) > 0.9
    assert (answers(config, known, asked, seed=1) == found).all()
    assert (answers(config, known, asked, seed=2) != found).any()


def record(auroc, loss, probability):
    return {
        "settings": [0, 1],
        "validation": [{"auroc": 0.0, "loss": 9.0}, {"auroc": auroc, "loss": loss}],
        "chosen": 1,
        "labels": [0, 1],
        "probabilities": probability,
        "cpu_seconds": 1,
    }


RIGHT, WRONG = [0.2, 0.8], [0.8, 0.2]


def test_the_network_is_chosen_fold_by_fold_without_the_test():
    table = scripts("classical_table")
    found = table.choose(
        {
            "a": [record(0.9, 0.5, WRONG), record(0.9, 0.5, WRONG), record(0.7, 0.1, RIGHT)],
            "b": [record(0.8, 0.1, RIGHT), record(0.9, 0.4, RIGHT), record(0.9, 0.9, WRONG)],
        }
    )
    assert [one["probabilities"] for one in found] == [WRONG, RIGHT, WRONG]


def test_values_are_means_over_folds_then_mean_and_sample_sd_over_repeats():
    table = scripts("classical_table")
    right = [10, 10, 8, 6, 10]  # folds of each repeat that are answered right
    named = [{**record(1, 1, RIGHT if i < n else WRONG), "model": "a"} for n in right for i in range(10)]
    found = table.row("a", named)
    assert found["repeats"]["bag_auroc"] == pytest.approx([1, 1, 0.8, 0.6, 1])
    folds = np.repeat([1, 0], [44, 6])
    values = {"bag_auroc": 0.88, "bag_accuracy": 0.88, "fold_sd": np.std(folds, ddof=1)}
    assert found["values"] == pytest.approx(values)
    assert found["sd"]["bag_auroc"] == pytest.approx(np.std([1, 1, 0.8, 0.6, 1], ddof=1))


@pytest.mark.parametrize(("folds_right", "holds"), [(48, True), (40, False)])
def test_the_claim_is_that_of_the_chosen_row_against_the_better_regression(folds_right, holds):
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
    found = scripts("classical_table").result({"musk1": by_model}, ["a", "b"], ["r", "s"])
    claim = found["claims"]["musk1"]
    assert (claim["reference"], claim["holds"]["repeats"]) == ("s", holds)
    assert claim["at_least"]["repeats"] == pytest.approx(0.96 - 0.5 * np.std([1, 0.9, 1, 0.9, 1], ddof=1))
    assert claim["at_least"]["folds"] == pytest.approx(0.96 - 0.5 * np.std([1] * 48 + [0] * 2, ddof=1))
    assert f"musk1 {np.mean(network) / 10:.3f} for" in found["note"]
    assert ("sd over repeats, held" in found["note"]) == holds
    assert claim["chosen"] == pytest.approx(np.mean(network) / 10)
    assert [one["name"] for one in found["rows"]][:2] == ["musk1: chosen by validation", "musk1: a"]
    assert (found["rows"][0]["settings_tried"], found["cpu_seconds"]) == (4, 200)
    assert found.keys() >= {"command", "commit", "seeds", "versions", "heads", "rows", "note"}


def test_there_is_no_table_before_every_fold_is_there(task):
    classical = scripts("classical")
    classical.run(task("pooled regression, one setting"))
    with pytest.raises(RuntimeError, match=r"every fold must be there before a table, got none of musk1, .*, 1\."):
        classical.collect(task("pooled regression, one setting", fold) for fold in range(2))


def test_examples_run():
    assert doctest.testmod(scripts("classical")).failed == 0
