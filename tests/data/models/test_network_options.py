"""Tests of the comparison of the options of two networks."""

import pytest

from monai_mil_ext.data.models.network_options import check_same_options


def test_check_same_options_names_up_to_three_differences():
    trained = {"a": 1, "b": 2, "c": 3, "d": 4, "e": 5}
    with pytest.raises(ValueError, match=r"whose a is 1, got 2; whose b is 2, got 3; whose c is 3, got 4; pass the"):
        check_same_options(trained, {name: value + 1 for name, value in trained.items()})


def test_check_same_options_leaves_options_of_one_network_to_its_weights():
    check_same_options({"a": 1, "old": True}, {"a": 1, "new": True})
    check_same_options({}, {"a": 1})
