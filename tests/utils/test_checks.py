"""Tests of argument checks and of command-line overrides."""

import sys

import pytest
import torch

from monai_mil_ext.apps.bundle import check_cli_overrides
from monai_mil_ext.utils import (
    check_bags,
    check_choice,
    check_mask,
    check_name,
    check_positive,
    check_positive_number,
    check_rate,
)


@pytest.mark.parametrize("value", [0, -1, 1.0, True, "2"])
def test_check_positive_rejects_other_values(value):
    with pytest.raises(ValueError, match=f"`size` must be a positive integer, got {value!r}"):
        check_positive(size=value)


def test_check_choice_without_close_match():
    with pytest.raises(ValueError, match=r"`mode` must be one of 'a', 'b', got 'zzz'\.$"):
        check_choice("mode", "zzz", ["a", "b"])


@pytest.mark.parametrize("name", ["", ".hidden", "a/b", "..", "a b", "é", None, "a\n"])
def test_check_name_rejects_paths(name):
    with pytest.raises(ValueError, match="`case_id` must be letters"):
        check_name(case_id=name)


def test_check_bags_and_check_mask_reject_bad_input():
    with pytest.raises(ValueError, match=r"`x` must have shape \(B, N, 4\), got \(5, 4\)"):
        check_bags(torch.zeros(5, 4), 4)
    with pytest.raises(ValueError, match=r"`mask` must be of dtype torch.bool .* got torch.float32"):
        check_mask(torch.ones(2, 5), torch.zeros(2, 5, 4))
    with pytest.raises(ValueError, match=r"`mask` must have shape \(B, N\) = \(2, 5\), got \(2, 4\)"):
        check_mask(torch.ones(2, 4, dtype=torch.bool), torch.zeros(2, 5, 4))


def command(config, *words):
    return ["monai/bundle/__main__.py", "run", "--config_file", str(config), *words]


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # restored after the test
    (tmp_path / "c.yaml").write_text("epochs: 1\ntrain:\n  trainer: {_target_: Trainer, max_epochs: 2}\n  names: [a]\n")
    return tmp_path / "c.yaml"


@pytest.mark.parametrize(
    "words",
    [["--epochs", "3"], ["--train#trainer#amp", "True"], ["--train::trainer::max_epochs=3"], ["--run_id", "run"]],
)
def test_check_cli_overrides_accepts_known_keys(config, words):
    check_cli_overrides(command(config, *words))


@pytest.mark.parametrize(
    ("word", "message"),
    [("--epoch", "got 'epoch'; did you mean 'epochs'"), ("--train#trainr#amp", "got 'trainr'; did you mean 'trainer'")],
)
def test_check_cli_overrides_names_misspelled_keys(config, word, message):
    with pytest.raises(ValueError, match=message):
        check_cli_overrides(command(config, word, "3"))


def test_print_root_cause_prints_the_cause_last(config, capsys):
    check_cli_overrides(command(config))
    wrapped = RuntimeError("Failed to evaluate")
    wrapped.__cause__ = ValueError("`image` must be one scan, got two.")
    sys.excepthook(type(wrapped), wrapped, None)
    assert capsys.readouterr().err.endswith("\nThe cause: ValueError: `image` must be one scan, got two.\n")
    sys.excepthook(ValueError, ValueError("plain"), None)
    assert capsys.readouterr().err == "ValueError: plain\n"


def test_check_cli_overrides_ignores_other_programs(monkeypatch):
    monkeypatch.setattr(sys, "excepthook", None)
    check_cli_overrides(["pytest", "--epoch", "3"])
    check_cli_overrides(["monai/bundle/__main__.py", "verify_metadata", "--filepth", "x"])
    assert sys.excepthook is None


@pytest.mark.parametrize("value", [1, 1.0, -0.1, float("nan"), True, "0.5", None])
def test_check_rate_rejects_other_values(value):
    with pytest.raises(ValueError, match=rf"`dropout` must be in \[0, 1\), got {value!r}"):
        check_rate(dropout=value)


@pytest.mark.parametrize("value", [0, -1.0, float("nan"), float("inf"), True, "2", None])
def test_check_positive_number_rejects_other_values(value):
    with pytest.raises(ValueError, match=f"`scale` must be positive and finite, got {value!r}"):
        check_positive_number(scale=value)


def test_check_functions_accept_valid_numbers():
    check_rate(dropout=0, rate=0.999)
    check_positive_number(scale=1, temperature=0.5)
