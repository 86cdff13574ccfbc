"""Tests of paired differences of the benchmark."""

import pytest

from tests.experiments.lesions.rows import value_rows


def test_the_difference_is_paired_over_scans_and_has_slices_and_scans():
    from experiments.lesions.pairs import pair_rows

    plain = {seed: value_rows(seed) for seed in (1, 2)}
    better = {
        seed: [{**row, "instance_auroc": row["instance_auroc"] + 0.1} if row["label"] else row for row in part]
        for seed, part in plain.items()
    }
    (row,) = pair_rows({"new": better, "old": plain}, [("new", "old")], "1 lesion", num_samples=50)
    assert row["name"] == "1 lesion: new - old"
    assert row["values"] == pytest.approx({"bag_auroc": 0, "instance_auroc": 0.1, "instance_ap": 0})
    assert row["interval_95"]["instance_auroc"] == pytest.approx([0.1, 0.1])


def test_other_scans_are_refused():
    from experiments.lesions.pairs import compare

    with pytest.raises(ValueError, match="`b` must be of the scans of `a`, got 20 and 20, or others"):
        compare({1: value_rows(1)}, {1: value_rows(2)})


def test_pairs_name_methods_of_the_protocol():
    from experiments.lesions.pairs import PAIRS
    from experiments.lesions.settings import read_protocol

    assert {name for pairs in PAIRS.values() for pair in pairs for name in pair} <= set(read_protocol().methods)
