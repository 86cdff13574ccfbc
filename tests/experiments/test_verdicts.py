"""Tests of the verdicts: no word is stronger than its interval."""

import json

import pytest

KERNEL = ["ABMIL + KG", "ABMIL + NG"]


def write(folder, name, rows, **more):
    (folder / f"{name}.json").write_text(json.dumps({"rows": rows, **more}))


def ranked(value, low, high, **more):
    return {"values": {"instance_auroc": value}, "interval_95": {"instance_auroc": [low, high]}, **more}


def kernel(test, slices, bags):
    limits = {"instance_auroc": slices, "bag_auroc": bags}
    values = {name: sum(ends) / 2 for name, ends in limits.items()}
    return {"pair": KERNEL, "cohort": "one", "test": test, "values": values, "interval_95": limits}


def sets(name, coverage, ratio=None):
    row = {"name": name, "values": {"coverage_90": coverage, "coverage_95": 0.96}}
    row["bands"] = {"90": [0.9, 0.92], "95": [0.95, 0.96]}
    ends = {f"ratio_{other}_90": ratio for other in ("ABMIL", "ABMIL + NG")} if ratio else {}
    row["values"] |= {key: sum(limits) / 2 for key, limits in ends.items()}
    return {**row, "interval_95": ends}


@pytest.fixture
def results(tmp_path):
    """Results of which each aim is missed."""
    pair = {"pair": ["WindowMIL", "slice-supervised"], "cohort": "one", "test": "one"}
    write(tmp_path, "lesions_chain", [ranked(-0.05, -0.08, -0.01, **pair)])
    write(tmp_path, "lesions_trained_on_many", [], tests={"two": [ranked(0.78, 0.75, 0.81, name="MarkovMIL")]})
    write(
        tmp_path, "lesions_kernel", [kernel("one", (0.03, 0.09), (0.01, 0.1)), kernel("two", (0.03, 0.1), (-0.1, 0.1))]
    )
    toy = {"a: kernel - NG": (0.03, 0.04), "b: kernel - NG": (-0.01, 0.0), "b: kernel - none": (0.1, 0.2)}
    write(tmp_path, "guidance_toy", [ranked(sum(ends) / 2, *ends, name=name) for name, ends in toy.items()])
    write(tmp_path, "guidance_semi_synthetic", [ranked(-0.04, -0.05, -0.03, name="T: kernel - NG")])
    write(tmp_path, "lesions_sets", [sets("ABMIL", 0.91), sets("WindowMIL", 0.91, [0.7, 1.8])])
    return tmp_path


def words(folder):
    from experiments.verdicts import verdict_table

    lines = [line for line in verdict_table(folder).splitlines() if line.startswith("| ")][1:]
    return [line.split(" | ")[3] for line in lines]


def test_each_aim_has_the_verdict_of_its_interval(results):
    kernel_words = (
        "met on 1, open on 1 of 2 test sets; in slices of drawn bags, met on 1 of 2; on the semi-synthetic set, not met"
    )
    assert words(results) == ["not met", "not met", kernel_words, "met", "not met"]


def test_an_interval_on_both_sides_of_the_bar_is_open(results):
    pair = {"pair": ["WindowMIL", "slice-supervised"], "cohort": "one", "test": "one"}
    write(results, "lesions_chain", [ranked(0.01, -0.01, 0.03, **pair)])
    write(results, "lesions_sets", [sets("ABMIL", 0.89), sets("WindowMIL", 0.91, [4, 6])])
    found = words(results)
    assert (found[0], *found[-2:]) == ("open", "not met", "open")
