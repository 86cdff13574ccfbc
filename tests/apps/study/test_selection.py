"""Tests of the selection of settings."""

import csv
import math

import numpy as np
import optuna
import pytest

from monai_mil_ext.apps.study import Selection

GRID = {"learning_rate": [1e-3, 1e-2], "width": [8, 16]}
RANGES = {
    "learning_rate": {"low": 1e-5, "high": 1e-1, "log": True},
    "width": [8, 16, 32],
    "layers": {"low": 1, "high": 4},
}


class Score:
    """Loss with its minimum at a learning rate of 0.01 that counts its calls, and is interrupted at one of them."""

    def __init__(self, stop_at=None):
        self.calls, self.stop_at = [], stop_at

    def __call__(self, settings, report=None):
        if len(self.calls) == self.stop_at:
            raise KeyboardInterrupt
        self.calls.append(settings)
        loss = abs(math.log10(settings.get("learning_rate", 1.0)) + 2) + settings.get("width", 8) / 100
        for epoch in range(5):
            if report:
                report(epoch, loss + 1 / (epoch + 1))
        return loss


def read(folder):
    with (folder / "candidates.csv").open() as file:
        return list(csv.DictReader(file))


def test_the_grid_has_all_combinations_and_the_default(tmp_path):
    score = Score()
    settings, table = Selection(GRID).choose(score, tmp_path)
    assert settings == {"learning_rate": 1e-2, "width": 8}
    assert score.calls[0] == {}
    assert len(score.calls) == len(table) == 5
    assert table[3] == {
        **{"candidate": 3, "learning_rate": 1e-2, "width": 8, "loss": 0.08},
        **{"state": "complete", "reason": ""},
    }
    assert [row["loss"] for row in read(tmp_path)] == [str(row["loss"]) for row in table]
    assert list(read(tmp_path)[0]) == ["candidate", "learning_rate", "width", "loss", "state", "reason"]


def test_the_default_settings_win_if_nothing_is_better(tmp_path):
    defaults = {"learning_rate": 1e-2, "width": 8, "dropout": 0.1}
    score = Score()
    settings, table = Selection(GRID).choose(lambda s, report=None: score({**defaults, **s}), tmp_path, defaults)
    assert settings == {}
    assert len(table) == 4  # the default one is not repeated
    assert (table[0]["learning_rate"], table[0]["width"]) == (1e-2, 8)
    settings, table = Selection(GRID, trials=8).choose(lambda s, report=None: 1.0, tmp_path / "b", defaults)
    assert settings == {}
    assert len(table) == 9


def test_without_candidates_nothing_is_trained(tmp_path):
    score = Score()
    assert Selection().choose(score, tmp_path) == ({}, [])
    assert not score.calls
    assert not Selection().is_active
    assert Selection(trials=2).is_active


@pytest.mark.parametrize("selection", [Selection(GRID), Selection(RANGES, trials=11, seed=3)], ids=["grid", "optuna"])
def test_a_killed_selection_goes_on_with_equal_results(selection, tmp_path):
    whole = Score()
    expected = selection.choose(whole, tmp_path / "whole")
    assert selection.choose(Score(), tmp_path / "again") == expected
    folder, calls = tmp_path / "a?b#c%20", 0
    for stop in (3, 1, 0):
        score = Score(stop_at=stop)
        with pytest.raises(KeyboardInterrupt):
            selection.choose(score, folder)
        calls += len(score.calls)
    rest = Score()
    assert selection.choose(rest, folder) == expected
    assert calls + len(rest.calls) == len(whole.calls)
    assert read(folder) == read(tmp_path / "whole")
    finished = Score()
    assert selection.choose(finished, folder) == expected
    assert not finished.calls


def test_optuna_finds_better_settings_and_stops_bad_ones_early(tmp_path, capfd):
    settings, table = Selection(RANGES, trials=20, seed=0).choose(Score(), tmp_path)
    assert settings["width"] == 8
    assert isinstance(settings["layers"], int)
    assert abs(math.log10(settings["learning_rate"]) + 2) < 0.3
    assert len(table) == 21
    states = [row["state"] for row in table]
    assert states[0] == "complete"
    assert 3 < states.count("pruned") < 17
    assert all(row["loss"] is None and row["reason"] for row in table if row["state"] == "pruned")
    assert capfd.readouterr() == ("", "")
    assert Selection(RANGES, trials=4, seed=1).choose(Score(), tmp_path / "b")[1] != table


def test_an_early_stop_may_be_wrapped_in_another_error(tmp_path):
    score = Score()

    def wrapped(settings, report=None):
        try:
            return score(settings, report)
        except optuna.TrialPruned as error:
            raise RuntimeError("the engine failed") from error

    _, table = Selection(RANGES, trials=10).choose(wrapped, tmp_path)
    assert {row["state"] for row in table} == {"complete", "pruned"}


def test_another_grid_in_the_same_folder_starts_anew(tmp_path):
    Selection({"width": [8, 16]}, trials=2).choose(Score(), tmp_path)
    score = Score()
    _, table = Selection({"width": [4, 2]}, trials=2).choose(score, tmp_path)
    assert len(score.calls) == len({row["width"] for row in table[1:]})
    longer = Score()
    _, more = Selection({"width": [4, 2]}, trials=6).choose(longer, tmp_path)
    assert more[: len(table)] == table
    assert len(more) == 7


@pytest.mark.parametrize("trials", [0, 6])
def test_failed_and_diverged_candidates_are_listed_and_not_chosen(trials, tmp_path):
    def score(settings, report=None):
        width = settings.get("width")
        if width == 1:
            raise ValueError("`width` must be a multiple of 2, got 1.")
        return {2: math.nan, 3: -math.inf}.get(width, 1.0)

    settings, table = Selection({"width": [1, 2, 3]}, trials=trials, seed=1).choose(score, tmp_path)
    assert settings == {}
    reasons = {row["width"]: (row["state"], row["reason"]) for row in table[1:]}
    assert reasons == {
        1: ("failed", "`width` must be a multiple of 2, got 1."),
        2: ("failed", "loss nan"),
        3: ("failed", "loss -inf"),
    }


def test_an_error_of_the_default_settings_or_of_the_program_is_raised(tmp_path):
    def fail(settings, report=None):
        raise ValueError("`items` must be read")

    with pytest.raises(ValueError, match="`items` must be read"):
        Selection(GRID).choose(fail, tmp_path)

    def mistake(settings, report=None):
        return 1.0 if not settings else settings.nothing

    with pytest.raises(AttributeError, match="nothing"):
        Selection(GRID).choose(mistake, tmp_path)
    with pytest.raises(ValueError, match="`score` must be finite for a candidate, got none of 5"):
        Selection(GRID).choose(lambda settings, report=None: math.nan, tmp_path / "nan")


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (
            {"grid": {"a": list(range(13)), "b": list(range(5))}},
            "at most 64 combinations, got 65: use fewer values",
        ),
        ({"grid": {"a": {"low": 1, "high": 2}}}, "must have lists of values; ranges need `trials`, got .* for 'a'"),
        ({"grid": {"a": {"low": 2, "high": 1}}, "trials": 2}, "must have low < high, and 0 < low with log"),
        ({"grid": {"a": {"low": 0, "high": 1, "log": True}}, "trials": 2}, "must have low < high, and 0 < low with"),
        ({"grid": {"a": {"low": 0, "hgih": 1}}, "trials": 2}, "must have low < high"),
        ({"grid": {"a": []}}, r"must have a list of values for each setting, got \[\] for 'a'"),
        ({"grid": {"a": 3}}, "must have a list of values for each setting, got 3 for 'a'"),
        ({"grid": {"loss": [3]}}, "must have names of settings, got 'loss'"),
        ({"grid": {"a": [object()]}}, "must have values that JSON can store"),
        ({"trials": -1}, "`trials` must be an integer from 0, got -1"),
    ],
)
def test_invalid_grids_are_refused(options, match):
    with pytest.raises(ValueError, match=match):
        Selection(**options)


def test_unknown_names_are_refused(tmp_path):
    match = "`grid` must be one of 'learning_rate', 'dropout', got 'learning_rates'; did you mean 'learning_rate'?"
    with pytest.raises(ValueError, match=match):
        Selection({"learning_rates": [1]}).choose(Score(), tmp_path, {"learning_rate": 1e-3, "dropout": 0.1})
    Selection(GRID).check(["learning_rate", "width"])


def test_numbers_that_yaml_reads_as_text_are_numbers():
    grid = {"learning_rate": ["1e-3", 0.1], "pool": ["max"], "batch": {"low": "1e-2", "high": 1}}
    assert Selection(grid, trials=1).grid == {
        "learning_rate": [1e-3, 0.1],
        "pool": ["max"],
        "batch": {"low": 1e-2, "high": 1},
    }


def test_the_choice_among_noise_has_no_better_test_auroc_than_chance(tmp_path):
    """Candidates that predict noise are chosen by the validation part only: the test AUROC remains .5."""
    rng = np.random.default_rng(0)
    label = np.tile([0, 1], 10)

    def auroc(output):
        return (output[label == 1][:, None] > output[label == 0]).mean()

    grid, reported, best = {"network": list(range(1, 6))}, [], []
    for repeat in range(60):
        val = [auroc(output) for output in rng.normal(size=(6, 20))]
        test = [auroc(output) for output in rng.normal(size=(6, 20))]

        def score(settings, report=None, val=val):
            return 1 - val[settings.get("network", 0)]

        chosen, _ = Selection(grid).choose(score, tmp_path / str(repeat))
        reported.append(test[chosen.get("network", 0)])
        best.append(max(test))
    error = np.std(reported) / len(reported) ** 0.5
    assert abs(np.mean(reported) - 0.5) < 2.6 * error
    assert np.mean(best) > 0.6  # what a choice by test cases would report
