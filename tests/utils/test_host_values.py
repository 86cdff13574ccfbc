"""Tests of checks that do not wait for a device."""

import pytest
import torch

from monai_mil_ext.utils import check_values, host_values, is_on_host


def test_an_invalid_value_on_the_host_is_named():
    check_values(torch.tensor([True]), lambda: "never called")
    with pytest.raises(ValueError, match="`x` must be 1, got 2"):
        check_values(torch.tensor([True, False]), lambda: "`x` must be 1, got 2.")


def test_a_device_asserts(monkeypatch):
    monkeypatch.setattr(host_values, "is_on_host", lambda values: False)
    check_values(torch.tensor([True]), lambda: "never called")
    with pytest.raises(RuntimeError, match="not valid: run this batch on the CPU"):
        check_values(torch.tensor([False]), lambda: "never called")


def test_values_without_data_are_not_checked():
    x = torch.ones(2, device="meta") > 0
    assert not is_on_host(x)
    check_values(x, lambda: "never called")
