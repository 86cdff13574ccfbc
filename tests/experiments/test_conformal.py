"""Tests of the experiment on instance sets, on random scores."""

import csv
import json

import numpy as np
import pytest

from monai_mil_ext.metrics import ConformalInstances, set_coverage
from tests.metrics.conformal.bags import random_bags

METHODS = {"flat": 0.0, "sharp": 3.0}


def write_cases(path, lift, seed, count=40):
    """Write the instances of an evaluation, half of whose cases have a lesion."""
    rng = np.random.default_rng(seed)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["case_id", "instance_label", "attention"])
        writer.writeheader()
        for case in range(2 * count):
            label = np.zeros(12, int)
            if case % 2:
                label[rng.integers(12)] = 1
            score = np.exp(rng.standard_normal(12) + lift * label)
            for y, a in zip(label, score / score.sum(), strict=True):
                writer.writerow({"case_id": f"c{case}", "instance_label": y, "attention": a})


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    """Result of the command on two methods, and of a shift in which lesions don't stand out."""
    from experiments.conformal import main

    folder, words = tmp_path_factory.mktemp("conformal"), []
    for seed, (name, lift) in enumerate(METHODS.items()):
        write_cases(folder / f"{name}.csv", lift, seed)
        write_cases(folder / f"{name}_other.csv", 0, seed + 10)
        words += ["--run", f"{name}={folder / name}.csv", "--shift", f"{name}={folder / name}_other.csv"]
    main([*words, "--splits", "20", "--data", "Random scores.", "--output", str(folder / "result.json")])
    return json.loads((folder / "result.json").read_text())


def test_coverage_is_as_expected_for_every_option(result):
    assert len(result["rows"]) == 2 * 8
    for row in result["rows"]:
        (band,) = row["bands"]
        assert row["values"]["coverage"] >= band[0], row["name"]  # above it by ties of ranks
        assert band[0] < row["expected"] < band[1]
        assert row["values"]["not_below"] >= 0.9  # of 20


def test_sharp_scores_have_smaller_sets(result):
    sizes = {row["name"]: row["values"]["size"] for row in result["rows"]}
    assert sizes["sharp, any, rank, 90 %"] < sizes["flat, any, rank, 90 %"] / 2


def test_a_shift_is_reported_where_scores_have_changed(result):
    found = {row["method"]: row for row in result["shift"] if (row["target"], row["alpha"]) == ("any", 0.1)}
    assert (found["sharp"]["holds"], found["sharp"]["shifted"]) == (False, True)
    assert found["flat"]["holds"]
    assert result["note"] == "Random scores. Means over 20 random halves of 40 cases with a lesion."


@pytest.mark.parametrize("by", ["rank", "mass"])
def test_a_split_equals_the_sets_of_the_package(by):
    from experiments.conformal import split_means

    scores, labels = random_bags(40, decimals=0)
    found = split_means((scores, labels), ConformalInstances(0.1, by=by), splits=1, seed=5)
    order = np.random.default_rng(5).permutation(40)
    fit, test = (([scores[i] for i in part], [labels[i] for i in part]) for part in (order[:20], order[20:]))
    expected = set_coverage(ConformalInstances(0.1, by=by).fit(*fit), *test)
    assert found["coverage"] == expected["coverage"]
    assert found["size"] == pytest.approx(expected["mean_size"])
    assert found["share"] == pytest.approx(expected["mean_share"])
    assert found["answered"] == pytest.approx(1 - expected["abstained"])


def test_other_cases_are_tested_where_their_counterparts_do_not_calibrate():
    from experiments.conformal import split_means

    sharp, flat = random_bags(60, seed=1, lift=4), random_bags(60, seed=2, lift=0)
    same = split_means(sharp, ConformalInstances(), splits=50, seed=3)
    assert split_means(sharp, ConformalInstances(), splits=50, seed=3, others=sharp) == same
    assert same["shifted"] <= 0.1
    moved = split_means(sharp, ConformalInstances(), splits=50, seed=3, others=flat)
    assert moved["coverage"] < 0.7
    assert moved["shifted"] > 0.9
    with pytest.raises(ValueError, match="`others` must be as many as `cases`, got 59 and 60"):
        split_means(sharp, ConformalInstances(), others=tuple(part[:-1] for part in sharp))


def test_the_ratio_of_sizes_is_that_of_the_sets_of_all_cases():
    from experiments.conformal import size_ratio

    sets, bags, worse = ConformalInstances(0.1), random_bags(50, seed=1, lift=4), random_bags(50, seed=1, lift=0)
    sizes = [set_coverage(ConformalInstances(0.1).fit(*cases), *cases)["mean_size"] for cases in (worse, bags)]
    ratio, low, high = size_ratio(worse, bags, sets, num_samples=200)
    assert ratio == pytest.approx(sizes[0] / sizes[1])
    assert 1 < low < ratio < high
    assert size_ratio(bags, bags, sets, num_samples=20) == (1, 1, 1)


def test_a_run_must_have_a_name():
    from experiments.conformal import main

    with pytest.raises(ValueError, match="`run` must be NAME=FILE, got 'file'"):
        main(["--run", "file"])
