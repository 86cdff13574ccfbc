"""Tests of the table of the six chest CTs."""

import json

import numpy as np
import pytest


@pytest.fixture
def ct():
    from experiments import ct

    return ct


def report(auroc):
    return {"patients": {"p": {"bag_auroc": auroc, "instance_auroc": None, "num_bags": 4}}}


def test_mean_over_seeds_keeps_the_seeds(ct):
    values = ct.mean_over_seeds([report(0.5), report(0.7)], "p")
    assert values["bag_auroc"] == pytest.approx(0.6)
    assert values["seeds"]["bag_auroc"] == [0.5, 0.7]
    assert (values["num_bags"], np.isnan(values["instance_auroc"])) == (4, True)


def test_summarize_patients_gives_the_mean_of_shared_values_with_an_interval(ct):
    row = ct.summarize_patients("x", {"a": {"bag_auroc": 0.5, "bag_accuracy": 1.0}, "b": {"bag_auroc": 0.7}})
    assert row["values"] == {"bag_auroc": pytest.approx(0.6)}
    low, high = row["interval_95"]["bag_auroc"]
    assert 0.5 <= low <= 0.6 <= high <= 0.7
    assert list(row["patients"]) == ["a", "b"]


def test_make_notes_match_the_published_table(ct):
    result = json.loads((ct.RESULTS / "ct.json").read_text())
    assert ct.make_notes(result) == {key: result[key] for key in ("note", "by_patient")}


def test_identify_patients_separates_distinct_intensities(ct):
    rng = np.random.default_rng(0)
    statistics = {name: {"intensity": rng.normal(mean, 0.1, (20, 2))} for name, mean in (("a", 0), ("b", 5))}
    assert ct.identify_patients(statistics, "intensity") == 1


def test_make_run_names_a_run_by_its_settings(ct):
    run = ct.make_run("pat_1", 2, 1.0)
    assert run.name == "pat_1_seed2_guidance1.0"
    assert run.settings == {"test_patient": "pat_1", "seed": 2, "guidance_weight": 1.0}
