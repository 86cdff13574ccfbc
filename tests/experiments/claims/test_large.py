"""Tests of the experiment with many bags."""

import json

import pytest
import torch

from monai_mil_ext.apps.study import Run
from monai_mil_ext.data import ShiftedMeanDataset

OPTIONS = {
    "num_train": 200,
    "num_val": 20,
    "epochs": 4,
    "batch_size": 16,
    "learning_rate": 0.01,
    "momentum": 0.9,
    "l1": 0.0001,
    "gradient_clip": 1.0,
    "seed": 5,
}


@pytest.fixture
def large():
    from experiments.claims import large

    return large


def test_packed_bags_give_the_results_of_single_ones(large):
    bags = ShiftedMeanDataset(6, 0, in_features=8)
    nets = large.PackedABMIL(8, 3, ["ABMIL", "ABMIL + NG"])
    with torch.no_grad():
        nets.nets[1].attend.score.weight.mul_(2)
    ((rows, sizes, _),) = large.batches(bags, torch.arange(6), 6)
    for net, of_bags in zip(nets.nets, nets(rows, sizes), strict=True):
        for number in range(6):
            alone = net.forward_bag(bags[number]["image"][None])
            torch.testing.assert_close(of_bags.logits[number], alone.logits[0, 0])
            torch.testing.assert_close(of_bags.scores[number][of_bags.mask[number]], alone.scores[0])


def test_units_that_are_zero_are_left_out_of_the_product_alone(large):
    rows, sizes = torch.randn(7, 8), torch.tensor([3, 4])
    nets = large.PackedABMIL(8, 3, ["ABMIL"])
    attend = nets.nets[0].attend
    with torch.no_grad():
        attend.value.weight[:100] = 0
        attend.value.bias[:99] = 0
        attend.score.weight[:, :98] = 0
    (of_bags,) = nets(rows, sizes)
    alone = nets.nets[0].forward_bag(rows[None, :3])
    torch.testing.assert_close(of_bags.scores[0, :3], alone.scores[0])
    of_bags.logits.sum().backward()
    found = {name: weight.grad.clone() for name, weight in nets.nets[0].named_parameters()}
    nets.zero_grad()
    torch.stack([nets.nets[0].forward_bag(part[None]).logits.sum() for part in rows.split([3, 4])]).sum().backward()
    for name, weight in nets.nets[0].named_parameters():
        torch.testing.assert_close(found[name], weight.grad)


def test_means_of_bags_give_the_logits_of_the_bags(large):
    nets = large.PackedABMIL(8, 3, ["mean"])
    logits = []
    for bags in (ShiftedMeanDataset(6, 0, in_features=8), large.load(6, 0, ["mean"], in_features=8)):
        ((rows, sizes, _),) = large.batches(bags, torch.arange(6), 6)
        logits.append(nets(rows, sizes)[0].logits)
    torch.testing.assert_close(*logits)


def test_bags_in_bfloat16_give_almost_the_same_answers(large, monkeypatch):
    answers = []
    for supported in (False, True):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda supported=supported: supported)
        bags = large.load(6, 0, ["ABMIL"])
        assert bags.instances.dtype == (torch.bfloat16 if supported else torch.float32)
        ((rows, sizes, labels),) = large.batches(bags, torch.arange(6), 6)
        (of_bags,) = large.PackedABMIL(768, 3, ["ABMIL"])(rows, sizes)
        assert {of_bags.logits.dtype, of_bags.scores.dtype, labels.dtype} == {torch.float32}
        answers.append(of_bags)
    torch.testing.assert_close(answers[0].logits, answers[1].logits, atol=0.01, rtol=0)
    torch.testing.assert_close(answers[0].scores, answers[1].scores, atol=0.01, rtol=0)


@pytest.fixture
def in_float64(monkeypatch):
    """Draw and compute in float64, as Normal Guidance makes rounding errors of float32 grow."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("in_float64")
def test_networks_trained_together_are_those_trained_alone(large, tmp_path):
    def train(*methods):
        folder = tmp_path / "-".join(methods)
        folder.mkdir()
        large.train(Run("a", {**OPTIONS, "num_train": 40, "epochs": 2, "methods": methods}), folder)
        state = torch.load(folder / "checkpoint.pt", weights_only=True)["nets"]
        return [[value for name, value in state.items() if name.startswith(f"nets.{i}.")] for i in range(len(methods))]

    plain, guided = train("ABMIL", "ABMIL + NG")
    torch.testing.assert_close([plain, guided], [*train("ABMIL"), *train("ABMIL + NG")])
    with pytest.raises(AssertionError, match="not close"):
        torch.testing.assert_close(plain, guided)


@pytest.mark.parametrize("methods", [["mean"], ["ABMIL", "ABMIL + NG"]])
def test_a_stopped_training_continues_to_the_same_result(large, methods, tmp_path, monkeypatch):
    monkeypatch.setattr(large, "SAVED", 2)
    whole = large.train(Run("a", {**OPTIONS, "methods": methods}), tmp_path)
    (tmp_path / "part").mkdir()
    large.train(Run("b", {**OPTIONS, "methods": methods, "epochs": 2}), tmp_path / "part")
    assert large.train(Run("b", {**OPTIONS, "methods": methods}), tmp_path / "part") == whole
    assert all(found["train_auroc"] > found["val_auroc"] for found in whole.values())


@pytest.fixture
def small(large, monkeypatch):
    """Reduce the experiment to a few small bags, and list the test sets that are read."""
    reads = []

    def read_test_set(variant, index, purpose, again):
        reads.append(index)
        return ShiftedMeanDataset(30, 1000 * index + 3)

    options = {name: value for name, value in OPTIONS.items() if name != "seed"} | {"epochs": 12}
    settings = {"large": {**options, "seeds": [1001, 2001]}, "num_samples": 20, "min_seeds": 2, "margin": 0.02}
    monkeypatch.setattr(large, "read_settings", lambda: settings)
    monkeypatch.setattr(large, "read_test_set", read_test_set)
    return reads


def test_a_finished_seed_is_kept_and_not_done_again(large, small, tmp_path, monkeypatch):
    file = tmp_path / "table.json"
    large.run_all(tmp_path / "runs", file)
    content = json.loads(file.read_text())
    assert small == [1, 2]
    assert [row["num_seeds"] for row in content["rows"]] == ["2", "2", "2"]
    assert set(content["trainings"]) == {f"{method}, {seed}" for method in large.METHODS for seed in (1001, 2001)}
    del content["answers"]["2001"]
    file.write_text(json.dumps(content))
    large.run_all(tmp_path / "runs", file)
    assert small == [1, 2, 2]


def test_the_answers_of_a_seed_are_those_of_its_chosen_weights(large, small, tmp_path):
    large.run_all(tmp_path / "runs", tmp_path / "table.json")
    answers = large.read_answers(json.loads((tmp_path / "table.json").read_text()))
    weights = torch.load(tmp_path / "runs/large/guided/seed_2001/checkpoint.pt", weights_only=True)["weights"]
    net = large.PackedABMIL(768, 0, ["ABMIL + NG"]).nets[0]
    net.load_state_dict(weights["ABMIL + NG"])
    for row, bag in zip(answers["ABMIL + NG"][2001], ShiftedMeanDataset(30, 2003), strict=True):
        expected = net.forward_bag(bag["image"][None]).logits.sigmoid().item()
        assert row["probability"] == pytest.approx(expected, abs=1e-5)
        assert ("instance_auroc" in row) == bool(bag["label"])
    assert {row.get("instance_auroc") for row in answers["mean"][2001]} == {None, 0.5}


def test_a_network_without_a_chosen_epoch_is_named(large, small, tmp_path, monkeypatch):
    monkeypatch.setattr(large, "_auroc", lambda nets, bags: [1.0] * len(nets.methods))
    with pytest.raises(RuntimeError, match="mean must classify the training part better in some epoch"):
        large.run_all(tmp_path / "runs", tmp_path / "table.json")


def test_claims_are_not_run_before_their_seeds_are_finished(large, tmp_path):
    rows = large.claim_rows(tmp_path / "missing.json")
    assert [row["verdict"] for row in rows] == ["not run"] * 3
