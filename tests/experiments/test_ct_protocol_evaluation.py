"""Tests of the evaluation of a training protocol, with and without labels of slices."""

import csv
import json
import shutil

import pytest
import torch

from tests.workflows import causes, content, paths

DATA = ("train", "digits", "protocol", "modern")
SETTINGS = {"epochs": 2, "batch_size": 8, "learning_rate": 0.01, "num_samples": 5}
BAG_VALUES = {"bag_auroc", "bag_auprc", "bag_accuracy", "bag_balanced_accuracy", "bag_macro_f1", "bag_kappa"}


def rows_of(file):
    with file.open() as lines:
        return list(csv.DictReader(lines))


def study(scans, folder, keep):
    """Copy the cohort, with the slice labels of the scans that ``keep`` chooses."""
    shutil.copytree(scans, folder, ignore=shutil.ignore_patterns("features"))
    cohort = json.loads((folder / "cohort.json").read_text())
    for scan in cohort["scans"]:
        if not keep(scan):
            del scan["reference"]
    (folder / "cohort.json").write_text(json.dumps(cohort))
    return folder


@pytest.mark.parametrize("keep", ["no", "positive", "every"])
def test_ct_protocol_is_evaluated_with_any_slice_labels(start, scans, tmp_path, keep):
    chosen = {"no": lambda _: False, "positive": lambda scan: scan["label"], "every": lambda _: True}[keep]
    where = paths(study(scans, tmp_path / "data", chosen), tmp_path / "out")
    start(*DATA, **where, **SETTINGS).run()
    workflow = start(*DATA, "evaluate", **where, **SETTINGS)
    workflow.run()
    splits, network = content(workflow, "splits"), content(workflow, "network").eval()
    bags, report = rows_of(tmp_path / "out" / "bags.csv"), json.loads((tmp_path / "out" / "report.json").read_text())
    assert {row["case_id"] for row in bags} == set(splits.folds[0]["test"])
    for row, bag in zip(bags, content(workflow, "validate#dataset"), strict=True):
        positive = torch.sigmoid(network(bag["image"].unsqueeze(0))).item()
        assert float(row["probability_1"]) == pytest.approx(positive, abs=1e-5)
        assert float(row["probability_0"]) == pytest.approx(1 - positive, abs=1e-5)
        assert row["prediction"] == str(int(positive > 0.5))
    right = [row["prediction"] == row["label"] for row in bags]
    assert report["values"]["bag_accuracy"] == pytest.approx(sum(right) / len(right))
    instances = rows_of(tmp_path / "out" / "instances.csv")
    assert ("instance_label" in instances[0]) == (keep != "no")
    if keep == "no":
        assert set(report["values"]) == BAG_VALUES
        assert report["notes"] == ["no metrics of instances: no bag has instance labels"]
    else:
        assert 0 <= report["values"]["instance_auroc"] <= 1
        assert all(bool(row["instance_auroc"]) == (row["label"] == "1" or keep == "every") for row in bags)


def test_ct_protocol_validates_probabilities_by_the_loss_of_their_logits(start, scans, tmp_path):
    workflow = start(*DATA, **paths(scans, tmp_path), **SETTINGS)
    evaluator, seen = content(workflow, "validate#evaluator"), []
    from ignite.engine import Events

    @evaluator.on(Events.ITERATION_COMPLETED)
    def look(engine):
        seen.extend(zip(engine.state.output, engine.state.batch, strict=True))

    evaluator.run()
    p = torch.stack([output["pred"] for output, _ in seen])
    label = torch.tensor([int(batch["label"]) for _, batch in seen])
    torch.testing.assert_close(p[:, 1], torch.stack([output["logits"] for output, _ in seen])[:, 0].sigmoid())
    loss = torch.nn.functional.nll_loss(p.log(), label).item()
    assert evaluator.state.metrics["bag_loss"] == pytest.approx(loss, rel=1e-4)


def test_ct_protocol_tests_every_fold_once(start, scans, tmp_path):
    tested = []
    for fold in (0, 1):
        where = {**paths(scans, tmp_path), "folds_dir": str(tmp_path / "e"), "fold": fold}
        where |= {"ckpt_dir": str(tmp_path / f"m{fold}"), "output_dir": str(tmp_path / "e" / f"fold_{fold}")}
        start(*DATA, "kfold", **where, **{**SETTINGS, "epochs": 1}).run()
        tested.append({row["patient"] for row in rows_of(tmp_path / "e" / f"fold_{fold}" / "bags.csv")})
    assert len(tested[0] | tested[1]) == len(tested[0]) + len(tested[1]) == 10
    assert set(json.loads((tmp_path / "e" / "folds.json").read_text())["folds"]) == {"0", "1"}


def test_ct_protocol_refuses_to_evaluate_another_split(start, scans, tmp_path):
    start(*DATA, **paths(scans, tmp_path), **{**SETTINGS, "epochs": 1}).run()
    for other in ({"fold": 1}, {"seed": 2001}):
        workflow = start(*DATA, "evaluate", **paths(scans, tmp_path), **SETTINGS, **other)
        with pytest.raises(RuntimeError, match="Failed to evaluate") as error:
            workflow.run()
        assert "`fold` must be the one that the weights were trained for, 0 with the same options" in causes(
            error.value
        )


@pytest.mark.slow(buys="a search without labels of slices ends with its table and page")
def test_ct_protocol_search_needs_no_slice_labels(scans, tmp_path, capsys):
    from experiments.reproduce import main

    data = study(scans, tmp_path / "data", lambda _: False)
    words = ["ct_protocol", "--protocol", "modern", "--methods", "ABMIL", "ABMIL + NG", "--seeds", "1001"]
    words += ["--data", "digits", "--folder", str(tmp_path / "runs"), "--grid", "learning_rate=[0.001]"]
    main([*words, "--set", f"dataset_dir={data}", "epochs=2", "batch_size=8", "num_samples=5"])
    result = json.loads((tmp_path / "runs" / "modern.json").read_text())
    assert [row["name"] for row in result["rows"]] == ["ABMIL", "ABMIL + NG"]
    assert set(result["rows"][0]["values"]) == BAG_VALUES
    assert result["comparisons"] == []
    assert "| method | seed | bag AUROC | bag AUPRC |" in capsys.readouterr().out
    assert "<img" not in (tmp_path / "runs" / "modern.html").read_text()
