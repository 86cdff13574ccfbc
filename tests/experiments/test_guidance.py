"""Tests of the experiment on guidance, on small sets."""

from importlib import import_module

import numpy as np
import pytest
import torch
from torch.testing import assert_close

SLICES = torch.arange(48, dtype=torch.float64)
RUNS = {
    "shift 2.5, one run": [8],
    "shift 2.5, two runs": [4, 4],
    "shift 1.2, one run": [8],
    "shift 1.2, two runs": [4, 4],
}


def part(name):
    """Import a module of the experiment, whose path is that of the fixtures."""
    return import_module(f"experiments.guidance.{name}")


def bells(*means, sd=2.0):
    height = sum(torch.exp(-((SLICES - mean) ** 2) / (2 * sd**2)) for mean in means)
    return (height / height.sum()).view(1, 48, 1)


@pytest.mark.parametrize(("setting", "runs"), RUNS.items())
def test_toy_bags_have_the_runs_of_their_setting(setting, runs):
    toy = part("toy")
    assert RUNS.keys() == toy.SETTINGS.keys()
    shift = toy.SETTINGS[setting][0]
    bags = toy.draw_bags(400, 3, *toy.SETTINGS[setting])
    for bag in bags:
        edges = np.diff(np.pad(bag["instance_label"].numpy(), 1))
        lengths = np.flatnonzero(edges < 0) - np.flatnonzero(edges > 0)
        assert lengths.tolist() == (runs if bag["label"] else [])
    inside = torch.cat([bag["image"][bag["instance_label"] > 0, 0] for bag in bags])
    assert inside.mean().item() == pytest.approx(shift, abs=0.1)
    first = {int(bag["instance_label"].nonzero()[0]) for bag in bags if bag["label"]}
    assert min(first) == 0
    assert max(int(b["instance_label"].flip(0).nonzero()[0]) == 0 for b in bags if b["label"])


def test_toy_compares_all_on_the_same_bags():
    guides = {"none": None, "NG": part("mixture").MixtureGuidanceLoss}
    rows = part("toy").compare_toy("shift 2.5, one run", [5, 6], num_bags=40, guides=guides)
    table = part("protocol").make_rows("one run", rows)
    assert [row["name"] for row in table] == ["one run: none", "one run: NG", "one run: NG - none"]
    assert [[row["case"] for row in rows[name][5]] for name in rows] == [[f"11_{i}" for i in range(20)]] * 2
    difference = table[1]["values"]["instance_auroc"] - table[0]["values"]["instance_auroc"]
    assert table[2]["values"]["instance_auroc"] == pytest.approx(difference)


def test_mixture_of_two_keeps_one_and_two_bells():
    mixture = part("mixture").MixtureGuidanceLoss
    loss = mixture()
    for attention in (bells(20), bells(10, 38)):
        assert loss(attention).item() == pytest.approx(0, abs=0.02)
    assert loss(bells(6, 23, 41)).item() > 0.5
    assert mixture(components=3)(bells(6, 23, 41)).item() < 0.1
    mask = torch.arange(60).unsqueeze(0) < 48
    padded = torch.nn.functional.pad(bells(10, 38), (0, 0, 0, 12), value=torch.nan)
    assert_close(loss(padded, mask), loss(bells(10, 38)))


def test_rows_are_compared_in_pairs():
    def rows(values):
        return [{"case": str(i), "label": i % 2, "score": v, "instance_auroc": v} for i, v in enumerate(values)]

    rng = np.random.default_rng(0)
    low = rng.random(200) / 2
    worse, better = {1: rows(low), 2: rows(low)}, {1: rows(low + 0.25), 2: rows(low + 0.25)}
    for seed in (1, 2):  # a bag without slices of both labels
        better[seed][0]["instance_auroc"] = worse[seed][0]["instance_auroc"] = None
    of = part("rows").compare(better, worse, num_samples=100)
    expected = {"difference": 0.25, "low": 0.25, "high": 0.25}
    assert {name: of["instance_auroc"][name] for name in expected} == pytest.approx(expected)
    assert of["bag_auroc"]["difference"] == 0  # the same order
    assert part("rows").summarize(better)["sd"] == {"bag_auroc": 0, "instance_auroc": 0}


def test_transformers_differ_in_guidance_alone():
    semi = part("semi_synthetic")
    for index in semi.SETS:
        runs = [t for t in semi.transformer_trainings() if t.index == index]
        plain = {name: v for name, v in runs[0].overrides.items() if "guidance" not in name}
        for training in runs:
            assert {name: v for name, v in training.overrides.items() if "guidance" not in name} == plain
        losses = [t.overrides.get("train#named_handlers#guidance#loss#_target_", "").split(".")[-1] for t in runs]
        assert losses == ["", "NormalGuidanceLoss", "KernelGuidanceLoss"]
