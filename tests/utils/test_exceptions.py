"""Tests of the root cause of nested exceptions."""

import sys

import pytest

from monai_mil_ext.utils import print_root_cause
from monai_mil_ext.utils.exceptions import root_cause


def test_root_cause_follows_every_cause():
    first, second, third = ValueError("a"), RuntimeError("b"), RuntimeError("c")
    third.__cause__, second.__cause__ = second, first
    assert root_cause(third) is first
    assert root_cause(first) is first


@pytest.fixture
def hook(monkeypatch):
    """The hook that `print_root_cause` sets, for the time of a test."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    print_root_cause()
    return sys.excepthook


def test_print_root_cause_prints_the_cause_last(hook, capsys):
    wrapped = RuntimeError("Failed to evaluate")
    wrapped.__cause__ = ValueError("`image` must be one scan, got two.")
    hook(type(wrapped), wrapped, None)
    assert capsys.readouterr().err.endswith("\nThe cause: ValueError: `image` must be one scan, got two.\n")
    hook(ValueError, ValueError("plain"), None)
    assert capsys.readouterr().err == "ValueError: plain\n"


def test_print_root_cause_calls_the_hook_before_it_once(monkeypatch, capsys):
    seen = []
    monkeypatch.setattr(sys, "excepthook", lambda kind, error, trace: seen.append(error))
    print_root_cause()
    print_root_cause()
    wrapped = RuntimeError("Failed to evaluate")
    wrapped.__cause__ = ValueError("`plane` must be axial.")
    sys.excepthook(type(wrapped), wrapped, None)
    assert seen == [wrapped]
    assert capsys.readouterr().err == "\nThe cause: ValueError: `plane` must be axial.\n"
