"""Tests of argument checks."""

import math

import pytest
import torch

from monai_mil_ext.utils import (
    as_range,
    check_bags,
    check_choice,
    check_fraction,
    check_mask,
    check_name,
    check_not_negative,
    check_positions,
    check_positive,
    check_positive_number,
    check_rate,
    count_non_finite,
)


@pytest.mark.parametrize("value", [0, -1, 1.0, True, "2"])
def test_check_positive_rejects_other_values(value):
    with pytest.raises(ValueError, match=f"`size` must be a positive integer, got {value!r}"):
        check_positive(size=value)


@pytest.mark.parametrize(
    "value",
    [
        [400],
        [400, -1000],
        [0, 0],
        [0, math.nan],
        [-math.inf, 0],
        [-1000, 400, 3],
        "wide",
        400,
        [None, 4],
        [],
        None,
        [False, 1],
    ],
)
def test_as_range_rejects_other_values(value):
    with pytest.raises(ValueError, match="`window` must be two numbers, the lower one first, got ") as error:
        as_range(window=value)
    assert str(error.value).endswith(f"got {value!r}.")


def test_as_range_accepts_lists_and_tuples():
    assert as_range(window=[-1000, 400]) == as_range(window=(-1000.0, 400.0)) == (-1000, 400)


def test_check_choice_without_close_match():
    with pytest.raises(ValueError, match=r"`mode` must be one of 'a', 'b', got 'zzz'\.$"):
        check_choice("mode", "zzz", ["a", "b"])


@pytest.mark.parametrize("name", ["", ".hidden", "a/b", "..", "a b", "é", None, "a\n"])
def test_check_name_rejects_paths(name):
    with pytest.raises(ValueError, match="`case_id` must be letters"):
        check_name(case_id=name)


def test_check_name_rejects_a_name_too_long_for_a_file_with_suffixes():
    check_name(case_id="a" * 200)
    with pytest.raises(ValueError, match=r"`case_id` must have at most 200 characters, got 201\."):
        check_name(case_id="a" * 201)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([1.0, 2.0], ""),
        ([], ""),
        ([math.nan], "1 NaN value"),
        ([-math.inf, 1.0], "1 infinite value"),
        ([math.inf, -math.inf], "2 infinite values"),
        ([math.nan, math.inf], "1 NaN and 1 infinite values"),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_count_non_finite_tells_both_kinds(values, text, dtype):
    assert count_non_finite(torch.tensor(values, dtype=dtype)) == text


def test_count_non_finite_takes_integers():
    assert count_non_finite(torch.arange(3)) == count_non_finite(torch.ones(2, dtype=torch.bool)) == ""


def test_check_bags_and_check_mask_reject_bad_input():
    with pytest.raises(ValueError, match=r"`x` must have shape \(B, N, 4\), got \(5, 4\)"):
        check_bags(torch.zeros(5, 4), 4)
    with pytest.raises(ValueError, match=r"`mask` must be of dtype torch.bool .* got torch.float32"):
        check_mask(torch.ones(2, 5), torch.zeros(2, 5, 4))
    with pytest.raises(ValueError, match=r"`mask` must have shape \(B, N\) = \(2, 5\), got \(2, 4\)"):
        check_mask(torch.ones(2, 4, dtype=torch.bool), torch.zeros(2, 5, 4))


@pytest.mark.parametrize("value", [1, 1.0, -0.1, float("nan"), True, "0.5", None])
def test_check_rate_rejects_other_values(value):
    with pytest.raises(ValueError, match=rf"`dropout` must be in \[0, 1\), got {value!r}"):
        check_rate(dropout=value)


@pytest.mark.parametrize("value", [0, -1.0, float("nan"), float("inf"), True, "2", None])
def test_check_positive_number_rejects_other_values(value):
    with pytest.raises(ValueError, match=f"`scale` must be positive and finite, got {value!r}"):
        check_positive_number(scale=value)


def test_check_rate_and_check_positive_number_accept_valid_numbers():
    check_rate(dropout=0, rate=0.999)
    check_positive_number(scale=1, temperature=0.5)


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf"), True, "2", None])
def test_check_not_negative_and_check_fraction_reject_other_values(value):
    with pytest.raises(ValueError, match=f"`weight` must be finite and not negative, got {value!r}"):
        check_not_negative(weight=value)
    with pytest.raises(ValueError, match=rf"`momentum` must be in \[0, 1\], got {value!r}"):
        check_fraction(momentum=value)


def test_check_not_negative_and_check_fraction_accept_valid_numbers():
    check_not_negative(weight=0, beta=7.5)
    check_fraction(momentum=0, rate=1.0)
    with pytest.raises(ValueError, match=r"`momentum` must be in \[0, 1\], got 1.5"):
        check_fraction(momentum=1.5)


def test_check_positions_ignores_padding():
    positions = torch.tensor([[1.0, float("nan")], [float("inf"), 2.0]])
    check_positions(positions, (2, 2), torch.tensor([[True, False], [False, True]]))
    with pytest.raises(ValueError, match=r"`positions` must be finite .*, got inf at instance 0 of bag 1"):
        check_positions(positions, (2, 2), torch.tensor([[True, False], [True, True]]))
    with pytest.raises(ValueError, match=r"`positions` must have shape \(B, N\) = \(2, 3\), got \(2, 2\)"):
        check_positions(positions, (2, 3))
